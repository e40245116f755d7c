"""What a drift check found, and all checks of one window of one artefact (SPEC I1).

How the numbers come about is the business of `learners/drift`; here is what the ledger keeps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from bandit.core.errors import InvalidInput
from bandit.core.model import (
    PolicySha,
    Verdict,
    checked_document,
    checked_instant,
    checked_sha,
    checked_text,
)

DETAIL_BYTES_MAX: Final = 4_096
"""How long a check's `detail` may be as compact JSON."""

CHECKS_MAX: Final = 2_000
"""How many checks one run may have."""

ENCODER_PARTS: Final = ("raw", "null_median", "null_p99")
"""What `detail` tells of a check of the encoder, in nats: of what its value is made."""

_ROWS_LIMIT: Final = 2**53


class DriftMetric(StrEnum):
    """What was compared with the frozen reference.

    `psi`, `ks`, `missing` and `out_of_range` are of one feature, which is then the subject.
    """

    ENCODER_KL = "encoder_kl"
    PSI = "psi"
    KS = "ks"
    MISSING = "missing"
    OUT_OF_RANGE = "out_of_range"
    CORRELATION = "correlation"
    IMPORTANCE = "importance"
    CONFIDENCE = "confidence"
    PREDICTION = "prediction"


FEATURE_METRICS: Final = frozenset(
    {DriftMetric.PSI, DriftMetric.KS, DriftMetric.MISSING, DriftMetric.OUT_OF_RANGE}
)
"""Metrics whose subject is a feature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    """One number of the present held against the reference.

    `value` and `limit` are in the metric's unit. `p_value` is the probability of such a value
    without drift, where a test gives one. `n` counts the rows that the value is made from, and
    `n_effective` what they are worth where each resembles the one before. `detail` tells the parts.
    INCONCLUSIVE says in `detail["reason"]` what is missing.

    >>> DriftCheck(metric=DriftMetric.KS, subject="rsi", value=0.2, limit=0.1, p_value=0.001,
    ...            verdict=Verdict.FAIL, n=500, n_effective=None, detail={}).drifted
    True
    """

    metric: DriftMetric
    subject: str
    value: float | None
    limit: float | None
    p_value: float | None
    verdict: Verdict
    n: int
    n_effective: float | None
    detail: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what no check finds and no ledger can hold."""
        checked_text(self.subject, field="subject", length_max=128)
        for name in ("value", "limit", "p_value", "n_effective"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise InvalidInput(field=name, rule="must be finite", found=number)
        if self.p_value is not None and not 0.0 <= self.p_value <= 1.0:
            raise InvalidInput(field="p_value", rule="must lie in 0..1", found=self.p_value)
        if self.n_effective is not None and self.n_effective < 0.0:
            rule = "must not be negative"
            raise InvalidInput(field="n_effective", rule=rule, found=self.n_effective)
        if not 0 <= self.n < _ROWS_LIMIT:
            raise InvalidInput(field="n", rule="must lie in 0..2^53 - 1", found=self.n)
        if self.verdict is not Verdict.INCONCLUSIVE and (self.value is None or self.limit is None):
            rule = "must be INCONCLUSIVE without a value and a limit"
            raise InvalidInput(field="verdict", rule=rule, found=self.verdict)
        checked_document(dict(self.detail), field="detail")
        size = len(json.dumps(dict(self.detail), separators=(",", ":")))
        if size > DETAIL_BYTES_MAX:
            rule = f"must be at most {DETAIL_BYTES_MAX} bytes of JSON"
            raise InvalidInput(field="detail", rule=rule, found=size)

    @property
    def drifted(self) -> bool:
        """Whether the limit is broken."""
        return self.verdict is Verdict.FAIL

    def to_json(self) -> dict[str, object]:
        """Return the check as `--json` prints it."""
        return {
            "metric": self.metric.value,
            "subject": self.subject,
            "value": self.value,
            "limit": self.limit,
            "p_value": self.p_value,
            "verdict": self.verdict.value,
            "n": self.n,
            "n_effective": self.n_effective,
            "detail": dict(self.detail),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRun:
    """Every check of one artefact on the rows of [`window_from`, `window_to`].

    `sha` is the content hash of the artefact that the reference belongs to. Raises `InvalidInput`
    for a window that ends before it begins, for none or too many checks, and for one made twice.
    """

    sha: PolicySha
    window_from: datetime
    window_to: datetime
    checked_at: datetime
    checks: tuple[DriftCheck, ...]

    def __post_init__(self) -> None:
        """Refuse what no ledger can hold."""
        checked_sha(self.sha)
        for name in ("window_from", "window_to", "checked_at"):
            object.__setattr__(self, name, checked_instant(getattr(self, name), field=name))
        if self.window_from > self.window_to:
            rule, found = "must not precede window_from", self.window_to.isoformat()
            raise InvalidInput(field="window_to", rule=rule, found=found)
        if not 1 <= len(self.checks) <= CHECKS_MAX:
            rule = f"must be 1 to {CHECKS_MAX}"
            raise InvalidInput(field="checks", rule=rule, found=len(self.checks))
        subjects = {(check.metric, check.subject) for check in self.checks}
        if len(subjects) < len(self.checks):
            rule = "must have each metric of a subject once"
            raise InvalidInput(field="checks", rule=rule, found="one twice")

    @property
    def run_id(self) -> str:
        """What names the run: a digest of artefact and window, so that the same again is known."""
        window = f"{self.window_from.isoformat()} {self.window_to.isoformat()}"
        return hashlib.sha256(f"{self.sha} {window}".encode()).hexdigest()

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """The features of which any metric breaks its limit, in alphabetical order."""
        found = {c.subject for c in self.checks if c.metric in FEATURE_METRICS and c.drifted}
        return tuple(sorted(found))

    @property
    def encoder(self) -> DriftCheck | None:
        """The check of the encoder; None where the run has none."""
        found = [check for check in self.checks if check.metric is DriftMetric.ENCODER_KL]
        return found[0] if found else None
