"""How a classifier for tests is made: of the smallest parts that still are all of it."""

from __future__ import annotations

from learners.boosting_plan import BoostingPlan
from learners.classifier_plan import ClassifierPlan, EncoderPlan

SMALL_CLASSIFIER = ClassifierPlan(
    seed=1,
    horizon_bars=3,
    validation_share=0.3,
    encoder=EncoderPlan(
        bars=8, frequencies=2, d_model=4, d_ff=4, layers=1, kernels=1, embedding=3, epochs=1
    ),
    width=4,
    decisions=2,
    epochs=2,
    batch=64,
    forest=BoostingPlan(rounds=2, depth=2),
)
