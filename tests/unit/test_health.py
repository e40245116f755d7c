"""From what was measured to a level: each boundary, every combination, and what is not known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ledger import NOON
from vitals import KILLED, STARTED, account, beat, pulse, record, told_errors

from bandit.core.backups import BackupKind
from bandit.core.closing import WaitingToClose
from bandit.core.health import HealthLimits, Vitals, assess, is_halted, trade_ages
from bandit.core.health_table import TABLE, Condition, HealthLevel
from bandit.core.heartbeat import BreakerState

LIMITS = HealthLimits()
TICK = timedelta(microseconds=1)
WELL = Vitals(now=NOON, bots=(record(),), accounts=(account(),))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "health.md"

# The oracle: what each condition leads to, as the task of operators has it.
STOPPED_OR_BLIND = {
    "ledger_unready",
    "bot_stopped",
    "bot_silent",
    "api_disconnected",
    "feed_stalled",
    "api_errors",
    "monitor_gone",
}


def codes(found: Vitals, limits: HealthLimits = LIMITS) -> list[str]:
    return [issue.condition.value for issue in assess(found, limits).issues]


def of_bot(**fields: Any) -> Vitals:
    return replace(WELL, bots=(record(beat(**fields)),))


def closing(age: timedelta) -> Vitals:
    waiting = WaitingToClose(experiment="btc", positions=2, since=NOON - age)
    return replace(WELL, closing=(waiting,))


def test_a_bot_that_is_well_is_healthy() -> None:
    assert codes(WELL) == []
    assert assess(WELL, LIMITS).level is HealthLevel.HEALTHY
    assert not is_halted(WELL)


@pytest.mark.parametrize(
    ("code", "at_limit", "over"),
    [
        (
            "bot_silent",
            replace(WELL, bots=(record(heard_at=NOON - timedelta(seconds=120)),)),
            replace(WELL, bots=(record(heard_at=NOON - timedelta(seconds=120) - TICK),)),
        ),
        (
            "feed_stalled",
            of_bot(candles={"BTCUSDT": NOON - timedelta(minutes=15)}),
            of_bot(candles={"ETHUSDT": NOON, "BTCUSDT": NOON - timedelta(minutes=15) - TICK}),
        ),
        (
            "feed_stalled",
            of_bot(candles={"BTCUSDT": NOON - timedelta(minutes=75)}, candle_seconds=3600),
            of_bot(candles={"BTCUSDT": NOON - timedelta(minutes=75) - TICK}, candle_seconds=3600),
        ),
        (
            "api_errors",
            replace(WELL, bots=(record(errors=told_errors(5)),)),
            replace(WELL, bots=(record(errors=told_errors(6)),)),
        ),
        (
            "drawdown_deep",
            replace(WELL, accounts=(account("500"),)),
            replace(WELL, accounts=(account("500.00000001"),)),
        ),
        (
            "drawdown_deep",
            replace(WELL, accounts=(account("150", limit="0.03"),)),
            replace(WELL, accounts=(account("150.00000001", limit="0.03"),)),
        ),
        ("close_pending", closing(timedelta(seconds=60)), closing(timedelta(seconds=60) + TICK)),
        (
            "no_trades",
            of_bot(last_trade_at=NOON - timedelta(hours=168)),
            of_bot(last_trade_at=NOON - timedelta(hours=168) - TICK),
        ),
        (
            "model_old",
            of_bot(model_version="2.1", model_trained_at=NOON - timedelta(days=30)),
            of_bot(model_version="2.1", model_trained_at=NOON - timedelta(days=30) - TICK),
        ),
        (
            "backup_old",
            replace(WELL, backups={BackupKind.STATE: NOON - timedelta(minutes=75)}),
            replace(WELL, backups={BackupKind.STATE: NOON - timedelta(minutes=75) - TICK}),
        ),
        (
            "backup_old",
            replace(WELL, backups={BackupKind.BASE: NOON - timedelta(hours=26)}),
            replace(WELL, backups={BackupKind.BASE: NOON - timedelta(hours=26) - TICK}),
        ),
        (
            "monitor_stale",
            replace(WELL, pulses=(pulse("btc", 900),)),
            replace(WELL, pulses=(pulse("btc", 900.001),)),
        ),
        (
            "clock_apart",
            replace(WELL, bots=(record(heard_at=NOON - timedelta(seconds=5)),)),
            replace(WELL, bots=(record(heard_at=NOON - timedelta(seconds=5) - TICK),)),
        ),
    ],
)
def test_at_the_limit_nothing_is_wrong_and_over_it_something_is(
    code: str, at_limit: Vitals, over: Vitals
) -> None:
    over = replace(over, bots=tuple(_heard_in_time(bot, code) for bot in over.bots))
    at_limit = replace(at_limit, bots=tuple(_heard_in_time(bot, code) for bot in at_limit.bots))
    assert codes(at_limit) == []
    assert codes(over) == [code]
    [issue] = assess(over, LIMITS).issues
    assert issue.value is not None
    assert issue.limit is not None
    assert issue.value > issue.limit or issue.text.count(f"{issue.limit:.6g}") >= 1


def _heard_in_time(bot: Any, code: str) -> Any:
    # A bot that was heard long ago sent what it sent then: its clock is not off.
    return (
        bot if code != "bot_silent" else replace(bot, newest=beat(sent_at=bot.heard_at, candles={}))
    )


SWITCHES: Mapping[str, Callable[[Vitals], Vitals]] = {
    "ledger_unready": lambda v: replace(v, ledger="away"),
    "latch_set": lambda v: replace(v, latch="drill"),
    "guard_acts": lambda v: replace(v, guard="REDUCED"),
    "account_killed": lambda v: replace(
        v, accounts=tuple(replace(a, kill=KILLED) for a in v.accounts)
    ),
    "close_pending": lambda v: replace(v, closing=closing(timedelta(seconds=61)).closing),
    "drawdown_deep": lambda v: replace(
        v, accounts=(replace(account("501"), kill=v.accounts[0].kill),)
    ),
    "api_errors": lambda v: _bot(v, errors=told_errors(6)),
    "bot_silent": lambda v: _bot(
        v,
        heard_at=NOON - timedelta(seconds=121),
        newest=replace(v.bots[0].newest, sent_at=NOON - timedelta(seconds=121)),
    ),
    "api_disconnected": lambda v: _beat(v, api_connected=False),
    "feed_stalled": lambda v: _beat(v, candles={"BTCUSDT": NOON - timedelta(minutes=16)}),
    "breaker_open": lambda v: _beat(v, breakers={"orders": BreakerState.OPEN}),
    "model_old": lambda v: _beat(v, model_trained_at=NOON - timedelta(days=31)),
    "no_trades": lambda v: _beat(v, last_trade_at=NOON - timedelta(hours=169)),
    "clock_apart": lambda v: _bot(
        v, newest=replace(v.bots[0].newest, sent_at=v.bots[0].heard_at - timedelta(seconds=6))
    ),
    "monitor_stale": lambda v: replace(v, pulses=(*v.pulses, pulse("btc", 901))),
    "monitor_gone": lambda v: replace(v, pulses=(*v.pulses, pulse("eth", 1801))),
}


def _bot(found: Vitals, **fields: Any) -> Vitals:
    return replace(found, bots=(replace(found.bots[0], **fields),))


def _beat(found: Vitals, **fields: Any) -> Vitals:
    return _bot(found, newest=replace(found.bots[0].newest, **fields))


def test_every_combination_of_conditions_is_told_and_the_worst_is_the_level() -> None:
    for chosen in product((False, True), repeat=len(SWITCHES)):
        wanted = {code for code, on in zip(SWITCHES, chosen, strict=True) if on}
        found = WELL
        for code in SWITCHES:
            if code in wanted:
                found = SWITCHES[code](found)
        health = assess(found, LIMITS)
        assert {issue.condition.value for issue in health.issues} == wanted
        expected = "UNHEALTHY" if wanted & STOPPED_OR_BLIND else "DEGRADED"
        assert health.level == (expected if wanted else "HEALTHY")
        levels = [issue.level.rank for issue in health.issues]
        assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize("code", SWITCHES)
def test_an_old_backup_is_told_beside_any_other_condition(code: str) -> None:
    old = replace(WELL, backups={BackupKind.DATABASE: NOON - timedelta(hours=27)})
    assert codes(old) == ["backup_old"]
    assert set(codes(SWITCHES[code](old))) == {"backup_old", code}


def test_the_table_has_a_row_for_every_condition_with_the_level_of_the_documents() -> None:
    assert set(TABLE) == set(Condition)
    for condition, rule in TABLE.items():
        wanted = "UNHEALTHY" if condition.value in STOPPED_OR_BLIND else "DEGRADED"
        assert rule.level == wanted, condition
    assert len({rule.meaning for rule in TABLE.values()}) == len(TABLE)


def test_the_page_shows_the_same_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    on_page = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \|", text, re.MULTILINE)
    rows = [(condition.value, rule.level.value, rule.meaning) for condition, rule in TABLE.items()]
    assert on_page == rows


def test_a_bot_that_stopped_is_said_so_once_and_nothing_else_of_it() -> None:
    stopped = _beat(SWITCHES["feed_stalled"](WELL), running=False)
    assert codes(stopped) == ["bot_stopped"]
    days_later = replace(stopped, now=NOON + timedelta(days=400))
    assert codes(days_later) == ["bot_stopped"]


def test_nothing_is_wrong_with_bots_nobody_ever_heard_of() -> None:
    empty = Vitals(now=NOON)
    assert codes(empty) == []
    assert codes(replace(empty, now=NOON + timedelta(days=365))) == []


def test_a_bot_that_was_heard_once_is_expected_for_ever() -> None:
    assert "bot_silent" in codes(replace(WELL, now=NOON + timedelta(days=365)))


def test_a_clock_that_was_set_back_hides_no_silence() -> None:
    for seconds, found in ((120, []), (121, ["bot_silent"]), (1800, ["bot_silent"])):
        ahead = record(heard_at=NOON + timedelta(seconds=seconds), newest=beat(sent_at=NOON))
        silent = [c for c in codes(replace(WELL, bots=(ahead,))) if c == "bot_silent"]
        assert silent == found


def test_what_a_bot_does_not_tell_is_no_issue() -> None:
    told = beat(candles={}, model_version="2.1", breakers={"orders": BreakerState.HALF_OPEN})
    assert codes(replace(WELL, bots=(record(told),))) == []


def test_without_any_trade_a_bot_has_been_waited_for_since_it_was_first_heard() -> None:
    first = NOON - timedelta(hours=168)
    assert codes(replace(WELL, bots=(record(first_heard_at=first),))) == []
    assert codes(replace(WELL, bots=(record(first_heard_at=first - TICK),))) == ["no_trades"]
    # A trade in the ledger is one, also where no bot tells of it.
    known = replace(WELL, bots=(record(first_heard_at=first - TICK),), last_trade_at=NOON)
    assert codes(known) == []


def test_a_ledger_that_has_traded_is_expected_to_trade_on() -> None:
    last = NOON - timedelta(hours=168)
    assert codes(Vitals(now=NOON, last_trade_at=last)) == []
    assert codes(Vitals(now=NOON, last_trade_at=last - TICK)) == ["no_trades"]


def test_one_busy_bot_does_not_hide_another_that_trades_no_more() -> None:
    busy = record(beat("alpha", last_trade_at=NOON))
    idle = record(beat("beta", last_trade_at=NOON - timedelta(hours=169)))
    [issue] = assess(replace(WELL, bots=(busy, idle)), LIMITS).issues
    assert (issue.condition, issue.subject) == (Condition.NO_TRADES, "bot beta")


@pytest.mark.parametrize(
    ("guard", "said", "halted"),
    [
        (None, [], False),
        ("NORMAL", [], False),
        ("REDUCED", ["guard_acts"], False),
        ("PAUSED", ["guard_acts"], True),
        ("SOMETHING_NEW", ["guard_acts"], False),
    ],
)
def test_a_guard_that_is_not_normal_degrades(
    guard: str | None, said: list[str], halted: bool
) -> None:
    found = replace(WELL, guard=guard)
    assert codes(found) == said
    assert is_halted(found) is halted


@pytest.mark.parametrize("code", ["account_killed", "latch_set"])
def test_whatever_stops_decisions_halts_trading(code: str) -> None:
    assert is_halted(SWITCHES[code](WELL))


def test_issues_without_numbers_name_nobody() -> None:
    found = WELL
    for switch in SWITCHES.values():
        found = switch(found)
    health = assess(found, LIMITS)
    said = health.meanings(HealthLevel.UNHEALTHY) + health.meanings(HealthLevel.DEGRADED)
    assert len(said) == len(SWITCHES)
    private = ("alpha", "btc", "BTCUSDT", "usd", "drill", "orders", "away")
    assert not [text for text in said if any(word in text for word in private)]
    assert not [text for text in said if any(character.isdigit() for character in text)]


def test_the_limits_are_those_that_are_given() -> None:
    strict = HealthLimits(
        candle_gap=timedelta(minutes=1), api_errors=0, no_trade=timedelta(hours=1)
    )
    found = _bot(
        of_bot(candles={"BTCUSDT": NOON - timedelta(minutes=2)}, last_trade_at=STARTED),
        errors=told_errors(1),
    )
    assert codes(found) == []
    assert sorted(codes(found, strict)) == ["api_errors", "feed_stalled", "no_trades"]


def test_the_age_of_trades_is_that_of_each_bot_that_tells_one() -> None:
    hour = timedelta(hours=1)
    known = Vitals(now=NOON, last_trade_at=NOON - 9 * hour)
    assert trade_ages(Vitals(now=NOON)) == {}
    assert trade_ages(known) == {"the ledger": 9 * hour}
    bots = tuple(
        record(beat(name, last_trade_at=NOON - age * hour, running=runs))
        for name, age, runs in (("alpha", 2, True), ("beta", 5, True), ("gone", 7, False))
    )
    assert trade_ages(replace(known, bots=bots)) == {"bot alpha": 2 * hour, "bot beta": 5 * hour}
    silent = replace(record(), first_heard_at=NOON - 3 * hour)
    assert trade_ages(Vitals(now=NOON, bots=(silent,))) == {"the ledger": 3 * hour}
