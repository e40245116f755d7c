"""Alerts about trading bots: whether they run, reach their exchange, see candles, and trade."""

from __future__ import annotations

from typing import Final

from alerts.limits import AlertLimits
from alerts.rule import (
    VALUE,
    AlertRule,
    Component,
    Drill,
    Recording,
    Severity,
    Source,
    Take,
    duration,
    number,
)

_BOT: Final = ("bot",)
_WHO: Final = "Bot {{ $labels.bot }}"
_LABELS: Final = {"bot": "alpha"}
_AT: Final = '{bot="alpha"}'
_HEARTBEAT: Final = "BotSilent: a bot that was heard once has a series until it is forgotten"
_OWN_LIMIT: Final = "the limit is a time or a window itself"

_RUNS: Final = Recording(of="liveops_bot_running", by=_BOT, take=Take.LOWEST)
_SILENCE: Final = Recording(of="liveops_bot_heartbeat_age_seconds", by=_BOT, take=Take.HIGHEST)
_CONNECTED: Final = Recording(of="liveops_bot_api_connected", by=_BOT, take=Take.NEWEST_LOWEST)
_BREAKERS: Final = Recording(of="liveops_bot_breakers_open", by=_BOT, take=Take.NEWEST_HIGHEST)
_ERRORS: Final = Recording(of="liveops_bot_api_errors", by=_BOT, take=Take.HIGHEST)
_GAP: Final = Recording(of="liveops_candle_gap_seconds", by=("symbol",), take=Take.HIGHEST)
_TRADE: Final = Recording(of="liveops_trade_age_seconds", take=Take.HIGHEST)


