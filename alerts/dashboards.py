"""The dashboards of the product: what a desk looks at, and what alerts lead to."""

from __future__ import annotations

from typing import Final

from alerts.dashboard import (
    Dashboard,
    Panel,
    PanelKind,
    Query,
    Row,
    meaning,
    reading,
    shown,
    state,
)
from alerts.http_metrics import LATENCY_LIMIT
from alerts.limits import AlertLimits
from alerts.model_dashboard import model_dashboard
from alerts.trading_dashboard import trading_dashboard

_STAT: Final = PanelKind.STAT
_HEALTH: Final = {0: "HEALTHY", 1: "DEGRADED", 2: "UNHEALTHY"}
_ALERTS: Final = '{component!="", alertname!="Watchdog"}'


def dashboards(limits: AlertLimits) -> tuple[Dashboard, ...]:
    """Return every dashboard, red where `limits` alert.

    >>> [each.uid for each in dashboards(AlertLimits())][:2]
    ['liveops-main', 'liveops-system']
    """
    return (
        _main(limits),
        _system(limits),
        trading_dashboard(limits),
        model_dashboard(limits),
        _pipeline(limits),
    )


def _main(limits: AlertLimits) -> Dashboard:
    now = (
        shown("Health", "liveops_health_level", kind=_STAT, states=_HEALTH, red_above=1),
        shown("Trading halted", "liveops_trading_halted", kind=_STAT, red_above=1),
        shown("Equity", "liveops_account_equity", red_below=limits.balance),
        shown("Drawdown", "liveops_account_drawdown_ratio", red_above=limits.drawdown),
        shown("Traffic of each arm", "liveops_arm_traffic_ratio"),
        shown(
            "Profit factor of challengers beside the champion",
            *("pf_challenger_30", "pf_prod"),
            unit="none",
            red_below=limits.profit_factor,
        ),
        shown("Drawdown of challengers", "dd_challenger_pct", red_above=limits.drawdown_percent),
    )
    return Dashboard(
        name="main",
        description="Whether all is well, what was missed, and who earns what.",
        rows=(Row(title="Service levels", panels=_levels(limits)), Row(title="Now", panels=now)),
    )


def _levels(limits: AlertLimits) -> tuple[Panel, ...]:
    return (
        _answered(),
        _delivered(),
        shown(
            "Time to detect: since the monitor last saw",
            "liveops_monitor_pulse_age_seconds",
        ),
        shown(
            "Time to detect: since bots were heard",
            "liveops_bot_heartbeat_age_seconds",
            red_above=limits.heartbeat.total_seconds(),
        ),
        Panel(
            title="Time to resolve: oldest alert",
            queries=(
                Query(
                    expression=f"max (time() - ALERTS_FOR_STATE{_ALERTS}) or vector(0)",
                    legend="oldest alert",
                ),
            ),
            unit="s",
            description=(
                "For how long the oldest alert of this product that is still there has been there; "
                "0 where there is none. Watchdog, which always fires, is left out."
            ),
        ),
        Panel(
            title="Alerts that fire",
            queries=(
                Query(
                    expression=(
                        "sum by (severity) "
                        f'(ALERTS{{alertstate="firing", {_ALERTS[1:]}) or vector(0)'
                    ),
                    legend="{{severity}}",
                ),
            ),
            unit="suffix: alerts",
            description="Alerts of this product that fire now, by severity; 0 where none does.",
        ),
        shown("Roll back: positions still to be closed", "liveops_close_orders_pending"),
    )


def _answered() -> Panel:
    return Panel(
        title="Pipeline success: scrapes that the ledger answered, last day",
        queries=(
            Query(
                expression='min (avg_over_time(liveops_up{job=~"$job"}[1d]))',
                legend="answered",
            ),
        ),
        unit="percentunit",
        description=(
            "Part of the last day's scrapes that the ledger answered, at the replica that did "
            "worst; one that was not reached is told of by the system dashboard."
        ),
        kind=_STAT,
        red_below=0.99,
    )


def _delivered() -> Panel:
    read = 'liveops_notices_total{job=~"$job"'
    return Panel(
        title="Pipeline success: notices that were delivered",
        queries=(
            Query(
                expression=f'sum ({read}, state!="given_up"}}) / sum ({read}}})',
                legend="delivered",
            ),
        ),
        unit="percentunit",
        description=(
            "Part of all ended notices that were sent, alone or with others; the rest was given "
            "up. Nothing is shown before the first notice, and while the ledger does not answer."
        ),
        kind=_STAT,
        red_below=0.99,
    )


def _since_done() -> Panel:
    name = "liveops_job_last_success_timestamp_seconds"
    expression = f"time() - {reading(name)}"
    return Panel(
        title="Since jobs were done",
        queries=(Query(expression=expression, legend="{{name}}"),),
        unit="s",
        description=meaning(name),
    )


def _replicas() -> Panel:
    return Panel(
        title="Replicas",
        queries=(Query(expression='min by (instance) (up{job=~"$job"})', legend="{{instance}}"),),
        unit="bool_yes_no",
        description="Whether Prometheus reaches each replica of the service.",
        red_below=1,
    )


def _latency() -> Panel:
    buckets = 'liveops_http_request_duration_seconds_bucket{job=~"$job"}'
    rate = f"sum by (route, le) (rate({buckets}[$__rate_interval]))"
    return Panel(
        title="Slowest of 100 requests",
        queries=(Query(expression=f"histogram_quantile(0.99, {rate})", legend="{{route}}"),),
        unit="s",
        description=(
            "Within which time 99 of 100 requests were answered, of all replicas, by what they "
            "were for. Nothing is shown where nothing was asked."
        ),
        red_above=LATENCY_LIMIT,
    )


