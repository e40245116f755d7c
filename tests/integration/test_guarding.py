"""Guards act in the commit that reveals a breach, once, and nothing is decided after them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest
from ledger import (
    CHALLENGER,
    FALLEN,
    NIGHT,
    NOON,
    POOR,
    UNGUARDED,
    arms,
    assign,
    assign_to,
    closed,
    count,
    feed,
    open_btc,
    open_eth,
    record_all,
    scale,
    together,
    traffic,
    wait_until_blocked,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.account import AccountEquity, LossLimits, MoneyChange, folded
from bandit.core.errors import Killed
from bandit.core.kill_switch import DailyLossRelease
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmStatus, Assignment, PolicyName, Profile
from bandit.core.outcomes import Outcome
from bandit.service import accounts, experiments, killing, recording, reporting
from bandit.storage import locks
from bandit.storage.engine import connect, transaction

LATER = NOON + timedelta(hours=2)
WIDE = LossLimits(daily_loss=Decimal(1), drawdown=Decimal("0.15"))


def equity(engine: Engine) -> AccountEquity:
    return accounts.named(engine, "usd", now=LATER).equity


def kills(engine: Engine) -> list[tuple[str, str, str]]:
    statement = text("SELECT kind, cause, reason FROM kill_events ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]


def lost(made: Assignment, money: str) -> Outcome:
    """An outcome that moves much money, and no arm's statistics of returns."""
    sign = Decimal(money).compare(0)
    return closed(made, str(sign * Decimal("0.000001")), pnl=money)


def earn(engine: Engine, *results: str, days: int = 0) -> None:
    """Let the champion close trades with these results, one batch each."""
    now = LATER + timedelta(days=days)
    units = [f"{count(engine, 'assignments')}-{i}" for i in range(64)]
    made = [a for a in assign(engine, units) if a.policy == "prod"]
    for assignment, money in zip(made, results, strict=False):
        record_all(engine, [lost(assignment, money)], now=now)


def status(engine: Engine, policy: str = CHALLENGER) -> ArmStatus:
    return experiments.load(engine, "btc").arm_of(PolicyName(policy)).place.status


# The checklist


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("-0.25", ArmStatus.ACTIVE),  # from 25/16 down a sixteenth: 4 percent exactly
        ("-0.249999", ArmStatus.ACTIVE),
        ("-0.250001", ArmStatus.HALTED),
    ],
)
def test_drawdown_halts_above_its_limit_and_not_at_it(
    engine: Engine, last: str, expected: ArmStatus
) -> None:
    open_btc(engine, equity_fraction=0.25)
    up, down = assign_to(engine, CHALLENGER, 2)
    record_all(engine, [closed(up, "2.25", pnl="1")], now=LATER)
    record_all(engine, [closed(down, last, minutes=61, pnl="-1")], now=LATER)
    assert status(engine) is expected


@pytest.mark.parametrize(
    ("win", "expected"),
    [
        ("0.0078125", ArmStatus.ACTIVE),  # eight to five: 1.6 exactly
        ("0.0078126", ArmStatus.ACTIVE),
        ("0.0078124", ArmStatus.THROTTLED),
    ],
)
def test_profit_factor_throttles_under_its_limit_on_a_full_window(
    engine: Engine, win: str, expected: ArmStatus
) -> None:
    open_btc(engine)
    later = feed(engine, CHALLENGER, ["-0.0048828125", win] * 14 + [win])
    assert status(engine) is ArmStatus.ACTIVE, "29 trades are too few to judge"
    feed(engine, CHALLENGER, ["-0.0048828125"], now=later, prefix="last")
    assert status(engine) is expected


def test_throttled_arm_that_goes_on_falling_is_halted(engine: Engine) -> None:
    open_btc(engine)
    late = assign_to(engine, CHALLENGER, 2, prefix="late")
    later = feed(engine, CHALLENGER, POOR)
    assert status(engine) is ArmStatus.THROTTLED
    fall = [closed(a, "-0.3", minutes=90, pnl="-1") for a in late]
    record_all(engine, fall, now=later + timedelta(hours=2))
    assert status(engine) is ArmStatus.HALTED
    kinds = [d.kind.value for d in reporting.decision_history(engine, "btc")]
    assert kinds == ["HALT", "THROTTLE", "ENTER"]