def bot_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about bots."""
    return (
        _stopped(),
        _silent(limits),
        _disconnected(limits),
        _breaker_open(limits),
        _errors_high(limits),
        _feed_stalled(limits),
        _no_trades(limits),
    )


def _stopped() -> AlertRule:
    series = f"liveops_bot_running{_AT}"
    return AlertRule(
        name="BotStopped",
        component=Component.BOT,
        severity=Severity.CRITICAL,
        reads=(_RUNS,),
        expression=f"{_RUNS} == 0",
        threshold="its newest heartbeat says that it does not run",
        at_once="document 004 gives no time",
        summary="A bot has stopped.",
        description=f"{_WHO} says that it does not run.",
        sources=(Source(document="004", quote="- bot_running == 0"),),
        pair=_HEARTBEAT,
        drill=Drill(
            wrong={series: "0"},
            right={series: "1"},
            labels=_LABELS,
            description="Bot alpha says that it does not run.",
        ),
    )


def _silent(limits: AlertLimits) -> AlertRule:
    seconds = limits.heartbeat.total_seconds()
    series = f"liveops_bot_heartbeat_age_seconds{_AT}"
    return AlertRule(
        name="BotSilent",
        component=Component.BOT,
        severity=Severity.CRITICAL,
        reads=(_SILENCE,),
        expression=f"{_SILENCE} > {number(seconds)}",
        threshold=f"no heartbeat for > {number(seconds)} s",
        at_once=_OWN_LIMIT,
        summary="A bot's heartbeat is overdue.",
        description=f"{_WHO} was last heard {VALUE} s ago.",
        sources=(Source(document="004", quote="**last_heartbeat**: Should be < 120 seconds ago"),),
        pair="LedgerUnavailable; a bot that was forgotten has no series",
        drill=Drill(
            wrong={series: number(seconds + 1)},
            right={series: number(seconds)},
            labels=_LABELS,
            description=f"Bot alpha was last heard {seconds + 1:.4g} s ago.",
        ),
    )


def _disconnected(limits: AlertLimits) -> AlertRule:
    series = f"liveops_bot_api_connected{_AT}"
    return AlertRule(
        name="APIDisconnected",
        component=Component.BOT,
        severity=Severity.CRITICAL,
        reads=(_CONNECTED,),
        expression=f"{_CONNECTED} == 0",
        threshold="its newest heartbeat says that it does not reach its exchange",
        wait=limits.disconnected_wait,
        at_once="the setting says so",
        summary="A bot is not connected to its exchange.",
        description=f"{_WHO} does not reach its exchange.",
        sources=(Source(document="004", quote="- api_connected == 0 for > 5 minutes"),),
        setting="alert_rules.disconnected_minutes",
        pair=_HEARTBEAT,
        drill=Drill(
            wrong={series: "0"},
            right={series: "1"},
            labels=_LABELS,
            description="Bot alpha does not reach its exchange.",
            holds=False,
        ),
    )


def _breaker_open(limits: AlertLimits) -> AlertRule:
    series = f"liveops_bot_breakers_open{_AT}"
    return AlertRule(
        name="CircuitBreakerOpen",
        component=Component.BOT,
        severity=Severity.CRITICAL,
        reads=(_BREAKERS,),
        expression=f"{_BREAKERS} > 0",
        threshold="a breaker of the bot is open",
        wait=limits.breaker_wait,
        at_once="document 003 gives no time",
        summary="A circuit breaker of a bot is open.",
        description=f"{_WHO} has {VALUE} circuit breakers open.",
        sources=(
            Source(document="003", quote="- Circuit breaker open"),
            Source(document="004", quote="- circuit_breaker_state == 'open' for > 10 minutes"),
        ),
        choice="003: at once is stricter than 004's 10 minutes",
        setting="alert_rules.breaker_open_minutes",
        pair=_HEARTBEAT,
        drill=Drill(
            wrong={series: "1"},
            right={series: "0"},
            labels=_LABELS,
            description="Bot alpha has 1 circuit breakers open.",
            holds=False,
        ),
    )


def _errors_high(limits: AlertLimits) -> AlertRule:
    limit, window = limits.api_errors, duration(limits.api_error_window)
    series = f"liveops_bot_api_errors{_AT}"
    return AlertRule(
        name="APIErrorRateHigh",
        component=Component.BOT,
        severity=Severity.WARNING,
        reads=(_ERRORS,),
        expression=f"{_ERRORS} > {limit}",
        threshold=f"> {limit} API errors in {window}",
        at_once=_OWN_LIMIT,
        summary="A bot has too many API errors.",
        description=f"{_WHO} had {VALUE} API errors in {window}, more than {limit}.",
        sources=(
            Source(document="000", quote="- High API error rate (> 5 errors in 10 minutes)"),
            Source(document="001", quote="**APIErrorRateHigh**: High error rate"),
            Source(document="002", quote="- API error rate (> 5 errors in 10 minutes)"),
        ),
        choice="001 calls it a warning; as it makes health UNHEALTHY, HealthUnhealthy is critical",
        setting="operations.max_api_errors, operations.api_error_window_minutes",
        pair=_HEARTBEAT,
        drill=Drill(
            wrong={series: str(limit + 1)},
            right={series: str(limit)},
            labels=_LABELS,
            description=f"Bot alpha had {limit + 1} API errors in {window}, more than {limit}.",
        ),
    )


def _feed_stalled(limits: AlertLimits) -> AlertRule:
    seconds = limits.candle_gap.total_seconds()
    series = 'liveops_candle_gap_seconds{symbol="BTCUSDT"}'
    told = duration(limits.candle_gap)
    return AlertRule(
        name="DataFeedStalled",
        component=Component.BOT,
        severity=Severity.CRITICAL,
        reads=(_GAP,),
        expression=f"{_GAP} > {number(seconds)}",
        threshold=f"a candle is due for > {told}",
        at_once=_OWN_LIMIT,
        summary="A symbol has had no candle for too long.",
        description=(
            f"The next candle of {{{{ $labels.symbol }}}} is due for {VALUE} s, longer than {told}."
        ),
        sources=(
            Source(document="000", quote="- Data feed stalled (no candles for > 15 minutes)"),
            Source(document="002", quote="- Data feed status (no candles for > 15 minutes)"),
        ),
        setting="operations.max_candle_gap_minutes",
        pair="BotStopped, BotSilent: a symbol that no running bot tells of has no series",
        drill=Drill(
            wrong={series: number(seconds + 1)},
            right={series: number(seconds)},
            labels={"symbol": "BTCUSDT"},
            description=(
                f"The next candle of BTCUSDT is due for {seconds + 1:.4g} s, longer than {told}."
            ),
        ),
    )


def _no_trades(limits: AlertLimits) -> AlertRule:
    seconds, told = limits.no_trade.total_seconds(), duration(limits.no_trade)
    return AlertRule(
        name="NoTrades",
        component=Component.BOT,
        severity=Severity.WARNING,
        reads=(_TRADE,),
        expression=f"{_TRADE} > {number(seconds)}",
        threshold=f"no trade for > {told}",
        at_once=_OWN_LIMIT,
        summary="Nothing has been traded for long.",
        description="The newest trade was {{ $value | humanizeDuration }} ago.",
        sources=(
            Source(document="000", quote="- No trades for extended period (> 7 days"),
            Source(document="002", quote="- Trading activity (no trades for > 7 days)"),
        ),
        setting="operations.max_no_trade_hours",
        pair="BotSilent, LedgerUnavailable; before the first trade there is no age",
        drill=Drill(
            wrong={"liveops_trade_age_seconds": number(seconds + 1)},
            right={"liveops_trade_age_seconds": number(seconds)},
            description=f"The newest trade was {_told_in_days(seconds + 1)} ago.",
        ),
    )


def _told_in_days(seconds: float) -> str:
    """Return a time as Prometheus' humanizeDuration does.

    >>> _told_in_days(604801)
    '7d 0h 0m 1s'
    """
    whole = int(seconds)
    parts = [f"{whole // 3600 % 24}h", f"{whole // 60 % 60}m", f"{whole % 60}s"]
    days = whole // 86_400
    if days:
        return " ".join([f"{days}d", *parts])
    return " ".join(parts if whole >= 3600 else parts[1:])
