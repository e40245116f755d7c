"""What `/metrics` shows of the ledger: the catalogue's metrics, in one reading of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from alerts.catalogue import CATALOGUE
from alerts.metric import Metric, MetricKind
from bandit.core.drift import ENCODER_PARTS, DriftRun
from bandit.core.errors import LedgerUnavailable
from bandit.core.ladder import Standing
from bandit.core.model import WHOLE_PPM, ArmRole, ArmStatus, Rung, Verdict
from bandit.core.optimization import OptimizationRun
from bandit.service import (
    accounts,
    alerting,
    auditing,
    backups,
    data_runs,
    drift,
    experiments,
    noticing,
    optimizing,
    performance_guarding,
    rebuilding,
    reporting,
    snapshots,
)
from bandit.service.accounts import AccountReport
from bandit.service.arm_report import ArmReport
from bandit.service.live_gaps import BesideBacktest
from bandit.service.performance_guarding import GuardReport
from bandit.service.reporting import ExperimentReport
from liveops.clock import monotonic
from liveops.data_samples import of_data
from liveops.health import Checkup, seen
from liveops.health_metrics import Sample, of_health
from liveops.job_metrics import read_jobs
from liveops.outside_metrics import of_backups, of_notices, of_snapshots
from liveops.wiring import App

FRESH = timedelta(seconds=0.5)
"""For how long one reading of the ledger serves every scrape: less than the second that whoever
wants alerts to act soon leaves between two."""

_TOLD_STATUSES = tuple(status for status in ArmStatus if status is not ArmStatus.RETIRED)
"""A retired arm has no series at all."""

DRIFT_FRESH = timedelta(days=30)
"""For how long an artefact that is checked no more is still told of."""

_DOWN: Final[Sample] = ("liveops_up", (), 0.0)

Family = GaugeMetricFamily | CounterMetricFamily


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReading(Collector):
    """What the ledger said `at` a moment, if it `answered`, and for how long it serves."""

    at: datetime
    answered: bool
    serves: timedelta
    families: tuple[Family, ...]

    def collect(self) -> Iterable[Family]:
        """Return every family of the catalogue that is read from the ledger."""
        return self.families

    def is_fresh(self, *, now: datetime) -> bool:
        """Say whether it may be shown still."""
        return timedelta(0) <= now - self.at < self.serves


class LedgerReader:
    """Reads every experiment's report; scrapes share a reading for as long as it is fresh.

    When the ledger does not answer, `liveops_up` is 0 and every other series of it is absent: an
    old number would look like a new one.
    """

    def __init__(self, app: App) -> None:
        """Read the ledger of `app`, by its clock; nothing is read before somebody asks."""
        self._app = app
        self._lock = threading.Lock()
        self._newest: LedgerReading | None = None
        self.takes = timedelta(0)
        """How long a reading takes: as the slowest did, of which each later one forgets a fifth.

        One that the ledger did not answer says nothing of that.
        """

    def newest(self) -> LedgerReading:
        """Return the newest reading, a new one where that is not fresh."""
        with self._lock:
            if self._newest is None or not self._newest.is_fresh(now=self._app.clock.now()):
                self._newest = self._reading()
            return self._newest

    def read_ahead(self) -> LedgerReading:
        """Return a new reading for whoever asks soon: it serves for longer, as it took its time.

        One that failed does not: the ledger may be back.
        """
        with self._lock:
            found = self._reading()
            if found.answered:
                found = replace(found, serves=FRESH + 3 * self.takes)
            self._newest = found
            return found

    def _reading(self) -> LedgerReading:
        at, began = self._app.clock.now(), monotonic()
        samples = self._read()
        families = filled([m for m in CATALOGUE if not m.is_own], samples)
        answered = _DOWN not in samples
        if answered:
            self.takes = max(timedelta(seconds=monotonic() - began), 0.8 * self.takes)
        return LedgerReading(at=at, answered=answered, serves=FRESH, families=families)

    def _read(self) -> list[Sample]:
        engine, now = self._app.engine, self._app.clock.now()
        try:
            reports = [reporting.report(engine, name) for name in experiments.listed(engine)]
            unsealed = auditing.unsealed_rows(engine)
            mismatches = rebuilding.newest_mismatches(engine)
            held = accounts.listed(engine, now=now)
            watching = performance_guarding.listed(engine)
            runs = drift.latest(engine, since=now - DRIFT_FRESH)
            heard = alerting.counts(engine)
            checked = seen(self._app)
            told = noticing.counted(engine)
            kept = self._of_upkeep(checked, now=now)
        except LedgerUnavailable:
            return [_DOWN]
        samples: list[Sample] = [
            ("liveops_up", (), 1.0),
            ("liveops_audit_unsealed_rows", (), unsealed),
        ]
        if mismatches is not None:
            samples.append(("liveops_statistics_mismatches", (), mismatches))
        samples += of_health(checked)
        for result, n in heard.items():
            samples.append(("liveops_alert_notices_total", (result.value,), n))
        samples += of_notices(told, now=now)
        samples += kept
        for account in held:
            samples += _of_account(account)
        for guard in watching:
            samples += _of_guard(guard)
        for report in reports:
            samples += _of_experiment(report)
        for run in runs:
            samples += _of_drift(run, now=now)
        return samples

    def _of_upkeep(self, checked: Checkup, *, now: datetime) -> list[Sample]:
        """Read what jobs did: candles, backups, snapshots, sweeps, and the jobs themselves."""
        engine, has_bucket = self._app.engine, self._app.settings.snapshots.bucket is not None
        return [
            *of_data(data_runs.standing(engine), now=now),
            *of_backups(checked.vitals, backups.known(engine).drill),
            *of_snapshots(snapshots.noted(engine), has_bucket=has_bucket, now=now),
            *read_jobs(engine, now=now),
            *(s for sweep in optimizing.newest(engine, most=1) for s in _of_sweep(sweep, now=now)),
        ]


def filled(metrics: Iterable[Metric], samples: Iterable[Sample]) -> tuple[Family, ...]:
    """Return the families of gauges and counters with these samples."""
    families = {name: family for metric in metrics for name, family in _families(metric)}
    for name, labels, value in samples:
        families[name].add_metric(labels, value)
    return tuple(families.values())


def _families(metric: Metric) -> Iterator[tuple[str, Family]]:
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    yield metric.name, kind(metric.name, metric.help, labels=metric.labels)
    for alias in metric.aliases:
        yield alias.name, GaugeMetricFamily(alias.name, alias.help, labels=alias.labels)


def _of_account(account: AccountReport) -> Iterator[Sample]:
    labels, equity = (account.record.name,), account.equity
    for name in ("liveops_account_equity", "total_equity"):
        yield name, labels, float(equity.equity)
    yield "liveops_account_drawdown_ratio", labels, equity.drawdown_percent / 100
    yield "liveops_account_daily_loss_ratio", labels, equity.daily_loss_percent / 100
    yield "liveops_account_killed", labels, float(account.record.is_killed)


def _of_guard(report: GuardReport) -> Iterator[Sample]:
    guard, labels = report.record.guard, (report.record.kind, report.record.name)
    if not guard.rule.enabled:
        return
    found = guard.measured
    yield "liveops_performance_guard_state", labels, guard.state.severity
    yield "liveops_performance_guard_drawdown_ratio", labels, found.drawdown
    yield "liveops_performance_guard_losing_streak", labels, guard.losing_streak
    yield "liveops_performance_guard_trades", labels, guard.trades_since
    if found.win_rate is not None:
        yield "liveops_performance_guard_win_ratio", labels, found.win_rate


def _of_experiment(report: ExperimentReport) -> Iterator[Sample]:
    name = report.record.experiment.name
    yield "liveops_allocation_version", (name,), report.version
    yield "liveops_experiment_epoch", (name,), report.record.epoch
    yield from _of_budget(report)
    if report.draws is not None and report.draws.value is not None:
        yield "liveops_experiment_draw_mismatch", (name,), report.draws.value
    for arm in report.arms:
        place = arm.arm.place
        labels = (name, place.policy, place.role.value)
        for metric, value in _numbers(arm).items():
            # No value, no series: alerts must not mistake "unknown" for a number.
            if value is not None:
                yield metric, labels, value
        for status in _TOLD_STATUSES:
            yield "liveops_arm_status", (*labels, status.value), float(place.status is status)
        if arm.reading.standing is not None:
            for rung in Rung:
                yield "liveops_arm_rung", (*labels, rung.value), float(place.rung is rung)
            for form, strength in _evidence(arm.reading.standing).items():
                yield "liveops_arm_evidence", (*labels, form), strength
            for whose, level in _decay(arm.reading.standing).items():
                if level is not None:
                    yield "liveops_arm_decay_days", (*labels, whose), level
        for metric, what, number in _gaps(arm.beside_backtest):
            yield metric, (*labels, what), number
        for window, factor in _factors(arm).items():
            if factor is not None:
                yield "liveops_arm_profit_factor", (*labels, window), factor
        for window, drawdown in _drawdowns(arm).items():
            yield "liveops_arm_drawdown_ratio", (*labels, window), drawdown / 100
        for metric, count in _counts(arm).items():
            yield metric, labels[:2], count


def _of_drift(run: DriftRun, *, now: datetime) -> Iterator[Sample]:
    labels = (run.sha,)
    # Never below 0: the clock of whoever checked may be ahead of ours.
    age = max((now - run.checked_at).total_seconds(), 0.0)
    yield "liveops_drift_age_seconds", labels, age
    yield "liveops_drift_features", labels, len(run.drifted_features)
    for verdict in Verdict:
        found = sum(check.verdict is verdict for check in run.checks)
        yield "liveops_drift_verdicts", (*labels, verdict.value), found
    for metric in sorted({check.metric for check in run.checks}):
        levels = [c.detail.get("level") for c in run.checks if c.metric is metric and c.drifted]
        for level in ("warning", "critical"):
            broken = (*labels, metric.value, level)
            yield "liveops_drift_broken_checks", broken, levels.count(level)
    check = run.encoder
    if check is None or check.value is None or check.limit is None:
        return
    parts = {"calibrated": check.value, "limit": check.limit}
    for part in ENCODER_PARTS:
        if isinstance(nats := check.detail.get(part), int | float):
            parts[part] = nats
    for part, nats in parts.items():
        yield "liveops_drift_encoder_kl", (*labels, part), nats
    yield "encoder_kl_divergence", labels, check.value
    if check.n_effective is not None:
        yield "liveops_drift_encoder_rows_effective", labels, check.n_effective


def _of_sweep(run: OptimizationRun, *, now: datetime) -> Iterator[Sample]:
    counts = run.counts
    yield "liveops_sweep_age_seconds", (), max((now - run.changed_at).total_seconds(), 0.0)
    if run.best_value is not None:
        yield "liveops_sweep_best_value", (), run.best_value
    for state, n in (
        ("complete", counts.complete),
        ("pruned", counts.pruned),
        ("failed", counts.failed),
        ("open", run.trials - counts.ended),
    ):
        yield "liveops_sweep_trials", (state,), n


def _of_budget(report: ExperimentReport) -> Iterator[Sample]:
    found = report.exploration
    if found is not None and found.budget is not None and found.room is not None:
        labels = (found.experiment,)
        used = 1 - found.budget.left(found.explored) / found.budget.amount
        yield "liveops_exploration_used_ratio", labels, float(used)
        yield "liveops_exploration_room", labels, found.room


def _evidence(standing: Standing) -> Mapping[str, float]:
    return {
        "mean": standing.mean_up,
        "against": standing.mean_down,
        "profit_factor": standing.factor_up,
    }


def _decay(standing: Standing) -> Mapping[str, float | None]:
    return {"arm": standing.decay, "champion": standing.champion_decay}


def _gaps(beside: BesideBacktest | None) -> Iterator[tuple[str, str, float]]:
    if beside is None:
        return
    for what, gap in beside.gap.by_name.items():
        if gap.difference is not None:
            yield "liveops_arm_backtest_gap_ratio", what, gap.difference
        if gap.is_worse is not None:
            yield "liveops_arm_backtest_worse", what, float(gap.is_worse)


def _numbers(arm: ArmReport) -> Mapping[str, float | None]:
    place, sums, claims = arm.arm.place, arm.statistics.sums, arm.reading.claims
    traffic = place.ppm / WHOLE_PPM
    numbers = {
        "liveops_arm_traffic_ratio": traffic,
        "traffic_allocation": traffic,
        "liveops_arm_win_ratio": sums.n_wins / sums.n_trades if sums.n_trades else None,
        "liveops_arm_sharpe_ratio": arm.daily.sharpe,
        "liveops_arm_losing_streak": arm.statistics.fold.streaks.current_losing,
        "liveops_arm_pnl": float(sums.pnl),
        "pf_150": arm.long.profit_factor.value,
        "dd_150": arm.long.drawdown_percent,
        "liveops_arm_unreported_ratio": None if claims is None else claims.failed_ratio,
    }
    if place.role is ArmRole.CHAMPION:
        return numbers
    champion = arm.reading.pf_prod.value
    return numbers | {
        "liveops_arm_champion_profit_factor": champion,
        "pf_prod": champion,
        # As the checklist judges it: alerts that stop an arm must not know more than it does.
        **{row.metric: row.reason.value for row in arm.checklist},
    }


def _factors(arm: ArmReport) -> Mapping[str, float | None]:
    """Return profit factors by window; equal windows are one."""
    windows = {
        str(numbers.window): numbers.profit_factor.value for numbers in (arm.short, arm.long)
    }
    return windows | {"all": arm.statistics.sums.profit_factor.value}


def _drawdowns(arm: ArmReport) -> Mapping[str, float]:
    """Return drawdowns in percent by window."""
    long = arm.long.drawdown_percent
    assert long is not None
    return {
        str(arm.long.window): long,
        "all": arm.statistics.fold.equity.drawdown_max_percent,
    }


def _counts(arm: ArmReport) -> Mapping[str, int]:
    sums = arm.statistics.sums
    return {
        "liveops_arm_outcomes_total": sums.n_outcomes,
        "liveops_arm_trades_total": sums.n_trades,
        "liveops_arm_losses_total": sums.n_losses,
        "liveops_arm_expired_outcomes_total": sums.n_expired,
        "liveops_arm_unclaimed_outcomes_total": sums.n_unclaimed,
    }
