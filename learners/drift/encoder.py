"""The frozen reference of an encoder's embeddings, and the calibrated KL divergence of a window.

    reference = EncoderReference.of(training_embeddings)      # once, stored with the artefact
    check = reference.check(window_embeddings)                # every hour

The KL divergence of two Gaussians that are fitted to n rows is far from 0 where nothing changed: it
grows with the square of the dimensions, and with how much each row resembles the one before. So the
reference also freezes what it says of itself: of blocks of its own rows, held against the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bandit.core.drift import ENCODER_PARTS, DriftCheck, DriftMetric
from bandit.core.errors import InvalidInput
from learners.drift.autocorrelation import autocorrelation_time
from learners.drift.judging import Bound, DriftLimits, judged, unknown

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

SUBJECT: Final = "encoder"
DIMENSIONS: Final = 8
WIDTH_MAX: Final = 4_096
BLOCK_MIN: Final = 64
BLOCKS_WHOLE: Final = 10
"""Blocks without overlap that the longest calibrated window leaves room for in the reference."""

BLOCKS_MAX: Final = 200

_METRIC: Final = DriftMetric.ENCODER_KL
_OVERLAP: Final = 4  # a block begins every quarter of its length
_GAP_TIMES: Final = 5.0  # rows within so many autocorrelation times of a block are left out
_NEGLIGIBLE: Final = 1e-12  # of the variance of the first direction: rounding, no direction
_VARIANCE_MIN: Final = 1e-9  # of the reference's: a stuck encoder drifts far, not infinitely far
_ABSURD: Final = 1e100  # what is larger is as large, so that sums of it stay finite
_FAR: Final = 1e6  # deviations: what is farther is as far, so that squares stay finite


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderReference:
    """Embeddings (n, width) brought to whitened principal directions, and the null of their KL.

    A row x is whitened as (x - `mean`) @ `projection`, of shape (width, d): in the reference the
    result has mean 0 and the identity as covariance. `explained` is the part of all variance that
    lies in these directions. `time` is the mean autocorrelation time of the d series. The null of a
    window of `lengths[i]` rows has `medians[i]` and `p99s[i]`, in nats, from `blocks[i]` blocks.
    """

    n: int
    mean: Floats
    projection: Floats
    explained: float
    time: float
    lengths: Whole
    medians: Floats
    p99s: Floats
    blocks: Whole

    def __post_init__(self) -> None:
        """Refuse what no embeddings make."""
        width, d = self.projection.shape if self.projection.ndim == 2 else (0, 0)
        sizes = {len(each) for each in (self.lengths, self.medians, self.p99s, self.blocks)}
        rules = {
            "projection": 1 <= d <= DIMENSIONS and d <= width <= WIDTH_MAX,
            "mean": self.mean.shape == (width,),
            "explained": 0.0 < self.explained <= 1.0 + 1e-9,
            "time": 1.0 <= self.time < math.inf,
            "lengths": sizes == {len(self.lengths)}
            and len(self.lengths) > 0
            and bool((np.diff(self.lengths) > 0).all())
            and BLOCK_MIN <= int(self.lengths[0]) <= int(self.lengths[-1]) <= self.n,
            "medians": bool((self.medians > 0.0).all()),
            "p99s": bool((self.p99s >= self.medians).all()),
            "blocks": bool((self.blocks > 0).all()),
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidInput(field=name, rule="must describe embeddings", found="another")
        for name in ("mean", "projection", "medians", "p99s"):
            if not np.isfinite(getattr(self, name)).all():
                raise InvalidInput(field=name, rule="must be finite", found="NaN or an infinity")

    @classmethod
    def of(cls, embeddings: Floats, *, dimensions: int = DIMENSIONS) -> Self:
        """Freeze the embeddings (n, width) of training rows in time order.

        Rows with a number that is not finite do not count. Raises `InvalidInput` for fewer than
        `BLOCKS_WHOLE` · `BLOCK_MIN` rows, for rows that are all the same, and for a width or
        dimensions out of bounds.

        >>> rows = np.random.default_rng(1).normal(size=(4_000, 12))
        >>> reference = EncoderReference.of(rows)
        >>> reference.projection.shape, reference.lengths.tolist()
        ((12, 8), [100, 200, 400])
        """
        if not 1 <= dimensions <= DIMENSIONS:
            rule = f"must lie in 1..{DIMENSIONS}"
            raise InvalidInput(field="dimensions", rule=rule, found=dimensions)
        rows = _complete(embeddings)
        if len(rows) < BLOCKS_WHOLE * BLOCK_MIN:
            rule = f"must have {BLOCKS_WHOLE * BLOCK_MIN} complete rows or more"
            raise InvalidInput(field="embeddings", rule=rule, found=len(rows))
        mean, projection, explained = _whitening(rows, dimensions)
        white = (rows - mean) @ projection
        times = [autocorrelation_time(column) for column in white.T]
        gap = math.ceil(_GAP_TIMES * max(times))
        lengths = _lengths(len(rows))
        nulls = [_null(white, length, gap=min(gap, length)) for length in lengths]
        return cls(
            n=len(rows),
            mean=mean,
            projection=projection,
            explained=explained,
            time=float(np.mean(times)),
            lengths=np.array(lengths, dtype=np.int64),
            medians=np.array([np.median(null) for null in nulls]),
            p99s=np.array([np.quantile(null, 0.99) for null in nulls]),
            blocks=np.array([len(null) for null in nulls], dtype=np.int64),
        )

    def raw_kl(self, embeddings: Floats) -> float:
        """Return the KL divergence in nats of a Gaussian fitted to a window from the reference's.

        ½ (tr Σ + μᵀμ - d - ln det Σ) of the whitened rows: that of N(μ, Σ) from N(0, 1). It needs
        two complete rows or more.
        """
        complete = _complete(embeddings, width=len(self.mean))
        unit = float(np.abs(self.projection).max())
        with np.errstate(over="ignore"):
            away = np.clip((complete - self.mean) * unit, -_ABSURD, _ABSURD)
        rows = np.clip(away @ (self.projection / unit), -_FAR, _FAR)
        return _divergence(*_moments(rows))

    def check(self, embeddings: Floats, limits: DriftLimits | None = None) -> DriftCheck:
        """Hold a window's embeddings, in time order, against the reference.

        The value is the raw KL less the median of its null at this many rows; the limit the larger
        of `limits.encoder_kl` and how far the null's p99 lies above its median. A window longer
        than calibrated has the null of the longest, which errs to the cautious side. INCONCLUSIVE
        for fewer rows than the shortest. Raises `InvalidInput` for rows of another width.

        >>> rng = np.random.default_rng(1)
        >>> reference = EncoderReference.of(rng.normal(size=(8_000, 4)))
        >>> reference.check(rng.normal(size=(500, 4))).verdict.value
        'PASS'
        >>> reference.check(rng.normal(size=(500, 4)) + 1.0).verdict.value
        'FAIL'
        """
        limits = limits or DriftLimits()
        rows = _complete(embeddings, width=len(self.mean))
        n, n_effective = len(rows), len(rows) / self.time
        shortest = int(self.lengths[0])
        if n < shortest:
            reason = f"fewer than {shortest} complete rows, the shortest window calibrated"
            return unknown(_METRIC, SUBJECT, reason, n=n, n_effective=n_effective)
        raw = self.raw_kl(rows)
        median, p99 = self.null(n)
        return judged(
            _METRIC,
            SUBJECT,
            raw - median,
            Bound(warning=max(limits.encoder_kl, p99 - median)),
            n=n,
            n_effective=n_effective,
            detail={
                **dict(zip(ENCODER_PARTS, (raw, median, p99), strict=True)),
                "dimensions": self.projection.shape[1],
                "explained": self.explained,
                "missing": len(embeddings) - n,
                "n_ref": self.n,
            },
        )

    def null(self, n: int) -> tuple[float, float]:
        """Return median and p99, in nats, of the KL of `n` rows where nothing has changed.

        Straight lines between the calibrated lengths, both axes logarithmic: KL falls as 1 / n.
        """
        at, lengths = math.log(n), np.log(self.lengths)
        median, p99 = (np.exp(np.interp(at, lengths, np.log(v))) for v in (self.medians, self.p99s))
        return float(median), max(float(p99), float(median))


def _complete(embeddings: Floats, *, width: int | None = None) -> Floats:
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= WIDTH_MAX or width not in (None, rows.shape[1]):
        rule = f"must be rows of {width or f'1 to {WIDTH_MAX}'} columns"
        raise InvalidInput(field="embeddings", rule=rule, found=rows.shape)
    return rows[np.isfinite(rows).all(axis=1)]


def _whitening(rows: Floats, dimensions: int) -> tuple[Floats, Floats, float]:
    """Return mean, projection and explained part of the directions with the most variance."""
    largest = float(np.abs(rows).max(initial=0.0))
    mean = rows.mean(axis=0) if largest < _ABSURD else np.zeros(rows.shape[1])
    away = rows - mean
    scale = float(np.abs(away).max(initial=0.0))
    if not 1.0 / _ABSURD < scale <= 2.0 * largest < 2.0 * _ABSURD:
        rule = f"must vary, within {1.0 / _ABSURD:g}..{_ABSURD:g}"
        raise InvalidInput(field="embeddings", rule=rule, found=f"a spread of {scale:g}")
    away /= scale
    variances, directions = np.linalg.eigh(away.T @ away / len(rows))
    variances, directions = variances[::-1], directions[:, ::-1]
    kept = min(dimensions, int((variances > _NEGLIGIBLE * variances[0]).sum()))
    # The sign of a direction is free: fixed, so that the same rows give the same bytes.
    largest = np.abs(directions[:, :kept]).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(kept)])
    projection = directions[:, :kept] * signs / (np.sqrt(variances[:kept]) * scale)
    explained = float(variances[:kept].sum() / np.maximum(variances, 0.0).sum())
    return mean, projection, min(explained, 1.0)


def _lengths(n: int) -> list[int]:
    """Return the window lengths to calibrate, ascending, each about twice the one before."""
    lengths = [n // BLOCKS_WHOLE]
    while lengths[-1] // 2 >= BLOCK_MIN:
        lengths.append(lengths[-1] // 2)
    return lengths[::-1]


def _null(white: Floats, length: int, *, gap: int) -> Floats:
    """Return the KL of each block of the reference from the rows that lie `gap` or more away."""
    return np.array(list(_block_divergences(white, length, gap)))


def _block_divergences(white: Floats, length: int, gap: int) -> Iterator[float]:
    n = len(white)
    blocks = min((n - length) // max(length // _OVERLAP, 1) + 1, BLOCKS_MAX)
    whole, whole_squares = white.sum(axis=0), white.T @ white
    for start in np.linspace(0, n - length, blocks).astype(int).tolist():
        around = white[max(0, start - gap) : start + length + gap]
        others = n - len(around)
        mean = (whole - around.sum(axis=0)) / others
        covariance = (whole_squares - around.T @ around) / others - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)
        unit = vectors / np.sqrt(np.maximum(values, _VARIANCE_MIN))
        yield _divergence(*_moments((white[start : start + length] - mean) @ unit))


def _moments(rows: Floats) -> tuple[Floats, Floats]:
    mean = rows.mean(axis=0)
    away = rows - mean
    return mean, away.T @ away / len(rows)


def _divergence(mean: Floats, covariance: Floats) -> float:
    """Return KL(N(mean, covariance) from N(0, 1)) in nats."""
    variances = np.maximum(np.linalg.eigvalsh(covariance), _VARIANCE_MIN)
    found = float((variances - 1.0 - np.log(variances)).sum() + mean @ mean) / 2.0
    # Never below 0 but for rounding; above 0, so that it has a logarithm.
    return max(found, float(np.finfo(np.float64).tiny))
