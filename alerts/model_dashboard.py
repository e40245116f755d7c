"""The dashboard of models: what decisions prove, backtest and life, drift, GPUs, sweeps."""

from __future__ import annotations

from alerts.dashboard import Dashboard, Panel, Row, shown, state
from alerts.limits import AlertLimits


def model_dashboard(limits: AlertLimits) -> Dashboard:
    """Return the dashboard, red where `limits` alert.

    >>> model_dashboard(AlertLimits()).uid
    'liveops-model'
    """
    evidence = (
        state("Rung of each challenger", "liveops_arm_rung"),
        shown("Evidence", "liveops_arm_evidence"),
        shown("Decay", "liveops_arm_decay_days"),
    )
    return Dashboard(
        name="model",
        description="What policies prove, how far they are from their training, GPUs and sweeps.",
        rows=(
            Row(title="Evidence", panels=evidence),
            Row(title="Live beside backtest", panels=_backtest()),
            Row(title="Drift", panels=_drift(limits)),
            Row(title="GPUs", panels=_gpus(limits)),
            Row(title="Sweeps", panels=_sweeps()),
        ),
    )


def _backtest() -> tuple[Panel, ...]:
    return (
        shown("Live less backtest", "liveops_arm_backtest_gap_ratio"),
        shown("Worse than the backtest", "liveops_arm_backtest_worse", red_above=1),
    )


def _drift(limits: AlertLimits) -> tuple[Panel, ...]:
    return (
        shown(
            "KL divergence of the encoder", "liveops_drift_encoder_kl", red_above=limits.encoder_kl
        ),
        shown("Rows behind it", "liveops_drift_encoder_rows_effective"),
        shown("Features that drift", "liveops_drift_features"),
        shown("Verdicts of the newest run", "liveops_drift_verdicts"),
        shown("Checks that broke their limit", "liveops_drift_broken_checks", red_above=1),
        shown("Since the last drift check", "liveops_drift_age_seconds"),
    )


def _sweeps() -> tuple[Panel, ...]:
    return (
        shown("Trials of the newest sweep", "liveops_sweep_trials"),
        shown("Worth of its best trial", "liveops_sweep_best_value"),
        shown("Since it last went on", "liveops_sweep_age_seconds"),
    )


def _gpus(limits: AlertLimits) -> tuple[Panel, ...]:
    return (
        shown("GPU busy", "liveops_gpu_busy_ratio", own=True, red_above=limits.gpu_percent / 100),
        shown("GPU memory", "liveops_gpu_memory_used_bytes", "liveops_gpu_memory_bytes", own=True),
        shown("GPU temperature", "liveops_gpu_temperature_celsius", own=True),
    )
