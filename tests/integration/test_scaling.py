"""Nights of an experiment worked out by hand: what is decided, written, and never done twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from ledger import (
    BEST,
    BETTER,
    CHALLENGER,
    EVEN,
    FALLEN,
    NIGHT,
    NOON,
    POOR,
    arms,
    count,
    feed,
    market,
    open_btc,
    scale,
    sizes,
    together,
    traffic,
    wait_until_blocked,
)
from sqlalchemy import Engine, text

from bandit.core.errors import InvalidAllocation, LockHeldElsewhere, StaleEpoch, UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import (
    DecisionKind,
    PolicyName,
    Profile,
)
from bandit.service import experiments, reporting, scaling
from bandit.service.scaling import Night
from bandit.storage import locks
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import database_now, transaction, translated


def verdicts(decision: DecisionRecord, policy: str) -> list[str]:
    """What the four conditions of the ramp said; what the ladder asks for follows them."""
    return [reason["verdict"] for reason in decision.reasons[policy][:4]]


# Guarded


def test_better_challenger_grows_by_half_and_the_night_is_written_down(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    before = sizes(engine)
    night = scale(engine)
    assert not night.already_done
    assert night.actions == ()
    assert traffic(engine) == {"prod": 850_000, CHALLENGER: 150_000}
    decision = night.decision
    assert (decision.kind, decision.version) == (DecisionKind.RESCALE, 2)
    assert decision.trading_day == date(2026, 3, 3)
    assert (decision.decided_at, decision.actor) == (NIGHT, "test")
    assert decision.reason == f"{CHALLENGER} 10.00% to 15.00%"
    assert decision.inputs["before"] == {"prod": 900_000, CHALLENGER: 100_000}
    assert decision.inputs["proposed"] == {"prod": 850_000, CHALLENGER: 150_000}
    assert [reason["check"] for reason in decision.reasons[CHALLENGER]] == [
        "trades",
        "pf_150 >= pf_prod",
        "dd_150 percent",
        "traffic_allocation",
        "evidence against",
        "decay",
        "evidence of the mean",
        "evidence of the profit factor",
        "trades to be eligible",
        "days with decisions",
        "worst of 6 blocks",
    ]
    assert [r["value"] for r in decision.reasons[CHALLENGER]][:2] == [30, pytest.approx(4.0)]
    limits = [r["limit"] for r in decision.reasons[CHALLENGER]]
    assert limits[:4] == [30, pytest.approx(1.0), 3.0, 0.6]
    twentieth, family = pytest.approx(math.log(20)), pytest.approx(math.log(40))
    assert limits[4:] == [twentieth, 1000, family, family, 500, 30, 0.0]
    grown = {"decisions", "allocations", "audit_log"}
    assert sizes(engine) == {table: n + (table in grown) for table, n in before.items()}
    assert experiments.load(engine, "btc").epoch == 2


def test_worse_challenger_steps_down(engine: Engine) -> None:
    open_btc(engine)
    market(engine, BEST)
    feed(engine, CHALLENGER, BETTER, prefix="c")
    decision = scale(engine).decision
    assert traffic(engine) == {"prod": 933_334, CHALLENGER: 66_666}
    assert verdicts(decision, CHALLENGER) == ["PASS", "FAIL", "PASS", "PASS"]


@pytest.mark.parametrize(
    ("champion", "challenger", "expected"),
    [
        (EVEN, BEST[:29], ["FAIL", "PASS", "PASS", "PASS"]),
        (EVEN[:29], BEST, ["PASS", "INCONCLUSIVE", "PASS", "PASS"]),
        (["0.001"] * 30, BEST, ["PASS", "INCONCLUSIVE", "PASS", "PASS"]),
        (EVEN, ["0.001"] * 30, ["PASS", "INCONCLUSIVE", "PASS", "PASS"]),
        ([], [], ["FAIL", "INCONCLUSIVE", "PASS", "PASS"]),
    ],
)
def test_what_cannot_be_judged_holds_with_its_reason(
    engine: Engine, champion: list[str], challenger: list[str], expected: list[str]
) -> None:
    open_btc(engine)
    market(engine, champion)
    if challenger:
        feed(engine, CHALLENGER, challenger, prefix="c")
    before = sizes(engine)
    decision = scale(engine).decision
    assert (decision.kind, decision.version) == (DecisionKind.HOLD, None)
    assert decision.reason == "no arm's conditions ask for a change"
    assert verdicts(decision, CHALLENGER) == expected
    assert traffic(engine) == {"prod": 900_000, CHALLENGER: 100_000}
    grown = {"decisions", "audit_log"}
    assert sizes(engine) == {table: n + (table in grown) for table, n in before.items()}


def test_champion_is_read_over_the_challengers_own_window(engine: Engine) -> None:
    open_btc(engine)
    # A champion that did well before the challenger's first trade, and is even since.
    feed(engine, "prod", BEST, prefix="before")
    later = NOON + timedelta(hours=2)
    feed(engine, CHALLENGER, BETTER, now=later, prefix="c")
    feed(engine, "prod", EVEN, now=later, prefix="p")
    reasons = scale(engine).decision.reasons[CHALLENGER]
    assert reasons[1]["limit"] == pytest.approx(1.0)
    assert traffic(engine)[CHALLENGER] == 150_000


def test_unproven_arm_stops_at_a_quarter_whatever_its_nights(engine: Engine) -> None:
    open_btc(engine, limits=Limits(start_ppm=200_000))
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    parts = []
    for day in range(3):
        night = scale(engine, now=NIGHT + timedelta(days=day))
        parts.append((night.decision.kind.value, traffic(engine)[CHALLENGER]))
    assert parts == [("RESCALE", 250_000), ("HOLD", 250_000), ("HOLD", 250_000)]


def test_challengers_together_stop_at_sixty_percent(engine: Engine) -> None:
    open_btc(engine, challengers=arms(5))
    market(engine, EVEN, **{f"arm_0{i}": BEST for i in range(5)})
    scale(engine)
    # Each wants 50,000; 100,000 are left under the cap: a fifth of it each.
    assert traffic(engine) == {"prod": 400_000, **{f"arm-0{i}": 120_000 for i in range(5)}}
    assert scale(engine, now=NIGHT + timedelta(days=1)).decision.kind is DecisionKind.HOLD


def test_checklist_stops_sick_arms_as_it_shows_and_the_rest_scales_at_night(engine: Engine) -> None:
    open_btc(engine, challengers=arms(3))
    market(engine, EVEN, arm_00=BEST, arm_01=POOR, arm_02=FALLEN)
    halt, throttle, _ = reporting.decision_history(engine, "btc")
    assert [(a.kind.value, a.reason, a.actor) for a in (throttle, halt)] == [
        ("THROTTLE", "pf_challenger_30 1.5 breaks its limit 1.6", "rule:checklist"),
        ("HALT", "dd_challenger_pct 4.688 breaks its limit 4", "rule:checklist"),
    ]
    assert [throttle.version, halt.version] == [2, 3]
    assert throttle.reasons["arm-01"][0]["verdict"] == "FAIL"
    # The night finds nothing more to stop.
    night = scale(engine)
    assert night.actions == ()
    assert (night.decision.kind, night.decision.version) == (DecisionKind.RESCALE, 4)
    assert traffic(engine) == {"prod": 850_000, "arm-00": 150_000, "arm-01": 0, "arm-02": 0}
    record = experiments.load(engine, "btc")
    assert [arm.place.status.value for arm in record.arms[1:]] == ["active", "throttled", "halted"]
    assert record.epoch == 4


# Profiles


def test_seed_exact_keeps_the_letter_and_writes_what_guarded_would_do(engine: Engine) -> None:
    open_btc(engine, profile=Profile.SEED_EXACT)
    market(engine, BEST)
    feed(engine, CHALLENGER, BETTER, prefix="c")
    decision = scale(engine).decision
    assert decision.kind is DecisionKind.HOLD
    assert traffic(engine)[CHALLENGER] == 100_000
    assert decision.inputs["guarded_would_propose"] == {"prod": 933_334, CHALLENGER: 66_666}


def test_seed_exact_ramps_to_sixty_percent_where_guarded_stops(engine: Engine) -> None:
    open_btc(engine, profile=Profile.SEED_EXACT)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    parts, guarded = [], []
    for day in range(6):
        decision = scale(engine, now=NIGHT + timedelta(days=day)).decision
        parts.append(traffic(engine)[CHALLENGER])
        guarded.append(decision.inputs["guarded_would_propose"][CHALLENGER])
    assert parts == [150_000, 225_000, 337_500, 506_250, 600_000, 600_000]
    assert guarded[:3] == [150_000, 225_000, 250_000]


def test_observe_decides_writes_and_changes_nothing(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2), profile=Profile.OBSERVE)
    market(engine, EVEN, arm_00=BEST, arm_01=POOR)
    before = sizes(engine)
    night = scale(engine)
    assert night.actions == ()
    assert (night.decision.kind, night.decision.version) == (DecisionKind.HOLD, None)
    assert night.decision.inputs["would"] == {"arm-01": "throttle"}
    assert night.decision.inputs["proposed"]["arm-00"] == 150_000
    assert night.decision.reason.startswith("observe: would move ")
    assert "arm-00 10.00% to 15.00%" in night.decision.reason
    assert traffic(engine) == {"prod": 800_000, "arm-00": 100_000, "arm-01": 100_000}
    grown = {"decisions", "audit_log"}
    assert sizes(engine) == {table: n + (table in grown) for table, n in before.items()}


# Once a night


def test_second_run_of_a_night_changes_nothing_and_answers_the_same(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    first = scale(engine)
    before = sizes(engine)
    again = scale(engine, now=NIGHT + timedelta(hours=21, minutes=59))
    assert again.already_done
    assert (again.decision, again.actions) == (first.decision, ())
    assert sizes(engine) == before


def test_a_night_is_a_day_in_utc(engine: Engine) -> None:
    open_btc(engine)
    tokyo = timezone(timedelta(hours=9))
    # 08:00 in Tokyo is 23:00 of the day before in UTC.
    assert not scale(engine, now=datetime(2026, 3, 4, 8, tzinfo=tokyo)).already_done
    assert scale(engine, now=datetime(2026, 3, 3, 23, 30, tzinfo=UTC)).already_done
    assert not scale(engine, now=datetime(2026, 3, 4, tzinfo=UTC)).already_done
    nights = [decision.trading_day for decision in reporting.decision_history(engine, "btc")]
    assert nights == [date(2026, 3, 4), date(2026, 3, 3), None]


def test_update_by_hand_counts_as_the_nights_change_and_the_other_way_round(
    engine: Engine,
) -> None:
    open_btc(engine)
    statement = text("UPDATE bandit_arms SET traffic_allocation = 0.12 WHERE policy_id = 2")
    with engine.begin() as connection:
        connection.execute(statement)
        now = database_now(connection)
    night = scale(engine, now=now)
    assert night.already_done
    assert night.decision.actor.startswith("sql:")
    assert traffic(engine)[CHALLENGER] == 120_000
    again = text("UPDATE bandit_arms SET traffic_allocation = 0.13 WHERE policy_id = 2")
    refused = pytest.raises(InvalidAllocation, match="limit once_a_night")
    with refused, translated(), engine.begin() as connection:
        connection.execute(again)


# Races


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_second_process_is_told_that_the_first_is_at_it(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    record = open_btc(engine)
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id)
        first = worker.submit(scale, engine)
        wait_until_blocked(engine, first)
        with pytest.raises(LockHeldElsewhere, match="scaling btc: another process is at it now"):
            scale(engine)
    assert not first.result(timeout=60).already_done
    # The lock is free again.
    assert scale(engine).already_done


def test_of_many_at_once_one_works(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    for day in range(5):
        now = NIGHT + timedelta(days=day)
        answers = together(*[lambda now=now: scale(engine, now=now)] * 4)
        nights = [answer for answer in answers if isinstance(answer, Night)]
        assert [night.already_done for night in nights].count(False) == 1
        others = [answer for answer in answers if not isinstance(answer, Night)]
        assert all(isinstance(answer, LockHeldElsewhere) for answer in others)
        assert len({night.decision.id for night in nights}) == 1
    assert count(engine, "decisions") == 1 + 5
    # 15 %, 22.5 %, 25 %, and there it stops.
    assert count(engine, "allocations") == 1 + 3


def test_experiment_that_changed_meanwhile_is_left_alone(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    record = open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id)
        night = worker.submit(scale, engine)
        wait_until_blocked(engine, night)
        values = {"inputs": {}, "reasons": {}, "now": NOON, "actor": "test", "reason": "drill"}
        experiments.apply_verb(connection, record, CHALLENGER, ArmVerb.HALT, **values)
    with pytest.raises(StaleEpoch, match="btc changed while the night was computed"):
        night.result(timeout=60)
    assert traffic(engine) == {"prod": 1_000_000, CHALLENGER: 0}
    assert [d.kind.value for d in reporting.decision_history(engine, "btc")] == ["HALT", "ENTER"]
    # The night is still open, and is decided on what there is now.
    assert scale(engine).decision.kind is DecisionKind.HOLD


def test_unknown_experiment_has_no_nights(engine: Engine) -> None:
    with pytest.raises(UnknownName, match="'btc'"):
        scale(engine)


def test_resumed_arm_is_judged_on_trades_since_it_was_resumed(engine: Engine) -> None:
    open_btc(engine)
    after = feed(engine, CHALLENGER, ["-0.002", "0.001"] * 15, prefix="c")

    def stops() -> int:
        history = reporting.decision_history(engine, "btc")
        return [decision.kind for decision in history].count(DecisionKind.THROTTLE)

    assert stops() == 1
    experiments.change_arm(
        engine,
        name="btc",
        policy=PolicyName(CHALLENGER),
        verb=ArmVerb.RESUME,
        reason="a bug of the bot is mended",
        now=after,
        actor="test",
    )
    second = scaling.scale(engine, "btc", now=after + timedelta(days=1), actor="test")
    assert second.actions == ()
    later = after + timedelta(days=1)
    later = feed(engine, CHALLENGER, ["-0.002", "0.001"] * 14 + ["-0.002"], now=later, prefix="d")
    assert stops() == 1
    feed(engine, CHALLENGER, ["0.001"], now=later, prefix="e")
    assert stops() == 2
