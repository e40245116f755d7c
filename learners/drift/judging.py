"""Limits of drift checks, and how a measured value becomes a check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from scipy.stats import false_discovery_control

from bandit.core.drift import DriftCheck, DriftMetric
from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict

ROWS_MIN: Final = 30
"""Rows of a window below which nothing is said of it."""

EFFECTIVE_MIN: Final = 20.0
"""Effective rows, of window and of reference, below which no test of one feature is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLimits:
    """What a check breaks: a practical limit and, where a test is made, a significance.

    A value above its `_warning` limit is a FAIL of that level, one above `_critical` of the other;
    the others have one level. `significance` is the rate of false discoveries among the features.
    KL is in nats, `prediction` in deviations of the reference's scores, the others are ratios.
    Raises `InvalidInput` for a limit that is not positive, and a critical one below its warning.
    """

    psi_warning: float = 0.2
    psi_critical: float = 0.3
    ks: float = 0.1
    missing_warning: float = 0.05
    missing_critical: float = 0.10
    out_of_range: float = 0.01
    correlation: float = 0.3
    importance: float = 0.2
    prediction: float = 0.2
    encoder_kl: float = 0.30
    significance: float = 0.05

    def __post_init__(self) -> None:
        """Refuse limits that would always or never be broken."""
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0.0 < value < math.inf:
                rule = "must be positive and finite"
                raise InvalidInput(field=each.name, rule=rule, found=value)
        for name in ("psi", "missing"):
            warning, critical = getattr(self, f"{name}_warning"), getattr(self, f"{name}_critical")
            if critical < warning:
                rule = f"must not be below the warning at {warning:g}"
                raise InvalidInput(field=f"{name}_critical", rule=rule, found=critical)
        if self.significance >= 1.0:
            rule = "must be below 1"
            raise InvalidInput(field="significance", rule=rule, found=self.significance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The limit of a value, and what has to be shown besides: that chance is not enough."""

    warning: float
    critical: float | None = None
    significance: float = 1.0


def judged(
    metric: DriftMetric,
    subject: str,
    value: float,
    bound: Bound,
    *,
    n: int,
    n_effective: float | None = None,
    p_value: float | None = None,
    detail: Mapping[str, Any] = {},
) -> DriftCheck:
    """Hold a value against its bound: FAIL where it is above, and not by chance.

    >>> bound = Bound(warning=0.2, critical=0.3, significance=0.05)
    >>> found = judged(DriftMetric.PSI, "rsi", 0.25, bound, n=900, p_value=0.001)
    >>> found.verdict.value, found.detail
    ('FAIL', {'level': 'warning'})
    >>> judged(DriftMetric.PSI, "rsi", 0.25, bound, n=40, p_value=0.3).verdict.value
    'PASS'
    """
    breaks = value > bound.warning and (p_value is None or p_value <= bound.significance)
    level = "none"
    if breaks:
        is_critical = bound.critical is not None and value > bound.critical
        level = "critical" if is_critical else "warning"
    return DriftCheck(
        metric=metric,
        subject=subject,
        value=value,
        limit=bound.warning,
        p_value=p_value,
        verdict=Verdict.FAIL if breaks else Verdict.PASS,
        n=n,
        n_effective=n_effective,
        detail={"level": level, **detail},
    )


def unknown(
    metric: DriftMetric, subject: str, reason: str, *, n: int, n_effective: float | None = None
) -> DriftCheck:
    """Return the check of a value that does not exist, with the reason."""
    return DriftCheck(
        metric=metric,
        subject=subject,
        value=None,
        limit=None,
        p_value=None,
        verdict=Verdict.INCONCLUSIVE,
        n=n,
        n_effective=n_effective,
        detail={"level": "none", "reason": reason},
    )


def discovered(checks: Sequence[DriftCheck], *, significance: float) -> list[DriftCheck]:
    """Judge the checks of many features together: of the drifts told, so many are false at most.

    Benjamini and Hochberg (1995), by `scipy.stats.false_discovery_control`. A FAIL whose adjusted
    p-value is above `significance` becomes a PASS; `detail` tells the adjusted one.

    >>> bound = Bound(warning=0.1, significance=0.05)
    >>> one = judged(DriftMetric.KS, "a", 0.3, bound, n=50, p_value=0.04)
    >>> other = judged(DriftMetric.KS, "b", 0.05, bound, n=50, p_value=0.9)
    >>> [check.verdict.value for check in discovered([one, other], significance=0.05)]
    ['PASS', 'PASS']
    """
    tested = [i for i, check in enumerate(checks) if check.p_value is not None]
    found = list(checks)
    if not tested:
        return found
    adjusted = false_discovery_control([found[i].p_value for i in tested], method="bh")
    for i, p_value in zip(tested, adjusted.tolist(), strict=True):
        check = found[i]
        detail = {**check.detail, "p_adjusted": p_value}
        if check.drifted and p_value > significance:
            found[i] = replace(check, verdict=Verdict.PASS, detail={**detail, "level": "none"})
        else:
            found[i] = replace(check, detail=detail)
    return found
