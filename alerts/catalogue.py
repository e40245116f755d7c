"""The one catalogue of metrics: whatever `/metrics` exposes, and nothing else.

Run `python -m alerts.catalogue` after changing it; a test compares docs/metrics.md with a fresh
render.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

ARM: Final = ("experiment", "policy", "role")
"""Labels of an arm's gauges, and of an alias that says no others."""

ARTIFACT: Final = ("artifact",)
"""The label of what is known of a stored artefact: its content hash."""

GPU: Final = ("gpu", "model")
"""Labels of a GPU of the machine that serves: its number there, and its model."""

BOT: Final = ("bot",)
"""The label of what a bot says of itself: its name."""

GUARD: Final = ("scope", "name")
"""Labels of a performance guard: whether of an account or an experiment, and of which."""

_PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


class MetricKind(StrEnum):
    """How a metric moves."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name of the source documents for one reading of a metric; `unit` may be another."""

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ARM


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: what it says, in which unit, under which labels, and when it is absent."""

    name: str
    kind: MetricKind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    absent: str = "while the ledger does not answer"
    aliases: tuple[Alias, ...] = ()


# Without the role: a counter must not begin anew when a promotion changes it.
_COUNTED: Final = ("experiment", "policy")

_NO_BOT: Final = "for a bot that was never heard, or was forgotten"
_NO_VALUE: Final = "while the window has no trade or no loss: no value is ever made up"
_NO_GAP: Final = "for a policy without a trial that tells it, and below 30 trades in either"
_NO_CHECK: Final = "for an artefact that was not checked within 30 days, or as one of the last 20"
_NO_KL: Final = _NO_CHECK + "; where the encoder was not checked, or could not be"
_NO_GPU: Final = (
    "without a GPU and its driver, for what it does not tell, and a minute after it did"
)

_NO_GUARD: Final = "for a guard that is off, and while the ledger does not answer"
_NO_NIGHT: Final = "for the champion, and until a night has looked at the arm"

CATALOGUE: Final = (
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
        help="Whether an account is killed, this host's latch is set, or the guard has paused.",
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
    Metric(
        name="liveops_drift_encoder_kl",
        kind=MetricKind.GAUGE,
        unit="nats",
        help=(
            "How far the encoder's embeddings lie from those of training; `part` is `calibrated` "
            "(`raw` less `null_median`), `raw`, `null_median`, `null_p99`, or the `limit` of the "
            "calibrated one."
        ),
        labels=(*ARTIFACT, "part"),
        absent=_NO_KL,
        aliases=(
            Alias(
                name="encoder_kl_divergence",
                unit="nats",
                help="The calibrated KL divergence of the encoder's embeddings from training.",
                labels=ARTIFACT,
            ),
        ),
    ),
    Metric(
        name="liveops_drift_encoder_rows_effective",
        kind=MetricKind.GAUGE,
        unit="rows",
        help="How many independent rows the checked embeddings are worth.",
        labels=ARTIFACT,
        absent=_NO_KL,
    ),
    Metric(
        name="liveops_drift_features",
        kind=MetricKind.GAUGE,
        unit="features",
        help="Features of which a check broke its limit: PSI, KS, missing or out of range.",
        labels=ARTIFACT,
        absent=_NO_CHECK,
    ),
    Metric(
        name="liveops_drift_verdicts",
        kind=MetricKind.GAUGE,
        unit="checks",
        help="Drift checks of the newest run, by `verdict`.",
        labels=(*ARTIFACT, "verdict"),
        absent=_NO_CHECK,
    ),
    Metric(
        name="liveops_drift_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since the artefact was last checked for drift.",
        labels=ARTIFACT,
        absent=_NO_CHECK,
    ),
    Metric(
        name="liveops_gpu_busy_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Part of the last moments in which the GPU worked at anything.",
        labels=GPU,
        absent=_NO_GPU,
        aliases=(
            Alias(
                name="gpu_util_pct",
                unit="percent",
                help="How busy the GPU is.",
                labels=GPU,
            ),
        ),
    ),
    Metric(
        name="liveops_gpu_memory_used_bytes",
        kind=MetricKind.GAUGE,
        unit="bytes",
        help="Memory of the GPU that is in use.",
        labels=GPU,
        absent=_NO_GPU,
    ),
    Metric(
        name="liveops_gpu_memory_bytes",
        kind=MetricKind.GAUGE,
        unit="bytes",
        help="Memory that the GPU has.",
        labels=GPU,
        absent=_NO_GPU,
    ),
    Metric(
        name="liveops_gpu_temperature_celsius",
        kind=MetricKind.GAUGE,
        unit="degrees Celsius",
        help="Temperature of the GPU's die.",
        labels=GPU,
        absent=_NO_GPU,
    ),
    Metric(
        name="liveops_arm_traffic_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Part of the order flow that is routed to the arm.",
        labels=ARM,
        aliases=(
            Alias(
                name="traffic_allocation",
                unit="ratio",
                help="Part of the order flow that is routed to the arm.",
            ),
        ),
    ),
    Metric(
        name="liveops_arm_status",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="1 for the status the arm has, 0 for the others.",
        labels=(*ARM, "status"),
    ),
    Metric(
        name="liveops_arm_rung",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="1 for the rung of the evidence ladder the arm is on, 0 for the others.",
        labels=(*ARM, "rung"),
        absent=_NO_NIGHT,
    ),
    Metric(
        name="liveops_arm_evidence",
        kind=MetricKind.GAUGE,
        unit="log e-value",
        help="What the arm's decisions prove about it beside the champion; 3 is one in twenty.",
        labels=(*ARM, "form"),
        absent=_NO_NIGHT,
    ),
    Metric(
        name="liveops_arm_decay_days",
        kind=MetricKind.GAUGE,
        unit="days",
        help=(
            "How rarely the arm (`of` is `arm`), or the champion beside this hold-out of it, would "
            "by chance seem to earn less than it did as much as it does: once in so many days."
        ),
        labels=(*ARM, "of"),
        absent=_NO_NIGHT + "; `champion` for an arm that never was the champion",
    ),
    Metric(
        name="liveops_arm_unreported_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help=(
            "Part of the decisions claimed within 30 days that ended without an outcome, or opened "
            "too late, as of the newest night."
        ),
        labels=ARM,
        absent="while none of them is past its attribution window, and until the first night",
    ),
    Metric(
        name="liveops_arm_profit_factor",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Gross profit over gross loss of the last `window` trades at nominal size.",
        labels=(*ARM, "window"),
        absent=_NO_VALUE,
        aliases=(
            Alias(
                name="pf_challenger_30",
                unit="ratio",
                help="Profit factor of the checklist's window, 30 trades by default; challengers.",
            ),
            Alias(
                name="pf_150",
                unit="ratio",
                help="Profit factor of the long window, 150 trades by default.",
            ),
        ),
    ),
    Metric(
        name="liveops_arm_champion_profit_factor",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="The champion's profit factor over a challenger's own window and instruments.",
        labels=ARM,
        absent=_NO_VALUE,
        aliases=(
            Alias(
                name="pf_prod",
                unit="ratio",
                help="The champion's profit factor over a challenger's own window and instruments.",
            ),
        ),
    ),
    Metric(
        name="liveops_arm_drawdown_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Deepest fall of closed equity at nominal size within the last `window` trades.",
        labels=(*ARM, "window"),
        aliases=(
            Alias(
                name="dd_challenger_pct",
                unit="percent",
                help="Drawdown the checklist halts at, of the long window; challengers.",
            ),
            Alias(
                name="dd_150",
                unit="percent",
                help="Drawdown of the long window, 150 trades by default.",
            ),
        ),
    ),
    Metric(
        name="liveops_arm_backtest_gap_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help=(
            "The newest 300 live trades less those of the policy's backtest; `what` is "
            "`return_mean`, `win_rate` or `slippage`."
        ),
        labels=(*ARM, "what"),
        absent="for a policy without a trial that tells it, and without a trade in either",
    ),
    Metric(
        name="liveops_arm_backtest_gap_low_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Lower end of the gap's 95 % interval.",
        labels=(*ARM, "what"),
        absent=_NO_GAP,
    ),
    Metric(
        name="liveops_arm_backtest_gap_high_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Upper end of the gap's 95 % interval.",
        labels=(*ARM, "what"),
        absent=_NO_GAP,
    ),
    Metric(
        name="liveops_arm_backtest_worse",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether that whole interval says that live trades are worse than the backtest's.",
        labels=(*ARM, "what"),
        absent=_NO_GAP,
    ),
    Metric(
        name="liveops_arm_win_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Part of all trades that won.",
        labels=ARM,
        absent="while the arm has no trade",
    ),
    Metric(
        name="liveops_arm_losing_streak",
        kind=MetricKind.GAUGE,
        unit="trades",
        help="Losing trades in a row up to the newest.",
        labels=ARM,
    ),
    Metric(
        name="liveops_arm_pnl",
        kind=MetricKind.GAUGE,
        unit="the experiment's currency",
        help="Net money the arm has earned.",
        labels=ARM,
    ),
    Metric(
        name="liveops_arm_outcomes_total",
        kind=MetricKind.COUNTER,
        unit="outcomes",
        help="Outcomes recorded, declined opportunities included.",
        labels=_COUNTED,
    ),
    Metric(
        name="liveops_arm_trades_total",
        kind=MetricKind.COUNTER,
        unit="trades",
        help="Closed trades recorded.",
        labels=_COUNTED,
    ),
    Metric(
        name="liveops_arm_losses_total",
        kind=MetricKind.COUNTER,
        unit="trades",
        help="Closed trades that lost.",
        labels=_COUNTED,
    ),
    Metric(
        name="liveops_arm_expired_outcomes_total",
        kind=MetricKind.COUNTER,
        unit="outcomes",
        help="Outcomes of positions that were opened after their decision had expired.",
        labels=_COUNTED,
    ),
    Metric(
        name="liveops_arm_unclaimed_outcomes_total",
        kind=MetricKind.COUNTER,
        unit="outcomes",
        help="Outcomes of positions that were opened without claiming their decision.",
        labels=_COUNTED,
    ),
)


def render_page() -> str:
    """Return docs/metrics.md."""
    head = """\
