"""The checklist's rows that ask for work on models and machines, and stop no arm (SPEC F2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from bandit.core.checklist import ChecklistRow
from bandit.core.drift import ENCODER_PARTS, DriftCheck
from bandit.core.errors import InvalidInput
from bandit.core.model import Profile
from bandit.core.reading import ChecklistRule
from bandit.core.verdicts import at_most, known

ENCODER_KL: Final = "encoder_kl_divergence"
GPU: Final = "gpu_util_pct"


class UpkeepAction(StrEnum):
    """What a flagged row asks for."""

    REFRESH_ENCODER = "refresh_encoder"
    RESTART_LEARNER = "restart_learner"


UpkeepRow = ChecklistRow[UpkeepAction]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRule:
    """How busy a learner's GPU is expected to be, and from where on it is taken to be stuck.

    >>> GpuRule().restart_percent
    60.0
    """

    band_percent: tuple[float, float] = (2.0, 10.0)
    restart_percent: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what no GPU can be."""
        low, high = self.band_percent
        if not 0 <= low <= high <= self.restart_percent <= 100:
            rule = "must satisfy 0 <= low <= high <= restart_percent <= 100"
            found = (*self.band_percent, self.restart_percent)
            raise InvalidInput(field="band_percent", rule=rule, found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCheck:
    """The newest drift check of an artefact's encoder: on bars up to when, and of which run."""

    check: DriftCheck
    run_id: str
    window_to: datetime


def encoder_row(found: EncoderCheck, rule: ChecklistRule, *, profile: Profile) -> UpkeepRow:
    """Hold the newest check of an encoder against the checklist.

    Its calibrated divergence, against the larger of `kl_refresh` and what chance reads; to the
    letter (`seed_exact`) the bare one against `kl_refresh` alone, which chance breaks all the time
    where bars resemble one another.
    """
    check, limit = found.check, rule.kl_refresh
    raw, median, top = (_nats(check, part) for part in ENCODER_PARTS)
    if profile is Profile.SEED_EXACT:
        value, told = raw, "bare"
    else:
        value, told = check.value, "chance taken off"
        if median is not None and top is not None:
            limit = max(limit, top - median)
    told = told if value is not None else str(check.detail.get("reason", "not known"))
    note = f"{told}; bars to {found.window_to:%Y-%m-%d}"
    return ChecklistRow(
        metric=ENCODER_KL,
        band=rule.kl_band,
        reason=at_most(ENCODER_KL, value, limit, note=note),
        action=UpkeepAction.REFRESH_ENCODER,
    )


def gpu_row(busy_ratios: Iterable[float | None], rule: GpuRule) -> UpkeepRow:
    """Hold a machine's busiest GPU against the checklist; one that does not tell says nothing.

    >>> row = gpu_row([0.07, 0.61], GpuRule())
    >>> row.reason.value, row.flagged
    (61.0, True)
    >>> gpu_row([], GpuRule()).reason.verdict
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    # 100 times a float: its last digit says nothing, and would break a limit that is just met.
    told = [round(100 * ratio, 9) for ratio in busy_ratios if ratio is not None]
    return ChecklistRow(
        metric=GPU,
        band=rule.band_percent,
        reason=at_most(
            GPU,
            max(told, default=None),
            rule.restart_percent,
            note="the busiest" if told else "no GPU tells of itself here",
        ),
        action=UpkeepAction.RESTART_LEARNER,
    )


def _nats(check: DriftCheck, part: str) -> float | None:
    found = check.detail.get(part)
    return known(float(found)) if isinstance(found, int | float) else None
