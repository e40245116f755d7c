"""Later bars held against what was frozen of a stored policy, and recorded (SPEC I1)."""

from __future__ import annotations

import numpy as np

from bandit.core.drift import DriftRun
from bandit.core.errors import InvalidInput
from bandit.service import drift, policies
from learners.artifact import read
from learners.freezing import picture_of
from learners.market.candles import Candles
from liveops.deciders import artifact_home
from liveops.wiring import App


def check_drift(
    app: App, reference: str, candles: Candles, *, bars_max: int, actor: str
) -> tuple[DriftRun, bool]:
    """Hold the newest bars after a policy's training against its reference, and record it.

    At most `bars_max` of them. Returns the checks, and whether they were new. Raises `UnknownName`
    for no policy, `ArtifactRefused` for one that is not sound, and `InvalidInput` for one of which
    nothing was frozen, and for candles without bars after those it was made from.
    """
    policy = policies.find(app.engine, reference).policy
    artifact = read(artifact_home(app.settings), policy.sha)
    if artifact.reference is None:
        rule = "must be one of which something was frozen when it was made"
        raise InvalidInput(field="policy", rule=rule, found=policy.name)
    trained_to = np.datetime64(artifact.spec.training.data_to.replace(tzinfo=None), "us")
    first = int(np.searchsorted(candles.opened_at, trained_to))
    if first >= len(candles):
        rule = f"must have bars after {artifact.spec.training.data_to:%Y-%m-%d %H:%M} UTC"
        raise InvalidInput(field="candles", rule=rule, found=candles.instrument)
    bars = range(max(first, len(candles) - bars_max), len(candles))
    run = DriftRun(
        sha=artifact.sha,
        window_from=candles.opening(bars.start),
        window_to=candles.closing(bars.stop - 1),
        checked_at=app.clock.now(),
        checks=tuple(picture_of(artifact, candles, bars).against(artifact.reference)),
    )
    return drift.record(app.engine, run, now=run.checked_at, actor=actor)
