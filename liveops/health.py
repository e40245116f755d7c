"""How the service and its bots are, measured now, and the one document that tells it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from bandit import __version__
from bandit.core.errors import BanditError, ForeignProtocol, LedgerUnavailable
from bandit.core.health import (
    Health,
    HealthLimits,
    Vitals,
    assess,
    candle_gap,
    heartbeat_age,
    is_halted,
)
from bandit.core.health_table import HealthLevel
from bandit.core.heartbeat import BotRecord
from bandit.core.watch import Pulse, WatchRule, deadlines
from bandit.service import health
from bandit.service.health import Reading
from liveops.wiring import App, health_limits_of, require_common_clock

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What was measured, and the health it amounts to; `reading` is None without a ledger."""

    vitals: Vitals
    health: Health
    limits: HealthLimits
    reading: Reading | None

    @property
    def level(self) -> HealthLevel:
        """The level."""
        return self.health.level

    @property
    def halted(self) -> bool | None:
        """Whether trading is halted; None where the ledger, which would know, is away."""
        halted = is_halted(self.vitals)
        return None if self.reading is None and not halted else halted


def look(app: App) -> Checkup:
    """Return how it is, whatever keeps the ledger from answering."""
    try:
        require_common_clock(app.engine)
        return seen(app)
    except LedgerUnavailable as error:
        return checkup(app, error)


def seen(app: App) -> Checkup:
    """Return how it is by a ledger that answers; raises `LedgerUnavailable`."""
    try:
        found: Reading | BanditError = health.read(app.engine, now=app.clock.now())
    except ForeignProtocol as error:
        found = error
    return checkup(app, found)


def checkup(app: App, found: Reading | BanditError) -> Checkup:
    """Return how it is by what the ledger said, or what keeps it from saying anything."""
    latch = app.latch.reason() if app.latch.is_set() else None
    limits = health_limits_of(app.settings)
    if isinstance(found, BanditError):
        vitals, reading = Vitals(now=app.clock.now(), ledger=str(found)), None
    else:
        vitals, reading = found.vitals, found
        if app.demo:  # its trades are of the past that it replays: they are not waited for
            vitals = replace(vitals, last_trade_at=None)
    vitals = replace(vitals, latch=latch, breakers=app.breakers.not_closed())
    return Checkup(vitals=vitals, health=assess(vitals, limits), limits=limits, reading=reading)


def status_json(found: Checkup) -> dict[str, Any]:
    """Return everything known, under the paths that the documents' operators ask for.

    Amounts that they compare are numbers; `accounts` has them exact, as text.
    """
    level, now = found.level, found.vitals.now
    return {
        "health_status": level.value,
        "status": level.value.lower(),
        "as_of": now.isoformat(),
        "version": __version__,
        "issues": found.health.texts(HealthLevel.UNHEALTHY),
        "warnings": found.health.texts(HealthLevel.DEGRADED),
        "findings": [issue.to_json() for issue in found.health.issues],
        "portfolio": _portfolio(found),
        "performance": _performance(found),
        "trading": _trading(found),
        "bots": [_bot(bot, found, now=now) for bot in found.vitals.bots],
        "monitors": [_monitor(pulse, found.limits.watch) for pulse in found.vitals.pulses],
        "metrics": _metrics(found),
    }


def _portfolio(found: Checkup) -> dict[str, Any]:
    reports = () if found.reading is None else found.reading.accounts
    currencies = {report.record.currency for report in reports}
    sums: dict[str, Decimal] = {}
    if len(currencies) == 1:  # money of two currencies has no sum
        equities = [report.equity for report in reports]
        sums = {
            "equity": sum((e.equity for e in equities), Decimal(0)),
            "daily_pnl": sum((e.equity - e.day_start for e in equities), Decimal(0)),
            "unrealised_pnl": sum((e.unrealised for e in equities), Decimal(0)),
        }
    return {
        "currency": next(iter(currencies)) if len(currencies) == 1 else None,
        **{
            name: float(sums[name]) if sums else None
            for name in ("equity", "daily_pnl", "unrealised_pnl")
        },
        "open_positions": _open_positions(found),
        "accounts": [report.to_json() for report in reports],
    }