# Metrics

<!-- Generated by `python -m alerts.catalogue`; do not edit. -->

`GET /metrics` exposes exactly these, for every arm that is not retired. A value that does not exist
is a series that does not exist, never NaN, 0 or Infinity. `window` is a number of trades or `all`;
the two windows are settings (`checklist.pf_window`, `checklist.long_window`). What is shown is at
most two seconds old.

| metric | kind | unit | labels | meaning | absent |
|---|---|---|---|---|---|
"""
    rows = [
        f"| `{m.name}` | {m.kind} | {m.unit} | {_listed(m.labels)} | {m.help} | {m.absent} |"
        for m in CATALOGUE
    ]
    names = """\

## Names of the source documents

The same readings under the names that the documents' alerts, dashboards and queries use.

| name | unit | labels | meaning | the same as |
|---|---|---|---|---|
"""
    aliases = [
        f"| `{alias.name}` | {alias.unit} | {_listed(alias.labels)} | {alias.help} | `{m.name}` |"
        for m in CATALOGUE
        for alias in m.aliases
    ]
    return head + "\n".join(rows) + "\n" + names + "\n".join(aliases) + "\n"


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(f"`{label}`" for label in labels) or "none"


if __name__ == "__main__":
    _PAGE.write_text(render_page(), encoding="utf-8")
