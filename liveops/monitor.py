"""What `live_ops_monitor` does: report on a policy's experiments, or scale them for tonight."""

from __future__ import annotations

from collections.abc import Sequence

from bandit.core.errors import BanditError, UnknownName
from bandit.core.upkeep import UpkeepRow, gpu_row
from bandit.service import experiments, rebuilding, scaling
from bandit.service.rebuilding import Mismatch
from bandit.service.scaling import Night
from liveops.gpu import GpuReading
from liveops.wiring import App, gpu_rule_of

ACTOR = "live_ops_monitor"


def experiments_of(app: App, policy_sha: str) -> list[str]:
    """Return the experiments in which a policy, given by name, sha or sha prefix, has an arm.

    Raises `UnknownName` or `AmbiguousName` with the candidates.
    """
    policy, found = experiments.of_policy(app.engine, policy_sha)
    if not found:
        raise UnknownName(kind="experiment with an arm", name=policy)
    return found


def machine_row(app: App, gpus: Sequence[GpuReading]) -> UpkeepRow:
    """Hold the busiest of these GPUs against the checklist."""
    return gpu_row((found.busy_ratio for found in gpus), gpu_rule_of(app.settings))


def scale(app: App, names: Sequence[str]) -> tuple[list[tuple[str, Night]], list[BanditError]]:
    """Scale each of these experiments for tonight; return what was done, and what went wrong.

    One that cannot be scaled keeps no other from it.
    """
    nights, errors = [], list[BanditError]()
    for name in names:
        try:
            night = scaling.scale(app.engine, name, now=app.clock.now(), actor=ACTOR)
        except BanditError as error:
            errors.append(error)
        else:
            nights.append((name, night))
    return nights, errors


def wrong_statistics(app: App) -> tuple[Mismatch, ...]:
    """Compare all statistics with the outcomes behind them, once a UTC day; return what differs."""
    found = rebuilding.compare_once_a_day(app.engine, now=app.clock.now())
    return () if found is None else found.mismatches
