"""An encoder made alone: taught by the newest bars, and judged on the last of them.

It is taught the classes of bars that a classifier's encoder is taught (`learners.lessons`). What it
says of bars that taught it nothing is held against how often each class came in those that did:
who knows no more than that has learned nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, stdtrit

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from bandit.core.ope import COSINES, standard_error
from bandit.core.profit_factor import Interval
from learners.challenger import Market, markets_of
from learners.classifier import Bench, Examples, examples_of
from learners.classifier_plan import ClassifierPlan
from learners.embedding import ServedEncoder
from learners.encoder_artifact import EncoderArtifact, read_encoder
from learners.environment_spec import EnvironmentSpec
from learners.fitting_plan import HEAD_BIAS, HEAD_WEIGHT, LabelledRows
from learners.lessons import lesson_of, made_encoder
from learners.market.candles import Candles
from learners.market.features import FeatureSpec
from learners.network import Doubles
from learners.tensor_file import Tensor

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingPlan:
    """How an encoder alone is made: as `training` says, of the newest `train_bars` bars.

    Of `training` all counts that its encoder and its classes depend on, and nothing else.
    """

    features: FeatureSpec
    environment: EnvironmentSpec
    training: ClassifierPlan
    train_bars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScore:
    """How well an encoder's head names the classes of windows that taught it nothing.

    `cross_entropy` is its mean in nats, `yardstick` that of the class frequencies among the windows
    that taught it; `gain` is how far the first lies under the second.
    """

    windows: int
    cross_entropy: float
    yardstick: float
    gain: Interval

    @property
    def verdict(self) -> Verdict:
        """Say whether more is known of a class than how often it comes: FAIL where it is not."""
        if self.cross_entropy >= self.yardstick:
            return Verdict.FAIL
        return Verdict.PASS if self.gain.low > 0.0 else Verdict.INCONCLUSIVE

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "windows": self.windows,
            "cross_entropy": self.cross_entropy,
            "class_frequencies": self.yardstick,
            "gain": {
                "low": self.gain.low,
                "high": self.gain.high,
                "confidence": self.gain.confidence,
            },
            "verdict": self.verdict.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """What going on from a stored encoder changed, on the windows that were held out.

    `moved` is `distance` of its embeddings from the old ones, `before` the score of the old one;
    `windows_known` of the windows are of bars that the old one was made from: some of them may have
    taught that one.
    """

    before: HeadScore
    moved: float
    windows_known: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MadeEncoder:
    """A stored encoder, by how many windows it was taught, and what it is worth."""

    artifact: EncoderArtifact
    windows: int
    score: HeadScore
    refresh: Refresh | None


def newest_encoder(
    plan: EncodingPlan, series: Sequence[Candles], *, root: Path, bench: Bench
) -> MadeEncoder:
    """Teach an encoder by the newest bars, store it below `root`, and judge it.

    Where the plan names an encoder to go on from, it lies there too. Raises `InvalidInput` for
    candles that are too few or teach not every class, and for an encoder of other features,
    `ArtifactRefused` for one that is not sound, and as `learners.fitting.fit`.
    """
    assert plan.training.encoder is not None
    start = None
    if plan.training.refreshed is not None:
        start = read_encoder(root, plan.training.refreshed)
    markets = markets_of(series, plan.features)
    bars = _newest(markets, plan.train_bars)
    lesson = lesson_of(
        plan.training,
        markets,
        features=plan.features,
        environment=plan.environment,
        bars=bars,
        start=start,
    )
    length = plan.training.encoder.bars if start is None else start.spec.form.bars
    examples = examples_of(plan.training, lesson.markets, history=length, classes=lesson.classes)
    _require_every_class(examples.fitted)
    artifact = made_encoder(lesson, root, bench)
    embeddings = _embeddings(artifact, examples.held_out)
    return MadeEncoder(
        artifact=artifact,
        windows=len(examples.fitted.ends),
        score=_score(artifact, embeddings, examples, bars=len(bars)),
        refresh=None
        if start is None
        else _refresh(start, embeddings, examples, markets[0].candles, bars),
    )


def distance(found: NDArray[np.floating], before: NDArray[np.floating]) -> float:
    """Return how far embeddings (n, width) lie from those of the same windows before.

    The root mean square of the way that each went, over that of the way from each old one to their
    mean: 0 where nothing moved; from 1 on they moved as far as windows differ from one another.
    Raises `InvalidInput` where all the old ones are the same.

    >>> before = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> distance(before + [0.0, 0.5], before)
    0.5
    """
    old = before.astype(np.float64)
    spread = float(np.square(old - old.mean(axis=0)).sum())
    if spread == 0.0:
        rule = "must not be the same for all windows"
        raise InvalidInput(field="embeddings", rule=rule, found=f"{len(old)} equal ones")
    return float(np.sqrt(np.square(found.astype(np.float64) - old).sum() / spread))


def _newest(markets: Sequence[Market], count: int) -> range:
    last = len(markets[0].candles)
    if not 1 <= count <= last:
        rule = f"must be 1 to {last:,}, as many as the candles have"
        raise InvalidInput(field="train_bars", rule=rule, found=f"{count:,}")
    return range(last - count, last)


def _require_every_class(fitted: LabelledRows) -> None:
    """Refuse windows of which none has a class: its frequency would be no yardstick."""
    found = np.unique(fitted.labels)
    if len(found) < fitted.classes:
        rule = f"must hold each of the {fitted.classes} classes to learn from"
        raise InvalidInput(field="train_bars", rule=rule, found=f"only {found.tolist()}")


def _embeddings(artifact: EncoderArtifact, rows: LabelledRows) -> Tensor:
    return ServedEncoder(artifact).embed_at(rows.series, rows.ends)


def _score(
    artifact: EncoderArtifact, embeddings: Tensor, examples: Examples, *, bars: int
) -> HeadScore:
    fitted, held_out = examples.fitted, examples.held_out
    entropies = _entropies(artifact.tensors, embeddings, held_out.labels)
    frequencies = np.bincount(fitted.labels, minlength=fitted.classes) / len(fitted.labels)
    yardsticks = -np.log(frequencies)[held_out.labels]
    return HeadScore(
        windows=len(entropies),
        cross_entropy=float(entropies.mean()),
        yardstick=float(yardsticks.mean()),
        gain=_interval(yardsticks - entropies, held_out.ends % bars),
    )


def _entropies(
    tensors: Mapping[str, Tensor], embeddings: Tensor, labels: NDArray[np.int64]
) -> Doubles:
    weight, bias = (tensors[name].astype(np.float64) for name in (HEAD_WEIGHT, HEAD_BIAS))
    logs = log_softmax(embeddings.astype(np.float64) @ weight.T + bias, axis=1)
    entropies: Doubles = -logs[np.arange(len(labels)), labels]
    return entropies


def _interval(gains: Doubles, places: NDArray[np.int64]) -> Interval:
    """Return where the mean of the gains lies, of windows that end at `places` of the bars.

    Trades of neighbouring bars overlap, and instruments move together: one bar has one gain, the
    mean over its instruments, and runs of good and bad times count (`bandit.core.ope`).
    """
    _, of_bar, counts = np.unique(places, return_inverse=True, return_counts=True)
    steady = np.ones(len(counts))
    error = standard_error(np.bincount(of_bar, weights=gains) / counts, steady)
    reach = float(stdtrit(COSINES, 0.5 + CONFIDENCE / 2.0)) * error
    mean = float(gains.mean())
    return Interval(low=mean - reach, high=mean + reach, confidence=CONFIDENCE)


def _refresh(
    start: EncoderArtifact, embeddings: Tensor, examples: Examples, candles: Candles, bars: range
) -> Refresh:
    held_out = examples.held_out
    before = _embeddings(start, held_out)
    opened = candles.opened_at[bars.start : bars.stop]
    made = start.spec.training
    is_known = (opened >= _time(made.data_from)) & (opened < _time(made.data_to))
    return Refresh(
        before=_score(start, before, examples, bars=len(bars)),
        moved=distance(embeddings, before),
        windows_known=int(is_known[held_out.ends % len(bars)].sum()),
    )


def _time(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")
