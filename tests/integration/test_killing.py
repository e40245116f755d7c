"""The kill switch wins over everything, and only a person or its own rule turns it back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ledger import (
    BEST,
    CHALLENGER,
    NIGHT,
    NOON,
    POOR,
    arms,
    assign,
    assign_to,
    change,
    closed,
    count,
    feed,
    join,
    open_btc,
    open_eth,
    record_all,
    register,
    scale,
    traffic,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.errors import BanditError, InvalidInput, Killed, UnknownName
from bandit.core.kill_switch import DailyLossRelease, KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmStatus, DecisionKind
from bandit.service import experiments, killing


def kill(
    engine: Engine,
    names: list[str] | None = None,
    *,
    cause: KillCause = KillCause.HAND,
    reason: str = "drill",
    hours: int = 0,
) -> None:
    now = NOON + timedelta(hours=hours)
    killing.kill(engine, names, cause=cause, reason=reason, now=now, actor="alice")


def release(engine: Engine, names: list[str] | None = None) -> None:
    killing.release(engine, names, reason="checked", now=NOON, actor="bob")


def killed(engine: Engine) -> dict[str, bool]:
    return {account.name: account.is_killed for account in killing.states(engine)}


def test_killed_account_decides_nothing_until_a_person_releases_it(engine: Engine) -> None:
    open_btc(engine)
    before = assign(engine, ["before"])
    kill(engine)
    for units in (["new"], ["before"], ["before", "new"]):
        with pytest.raises(Killed, match="the account of experiment btc is killed"):
            assign(engine, units)
    assert count(engine, "assignments") == 1
    release(engine)
    assert assign(engine, ["before"]) == before


def test_kill_of_one_account_leaves_the_others(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine, account="second")
    assert killed(engine) == {"usd": False, "second": False}
    kill(engine, ["second"])
    assert killed(engine) == {"usd": False, "second": True}
    assert len(assign(engine, ["u"])) == 1
    kill(engine)
    assert killed(engine) == {"usd": True, "second": True}
    release(engine, ["second"])
    assert killed(engine) == {"usd": True, "second": False}
    with pytest.raises(UnknownName, match="'third'; known: usd, second"):
        kill(engine, ["third"])


def test_experiments_of_one_currency_share_its_account(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine)
    assert killed(engine) == {"usd": False}


def test_account_has_one_currency(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(InvalidInput, match=r"^currency: must be USD, the currency of account usd"):
        open_eth(engine, account="usd", currency="EUR")
    assert experiments.listed(engine) == ["btc"]


@pytest.mark.parametrize("action", ["join", "resume", "open"])
def test_killed_account_takes_on_no_more_risk(engine: Engine, action: str) -> None:
    open_btc(engine, challengers=arms(2))
    change(engine, ArmVerb.THROTTLE, "arm-00")
    later = register(engine, "later", "bbbbbbbb")
    kill(engine)
    parts = traffic(engine)
    actions = {
        "join": lambda: join(engine, later),
        "resume": lambda: change(engine, ArmVerb.RESUME, "arm-00"),
        "open": lambda: open_eth(engine),
    }
    with pytest.raises(Killed):
        actions[action]()
    assert traffic(engine) == parts


def test_killed_account_may_still_give_up_risk(engine: Engine) -> None:
    open_btc(engine, challengers=arms(3))
    kill(engine)
    assert change(engine, ArmVerb.THROTTLE, "arm-00") == (ArmStatus.THROTTLED, True)
    assert change(engine, ArmVerb.HALT, "arm-01") == (ArmStatus.HALTED, True)
    assert change(engine, ArmVerb.RETIRE, "arm-02") == (ArmStatus.RETIRED, True)


def test_outcomes_of_a_killed_account_are_recorded(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    kill(engine)
    record_all(engine, [closed(made, "-0.01")], now=NOON + timedelta(hours=2))
    assert count(engine, "outcomes") == 1


def test_night_of_a_killed_account_holds_and_says_what_it_would_do(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, BEST)
    feed(engine, "prod", POOR, prefix="p")
    parts = traffic(engine)
    kill(engine)
    night = scale(engine, now=NIGHT)
    assert night.decision.kind is DecisionKind.HOLD
    assert night.decision.reason == f"killed: would move {CHALLENGER} 10.00% to 15.00%"
    assert night.decision.inputs["killed"] is True
    assert traffic(engine) == parts


def test_update_by_hand_is_refused_while_killed(engine: Engine) -> None:
    open_btc(engine)
    kill(engine)
    statement = text(
        "UPDATE bandit_arms SET traffic_allocation = 0.11 WHERE traffic_allocation = 0.1"
    )
    with pytest.raises(Exception, match="is killed"), engine.begin() as connection:
        connection.execute(statement)


def test_flag_follows_the_events_only(engine: Engine) -> None:
    open_btc(engine)
    kill(engine)
    for statement in ("UPDATE accounts SET is_killed = false", "UPDATE accounts SET name = 'x'"):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(text(statement))
    assert killed(engine) == {"usd": True}


def test_every_new_cause_is_written_down_and_the_same_again_is_not(engine: Engine) -> None:
    open_btc(engine)
    kill(engine)
    kill(engine)
    kill(engine, cause=KillCause.LATCH, reason="file")
    release(engine)
    release(engine)
    with engine.connect() as connection:
        events = connection.execute(
            text("SELECT kind, cause, actor, reason FROM kill_events ORDER BY id")
        ).all()
        audited = connection.execute(
            text("SELECT action FROM audit_log WHERE subject = 'usd' ORDER BY id")
        ).all()
    assert [tuple(event) for event in events] == [
        ("KILL", "hand", "alice", "drill"),
        ("KILL", "latch", "alice", "file"),
        ("RELEASE", "hand", "bob", "checked"),
    ]
    assert [action for (action,) in audited] == ["KILL", "KILL", "RELEASE"]


def test_kill_without_a_reason_is_refused(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(BanditError, match=r"^reason: "):
        kill(engine, reason=" ")
    assert killed(engine) == {"usd": False}


def test_kill_for_the_day_s_loss_ends_with_the_day_where_the_rule_says_so(engine: Engine) -> None:
    open_btc(engine)
    kill(engine, cause=KillCause.DAILY_LOSS)

    def due(rule: DailyLossRelease, hours: int) -> list[str]:
        found = killing.release_due(engine, rule=rule, now=NOON + timedelta(hours=hours))
        return [account.name for account in found]

    assert due(DailyLossRelease.NEXT_DAY, 11) == []
    assert due(DailyLossRelease.MANUAL, 13) == []
    assert killed(engine) == {"usd": True}
    assert due(DailyLossRelease.NEXT_DAY, 12) == ["usd"]
    assert killed(engine) == {"usd": False}
    with engine.connect() as connection:
        last = connection.execute(
            text("SELECT actor, details ->> 'cause' FROM audit_log ORDER BY id DESC LIMIT 1")
        ).one()
    assert tuple(last) == ("rule:next_day", "next_day")


@pytest.mark.parametrize("cause", [KillCause.HAND, KillCause.DRAWDOWN, KillCause.LATCH])
def test_rule_releases_nothing_that_a_person_or_the_drawdown_killed_since(
    engine: Engine, cause: KillCause
) -> None:
    open_btc(engine)
    kill(engine, cause=KillCause.DAILY_LOSS)
    kill(engine, cause=cause, reason="worse", hours=1)
    later = NOON + timedelta(days=2)
    assert killing.release_due(engine, rule=DailyLossRelease.NEXT_DAY, now=later) == []
    assert killed(engine) == {"usd": True}


def test_decision_under_way_ends_before_the_kill_is_acknowledged(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign_to(engine, CHALLENGER, 1)
    assert made.policy == CHALLENGER
    kill(engine)
    rows = count(engine, "assignments")
    with pytest.raises(Killed):
        assign(engine, ["late"])
    assert count(engine, "assignments") == rows
