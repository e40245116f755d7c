"""Claims are held against the sizing limits of their experiment, on every replica at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from guarded_ledger import LATER, pause
from ledger import NOON, SALT, assign, closed, count, open_btc, record_all, register, together
from sqlalchemy import Engine, text

from bandit.core.account import LossLimits
from bandit.core.errors import (
    BanditError,
    Conflict,
    Expired,
    InvalidInput,
    Killed,
    Paused,
    PositionLimit,
    SizeLimit,
)
from bandit.core.kill_switch import KillCause
from bandit.core.ladder import LadderRule
from bandit.core.limits import Limits
from bandit.core.marks import Mark
from bandit.core.model import Assignment, Experiment, UnitId
from bandit.core.outcomes import declined
from bandit.core.reading import Rules
from bandit.core.sizing import Claim, Sizing, SizingRule
from bandit.service import ageing, experiments, killing, marking, recording
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from snapshots.archive_files import ParquetArchives

TWO = Rules(sizing=SizingRule())
ONE = Rules(sizing=SizingRule(max_open_positions=1))
ANY = Rules(sizing=SizingRule(max_open_positions=None))
Answer = datetime | BanditError


def opened(engine: Engine, name: str, rules: Rules) -> None:
    """Open an experiment of the account `usd`."""
    experiments.open_experiment(
        engine,
        Experiment(
            name=name,
            champion=register(engine, f"{name}-prod", name.encode().hex().ljust(8, "0")),
            capital=Decimal(10_000),
            currency="USD",
            equity_fraction=0.01,
            account="usd",
        ),
        challengers=[],
        salt=SALT,
        limits=Limits(),
        loss_limits=LossLimits(),
        rules=rules,
        now=NOON,
        actor="test",
    )


def made_in(engine: Engine, experiment: str, *units: str, instrument: str = "BTCUSD") -> list[UUID]:
    asked = [Opportunity(unit_id=UnitId(unit), instrument=instrument) for unit in units]
    return [made.id for made in Router(engine).assign(experiment, asked, now=NOON)]


def claim(engine: Engine, key: UUID, *, now: datetime = NOON, **told: float) -> Answer:
    try:
        return Router(engine).claim(key, now=now, **told)
    except BanditError as error:
        return error


def claim_all(engine: Engine, made: list[Assignment], *, now: datetime = NOON) -> list[Answer]:
    return [claim(engine, each.id, now=now) for each in made]


def granted(answers: list[Answer]) -> int:
    refused = [answer for answer in answers if isinstance(answer, BanditError)]
    assert all(isinstance(error, PositionLimit) for error in refused), refused
    return len(answers) - len(refused)


def at_once(engine: Engine, url: str, *asked: Claim) -> list[Answer]:
    """Claim within one group, as the service does."""

    async def ask() -> list[Answer]:
        live = LiveRouter(Router(engine), url=url, now=lambda: NOON)
        async with live.running():
            calls = (live.claim(each) for each in asked)
            return list(await asyncio.gather(*calls, return_exceptions=True))

    return asyncio.run(ask())


def kept(engine: Engine) -> None:
    """The table of open positions is what its definition says."""
    with engine.connect() as connection:
        for more, less in (("open", "claimed"), ("claimed", "open")):
            rows = connection.execute(
                text(f"SELECT * FROM {more}_positions EXCEPT SELECT * FROM {less}_positions")
            ).all()
            assert rows == []


# What bots are told


def test_assignments_carry_the_limits_also_when_they_are_asked_for_again(engine: Engine) -> None:
    open_btc(engine, rules=TWO, equity_fraction=0.01)
    told = Sizing(
        base_position_size=0.01,
        max_position_size=0.05,
        max_leverage=2.0,
        max_open_positions=2,
        stop_loss_pct=0.02,
        take_profit_pct=0.03,
    )
    [made] = assign(engine, ["u"])
    assert made.sizing == told
    assert assign(engine, ["u"], now=NOON + timedelta(days=1)) == [made]
    position = Opportunity(unit_id=UnitId("next"), instrument="BTCUSD", position=made.id)
    [follower] = Router(engine).assign("btc", [position], now=NOON)
    assert follower.sizing == told


def test_an_experiment_without_limits_refuses_nothing(engine: Engine) -> None:
    open_btc(engine)
    made = assign(engine, [f"u-{i}" for i in range(12)])
    assert {each.sizing for each in made} == {None}
    assert granted(claim_all(engine, made)) == 12
    [huge] = assign(engine, ["huge"])
    assert claim(engine, huge.id, position_size=900.0, leverage=900.0) == NOON
    kept(engine)


def test_opening_again_what_was_open_before_there_were_limits_changes_nothing(
    engine: Engine,
) -> None:
    record = open_btc(engine)
    assert open_btc(engine, rules=TWO) == record
    assert record.sizing is None


def test_other_limits_under_the_same_name_are_refused(engine: Engine) -> None:
    open_btc(engine, rules=TWO)
    with pytest.raises(Conflict):
        open_btc(engine, rules=ONE)


# How many may be open


def test_the_third_position_is_refused_and_says_what_is_open(engine: Engine) -> None:
    open_btc(engine, rules=TWO)
    made = assign(engine, ["a", "b", "c"])
    *first, refused = claim_all(engine, made)
    assert first == [NOON, NOON]
    assert isinstance(refused, PositionLimit)
    assert (refused.limit, refused.found) == (2, 2)
    assert [each["assignment_id"] for each in refused.open] == sorted(
        str(each.id) for each in made[:2]
    )
    assert {(e["experiment"], e["instrument"]) for e in refused.open} == {("btc", "BTCUSD")}
    assert datetime.fromisoformat(refused.open[0]["claimed_at"]) == NOON
    assert count(engine, "claims") == 2
    kept(engine)


def test_what_was_granted_is_granted_again_when_all_places_are_taken(engine: Engine) -> None:
    open_btc(engine, rules=ONE)
    held, other = assign(engine, ["held", "other"])
    later = NOON + timedelta(seconds=1)
    assert claim(engine, held.id) == NOON
    assert isinstance(claim(engine, other.id), PositionLimit)
    assert claim(engine, held.id, now=later) == NOON
    # Also with a size that is too large now: it was claimed with none.
    assert claim(engine, held.id, now=later, position_size=0.5) == NOON


@pytest.mark.parametrize("ends", ["trade", "no_trade"])
def test_an_outcome_frees_its_place(engine: Engine, ends: str) -> None:
    open_btc(engine, rules=ONE)
    held, other = assign(engine, ["held", "other"])
    assert claim(engine, held.id) == NOON
    assert isinstance(claim(engine, other.id), PositionLimit)
    told = closed(held, "0.001", minutes=0) if ends == "trade" else declined(held.id)
    record_all(engine, [told], now=NOON)
    assert count(engine, "open_positions") == 0
    assert claim(engine, other.id) == NOON
    kept(engine)


def test_a_decision_that_has_its_outcome_takes_no_place(engine: Engine) -> None:
    open_btc(engine, rules=ONE)
    told, other = assign(engine, ["told", "other"])
    record_all(engine, [declined(told.id)], now=NOON)
    assert claim(engine, told.id) == NOON
    assert count(engine, "open_positions") == 0
    assert claim(engine, other.id) == NOON


def test_decisions_about_an_open_position_are_never_refused(engine: Engine) -> None:
    open_btc(engine, rules=ONE)
    held, other = assign(engine, ["held", "other"])
    assert claim(engine, held.id) == NOON
    following = [
        Opportunity(unit_id=UnitId(f"next-{i}"), instrument="BTCUSD", position=held.id)
        for i in range(3)
    ]
    for follower in Router(engine).assign("btc", following, now=NOON):
        assert claim(engine, follower.id, position_size=0.9, leverage=9.0) == NOON
    assert count(engine, "open_positions") == 1
    assert isinstance(claim(engine, other.id), PositionLimit)
    kept(engine)


def test_the_limit_counts_the_account_and_is_that_of_the_claim_s_own_experiment(
    engine: Engine,
) -> None:
    open_btc(engine, rules=ONE)
    for name, rules in (("two", TWO), ("any", ANY), ("none", Rules())):
        opened(engine, name, rules)
    keys = {name: made_in(engine, name, "a", "b", "c") for name in ("btc", "two", "any", "none")}
    assert claim(engine, keys["none"][0]) == NOON
    refused = claim(engine, keys["btc"][0])
    assert isinstance(refused, PositionLimit)
    assert (refused.limit, refused.open[0]["experiment"]) == (1, "none")
    assert claim(engine, keys["two"][0]) == NOON
    assert isinstance(claim(engine, keys["two"][1]), PositionLimit)
    assert claim(engine, keys["any"][0]) == NOON
    assert claim(engine, keys["none"][1]) == NOON
    kept(engine)


def test_accounts_do_not_take_places_from_each_other(engine: Engine) -> None:
    open_btc(engine, rules=ONE)
    [first] = assign(engine, ["u"])
    assert claim(engine, first.id) == NOON
    experiments.open_experiment(
        engine,
        Experiment(
            name="apart",
            champion=register(engine, "apart-prod", "dddddddd"),
            capital=Decimal(10_000),
            currency="USD",
            equity_fraction=0.01,
            account="apart",
        ),
        challengers=[],
        salt=SALT,
        limits=Limits(),
        loss_limits=LossLimits(),
        rules=ONE,
        now=NOON,
        actor="test",
    )
    [key] = made_in(engine, "apart", "u")
    assert claim(engine, key) == NOON


def test_who_is_not_heard_of_within_the_attribution_window_is_presumed_dead(
    engine: Engine,
) -> None:
    rules = Rules(ladder=LadderRule(attribution_hours=5), sizing=ONE.sizing)
    open_btc(engine, rules=rules)
    [held] = assign(engine, ["held"])
    assert claim(engine, held.id) == NOON
    marked = NOON + timedelta(hours=3)
    mark = Mark(assignment_id=held.id, unrealised_pnl=Decimal(-1), marked_at=marked)
    assert not isinstance(marking.mark(engine, [mark], now=marked)[0], BanditError)
    kept(engine)
    alive = marked + timedelta(hours=5)
    [other] = assign(engine, ["other"], now=alive)
    assert isinstance(claim(engine, other.id, now=alive), PositionLimit)
    assert claim(engine, other.id, now=alive + timedelta(microseconds=1)) == alive + timedelta(
        microseconds=1
    )
    # It speaks again: it is counted again.
    again = alive + timedelta(hours=1)
    mark = Mark(assignment_id=held.id, unrealised_pnl=Decimal(-2), marked_at=again)
    marking.mark(engine, [mark], now=again)
    record_all(engine, [closed(other, "0.001", minutes=1)], now=again)
    [third] = assign(engine, ["third"], now=again)
    assert isinstance(claim(engine, third.id, now=again), PositionLimit)
    kept(engine)


def test_what_refused_before_still_does_and_takes_no_place(engine: Engine) -> None:
    open_btc(engine, rules=ONE)
    late, waiting = assign(engine, ["late", "waiting"])
    assert isinstance(claim(engine, late.id, now=LATER), Expired)
    pause(engine)
    assert isinstance(claim(engine, waiting.id), Paused)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    assert isinstance(claim(engine, waiting.id), Killed)
    assert count(engine, "open_positions") == 0


# What is told of the position


@pytest.mark.parametrize(
    ("told", "field", "limit", "found"),
    [
        ({"position_size": 0.051}, "position_size", 0.05, 0.051),
        ({"leverage": 2.5}, "leverage", 2.0, 2.5),
        ({"position_size": 0.05, "leverage": 2.01}, "leverage", 2.0, 2.01),
    ],
)
def test_a_position_over_a_limit_is_refused_and_nothing_is_claimed(
    engine: Engine, told: dict[str, float], field: str, limit: float, found: float
) -> None:
    open_btc(engine, rules=TWO)
    [made] = assign(engine, ["u"])
    refused = claim(engine, made.id, **told)
    assert isinstance(refused, SizeLimit)
    assert (refused.field, refused.limit, refused.found) == (field, limit, found)
    assert (count(engine, "claims"), count(engine, "open_positions")) == (0, 0)
    # At the limit it is not over it; and a refusal is no last word.
    assert claim(engine, made.id, position_size=0.05, leverage=2.0) == NOON
    with engine.connect() as connection:
        row = connection.execute(text("SELECT position_size, leverage FROM claims")).one()
        share = connection.execute(text("SELECT share FROM open_positions")).scalar_one()
    assert (tuple(row), share) == ((0.05, 2.0), Decimal("0.05"))
    kept(engine)


def test_sizes_that_cannot_be_are_refused_before_anything_is_asked(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    assert isinstance(claim(engine, made.id, position_size=0.0), InvalidInput)


def test_all_that_is_open_in_an_instrument_is_bounded_where_the_rule_says(engine: Engine) -> None:
    sizing = SizingRule(max_open_positions=None, max_position_size=0.3, symbol_share_max=0.3)
    open_btc(engine, rules=Rules(sizing=sizing), equity_fraction=0.1)
    # Three tenths are three tenths, whatever floats make of their sum; an untold size is nominal.
    untold, told, third, over = (made.id for made in assign(engine, ["a", "b", "c", "d"]))
    assert claim(engine, untold) == NOON
    assert claim(engine, told, position_size=0.1) == NOON
    assert claim(engine, third, position_size=0.1) == NOON
    refused = claim(engine, over, position_size=0.01)
    assert isinstance(refused, SizeLimit)
    assert (refused.field, refused.limit, refused.found) == ("symbol_share", 0.3, 0.31)
    [elsewhere] = made_in(engine, "btc", "e", instrument="ETHUSD")
    assert claim(engine, elsewhere, position_size=0.3) == NOON


# Many at once


def test_a_group_takes_the_places_in_the_order_of_ids(engine: Engine, database_url: str) -> None:
    open_btc(engine, rules=TWO)
    made = assign(engine, [f"u-{i}" for i in range(9)])
    answers = at_once(engine, database_url, *(Claim(assignment=each.id) for each in made))
    assert granted(answers) == 2
    winners = [each.id for each, got in zip(made, answers, strict=True) if got == NOON]
    assert sorted(winners) == sorted(each.id for each in made)[:2]
    kept(engine)


def test_an_oversized_claim_takes_no_place_within_its_group(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine, rules=ONE)
    first, second, third = sorted(made.id for made in assign(engine, ["a", "b", "c"]))
    asked = [
        Claim(assignment=first, position_size=0.5),
        Claim(assignment=second),
        Claim(assignment=third),
    ]
    answers = at_once(engine, database_url, *asked)
    assert [type(answer) for answer in answers] == [SizeLimit, datetime, PositionLimit]


def test_two_questions_about_one_decision_are_answered_one_by_one(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine, rules=ONE)
    [made] = assign(engine, ["u"])
    asked = [
        Claim(assignment=made.id, position_size=0.5),
        Claim(assignment=made.id, position_size=0.02),
        Claim(assignment=made.id, position_size=0.02),
    ]
    refused, *answers = at_once(engine, database_url, *asked)
    assert isinstance(refused, SizeLimit)
    assert answers == [NOON, NOON]


def test_the_symbol_share_holds_within_a_group(engine: Engine, database_url: str) -> None:
    sizing = SizingRule(max_open_positions=None, max_position_size=0.3, symbol_share_max=0.25)
    open_btc(engine, rules=Rules(sizing=sizing))
    made = assign(engine, ["a", "b", "c"])
    asked = [Claim(assignment=each.id, position_size=0.1) for each in made]
    answers = at_once(engine, database_url, *asked)
    assert sorted(type(answer).__name__ for answer in answers) == [
        "SizeLimit",
        "datetime",
        "datetime",
    ]


def test_two_replicas_never_exceed_the_limit(engine: Engine, database_url: str) -> None:
    open_btc(engine, rules=TWO)
    opened(engine, "eth", TWO)
    units = [f"u-{i}" for i in range(50)]
    keys = [*made_in(engine, "btc", *units), *made_in(engine, "eth", *units)]
    replicas = [connect(database_url, pool_size=8) for _ in range(2)]
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(claim, replicas[i % 2], key) for i, key in enumerate(keys)]
        answers = [call.result() for call in calls]
    for replica in replicas:
        replica.dispose()
    assert (len(answers), granted(answers)) == (100, 2)
    assert count(engine, "open_positions") == 2
    kept(engine)


def test_claims_and_outcomes_at_once_leave_every_place_right(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine, rules=TWO)
    replicas = [connect(database_url, pool_size=4) for _ in range(2)]
    for turn in range(20):
        made = assign(engine, [f"u-{turn}-{i}" for i in range(4)])
        calls = [lambda key=each.id: claim(replicas[0], key) for each in made]
        calls += [
            lambda key=each.id: recording.record(replicas[1], [declined(key)], now=NOON)[0]
            for each in made
        ]
        together(*calls)
        # An outcome that came together with its claim may leave a row, which counts nowhere.
        probes = assign(engine, [f"p-{turn}-{i}" for i in range(3)])
        assert granted(claim_all(engine, probes)) == 2
        record_all(engine, [declined(each.id) for each in probes], now=NOON)
    for replica in replicas:
        replica.dispose()


# Old decisions leave


def test_ageing_leaves_no_position_behind(engine: Engine, tmp_path: Path) -> None:
    open_btc(engine, rules=TWO)
    held, gone = assign(engine, ["held", "gone"])
    assert granted(claim_all(engine, [held, gone])) == 2
    record_all(engine, [declined(gone.id)], now=NOON)
    with engine.begin() as connection:  # as a claim that came together with that outcome
        connection.execute(
            text(
                "INSERT INTO open_positions SELECT :gone, account_id, instrument, share,"
                " claimed_at, attribution, alive_until FROM open_positions"
            ),
            {"gone": gone.id},
        )
    before, later = NOON + timedelta(days=1), NOON + timedelta(days=99)
    files = ParquetArchives(tmp_path)
    assert ageing.age(engine, files, "btc", before=before, now=later, actor="test").assignments == 1
    assert count(engine, "open_positions") == 1
    kept(engine)
