"""What may be wrong with the service and its bots, and how bad it is (SPEC F8).

docs/health.md shows the same table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class HealthLevel(StrEnum):
    """How it is: DEGRADED halts trading or warns, UNHEALTHY asks for a person at once."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"

    @property
    def rank(self) -> int:
        """0, 1 or 2: the larger, the worse; also the exit code of `check_status`."""
        return list(HealthLevel).index(self)


class Condition(StrEnum):
    """What may be wrong; values are stable, programs read them."""

    LEDGER_UNREADY = "ledger_unready"
    BOT_STOPPED = "bot_stopped"
    BOT_SILENT = "bot_silent"
    API_DISCONNECTED = "api_disconnected"
    FEED_STALLED = "feed_stalled"
    API_ERRORS = "api_errors"
    MONITOR_GONE = "monitor_gone"
    ACCOUNT_KILLED = "account_killed"
    LATCH_SET = "latch_set"
    GUARD_ACTS = "guard_acts"
    POSITIONS_DIFFER = "positions_differ"
    BALANCE_DIFFERS = "balance_differs"
    CLOSE_PENDING = "close_pending"
    DRAWDOWN_DEEP = "drawdown_deep"
    NO_TRADES = "no_trades"
    BREAKER_OPEN = "breaker_open"
    MODEL_OLD = "model_old"
    BACKUP_OLD = "backup_old"
    LOG_UNARCHIVED = "log_unarchived"
    CLOCK_APART = "clock_apart"
    MONITOR_STALE = "monitor_stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A row of the table: the level that a condition leads to, and what it means for anybody.

    `meaning` names nobody and no number: it is what those may read who show no key.
    """

    level: HealthLevel
    meaning: str


_BAD, _WARN = HealthLevel.UNHEALTHY, HealthLevel.DEGRADED

TABLE: Final[Mapping[Condition, Rule]] = {
    condition: Rule(level=level, meaning=meaning)
    for condition, level, meaning in (
        (Condition.LEDGER_UNREADY, _BAD, "the ledger cannot be decided on"),
        (Condition.BOT_STOPPED, _BAD, "a bot says that it does not run"),
        (Condition.BOT_SILENT, _BAD, "a bot's heartbeat is overdue"),
        (Condition.API_DISCONNECTED, _BAD, "a bot is not connected to its exchange"),
        (Condition.FEED_STALLED, _BAD, "no candle of a symbol for too long"),
        (Condition.API_ERRORS, _BAD, "too many API errors of a bot"),
        (Condition.MONITOR_GONE, _BAD, "a monitor is silent: bots open nothing new"),
        (Condition.ACCOUNT_KILLED, _WARN, "an account is killed: trading is halted"),
        (Condition.LATCH_SET, _WARN, "the latch of this host is set: trading is halted"),
        (Condition.GUARD_ACTS, _WARN, "the performance guard trades smaller or pauses"),
        (Condition.POSITIONS_DIFFER, _WARN, "bots and ledger differ on open positions"),
        (Condition.BALANCE_DIFFERS, _WARN, "bots and ledger differ on a balance"),
        (Condition.CLOSE_PENDING, _WARN, "a position is open that is to be closed"),
        (Condition.DRAWDOWN_DEEP, _WARN, "an account is deep in drawdown"),
        (Condition.NO_TRADES, _WARN, "no trade for too long"),
        (Condition.BREAKER_OPEN, _WARN, "a circuit breaker is open"),
        (Condition.MODEL_OLD, _WARN, "a bot's model is old"),
        (Condition.BACKUP_OLD, _WARN, "the newest backup is old"),
        (Condition.LOG_UNARCHIVED, _WARN, "the server cannot archive its log"),
        (Condition.CLOCK_APART, _WARN, "a bot's clock differs from ours"),
        (Condition.MONITOR_STALE, _WARN, "a monitor is silent: bots trade smaller"),
    )
}