def _system(limits: AlertLimits) -> Dashboard:
    service = (
        _replicas(),
        shown("Ledger answers", "liveops_up", own=True, red_below=1),
        shown("Health", "liveops_health_level", states=_HEALTH, red_above=1),
        _latency(),
        shown("Requests", "liveops_http_requests_total", own=True),
        shown("Age of what is told of the ledger", "liveops_reading_age_seconds", own=True),
        shown("Audit rows not sealed", "liveops_audit_unsealed_rows"),
        shown("Statistics that differ", "liveops_statistics_mismatches", red_above=1),
    )
    seconds = limits.heartbeat.total_seconds()
    bots = (
        shown("Bots that run", "liveops_bot_running", red_below=1),
        shown("Since bots were heard", "liveops_bot_heartbeat_age_seconds", red_above=seconds),
        shown("Bots that reach their exchange", "liveops_bot_api_connected", red_below=1),
        shown("API errors of bots", "liveops_bot_api_errors", red_above=limits.api_errors),
        shown("Open breakers of bots", "liveops_bot_breakers_open", red_above=1),
        shown("Open positions of bots", "liveops_bot_open_positions"),
        shown(
            "Candles that are due",
            "liveops_candle_gap_seconds",
            red_above=limits.candle_gap.total_seconds(),
        ),
        shown(
            "Since the newest trade",
            "liveops_trade_age_seconds",
            red_above=limits.no_trade.total_seconds(),
        ),
    )
    return Dashboard(
        name="system",
        description="The service, its ledger, what is kept of it, and the bots that report to it.",
        rows=(
            Row(title="Service", panels=service),
            Row(title="Bots", panels=bots),
            Row(title="Backups", panels=_backups(limits)),
            Row(title="Snapshots", panels=_snapshots(limits)),
        ),
    )


def _backups(limits: AlertLimits) -> tuple[Panel, ...]:
    return (
        shown("Since the newest backup", "liveops_backup_age_seconds"),
        shown(
            "Since a restore was exercised",
            "liveops_restore_drill_age_seconds",
            red_above=limits.drill.total_seconds(),
        ),
        shown("Age of what it restored", "liveops_restore_drill_rpo_seconds"),
        shown("How long it took", "liveops_restore_drill_rto_seconds"),
    )


def _snapshots(limits: AlertLimits) -> tuple[Panel, ...]:
    return (
        shown(
            "Since the newest snapshot",
            "liveops_snapshot_age_seconds",
            red_above=limits.snapshot_age.total_seconds(),
        ),
        shown("Snapshots that wait for the bucket", "liveops_snapshot_pending_uploads"),
        shown("Damaged snapshots", "liveops_snapshots_damaged", red_above=1),
        shown("Size of the newest snapshot", "liveops_snapshot_bytes"),
    )


def _pipeline(limits: AlertLimits) -> Dashboard:
    jobs = (
        shown("Since the monitor last saw", "liveops_monitor_pulse_age_seconds"),
        shown("Since the last drift check", "liveops_drift_age_seconds"),
        shown("Statistics that differ", "liveops_statistics_mismatches", red_above=1),
        shown("Version of the allocation", "liveops_allocation_version"),
        shown("Epoch", "liveops_experiment_epoch"),
        shown("Draws beside the allocation", "liveops_experiment_draw_mismatch", red_above=6.9),
    )
    scheduled = (
        shown("Failed", "liveops_job_last_run_failed", red_above=1),
        shown("Overdue", "liveops_job_overdue_seconds", red_above=1),
        shown("Took", "liveops_job_last_duration_seconds"),
        _since_done(),
    )
    outcomes = (
        shown("Outcomes", "liveops_arm_outcomes_total"),
        shown("Outcomes after their decision expired", "liveops_arm_expired_outcomes_total"),
        shown("Outcomes without a claim", "liveops_arm_unclaimed_outcomes_total"),
        shown("Decisions without an outcome", "liveops_arm_unreported_ratio"),
    )
    outside = (
        shown("Notices", "liveops_notices_total"),
        shown("Notices that wait", "liveops_notices_waiting"),
        shown("Oldest notice that waits", "liveops_notices_oldest_waiting_seconds"),
        shown("Alerts that Alertmanager sent", "liveops_alert_notices_total"),
        state("Breakers of the service", "liveops_breaker_state", own=True),
        shown("Trips of the service's breakers", "liveops_breaker_trips_total", own=True),
    )
    return Dashboard(
        name="pipeline",
        description="What runs by itself: nightly jobs, outcomes on their way in, notices out.",
        rows=(
            Row(title="Jobs of the schedule", panels=scheduled),
            Row(title="Candles", panels=_candles(limits)),
            Row(title="What jobs look after", panels=jobs),
            Row(title="Outcomes", panels=outcomes),
            Row(title="Notices and calls outside", panels=outside),
        ),
    )


def _candles(limits: AlertLimits) -> tuple[Panel, ...]:
    return (
        shown("The data pipeline failed", "liveops_data_failed", red_above=1),
        shown(
            "Since a night was finished",
            "liveops_data_finished_age_seconds",
            red_above=86_400 + limits.data_sla.total_seconds(),
        ),
        shown(
            "How long the last night took",
            "liveops_data_night_seconds",
            red_above=limits.data_sla.total_seconds(),
        ),
        shown("New bars of the last night", "liveops_data_rows"),
        shown("What is unlike before", "liveops_data_anomalies", red_above=1),
        shown("Age of the newest bar", "liveops_data_bar_age_seconds"),
        shown("Bars of 30 days that are stored", "liveops_data_completeness_ratio", red_below=0.95),
        shown("Trainings are refused", "liveops_data_paused", red_above=1),
    )
