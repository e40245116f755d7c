"""Heartbeats and measurements for tests of health, each healthy unless told otherwise."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ledger import NOON

from bandit.core.account import AccountEquity, LossLimits, MoneyChange
from bandit.core.health import AccountState
from bandit.core.heartbeat import BotRecord, ErrorPoint, Heartbeat
from bandit.core.kill_switch import KillCause, KillEvent, KillKind
from bandit.core.watch import Pulse

DAY = date(2026, 3, 1)
STARTED = NOON - timedelta(days=1)
KILLED = KillEvent(kind=KillKind.KILL, cause=KillCause.HAND, at=NOON, actor="test", reason="drill")


def beat(bot: str = "alpha", *, sent_at: datetime = NOON, **fields: Any) -> Heartbeat:
    """A heartbeat of a bot that is well."""
    told: dict[str, Any] = {
        "started_at": STARTED,
        "running": True,
        "api_connected": True,
        "api_errors_total": 0,
        "open_positions": 0,
        "candles": {"BTCUSDT": sent_at},
    }
    return Heartbeat(bot=bot, sent_at=sent_at, **(told | fields))


def record(newest: Heartbeat | None = None, **fields: Any) -> BotRecord:
    """What is known of a bot that was heard when it sent its newest heartbeat."""
    newest = newest or beat()
    told: dict[str, Any] = {
        "heard_at": newest.sent_at,
        "first_heard_at": newest.sent_at,
        "errors": (ErrorPoint(at=newest.sent_at, total=0),),
    }
    return BotRecord(newest=newest, **(told | fields))


def told_errors(number: int, *, at: datetime = NOON) -> tuple[ErrorPoint, ...]:
    """So many API errors, told at one moment."""
    before = ErrorPoint(at=at - timedelta(days=1), total=7)
    return (before, ErrorPoint(at=at, total=7 + number))


def account(lost: str = "0", *, limit: str = "0.10", kill: KillEvent | None = None) -> AccountState:
    """An account of 10,000 that has lost so much since its peak."""
    opened = AccountEquity.opened(day=DAY, limits=LossLimits(drawdown=Decimal(limit)))
    funded = opened.with_capital(Decimal(10_000), day=DAY)
    equity, _ = funded.after(MoneyChange(realised=-Decimal(lost)), day=DAY)
    return AccountState(name="usd", equity=equity, kill=kill)


def pulse(experiment: str, age_seconds: float) -> Pulse:
    """What was read of a monitor that looks every five minutes."""
    return Pulse(
        experiment=experiment,
        who="prod",
        at=NOON - timedelta(seconds=age_seconds),
        age_seconds=age_seconds,
        interval_seconds=300,
        is_ended=False,
    )