@pytest.mark.parametrize("profile", Profile)
def test_profile_says_whether_the_checklist_acts(engine: Engine, profile: Profile) -> None:
    open_btc(engine, challengers=arms(2), profile=profile)
    epoch = experiments.load(engine, "btc").epoch
    feed(engine, "arm-00", FALLEN)
    feed(engine, "prod", FALLEN, prefix="p")
    acts = profile is not Profile.OBSERVE
    assert (status(engine, "arm-00") is ArmStatus.HALTED) is acts
    # The champion carries what challengers give up, whatever its own numbers.
    assert status(engine, "prod") is ArmStatus.ACTIVE
    assert experiments.load(engine, "btc").epoch == epoch + acts
    assert scale(engine, now=NIGHT).actions == ()


def test_halt_commits_with_the_outcome_that_reveals_it_and_nothing_follows(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, CHALLENGER, 30)
    minutes = range(1, 31)
    batch = [closed(a, r, minutes=m) for a, r, m in zip(made, FALLEN, minutes, strict=True)]
    recording.record(engine, batch, now=LATER)
    after = assign(engine, [f"after-{i}" for i in range(64)])
    assert {a.policy for a in after} == {"prod"}
    assert traffic(engine) == {"prod": 1_000_000, CHALLENGER: 0}
    (halt, _) = reporting.decision_history(engine, "btc")
    assert (halt.actor, halt.decided_at) == ("rule:checklist", LATER)
    assert halt.inputs["readings"][0]["trades"] == 30
    # The same batch again is the same answer, and no second decision.
    recording.record(engine, batch, now=LATER)
    assert count(engine, "decisions") == 2


def test_resumed_arm_is_not_stopped_for_what_it_was_stopped_for(engine: Engine) -> None:
    open_btc(engine, rules=UNGUARDED)
    later = feed(engine, CHALLENGER, POOR)
    assert status(engine) is ArmStatus.THROTTLED
    experiments.change_arm(
        engine,
        name="btc",
        policy=PolicyName(CHALLENGER),
        verb=ArmVerb.RESUME,
        reason="mended",
        now=later,
        actor="test",
    )
    later = feed(engine, CHALLENGER, ["-0.002"] * 29, now=later, prefix="fresh")
    assert status(engine) is ArmStatus.ACTIVE
    feed(engine, CHALLENGER, ["-0.002"], now=later, prefix="last")
    assert status(engine) is ArmStatus.THROTTLED


# Loss limits


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (["-299.99999999"], []),
        (["-300"], []),
        (["-300.00000001"], ["daily_loss"]),
        # A gain first: what is left of the day's begin counts, not what was earned today.
        (["200", "-500"], []),
        (["200", "-500", "-0.01"], ["daily_loss"]),
    ],
)
def test_daily_loss_kills_above_its_limit(
    engine: Engine, results: Sequence[str], expected: list[str]
) -> None:
    open_btc(engine)
    earn(engine, *results)
    assert [cause for _, cause, _ in kills(engine)] == expected


@pytest.mark.parametrize(
    ("limit", "fall", "expected"),
    [
        ("0.10", "-1200", []),
        ("0.10", "-1200.00000001", ["drawdown"]),
        ("0.15", "-1800", []),
        ("0.15", "-1800.00000001", ["drawdown"]),
    ],
)
def test_drawdown_from_the_peak_kills_above_its_limit(
    engine: Engine, limit: str, fall: str, expected: list[str]
) -> None:
    open_btc(engine, loss_limits=LossLimits(daily_loss=Decimal(1), drawdown=Decimal(limit)))
    earn(engine, "2000")
    earn(engine, fall, days=1)
    assert [cause for _, cause, _ in kills(engine)] == expected


