"""Later bars held against what was frozen of a stored policy, and recorded (SPEC I1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bandit.core.drift import DriftRun
from bandit.core.errors import BanditError, InvalidInput, UnknownName
from bandit.core.model import PolicyName
from bandit.service import drift, experiments, learner_jobs, policies
from learners.artifact import read
from learners.freezing import picture_of
from learners.market.candles import Candles
from liveops.deciders import artifact_home
from liveops.recipes import Recipe
from liveops.wiring import App


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChecked:
    """A policy in use with its checks, or why there is nothing to check, or what went wrong."""

    policy: PolicyName
    run: DriftRun | None = None
    reason: str | None = None
    error: BanditError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        checks = [] if self.run is None else self.run.checks
        failed = None if self.error is None else f"{self.error.code}: {self.error}"
        return {
            "policy": self.policy,
            "checks": len(checks),
            "drifted": [f"{c.metric} {c.subject}" for c in checks if c.drifted],
            "skipped": self.reason,
            "error": failed,
        }


def check_all(
    app: App, series_of: Callable[[Recipe], Sequence[Candles]], *, bars_max: int, actor: str
) -> Iterator[PolicyChecked]:
    """Check every policy that has an arm, on the candles that it was made from as they are now.

    `series_of` reads the candles of a recipe. Each policy is tried, whatever becomes of the others.
    """
    records = [experiments.load(app.engine, name) for name in experiments.listed(app.engine)]
    for policy in sorted({arm.place.policy for record in records for arm in record.kept_arms}):
        try:
            recipe = learner_jobs.recipe_of(app.engine, policy)
            if recipe is None:
                yield PolicyChecked(policy=policy, reason="it was not made here")
                continue
            series = series_of(Recipe.from_json(recipe))
            if len(series) != 1:
                yield PolicyChecked(policy=policy, reason="it was made from several instruments")
                continue
            run, _ = check_drift(app, policy, series[0], bars_max=bars_max, actor=actor)
            yield PolicyChecked(policy=policy, run=run)
        except (InvalidInput, UnknownName) as nothing:
            yield PolicyChecked(policy=policy, reason=str(nothing))
        except BanditError as error:
            yield PolicyChecked(policy=policy, error=error)


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
