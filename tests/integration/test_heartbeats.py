"""Heartbeats in the ledger: stored once, whoever hears them, and forgotten by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from ledger import CHALLENGER, NIGHT, NOON, assign_to, closed, feed, open_btc, record_all
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from vitals import STARTED, beat

from bandit.core.errors import ForeignProtocol, InvalidInput, UnknownName
from bandit.core.health import HealthLimits, assess
from bandit.core.heartbeat import BotRecord, BreakerState, Heartbeat
from bandit.core.kill_switch import KillCause
from bandit.service import health, killing, revising
from bandit.storage.engine import connect

WINDOW = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)


def hear(engine: Engine, told: Heartbeat, **fields: Any) -> BotRecord:
    return health.hear(engine, told, **({"now": told.sent_at, "window": WINDOW} | fields))


def audited(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT action, subject FROM audit_log WHERE action LIKE '%bot%' ORDER BY id")
        )
        return [(action, subject) for action, subject in found]


def test_everything_that_is_told_comes_back(engine: Engine) -> None:
    told = beat(
        account="usd",
        candle_seconds=3600,
        candles={"BTC/USD:PERP": NOON, "ETHUSDT": NOON - MINUTE},
        api_errors_total=3,
        open_positions=3,
        positions=(UUID(int=2), UUID(int=1)),
        equity=Decimal("10001.50"),
        breakers={"orders": BreakerState.OPEN, "data": BreakerState.HALF_OPEN},
        model_version="2.1",
        model_trained_at=STARTED,
        last_trade_at=NOON - MINUTE,
    )
    stored = hear(engine, told)
    assert health.known_bots(engine) == [stored]
    assert stored.newest == told


def test_the_same_again_and_an_older_one_change_nothing(engine: Engine) -> None:
    newest = beat(sent_at=NOON + MINUTE, api_errors_total=4)
    stored = hear(engine, newest)
    for again in (newest, beat(api_errors_total=99), beat(sent_at=newest.sent_at, running=False)):
        assert hear(engine, again, now=NOON + 9 * MINUTE) == stored
    assert health.known_bots(engine) == [stored]


def test_a_bot_is_heard_on_after_the_clock_was_set_back(engine: Engine) -> None:
    hear(engine, beat(sent_at=NOON + 30 * MINUTE, api_errors_total=2))
    for minute, running in ((0, False), (1, True)):
        told = beat(sent_at=NOON + minute * MINUTE, running=running, api_errors_total=4)
        stored = hear(engine, told)
        assert health.known_bots(engine) == [stored]
        assert (stored.newest, stored.heard_at) == (told, told.sent_at)
        assert stored.errors_within(WINDOW, now=told.sent_at) == 2


@pytest.mark.parametrize("known", [True, False])
def test_replicas_that_hear_the_same_beats_at_once_count_each_error_once(
    engine: Engine, database_url: str, known: bool
) -> None:
    if known:
        hear(engine, beat())
    beats = [beat(sent_at=NOON + n * MINUTE, api_errors_total=n) for n in range(1, 9)]
    barrier = threading.Barrier(4)

    def replica(number: int) -> None:
        own = connect(database_url, pool_size=1)
        barrier.wait(timeout=30)
        turned = beats[number:] + beats[:number]
        for told in turned if number % 2 else reversed(turned):
            hear(own, told, now=NOON + 9 * MINUTE)
        own.dispose()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(replica, number) for number in range(4)]:
            done.result(timeout=60)
    [found] = health.known_bots(engine)
    assert found.newest == beats[-1]
    if known:
        assert found.errors_within(WINDOW, now=NOON + 9 * MINUTE) == 8
    else:
        # What came before the first that was heard cannot be dated, and is not made up.
        assert found.errors_within(WINDOW, now=NOON + 9 * MINUTE) <= 8


def test_times_of_the_future_are_refused_and_nothing_is_stored(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match=r"sent_at: must not lie more than 5 minutes after"):
        hear(engine, beat(sent_at=NOON + 6 * MINUTE), now=NOON)
    assert health.known_bots(engine) == []


def test_one_bot_more_than_are_kept_is_refused_until_one_is_forgotten(engine: Engine) -> None:
    for number in range(health.BOTS_MAX):
        hear(engine, beat(f"bot-{number:02d}"))
    with pytest.raises(InvalidInput, match="must be one of 32 at most"):
        hear(engine, beat("another"))
    hear(engine, beat("bot-00", sent_at=NOON + MINUTE))
    health.forget(engine, "bot-31", reason="sold", now=NOON, actor="test")
    hear(engine, beat("another"))
    assert len(health.known_bots(engine)) == health.BOTS_MAX


def test_forgetting_is_audited_and_the_bot_may_come_back(engine: Engine) -> None:
    hear(engine, beat(running=False))
    health.forget(engine, "alpha", reason="sold", now=NOON, actor="test")
    assert health.known_bots(engine) == []
    assert audited(engine) == [("forget_bot", "alpha")]
    with pytest.raises(UnknownName, match="no bot is registered as 'alpha'"):
        health.forget(engine, "alpha", reason="sold", now=NOON, actor="test")
    with pytest.raises(InvalidInput, match="reason"):
        health.forget(engine, "alpha", reason=" ", now=NOON, actor="test")
    assert hear(engine, beat()).first_heard_at == NOON
    assert audited(engine) == [("forget_bot", "alpha")]


@pytest.mark.parametrize(
    "change",
    [
        "sent_at = sent_at",
        "sent_at = sent_at - interval '1 second'",
        "sent_at = sent_at + interval '1 minute', heard_at = heard_at - interval '1 second'",
        "sent_at = sent_at + interval '1 minute', bot = 'beta'",
    ],
)
def test_the_ledger_itself_lets_no_heartbeat_go_back(engine: Engine, change: str) -> None:
    hear(engine, beat())
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(f"UPDATE heartbeats SET {change}"))


def kill(engine: Engine) -> None:
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")


def nothing(_: Engine) -> None:
    pass


@pytest.mark.parametrize(("act", "codes"), [(nothing, []), (kill, ["account_killed"])])
def test_the_ledgers_own_troubles_are_read(
    engine: Engine, act: Callable[[Engine], None], codes: list[str]
) -> None:
    open_btc(engine)
    act(engine)
    found = health.read(engine, now=NOON)
    issues = assess(found.vitals, HealthLimits()).issues
    assert [issue.condition.value for issue in issues] == codes
    assert found.experiments == ("btc",)


def test_the_newest_trades_are_read_as_they_count_now(engine: Engine) -> None:
    open_btc(engine)
    assert health.read(engine, now=NOON).vitals.last_trade_at is None
    now = feed(engine, CHALLENGER, ["0.002"] * 4)
    feed(engine, "prod", ["0.001"] * 4, now=now, prefix="p")
    [made] = assign_to(engine, "prod", 1, prefix="corrected", now=NIGHT)
    record_all(engine, [closed(made, "0.001", minutes=1)], now=NIGHT + 5 * MINUTE)
    lost = closed(made, "-0.001", minutes=2)
    revising.revise(engine, lost, reason="drill", now=NIGHT + 6 * MINUTE, actor="test")
    found = health.read(engine, now=NIGHT + 6 * MINUTE)
    assert len(found.recent_trades) == 5
    times = [trade.closed_at for trade in found.recent_trades]
    assert times == sorted(times, reverse=True)
    assert found.vitals.last_trade_at == times[0] == lost.closed_at
    assert (found.recent_trades[0].policy, found.recent_trades[0].pnl) == ("prod", lost.pnl)


def test_a_ledger_of_other_rules_is_not_read(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE decision_protocol SET version = version + 1"))
    with pytest.raises(ForeignProtocol):
        health.read(engine, now=NOON)