def test_kill_commits_with_the_outcome_and_says_what_was_measured(engine: Engine) -> None:
    open_btc(engine, profile=Profile.OBSERVE)
    earn(engine, "-1600")
    assert kills(engine) == [
        ("KILL", "daily_loss", "daily loss of 16 % exceeds its limit of 3 %"),
        ("KILL", "drawdown", "drawdown of 16 % exceeds its limit of 10 %"),
    ]
    with engine.connect() as connection:
        action, actor, details = connection.execute(
            text("SELECT action, actor, details FROM audit_log ORDER BY id DESC LIMIT 1")
        ).one()
    assert (action, actor, details["cause"]) == ("KILL", "rule:loss_limit", "drawdown")
    assert [(r["check"], r["value"], r["limit"], r["verdict"]) for r in details["reasons"]] == [
        ("daily_loss_percent", 16.0, 3.0, "FAIL"),
        ("drawdown_percent", 16.0, 10.0, "FAIL"),
        ("hard_drawdown_percent", 16.0, 15.0, "FAIL"),
    ]
    with pytest.raises(Killed):
        assign(engine, ["late"])


def test_breach_inside_a_batch_counts_though_its_end_recovers(engine: Engine) -> None:
    open_btc(engine)
    fall, rise = assign_to(engine, "prod", 2)
    record_all(engine, [lost(fall, "-400"), lost(rise, "400")], now=LATER)
    assert equity(engine).equity == 10_000
    assert [cause for _, cause, _ in kills(engine)] == ["daily_loss"]


def test_killed_account_is_not_killed_again_by_each_further_loss(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 4)
    for hours, money in enumerate(["-400", "-100", "-600", "-100"]):
        record_all(engine, [lost(made[hours], money)], now=LATER + timedelta(hours=hours))
    assert [cause for _, cause, _ in kills(engine)] == ["daily_loss", "drawdown"]
    assert count(engine, "outcomes") == 4
    shown = accounts.named(engine, "usd", now=LATER).record
    assert shown.newest is not None
    assert (shown.killed_since, shown.newest.at) == (LATER, LATER + timedelta(hours=2))


def test_released_account_is_killed_again_by_a_new_low_only(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 5)

    def close(*results: str) -> int:
        for money in results:
            record_all(engine, [lost(made.pop(), money)], now=LATER)
        return len([kind for kind, _, _ in kills(engine) if kind == "KILL"])

    # Positions that close while it is killed are part of what the person sees.
    assert close("-400", "-200") == 1
    killing.release(engine, ["usd"], reason="seen", now=LATER, actor="alice")
    assert close("50", "-50") == 1
    assert len(assign(engine, ["alive"])) == 1
    assert close("-0.01") == 2


def test_next_day_has_a_limit_of_its_own_after_the_rule_released_the_account(
    engine: Engine,
) -> None:
    open_btc(engine)
    earn(engine, "-400")
    tomorrow = LATER + timedelta(days=1)
    killing.release_due(engine, rule=DailyLossRelease.NEXT_DAY, now=tomorrow)
    # 9,600 begin the day: 288 are its 3 %.
    earn(engine, "-288", days=1)
    assert not accounts.named(engine, "usd", now=tomorrow).record.is_killed
    earn(engine, "-0.01", days=1)
    assert accounts.named(engine, "usd", now=tomorrow).record.is_killed


def test_account_keeps_the_limits_of_its_first_experiment(engine: Engine) -> None:
    open_btc(engine, loss_limits=WIDE)
    assert equity(engine).limits == WIDE
    with pytest.raises(IntegrityError, match="drawdown_hard_limit"), engine.begin() as connection:
        connection.execute(text("UPDATE account_equity SET max_drawdown = 0.1501"))


# Equity is the fold of what arrived