def _performance(found: Checkup) -> dict[str, Any]:
    equities = [account.equity for account in found.vitals.accounts]
    deepest = max((e.drawdown_percent for e in equities), default=None)
    lost = max((e.daily_loss_percent for e in equities), default=None)
    return {
        "max_drawdown": None if deepest is None else deepest / 100,
        "max_daily_loss": None if lost is None else lost / 100,
    }


def _trading(found: Checkup) -> dict[str, Any]:
    reading, last = found.reading, _last_trade_at(found)
    return {
        "halted": found.halted,
        "killed_accounts": [a.name for a in found.vitals.accounts if a.kill is not None],
        "blocked_accounts": [a.name for a in found.vitals.accounts if a.is_blocked],
        "latch": found.vitals.latch,
        "guard": found.vitals.guard,
        "experiments": [] if reading is None else list(reading.experiments),
        "last_trade_at": None if last is None else last.isoformat(),
        "recent_trades": []
        if reading is None
        else [
            {
                "experiment": trade.experiment,
                "policy": trade.policy,
                "instrument": trade.instrument,
                "closed_at": trade.closed_at.isoformat(),
                "pnl": f"{trade.pnl:f}",
            }
            for trade in reading.recent_trades
        ],
    }


def _bot(bot: BotRecord, found: Checkup, *, now: datetime) -> dict[str, Any]:
    beat = bot.newest
    trained, traded = beat.model_trained_at, beat.last_trade_at
    return {
        "bot": beat.bot,
        "account": beat.account,
        "running": beat.running,
        "api_connected": beat.api_connected,
        "last_heartbeat": bot.heard_at.isoformat(),
        "heartbeat_age_seconds": heartbeat_age(bot, now=now).total_seconds(),
        "started_at": beat.started_at.isoformat(),
        "candles": {symbol: at.isoformat() for symbol, at in sorted(beat.candles.items())},
        "candle_gap_seconds": {
            symbol: candle_gap(bot, symbol, now=now).total_seconds()
            for symbol in sorted(beat.candles)
        },
        "api_errors": bot.errors_within(found.limits.api_error_window, now=now),
        "open_positions": beat.open_positions,
        "positions": None if beat.positions is None else [str(key) for key in beat.positions],
        "equity": None if beat.equity is None else f"{beat.equity:f}",
        "breakers": {name: state.value for name, state in sorted(beat.breakers.items())},
        "model_version": beat.model_version,
        "model_age_days": None
        if trained is None
        else (now - trained).total_seconds() / DAY_SECONDS,
        "last_trade_at": None if traded is None else traded.isoformat(),
    }


def _monitor(pulse: Pulse, rule: WatchRule) -> dict[str, Any]:
    due = deadlines(pulse, rule)
    return {
        "experiment": pulse.experiment,
        "policy": pulse.who,
        "level": None if due is None else due.level.value,
        "last_pulse": pulse.at.isoformat(),
        "pulse_age_seconds": pulse.age_seconds,
        "interval_seconds": pulse.interval_seconds,
    }


def _metrics(found: Checkup) -> dict[str, Any]:
    bots, now = found.vitals.bots, found.vitals.now
    running = [bot for bot in bots if bot.newest.running]
    window = found.limits.api_error_window
    ages = [heartbeat_age(bot, now=now).total_seconds() for bot in running]
    return {
        "performance_guard_status": found.vitals.guard,
        "open_positions": _open_positions(found),
        "current_drawdown": _performance(found)["max_drawdown"],
        "api_errors": sum(bot.errors_within(window, now=now) for bot in bots) if bots else None,
        "heartbeat_age_seconds": max(ages, default=None),
        "bots_running": len(running),
        "bots_known": len(bots),
    }


def _open_positions(found: Checkup) -> int | None:
    """What bots tell of; None where none ever did."""
    bots = found.vitals.bots
    return sum(bot.newest.open_positions for bot in bots) if bots else None


def _last_trade_at(found: Checkup) -> datetime | None:
    told = [found.vitals.last_trade_at, *(b.newest.last_trade_at for b in found.vitals.bots)]
    return max((at for at in told if at is not None), default=None)
