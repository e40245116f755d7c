"""What `/metrics` shows of health: of every bot, and of every symbol that one waits for."""

from __future__ import annotations

from collections.abc import Iterator

from bandit.core.health import candle_gap, heartbeat_age, trade_ages
from bandit.core.heartbeat import BreakerState
from liveops.health import Checkup

Sample = tuple[str, tuple[str, ...], float]
"""Name in the catalogue, label values in its order, value."""

SYMBOLS_MAX = 64
"""Of more symbols, those that have waited longest are told of."""


def of_health(found: Checkup) -> Iterator[Sample]:
    """Yield what is known of service and bots; a value that is not known is no sample."""
    yield "liveops_health_level", (), found.level.rank
    if found.halted is not None:
        yield "liveops_trading_halted", (), float(found.halted)
        yield "trading_halted", (), float(found.halted)
    for account in found.vitals.accounts:
        if account.reconciliation is not None:
            is_reconciled = not account.reconciliation.in_force
            yield "liveops_account_reconciled", (account.name,), float(is_reconciled)
    if found.reading is not None:
        pending = sum(waiting.positions for waiting in found.vitals.closing)
        yield "liveops_close_orders_pending", (), pending
    if ages := trade_ages(found.vitals):
        yield "liveops_trade_age_seconds", (), max(ages.values()).total_seconds()
    now = found.vitals.now
    for bot in found.vitals.bots:
        beat, labels = bot.newest, (bot.newest.bot,)
        for name in ("liveops_bot_running", "bot_running"):
            yield name, labels, float(beat.running)
        for name in ("liveops_bot_api_connected", "api_connected"):
            yield name, labels, float(beat.api_connected)
        for name in ("liveops_bot_open_positions", "open_positions"):
            yield name, labels, beat.open_positions
        age = heartbeat_age(bot, now=now).total_seconds()
        yield "liveops_bot_heartbeat_age_seconds", labels, age
        errors = bot.errors_within(found.limits.api_error_window, now=now)
        yield "liveops_bot_api_errors", labels, errors
        is_open = [state is BreakerState.OPEN for state in beat.breakers.values()]
        yield "liveops_bot_breakers_open", labels, sum(is_open)
    for pulse in found.vitals.pulses:
        if not pulse.is_ended:
            yield "liveops_monitor_pulse_age_seconds", (pulse.experiment,), pulse.age_seconds
    for symbol, gap in _gaps(found):
        yield "liveops_candle_gap_seconds", (symbol,), gap


def _gaps(found: Checkup) -> list[tuple[str, float]]:
    longest: dict[str, float] = {}
    for bot in found.vitals.bots:
        for symbol in bot.newest.candles if bot.newest.running else ():
            gap = candle_gap(bot, symbol, now=found.vitals.now).total_seconds()
            longest[symbol] = max(gap, longest.get(symbol, 0.0))
    return sorted(longest.items(), key=lambda each: (-each[1], each[0]))[:SYMBOLS_MAX]