def test_equity_is_the_fold_of_what_arrived_and_survives_a_restart(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine, loss_limits=WIDE)
    made = assign_to(engine, "prod", 7)
    results = ["10", "-30", "5.5", "0", "-0.00000001", "120", "-80"]
    batch = [lost(a, money) for a, money in zip(made, results, strict=True)]
    # Ids are not in the order of arrival: the fold must follow the batch.
    assert [a.id for a in made] != sorted(a.id for a in made)
    record_all(engine, batch[:1], now=LATER)
    record_all(engine, [*batch[1:], batch[1]], now=LATER)
    record_all(engine, batch, now=LATER)
    start = AccountEquity.opened(day=NOON.date(), limits=WIDE)
    start = start.with_capital(Decimal(10_000), day=NOON.date())
    changes = [MoneyChange(realised=Decimal(money)) for money in results]
    expected, _ = folded(start, changes, day=LATER.date())
    restarted = connect(database_url)
    assert equity(restarted) == expected
    assert expected.peak == Decimal("10105.49999999")
    restarted.dispose()


def test_account_of_two_experiments_has_both_capitals(engine: Engine) -> None:
    open_btc(engine)
    earn(engine, "-250")
    open_eth(engine)
    held = equity(engine)
    assert (held.capital, held.equity, held.peak) == (20_000, 19_750, 20_000)


# Races


@pytest.mark.parametrize("attempt", range(5))
def test_two_that_reveal_the_breach_at_once_kill_once(engine: Engine, attempt: int) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 4, prefix=f"r{attempt}")
    answers = together(
        *[lambda a=a: recording.record(engine, [lost(a, "-160")], now=LATER) for a in made]
    )
    assert all(isinstance(answer, list) for answer in answers), answers
    # 10,000 - 160 - 160 is over 3 %, whoever of them comes second.
    assert [cause for _, cause, _ in kills(engine)] == ["daily_loss"]
    assert equity(engine).equity == 10_000 - 4 * 160


def test_breaches_of_arm_and_account_at_once_end_in_no_deadlock(engine: Engine) -> None:
    open_btc(engine, challengers=arms(3))
    sick = {name: assign_to(engine, name, 2, prefix=name) for name, _ in arms(3)}

    def fall(name: str) -> object:
        first, second = sick[name]
        batch = [closed(first, "-0.3", pnl="-200"), closed(second, "-0.3", minutes=61, pnl="-200")]
        return recording.record(engine, batch, now=LATER)

    answers = together(*[lambda name=name: fall(name) for name in sick])
    assert all(isinstance(answer, list) for answer in answers), answers
    assert {status(engine, name) for name in sick} == {ArmStatus.HALTED}
    assert sorted(cause for _, cause, _ in kills(engine)) == ["daily_loss", "drawdown"]
    assert traffic(engine)["prod"] == 1_000_000


@pytest.mark.parametrize(("result", "money"), [("-0.000001", "-400"), ("-0.5", "-1")])
def test_stop_is_not_acknowledged_while_an_assignment_is_under_way(
    engine: Engine, result: str, money: str
) -> None:
    record = open_btc(engine)
    [made] = assign_to(engine, CHALLENGER, 1)
    outcome = closed(made, result, pnl=money)
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            locks.gate_shared(connection, record.id)
            waiting = pool.submit(recording.record, engine, [outcome], now=LATER)
            wait_until_blocked(engine, waiting)
            # Rolled back and not yet run again: neither the outcome nor its stop is there.
            assert count(engine, "outcomes") == 0
            assert equity(engine).equity == 10_000
        waiting.result(timeout=60)
    assert count(engine, "outcomes") == 1
    assert (len(kills(engine)), status(engine)) in {(1, ArmStatus.ACTIVE), (0, ArmStatus.HALTED)}


def test_assignments_race_a_kill_and_none_commits_after_it(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign_to(engine, "prod", 1)

    def assigning() -> int:
        for i in range(500):
            try:
                assign(engine, [f"race-{i}"])
            except Killed:
                return count(engine, "assignments")
        raise AssertionError("never killed")

    def losing() -> int:
        recording.record(engine, [lost(made, "-400")], now=LATER)
        return count(engine, "assignments")

    refused, acknowledged = together(assigning, losing)
    assert count(engine, "assignments") == refused == acknowledged
