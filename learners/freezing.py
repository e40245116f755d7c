"""What of a policy is frozen when it is made, and later bars held against it (SPEC I1).

The same numbers both times, from the same words: features as they come; of a classifier also
embeddings, what TabNet looks at, how sure it is where nothing is held, and how often it names the
right class. An agent was trained on every bar there is of it: how sure it is of those it knows
says nothing of others, so that is not frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandit.core.drift import DriftCheck
from bandit.core.errors import InvalidInput
from learners.artifact import Artifact
from learners.classifier import UNKNOWN, class_rows
from learners.drift.behaviour import ConfidenceReference, ImportanceReference, PredictionReference
from learners.drift.encoder import BLOCK_MIN, BLOCKS_WHOLE, EncoderReference
from learners.drift.features import FeatureReference
from learners.drift.reference_file import DriftReference
from learners.ensemble import Ensemble, part_of
from learners.environment import OWN_COLUMNS
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import Candles
from learners.market.features import Features, features_of
from learners.onnx_graph import ACTION, INPUT, PROBABILITIES
from learners.serving import session_of
from learners.sight import Sight, sight_of
from learners.tabnet import masks
from learners.tensor_file import Tensor

EMBEDDED_MIN: Final = BLOCKS_WHOLE * BLOCK_MIN
"""Fewer embeddings than this have no null that could be known."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """What a classifier makes of bars.

    `embeddings` (n, width) are those of known windows, None without an encoder. `looks`
    (n, `columns`) are TabNet's masks at known bars. `confidences` (n,) and `hits` (n,), 1 where the
    class was right, are of bars that were not learned from.
    """

    embeddings: Doubles | None
    columns: tuple[str, ...]
    looks: Doubles
    confidences: Doubles
    hits: Doubles


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What is frozen, and what is held against it, in time order.

    `features` (bars, features) are not scaled, NaN where they are not known; `judgement` is a
    classifier's, None of an agent.
    """

    names: tuple[str, ...]
    features: Doubles
    judgement: Judgement | None = None

    def frozen(self) -> DriftReference:
        """Return the reference; an encoder's is left out where there are too few embeddings."""
        features, judged = FeatureReference.of(self.features, self.names), self.judgement
        if judged is None:
            return DriftReference(features=features)
        embedded = judged.embeddings
        has_null = embedded is not None and len(embedded) >= EMBEDDED_MIN
        return DriftReference(
            features=features,
            encoder=EncoderReference.of(embedded) if embedded is not None and has_null else None,
            importance=ImportanceReference.of(judged.looks, judged.columns),
            confidence=ConfidenceReference.of(judged.confidences),
            prediction=PredictionReference.of(judged.hits),
        )

    def against(self, reference: DriftReference) -> list[DriftCheck]:
        """Hold this picture of later bars against what was frozen, part by part.

        Raises `InvalidInput` for features other than the reference's.
        """
        checks: list[DriftCheck] = []
        if reference.features is not None:
            if reference.features.names != self.names:
                rule = "must be those of the reference"
                raise InvalidInput(field="features", rule=rule, found=", ".join(self.names))
            checks += reference.features.check(self.features)
        judged = self.judgement
        if judged is None:
            return checks
        if reference.encoder is not None and judged.embeddings is not None:
            checks.append(reference.encoder.check(judged.embeddings))
        if reference.importance is not None:
            checks.append(reference.importance.check(judged.looks))
        if reference.confidence is not None:
            checks.append(reference.confidence.check(judged.confidences))
        if reference.prediction is not None:
            checks.append(reference.prediction.check(judged.hits))
        return checks


def picture_of(artifact: Artifact, candles: Candles, bars: range) -> Picture:
    """Return the picture of later bars, seen by a stored policy.

    Raises `InvalidInput` where a classifier knows no bar of them wholly, and as `sight_of`.
    """
    sight, model = sight_of(artifact), artifact.spec.network
    features = features_of(candles, sight.spec)
    judgement = None
    if isinstance(model, Ensemble):
        judgement = _judgement(artifact, model, sight, candles, features, bars)
    return Picture(
        names=sight.spec.names,
        features=features.values[bars.start : bars.stop],
        judgement=judgement,
    )


def _judgement(
    artifact: Artifact,
    model: Ensemble,
    sight: Sight,
    candles: Candles,
    features: Features,
    bars: range,
) -> Judgement:
    spec = artifact.spec
    assert spec.horizon_bars is not None, "a classifier has one"
    rows, seen = sight.of(features)
    labelled = class_rows(
        candles,
        rows,
        seen.complete,
        bars=bars,
        spec=EnvironmentSpec.from_json(spec.environment.body),
        horizon_bars=spec.horizon_bars,
    )
    known = labelled.rows[labelled.complete]
    if not len(known):
        rule = "must have a bar whose features are all known"
        raise InvalidInput(field="bars", rule=rule, found=f"{len(bars)} bars")
    flat = np.zeros((len(known), OWN_COLUMNS))
    asked = np.concatenate([known, flat], axis=1).astype(np.float32)
    found = session_of(artifact.graph).run([PROBABILITIES, ACTION], {INPUT: asked})
    labels = labelled.labels[labelled.complete]
    return Judgement(
        embeddings=None if sight.encoder is None else known[:, len(sight.spec.names) :],
        columns=sight.names,
        looks=looks_of(model, artifact.tensors, known),
        confidences=found[0].max(axis=1).astype(np.float64),
        hits=(found[1] == labels)[labels != UNKNOWN].astype(np.float64),
    )


def looks_of(model: Ensemble, tensors: Mapping[str, Tensor], rows: Doubles) -> Doubles:
    """Return TabNet's masks (n, columns) at rows (n, columns) that are known."""
    return masks(model.tabnet, part_of("tabnet.", tensors), rows)
