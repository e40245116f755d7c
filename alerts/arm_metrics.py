"""Metrics of an arm: traffic, standing, evidence, numbers and counts."""

from __future__ import annotations

from typing import Final

from alerts.metric import ARM, Alias, Metric, MetricKind

SERIES_MAX: Final = 40
"""Series of one arm at most: what Prometheus has to keep grows with arms, and not with metrics."""

# Without the role: a counter must not begin anew when a promotion changes it.
_COUNTED: Final = ("experiment", "policy")
_NO_VALUE: Final = "while the window has no trade or no loss: no value is ever made up"
_NO_GAP: Final = "for a policy without a trial that tells it, and below 30 trades in either"
_NO_NIGHT: Final = "for the champion, and until a night has looked at the arm"


def _few(*metrics: Metric) -> tuple[Metric, ...]:
    """Return the metrics, of which an arm may not have more than `SERIES_MAX` series.

    >>> _few(Metric(name="a", kind=MetricKind.GAUGE, unit="days", help="", each=41))
    Traceback (most recent call last):
    ValueError: an arm may have 40 series, these would be 41
    """
    n = sum(metric.each + len(metric.aliases) for metric in metrics)
    if n > SERIES_MAX:
        raise ValueError(f"an arm may have {SERIES_MAX} series, these would be {n}")
    return metrics


ARM_METRICS: Final = _few(
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
        help="1 for the status the arm has, 0 for the others but `retired`, which has no series.",
        labels=(*ARM, "status"),
        each=3,
    ),
    Metric(
        name="liveops_arm_rung",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="1 for the rung of the evidence ladder the arm is on, 0 for the others.",
        labels=(*ARM, "rung"),
        each=3,
        absent=_NO_NIGHT,
    ),
    Metric(
        name="liveops_arm_evidence",
        kind=MetricKind.GAUGE,
        unit="log e-value",
        help="What the arm's decisions prove about it beside the champion; 3 is one in twenty.",
        labels=(*ARM, "form"),
        each=3,
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
        each=2,
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
        each=3,
        absent=_NO_VALUE,
        aliases=(
            Alias(
                name="pf_challenger_30",
                unit="ratio",
                help=(
                    "Profit factor that the checklist judges: of the last 30 trades by default, "
                    "since the arm was last resumed; none of fewer. Challengers."
                ),
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
        help=(
            "Deepest fall of closed equity at nominal size within the last `window` trades: the "
            "long window's, or all."
        ),
        labels=(*ARM, "window"),
        each=2,
        aliases=(
            Alias(
                name="dd_challenger_pct",
                unit="percent",
                help=(
                    "Drawdown that the checklist judges: of the long window, since the arm was "
                    "last resumed. Challengers."
                ),
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
        each=3,
        absent="for a policy without a trial that tells it, and without a trade in either",
    ),
    Metric(
        name="liveops_arm_backtest_worse",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether that whole interval says that live trades are worse than the backtest's.",
        labels=(*ARM, "what"),
        each=3,
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
        name="liveops_arm_sharpe_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Sharpe ratio of the arm's daily equity, annualised by 365 days.",
        labels=ARM,
        absent="while its days are too few, or all alike",
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
