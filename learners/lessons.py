"""What an encoder and a classifier are taught: scaled, labelled bars; and encoders, once taught.

The same words for an encoder alone (`learners.encoding`) and for that of a classifier
(`learners.workshop`): of the same bars and plan they make the same encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from bandit.core.errors import InvalidInput
from learners.artifact_spec import DescribedPart, TrainingRecord
from learners.challenger import Market
from learners.classifier import (
    Bench,
    ClassRows,
    TaughtEncoder,
    class_rows,
    rows_digest,
    taught_encoder,
)
from learners.classifier_plan import ClassifierPlan
from learners.encoder_artifact import EncoderArtifact, EncoderSpec, write_encoder
from learners.environment_spec import EnvironmentSpec
from learners.fitting import PACKAGES
from learners.installed import versions
from learners.market.features import FeatureSpec
from learners.market.scaler import Scaler
from learners.sight import Sight


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Bars of one or several instruments to learn from, scaled and labelled.

    They open at `data_from` and close at `data_to`; `start` is the encoder to go on from, whose
    scaler is then theirs, too.
    """

    training: ClassifierPlan
    features: FeatureSpec
    scaler: Scaler
    classes: int
    markets: tuple[ClassRows, ...]
    data_from: datetime
    data_to: datetime
    start: EncoderArtifact | None

    def record(self, *, steps: int) -> TrainingRecord:
        """Return what is stored of a training by these bars, which passed over them `steps` times.

        Raises `ExtraMissing` where nothing that trains is installed.
        """
        return TrainingRecord(
            seed=self.training.seed,
            steps=steps,
            data_digest=rows_digest(self.markets),
            data_from=self.data_from,
            data_to=self.data_to,
            packages=versions(PACKAGES),
        )


def lesson_of(
    training: ClassifierPlan,
    markets: Sequence[Market],
    *,
    features: FeatureSpec,
    environment: EnvironmentSpec,
    bars: range,
    start: EncoderArtifact | None = None,
) -> Lesson:
    """Return what `bars` of the markets teach; nothing outside them is read.

    Raises `InvalidInput` for a `start` of other features or classes.
    """
    classes = len(environment.targets)
    if start is None:
        scaler = scaler_of(markets, bars)
    else:
        _require_refreshable(start, features, classes=classes)
        scaler = Scaler.from_json(start.spec.scaler.body)
    sight = Sight(spec=features, scaler=scaler)
    return Lesson(
        training=training,
        features=features,
        scaler=scaler,
        classes=classes,
        markets=tuple(
            class_rows(
                market.candles,
                sight.of(market.features).rows,
                market.features.complete,
                bars=bars,
                spec=environment,
                horizon_bars=training.horizon_bars,
            )
            for market in markets
        ),
        data_from=min(market.candles.opening(bars[0]) for market in markets),
        data_to=max(market.candles.closing(bars[-1]) for market in markets),
        start=start,
    )


def scaler_of(markets: Sequence[Market], bars: range) -> Scaler:
    """Return the scaler of `bars` of all markets together."""
    rows = [market.features.values[bars.start : bars.stop] for market in markets]
    return Scaler.fit(np.concatenate(rows))


def made_encoder(lesson: Lesson, root: Path, bench: Bench) -> EncoderArtifact:
    """Teach an encoder, and store it below `root`; raises as `taught_encoder`."""
    start = None if lesson.start is None else _taught(lesson.start)
    taught = taught_encoder(
        lesson.training, lesson.markets, classes=lesson.classes, bench=bench, start=start
    )
    spec = EncoderSpec(
        form=taught.form,
        classes=taught.classes,
        features=DescribedPart.of(lesson.features.to_json(), digest=lesson.features.digest),
        scaler=DescribedPart.of(lesson.scaler.to_json()),
        training=lesson.record(steps=taught.epochs),
        golden=len(taught.windows),
    )
    return write_encoder(root, spec, taught.tensors, windows=taught.windows)


def _taught(stored: EncoderArtifact) -> TaughtEncoder:
    return TaughtEncoder(
        form=stored.spec.form,
        tensors=stored.tensors,
        windows=stored.golden["windows"],
        classes=stored.spec.classes,
        epochs=stored.spec.training.steps,
    )


def _require_refreshable(stored: EncoderArtifact, features: FeatureSpec, *, classes: int) -> None:
    """Refuse an encoder of other features or classes than those of the bars."""
    for field, expected, found in (
        ("features", features.digest, stored.spec.features.digest),
        ("classes", classes, stored.spec.classes),
    ):
        if found != expected:
            rule = f"of the encoder must be those of the plan, {expected}"
            raise InvalidInput(field=field, rule=rule, found=found)
