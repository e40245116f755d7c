"""Old decisions leave for archives: keys stay taken, answers known, numbers the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from aged_history import (
    BEFORE,
    KEPT,
    NOW,
    SPOKEN,
    UNITS,
    History,
    drawn,
    mismatches,
    numbers,
    read,
)
from ledger import CHALLENGER, NOON, count, together
from sqlalchemy import Connection, Engine, text

from bandit.core.errors import (
    BanditError,
    Conflict,
    Expired,
    InvalidInput,
    LockHeldElsewhere,
    UnknownName,
)
from bandit.core.marks import Mark
from bandit.core.model import Assignment, PolicyName, UnitId
from bandit.core.outcomes import Outcome, declined, trade
from bandit.service import (
    ageing,
    experiments,
    marking,
    promoting,
    rebuilding,
    recording,
    revising,
)
from bandit.service.ageing import Aged
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage import locks, outcomes
from bandit.storage.engine import snapshot
from bandit.storage.outcomes import OutcomeRow
from snapshots.archive_files import ParquetArchives


def test_every_number_stays_what_it_was(history: History) -> None:
    engine = history.engine
    before = numbers(engine)
    aged = history.age()
    # All but the windows' trades, and what has no outcome.
    left = count(engine, "assignments")
    assert aged.assignments == UNITS - left
    assert aged.assignments == count(engine, "aged_assignments") > UNITS * 0.5
    assert numbers(engine) == before
    assert mismatches(engine) == ()
    assert history.age() == Aged(assignments=0, archives=())


def test_what_comes_later_is_counted_on_from_there(history: History) -> None:
    engine = history.engine
    history.age()
    aged = history.keys("aged_assignments")
    # Trades on time and late, among those that are here and before all of them; corrections too.
    more = history.assign([f"v-{i}" for i in range(300)])
    for start in range(0, 300, 60):
        told = [drawn(history.rng, a) for a in more[start : start + 60]]
        history.tell(told, now=NOW)
        corrected = drawn(history.rng, more[start])
        revising.revise(engine, corrected, reason="drill", now=NOW, actor="test")
        history.told[corrected.assignment_id] = corrected
    for policy in ("prod", CHALLENGER):
        sums, fold = history.expected(policy, first=aged)
        stored_sums, stored_fold = history.stored(policy)
        assert stored_sums == sums
        assert (stored_fold.n, stored_fold.equity, stored_fold.streaks) == (
            fold.n,
            fold.equity,
            fold.streaks,
        )
    assert mismatches(engine) == ()
    # Control: without its base an arm is counted short.
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM arm_bases"))
    assert {"n_trades", "equity"} <= {
        m.column for m in rebuilding.compare(engine, now=NOW).mismatches
    }


def test_repair_starts_from_the_base_too(history: History) -> None:
    history.age()
    before = numbers(history.engine)
    with history.engine.begin() as connection:
        connection.execute(text("UPDATE arm_statistics SET n_wins = 0, equity = 2"))
        connection.execute(text("DELETE FROM arm_days"))
    rebuilding.repair(history.engine, now=NOW, actor="test")
    assert numbers(history.engine) == before


def answers_of(history: History, keys: Iterable[UUID]) -> list[Assignment]:
    return [history.made[key] for key in keys]


def test_keys_stay_taken_and_answers_known(history: History) -> None:
    engine = history.engine
    history.age()
    gone = answers_of(history, history.keys("aged_assignments"))
    offered = [Opportunity(unit_id=a.unit_id, instrument=a.instrument) for a in gone]
    assert Router(engine).assign("btc", offered, now=NOW) == gone
    moved = Opportunity(unit_id=gone[0].unit_id, instrument="OTHER")
    with pytest.raises(Conflict, match="came back for OTHER"):
        Router(engine).assign("btc", [moved], now=NOW)
    with pytest.raises(Expired):
        Router(engine).claim(gone[0].id, now=NOW)
    assert not history.keys("assignments") & history.keys("aged_assignments")


def test_outcome_that_is_told_again_is_known_and_another_is_refused(history: History) -> None:
    engine = history.engine
    # As first told: corrections do not change what a repetition is compared with.
    first = {
        row[0]: row[1] for row in read(engine, "SELECT assignment_id, body_hash FROM outcomes")
    }
    history.age()
    gone = [
        history.told[key]
        for key in sorted(history.keys("aged_assignments"))
        if bytes(first[key]) == history.told[key].body_hash()
    ]
    before = numbers(engine)
    for start in range(0, len(gone), 100):
        for answer in recording.record(engine, gone[start : start + 100], now=NOW):
            assert isinstance(answer, Recorded)
            assert not answer.created
            assert answer.recorded_at == NOON + SPOKEN
    key = gone[0].assignment_id
    other = drawn(np.random.default_rng(7), history.made[key])
    [refused] = recording.record(engine, [other], now=NOW)
    assert isinstance(refused, Conflict)
    with pytest.raises(Conflict, match="has aged"):
        revising.revise(engine, other, reason="drill", now=NOW, actor="test")
    mark = Mark(assignment_id=key, unrealised_pnl=Decimal(1), marked_at=NOW)
    [refused] = marking.mark(engine, [mark], now=NOW)
    assert isinstance(refused, Conflict)
    # Control: what nobody ever made is another answer.
    [unknown] = recording.record(engine, [declined(UUID(int=1))], now=NOW)
    assert isinstance(unknown, UnknownName)
    assert numbers(engine) == before


def test_decisions_on_a_position_leave_with_it_and_open_ones_stay(history: History) -> None:
    engine = history.engine
    [opener, open_one] = history.assign(["opener", "open-one"])

    def joined(unit: str, position: Assignment) -> Opportunity:
        return Opportunity(unit_id=UnitId(unit), instrument="X0USD", position=position.id)

    [opener] = [a for a in [opener] if a.instrument == "X0USD"]
    router = Router(engine)
    [follower] = router.assign("btc", [joined("exit", opener)], now=NOON)
    history.made |= {follower.id: follower}
    early = trade(
        opener.id,
        pnl=Decimal(1),
        return_ratio=Decimal("0.001"),
        opened_at=NOON,
        closed_at=NOON + timedelta(minutes=1),
    )
    history.tell([early], now=NOON + SPOKEN)
    history.age()
    gone = history.keys("aged_assignments")
    assert {opener.id, follower.id} <= gone
    assert open_one.id not in gone
    assert router.assign("btc", [joined("exit", opener)], now=NOW) == [follower]
    with pytest.raises(InvalidInput, match="position"):
        router.assign("btc", [joined("late-exit", opener)], now=NOW)
    [refused] = recording.record(engine, [declined(follower.id)], now=NOW)
    assert isinstance(refused, Conflict)


def test_young_and_lately_corrected_outcomes_hold_back_what_closed_after_them(
    history: History,
) -> None:
    engine = history.engine
    oldest = {
        policy: min(
            (o for key, o in history.told.items() if history.made[key].policy == policy
             and o.closed_at is not None),
            key=lambda o: (o.closed_at, history.made[o.assignment_id].unit_id),
        )
        for policy in ("prod", CHALLENGER)
    }  # fmt: skip
    first = oldest[CHALLENGER]
    assert first.opened_at is not None
    assert first.closed_at is not None
    corrected = trade(
        first.assignment_id,
        pnl=Decimal("0.5"),
        return_ratio=Decimal("0.0005"),
        opened_at=first.opened_at,
        closed_at=first.closed_at,
    )
    revising.revise(engine, corrected, reason="drill", now=BEFORE, actor="test")
    history.told[corrected.assignment_id] = corrected
    before = numbers(engine)
    history.age()
    gone = answers_of(history, history.keys("aged_assignments"))
    assert not [a for a in gone if a.policy == CHALLENGER and not history.told[a.id].no_trade]
    assert [a for a in gone if a.policy == "prod" and not history.told[a.id].no_trade]
    assert numbers(engine) == before


def test_trades_of_the_windows_stay(history: History) -> None:
    history.age()
    for policy in ("prod", CHALLENGER):
        trades = sorted(
            (o.closed_at, history.made[key].unit_id, key)
            for key, o in history.told.items()
            if o.closed_at is not None and history.made[key].policy == policy
        )
        newest = {key for _, _, key in trades[-KEPT:]}
        assert newest <= history.keys("assignments")


def test_young_moment_is_refused(history: History) -> None:
    with pytest.raises(InvalidInput, match="at least 30 days before now"):
        ageing.age(
            history.engine,
            history.files,
            "btc",
            before=NOW - timedelta(days=29),
            now=NOW,
            actor="test",
        )
    with pytest.raises(UnknownName):
        ageing.age(history.engine, history.files, "nothing", before=BEFORE, now=NOW, actor="test")


def test_one_ages_at_a_time(history: History) -> None:
    record = experiments.load(history.engine, "btc")
    with locks.use_case(history.engine, record.id, doing="drill"), pytest.raises(LockHeldElsewhere):
        history.age()


def test_nothing_is_counted_twice_while_decisions_leave(history: History) -> None:
    engine = history.engine
    before = numbers(engine)
    offered = [
        Opportunity(unit_id=a.unit_id, instrument=a.instrument) for a in history.made.values()
    ]
    told = [o for o in history.told.values() if o.closed_at is not None]
    answered: list[list[Assignment]] = []

    def ask() -> None:
        for _ in range(10):
            answered.append(Router(engine).assign("btc", offered, now=NOW))

    def tell() -> None:
        for start in range(0, len(told), 20):
            for answer in recording.record(engine, told[start : start + 20], now=NOW):
                # Those that were corrected since are told otherwise now than first.
                assert isinstance(answer, Conflict | Recorded)
                assert isinstance(answer, Conflict) or not answer.created

    found = together(ask, tell, history.age, ask, tell)
    assert not [answer for answer in found if isinstance(answer, BanditError)]
    assert all(answer == list(history.made.values()) for answer in answered)
    assert count(engine, "aged_assignments") > 0
    assert not history.keys("assignments") & history.keys("aged_assignments")
    assert numbers(engine) == before
    assert mismatches(engine) == ()


def test_past_that_has_left_cannot_be_asked_for(history: History) -> None:
    policy = experiments.load(history.engine, "btc").experiment.champion
    asked = NOON + timedelta(days=5)
    assert rebuilding.as_of(history.engine, "btc", policy, moment=asked)
    now = rebuilding.as_of(history.engine, "btc", policy, moment=NOW)
    history.age()
    with pytest.raises(InvalidInput, match="has aged"):
        rebuilding.as_of(history.engine, "btc", policy, moment=asked)
    later = rebuilding.as_of(history.engine, "btc", policy, moment=NOW)
    assert later.windows == now.windows
    assert later.statistics.sums == now.statistics.sums


@pytest.mark.parametrize("condition", ["no_trade", "NOT no_trade"])
def test_outcome_that_leaves_while_it_is_told_again_is_not_counted_twice(
    history: History, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    statement = (
        f"SELECT assignment_id FROM current_outcomes WHERE {condition} AND revision = 0 "
        "ORDER BY closed_at, unit_id LIMIT 1"
    )
    [(key,)] = read(history.engine, statement)
    before = numbers(history.engine)
    insert = outcomes.insert

    def inserted(connection: Connection, new: Sequence[OutcomeRow], *, now: datetime) -> set[UUID]:
        known = insert(connection, new, now=now)
        monkeypatch.undo()
        history.age()
        return known

    monkeypatch.setattr(outcomes, "insert", inserted)
    [answer] = recording.record(history.engine, [history.told[key]], now=NOW)
    assert key in history.keys("aged_assignments")
    assert isinstance(answer, Recorded)
    assert not answer.created
    assert numbers(history.engine) == before


@pytest.mark.parametrize("is_champion_meanwhile", [False, True])
def test_arms_keep_what_a_young_one_is_or_may_be_compared_with(
    engine: Engine, tmp_path: Path, is_champion_meanwhile: bool
) -> None:
    history = History(engine, ParquetArchives(tmp_path / "archives"))
    made = history.assign([f"u-{i:03}" for i in range(300)])

    def told(number: int, assignment: Assignment, earned: str) -> Outcome:
        return trade(
            assignment.id,
            pnl=Decimal(earned) * 1000,
            return_ratio=Decimal(earned),
            opened_at=NOON,
            closed_at=NOON + timedelta(minutes=60 + number),
        )

    champions = [a for a in made if a.policy == "prod"]
    other = next(a for a in made if a.policy == CHALLENGER)
    earned = [told(i, a, "0.001" if i % 3 else "-0.001") for i, a in enumerate(champions)]
    history.tell(earned, now=NOON + SPOKEN)
    reason = {"name": "btc", "reason": "drill", "now": NOON, "actor": "test"}
    if is_champion_meanwhile:
        promoting.promote(engine, policy=PolicyName(CHALLENGER), **reason)
    history.age()
    if is_champion_meanwhile:
        promoting.roll_back(engine, to=None, **reason)
    # The challenger's first trade, told only now, closed before nearly all of the champion's.
    history.tell([told(1, other, "0.001")], now=NOW)
    arm = next(a for a in experiments.load(engine, "btc").arms if a.place.policy == CHALLENGER)
    with snapshot(engine) as connection:
        found = outcomes.champion_over_windows(connection, [arm.id])[arm.id]
    expected = [
        o for o in earned[1:] if history.made[o.assignment_id].instrument == other.instrument
    ]
    assert found.n == len(expected)


def test_decision_that_money_still_stands_on_stays(engine: Engine, tmp_path: Path) -> None:
    history = History(engine, ParquetArchives(tmp_path / "archives"))
    [opener] = history.assign(["opener"])
    offered = [
        Opportunity(unit_id=UnitId(unit), instrument="X0USD", position=opener.id)
        for unit in ("marked", "flat")
    ]
    marked, flat = Router(engine).assign("btc", offered, now=NOON)
    for follower, pnl in ((marked, -100), (flat, 0)):
        mark = Mark(assignment_id=follower.id, unrealised_pnl=Decimal(pnl), marked_at=NOON)
        marking.mark(engine, [mark], now=NOON)
    history.tell([declined(opener.id)], now=NOON + SPOKEN)
    history.age()
    assert history.keys("aged_assignments") == {opener.id, flat.id}
    over = Mark(assignment_id=marked.id, unrealised_pnl=Decimal(0), marked_at=NOW)
    assert marking.mark(engine, [over], now=NOW)
    assert read(engine, "SELECT unrealised_pnl FROM account_equity") == [(Decimal(0),)]
