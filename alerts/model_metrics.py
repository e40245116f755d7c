"""Metrics of drift checks, of sweeps, and of the GPUs that models are trained on."""

from __future__ import annotations

from typing import Final

from alerts.metric import ARTIFACT, GPU, Alias, Metric, MetricKind

_NO_CHECK: Final = "for an artefact that was not checked within 30 days, or as one of the last 20"
_NO_KL: Final = _NO_CHECK + "; where the encoder was not checked, or could not be"
_NO_SWEEP: Final = "before the first sweep; while the ledger does not answer"
_NO_GPU: Final = (
    "without a GPU and its driver, for what it does not tell, and a minute after it did"
)

MODEL_METRICS: Final = (
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
        name="liveops_drift_broken_checks",
        kind=MetricKind.GAUGE,
        unit="checks",
        help=(
            "Checks of the newest run that broke their limit of `level` (`warning` or `critical`), "
            "by what was checked."
        ),
        labels=(*ARTIFACT, "check", "level"),
        absent=_NO_CHECK + "; for what was not checked",
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
        name="liveops_sweep_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since the newest sweep of `liveops tune` last ended a trial, or ended.",
        absent=_NO_SWEEP,
    ),
    Metric(
        name="liveops_sweep_best_value",
        kind=MetricKind.GAUGE,
        unit="log growth",
        help="What the best trial of the newest sweep is worth: growth of a trade, lower bound.",
        absent=_NO_SWEEP + "; before its first trial is complete",
    ),
    Metric(
        name="liveops_sweep_trials",
        kind=MetricKind.GAUGE,
        unit="trials",
        help="Trials of the newest sweep by `state`: `complete`, `pruned`, `failed` or `open`.",
        labels=("state",),
        absent=_NO_SWEEP,
    ),
    Metric(
        name="liveops_gpu_busy_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Part of the last moments in which the GPU worked at anything.",
        labels=GPU,
        absent=_NO_GPU,
        is_own=True,
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
        is_own=True,
    ),
    Metric(
        name="liveops_gpu_memory_bytes",
        kind=MetricKind.GAUGE,
        unit="bytes",
        help="Memory that the GPU has.",
        labels=GPU,
        absent=_NO_GPU,
        is_own=True,
    ),
    Metric(
        name="liveops_gpu_temperature_celsius",
        kind=MetricKind.GAUGE,
        unit="degrees Celsius",
        help="Temperature of the GPU's die.",
        labels=GPU,
        absent=_NO_GPU,
        is_own=True,
    ),
)
