"""Metrics of the service, its bots, accounts, guards and experiments."""

from __future__ import annotations

from typing import Final

from alerts.metric import BOT, GUARD, Alias, Metric, MetricKind

_NO_BOT: Final = "for a bot that was never heard, or was forgotten"
_NO_GUARD: Final = "for a guard that is off, and while the ledger does not answer"

SERVICE_METRICS: Final = (
    Metric(
        name="liveops_up",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether the ledger answered this scrape.",
        absent="never",
    ),
    Metric(
        name="liveops_audit_unsealed_rows",
        kind=MetricKind.GAUGE,
        unit="rows",
        help="Audit rows that wait to be sealed; the sealer of a running service leaves none.",
    ),
    Metric(
        name="liveops_statistics_mismatches",
        kind=MetricKind.GAUGE,
        unit="columns",
        help="Stored statistics that differed from the outcomes behind them when last compared.",
        absent="before the first nightly comparison, and while the ledger does not answer",
    ),
    Metric(
        name="liveops_health_level",
        kind=MetricKind.GAUGE,
        unit="0 to 2",
        help="0 HEALTHY, 1 DEGRADED, 2 UNHEALTHY, as docs/health.md has it.",
    ),
    Metric(
        name="liveops_trading_halted",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether an account is killed or blocked, the latch is set, or the guard has paused.",
        aliases=(
            Alias(
                name="trading_halted",
                unit="0 or 1",
                help="Whether trading is halted anywhere.",
                labels=(),
            ),
        ),
    ),
    Metric(
        name="liveops_close_orders_pending",
        kind=MetricKind.GAUGE,
        unit="positions",
        help="Positions that a `close-all` is to close and whose outcome is not recorded yet.",
    ),
    Metric(
        name="liveops_alert_notices_total",
        kind=MetricKind.COUNTER,
        unit="alerts",
        help=(
            "Alerts that Alertmanager sent, repeated ones included, by what was done about each; "
            "`truncated` are those cut off from a payload."
        ),
        labels=("result",),
    ),
    Metric(
        name="liveops_bot_running",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether the bot's newest heartbeat says that it runs; a silent one says nothing new.",
        labels=BOT,
        absent=_NO_BOT,
        aliases=(
            Alias(
                name="bot_running",
                unit="0 or 1",
                help="Whether the bot's newest heartbeat says that it runs.",
                labels=BOT,
            ),
        ),
    ),
    Metric(
        name="liveops_bot_api_connected",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether the bot's newest heartbeat says that it reaches its exchange.",
        labels=BOT,
        absent=_NO_BOT,
        aliases=(
            Alias(
                name="api_connected",
                unit="0 or 1",
                help="Whether the bot's newest heartbeat says that it reaches its exchange.",
                labels=BOT,
            ),
        ),
    ),
    Metric(
        name="liveops_bot_heartbeat_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since the bot's newest heartbeat was heard.",
        labels=BOT,
        absent=_NO_BOT,
    ),
    Metric(
        name="liveops_bot_api_errors",
        kind=MetricKind.GAUGE,
        unit="errors",
        help="API errors that the bot told of in `operations.api_error_window_minutes`.",
        labels=BOT,
        absent=_NO_BOT,
    ),
    Metric(
        name="liveops_bot_breakers_open",
        kind=MetricKind.GAUGE,
        unit="breakers",
        help="Circuit breakers of the bot that are open.",
        labels=BOT,
        absent=_NO_BOT,
    ),
    Metric(
        name="liveops_bot_open_positions",
        kind=MetricKind.GAUGE,
        unit="positions",
        help="Open positions as the bot tells.",
        labels=BOT,
        absent=_NO_BOT,
        aliases=(
            Alias(
                name="open_positions",
                unit="positions",
                help="Open positions as the bot tells.",
                labels=BOT,
            ),
        ),
    ),
    Metric(
        name="liveops_candle_gap_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="For how long the next candle has been due, at the running bot that waits longest.",
        labels=("symbol",),
        absent="for a symbol that no running bot tells of; of more than 64, the longest are told",
    ),
    Metric(
        name="liveops_monitor_pulse_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since the monitor of the experiment said last that it sees.",
        labels=("experiment",),
        absent="where no monitor was begun, or a person ended it",
    ),
    Metric(
        name="liveops_trade_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help=(
            "Time since the newest trade, at the running bot that has waited longest; of the "
            "ledger's newest where no bot tells of one."
        ),
        absent="before the first trade where no bot runs, and while the ledger does not answer",
    ),
    Metric(
        name="liveops_account_equity",
        kind=MetricKind.GAUGE,
        unit="the account's currency",
        help="Capital with everything earned, open positions at their newest mark.",
        labels=("account",),
        aliases=(
            Alias(
                name="total_equity",
                unit="the account's currency",
                help="Capital with everything earned, open positions at their newest mark.",
                labels=("account",),
            ),
        ),
    ),
    Metric(
        name="liveops_account_drawdown_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="How far the equity stands under its peak; what the drawdown limits read.",
        labels=("account",),
    ),
    Metric(
        name="liveops_account_daily_loss_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="What the UTC day has lost of the equity it began with; 0 when it has gained.",
        labels=("account",),
    ),
    Metric(
        name="liveops_account_killed",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether the account's kill switch is on: nothing is decided until it is released.",
        labels=("account",),
    ),
    Metric(
        name="liveops_account_reconciled",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether bots and ledger agree on the account's positions and balance.",
        labels=("account",),
        absent="while no bot told anything that can be compared, or the ledger does not answer",
    ),
    Metric(
        name="liveops_performance_guard_state",
        kind=MetricKind.GAUGE,
        unit="0, 1 or 2",
        help=(
            "State of a performance guard: 0 NORMAL, 1 REDUCED, 2 PAUSED. `scope` is `account` or "
            "`experiment`, `name` which; a decision follows the stricter of its two."
        ),
        labels=GUARD,
        absent=_NO_GUARD,
    ),
    Metric(
        name="liveops_performance_guard_win_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Win rate of a guard's window.",
        labels=GUARD,
        absent=f"{_NO_GUARD}; while its trades are too few to tell",
    ),
    Metric(
        name="liveops_performance_guard_drawdown_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Largest fall within a guard's window, from a running peak.",
        labels=GUARD,
        absent=_NO_GUARD,
    ),
    Metric(
        name="liveops_performance_guard_losing_streak",
        kind=MetricKind.GAUGE,
        unit="trades",
        help="Losses in a row that ended last, in the order in which they arrived.",
        labels=GUARD,
        absent=_NO_GUARD,
    ),
    Metric(
        name="liveops_performance_guard_trades",
        kind=MetricKind.GAUGE,
        unit="trades",
        help="Trades since a guard's state was entered.",
        labels=GUARD,
        absent=_NO_GUARD,
    ),
    Metric(
        name="liveops_allocation_version",
        kind=MetricKind.GAUGE,
        unit="version",
        help="Version of the allocation in force.",
        labels=("experiment",),
    ),
    Metric(
        name="liveops_exploration_used_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Part of the exploration budget that is spent or set aside for open decisions.",
        labels=("experiment",),
        absent="without a budget, and while the ledger does not answer",
    ),
    Metric(
        name="liveops_exploration_room",
        kind=MetricKind.GAUGE,
        unit="decisions",
        help="Decisions that challengers may take before any outcome comes in; 0: champion only.",
        labels=("experiment",),
        absent="without a budget, and while the ledger does not answer",
    ),
    Metric(
        name="liveops_experiment_epoch",
        kind=MetricKind.GAUGE,
        unit="epoch",
        help="Rises with every change of which arms may get traffic.",
        labels=("experiment",),
    ),
    Metric(
        name="liveops_experiment_draw_mismatch",
        kind=MetricKind.GAUGE,
        unit="log e-value",
        help=(
            "How strongly the units of 30 days say that arms are not drawn as allocated; the "
            "report fails it above 6.9, one in a thousand."
        ),
        labels=("experiment",),
        absent="until a night has seen units",
    ),
)
