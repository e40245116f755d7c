"""A small classifier that looks at features and at an embedding of the bars before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from made_up_classifier import stumps, tensors_of_tabnet
from made_up_encoder import weights_of, windows_of
from made_up_policy import ACTIONS, FEATURES, deciding_spec

from learners.artifact import Artifact, write
from learners.drift.features import FeatureReference
from learners.drift.reference_file import DriftReference
from learners.encoder_artifact import EncoderSpec, write_encoder
from learners.ensemble import Ensemble, named
from learners.fitting_plan import HEAD_BIAS, HEAD_WEIGHT
from learners.forest import ForestForm
from learners.tabnet import TabNetForm
from learners.timesnet import TimesNetForm

HELD_COLUMNS = 3
FORM = TimesNetForm(bars=8, channels=len(FEATURES.names), frequencies=(1, 2), embedding=3)


def embedding_policy(root: Path) -> Artifact:
    """A policy of drawn weights whose encoder looks back on the seven bars before."""
    spec, classes = deciding_spec(), len(ACTIONS)
    head = np.zeros((classes, FORM.embedding), np.float32)
    encoder = write_encoder(
        root,
        EncoderSpec(
            form=FORM,
            classes=classes,
            features=spec.features,
            scaler=spec.scaler,
            training=spec.training,
            golden=2,
        ),
        {**weights_of(FORM), HEAD_WEIGHT: head, HEAD_BIAS: np.zeros(classes, np.float32)},
        windows=windows_of(FORM, 2),
    )
    seen = FORM.channels + FORM.embedding
    tabnet = TabNetForm(inputs=seen, classes=classes, steps=2, width=4)
    forest = ForestForm(inputs=seen, classes=classes, trees=6, nodes=3)
    model = Ensemble(inputs=seen + HELD_COLUMNS, tabnet=tabnet, forest=forest)
    return write(
        root,
        replace(spec, network=model, encoder=encoder.sha, horizon_bars=3),
        named(tensors_of_tabnet(tabnet), stumps(forest)),
        observations=np.random.default_rng(3).standard_normal((1, model.inputs)),
        reference=DriftReference(
            features=FeatureReference.of(
                np.random.default_rng(4).standard_normal((200, FORM.channels)), FEATURES.names
            )
        ),
    )
