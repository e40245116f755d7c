"""Every metric that the source documents name: where it is here, or why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMetric:
    """A metric of a document, in its words, and the names in the catalogue that tell it.

    Where there is none, or it differs, `why` says so. `document` is the number of its file.
    """

    document: str
    quote: str
    here: tuple[str, ...] = ()
    why: str = ""


def _named(document: str, quote: str, *here: str, why: str = "") -> NamedMetric:
    return NamedMetric(document=document, quote=quote, here=here, why=why)


_DRIFT: Final = "liveops_drift_broken_checks"
_TIMES: Final = "liveops_http_request_duration_seconds"

NAMED: Final = (
    _named("001", "`pf_challenger_30`", "pf_challenger_30"),
    _named("001", "`dd_challenger_pct`", "dd_challenger_pct"),
    _named("001", "`encoder_kl_divergence`", "encoder_kl_divergence"),
    _named("001", "`gpu_util_pct`", "gpu_util_pct"),
    _named("001", "traffic_allocation = traffic_allocation", "traffic_allocation"),
    _named("001", "pf_150 >= pf_prod", "pf_150", "pf_prod"),
    _named("001", "dd_150 <= 3", "dd_150"),
    _named("002", ".health_status", "liveops_health_level"),
    _named("002", ".metrics.performance_guard_status", "liveops_performance_guard_state"),
    _named("002", ".metrics.open_positions", "open_positions"),
    _named(
        "003",
        "CPU/Memory utilization",
        *("liveops_gpu_busy_ratio", "liveops_gpu_memory_used_bytes"),
        why="of GPUs only; CPU and memory are the machine's, which Prometheus' node_exporter tells",
    ),
    _named("003", "Request rate", "liveops_http_requests_total"),
    _named("003", "Error rate", "liveops_http_requests_total", why="those of status `5xx`"),
    _named("003", "Latency (p50, p95, p99)", _TIMES),
    _named(
        "003",
        "Sharpe ratio (rolling 7d)",
        "liveops_arm_sharpe_ratio",
        why="of up to 365 days: seven returns tell nothing",
    ),
    _named(
        "003",
        "Daily PnL",
        "liveops_account_daily_loss_ratio",
        why="as a part of the equity; money is under `.portfolio.daily_pnl` of `/status`",
    ),
    _named("003", "Win rate", "liveops_arm_win_ratio"),
    _named("003", "Max drawdown", "liveops_account_drawdown_ratio", "liveops_arm_drawdown_ratio"),
    _named("003", "Open positions", "liveops_bot_open_positions"),
    _named(
        "003",
        "Order fill rate",
        why=(
            "bots place orders, and the ledger hears of what was closed; "
            "`liveops_arm_unreported_ratio` is the nearest"
        ),
    ),
    _named(
        "003",
        "Prediction accuracy",
        why=(
            "a policy's card has that of its making; live, `liveops_arm_win_ratio` and what it "
            "earns are told"
        ),
    ),
    _named("003", "Confidence distribution", _DRIFT, why="under `check=confidence`"),
    _named("003", "Feature drift (PSI)", "liveops_drift_features", _DRIFT),
    _named(
        "003",
        "Model version deployed",
        "liveops_arm_traffic_ratio",
        why="the label `policy` of the arm with the role `champion`",
    ),
    _named("003", "Data freshness", "liveops_candle_gap_seconds"),
    _named("003", "Feature completeness", _DRIFT, why="under `check=missing`"),
    _named(
        "003",
        "Pipeline success rate",
        *(
            "liveops_up",
            "liveops_notices_total",
            "liveops_data_failed",
            "liveops_job_last_run_failed",
        ),
        why="of scrapes, notices, the data pipeline and jobs",
    ),
    _named("003", "Processing latency", _TIMES),
    _named("003", "'error_rate': 0.01", "liveops_http_requests_total"),
    _named("003", "'latency_p99': 200", _TIMES, why="in seconds"),
    _named("004", "**bot_running**", "bot_running"),
    _named("004", "**api_connected**", "api_connected"),
    _named("004", "**trading_halted**", "trading_halted"),
    _named("004", "**last_heartbeat**", "liveops_bot_heartbeat_age_seconds", why="as its age"),
    _named("004", "**total_equity**", "total_equity"),
    _named(
        "004",
        "**daily_pnl**",
        "liveops_account_daily_loss_ratio",
        why="as a part of the equity; money is under `.portfolio.daily_pnl` of `/status`",
    ),
    _named("004", "**open_positions**", "open_positions"),
    _named("004", "**win_rate**", "liveops_arm_win_ratio", why="as a ratio"),
    _named("004", "**sharpe_ratio**", "liveops_arm_sharpe_ratio"),
    _named(
        "004",
        "**circuit_breaker_state**",
        *("liveops_breaker_state", "liveops_bot_breakers_open"),
        why="of the service each state, of bots how many are open",
    ),
    _named(
        "004",
        "**backup_count**",
        "liveops_backup_age_seconds",
        why="the age of the newest of each kind; `liveops backup list` counts them",
    ),
    _named("004", "**last_backup_time**", "liveops_backup_age_seconds", why="as an age"),
    _named("004", "drawdown > MAX_DRAWDOWN_LIMIT", "liveops_account_drawdown_ratio"),
)
