"""Training by reinforcement: repeatable, resumable, and ended in time; in real processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from learners.artifact import read, write
from learners.artifact_spec import ActionSpec, DescribedPart, PolicyArtifactSpec
from learners.network import Algorithm, evaluate
from learners.reinforcement import TrainedPolicy, TrainingMarket, train
from learners.training_events import (
    Begun,
    CheckpointUnfit,
    CheckpointWritten,
    DeadlinePassed,
    Forecast,
    ForecastTooLong,
    TrainingEvent,
    TrainingFailed,
)
from learners.training_plan import Profile, TrainingPlan
from liveops.clock import monotonic
from tests.training_markets import (
    BrokenMarket,
    HangingMarket,
    HastyClock,
    RefusingMarket,
    SignalMarket,
    SlowMarket,
)

SEED = 11
# A few rounds of each, with checkpoints between; a round is 2048 steps for PPO, else 256.
STEPS = {Algorithm.PPO: 6_144, Algorithm.DQN: 8_192, Algorithm.QR_DQN: 8_192}


def plan_of(algorithm: Algorithm, **changes: object) -> TrainingPlan:
    values: dict[str, object] = {
        "algorithm": algorithm,
        "seed": SEED,
        "profile": Profile.TEXTBOOK if algorithm is Algorithm.PPO else Profile.LARGE_BATCH,
        "total_steps": STEPS[algorithm],
        "environments": 16,
        "layers": (16,),
        "checkpoint_every_steps": 2_048,
    } | changes
    return TrainingPlan(**values)  # type: ignore[arg-type]  # fields by name


def trained(
    plan: TrainingPlan,
    folder: Path,
    *,
    market: TrainingMarket | None = None,
    report: Callable[[TrainingEvent], None] = lambda _: None,
    grace_seconds: float = 10.0,
) -> TrainedPolicy:
    return train(
        plan,
        market or SignalMarket(),
        folder=folder,
        clock=monotonic,
        report=report,
        grace_seconds=grace_seconds,
    )


def sealed(folder: Path) -> list[Path]:
    """The checkpoints below a folder, the oldest first; named by the digest of all they hold."""
    return sorted(folder.glob("*/" + "[0-9]" * 12 + "/*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[Algorithm, tuple[TrainedPolicy, Path]]:
    """Each algorithm's training, undisturbed, and where its checkpoints lie."""
    made = {}
    for algorithm in Algorithm:
        folder = tmp_path_factory.mktemp(algorithm.value)
        made[algorithm] = trained(plan_of(algorithm), folder), folder
    return made


class Killer:
    """Kills the worker with SIGKILL as it hears of a checkpoint written, or of nothing yet."""

    def __init__(self, at: list[int]) -> None:
        self.at = at
        self.heard: list[TrainingEvent] = []

    def __call__(self, event: TrainingEvent) -> None:
        self.heard.append(event)
        if isinstance(event, Begun | CheckpointWritten) and self.at and event.steps >= self.at[0]:
            self.at.pop(0)
            (worker,) = children()
            os.kill(worker, signal.SIGKILL)


def children() -> list[int]:
    """The workers of this process; a fork server is between them and us."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_edge_is_found(algorithm: Algorithm, tmp_path: Path) -> None:
    policy = trained(plan_of(algorithm, total_steps=16_384, layers=(64, 64)), tmp_path)
    rng = np.random.default_rng(5)
    seen = np.stack([np.repeat([1.0, -1.0], 500), rng.standard_normal(1000)], axis=1)
    found = evaluate(policy.network, policy.tensors, seen)
    # Who knows the sign goes long (1) at a plus and short (2) at a minus; who knows nothing is
    # right once in three, or by luck always, but gives a third of its probability to each.
    right = np.repeat([1, 2], 500)
    assert np.mean(found.scores.argmax(axis=1) == right) > 0.95
    assert np.mean(found.probabilities[np.arange(1000), right]) > 0.5


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_training_killed_again_and_again_ends_as_if_it_had_not_been(
    algorithm: Algorithm, whole: dict[Algorithm, tuple[TrainedPolicy, Path]], tmp_path: Path
) -> None:
    expected, folder = whole[algorithm]
    # Before the first checkpoint, and at random ones.
    rng = np.random.default_rng(algorithm.value.encode()[0])
    at = [0, *sorted(rng.integers(1, STEPS[algorithm] - 2_048, size=2).tolist())]
    killer = Killer(at)
    for _ in range(3):
        with pytest.raises(TrainingFailed, match="exit code -9"):
            trained(plan_of(algorithm), tmp_path, report=killer)
    policy = trained(plan_of(algorithm), tmp_path, report=killer)
    assert policy.resumed_steps > 0
    assert policy.digest == expected.digest
    # Weights, target network, optimiser, memory, market and generators are the same to the bit.
    assert [p.name for p in sealed(tmp_path)] == [p.name for p in sealed(folder)]
    begun = [event.steps for event in killer.heard if isinstance(event, Begun)]
    assert begun[0] == begun[1] == 0
    assert all(earlier <= later for earlier, later in pairwise(begun))


def test_the_same_plan_gives_the_same_weights_and_another_seed_others(
    whole: dict[Algorithm, tuple[TrainedPolicy, Path]], tmp_path: Path
) -> None:
    expected, _ = whole[Algorithm.DQN]
    assert trained(plan_of(Algorithm.DQN), tmp_path / "same").digest == expected.digest
    other = trained(plan_of(Algorithm.DQN, seed=SEED + 1), tmp_path / "other")
    assert other.digest != expected.digest


def test_a_finished_training_is_not_done_again(
    whole: dict[Algorithm, tuple[TrainedPolicy, Path]],
) -> None:
    expected, folder = whole[Algorithm.DQN]
    again = trained(plan_of(Algorithm.DQN), folder)
    assert again.resumed_steps == again.record.steps == STEPS[Algorithm.DQN]
    assert again.digest == expected.digest
    assert again.network == expected.network


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    whole: dict[Algorithm, tuple[TrainedPolicy, Path]], tmp_path: Path
) -> None:
    expected, folder = whole[Algorithm.QR_DQN]
    plan = plan_of(Algorithm.QR_DQN)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    older, newer = sealed(tmp_path)
    arrays = newer / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:-100])
    heard: list[TrainingEvent] = []
    policy = trained(plan, tmp_path, report=heard.append)
    (unfit,) = [event for event in heard if isinstance(event, CheckpointUnfit)]
    assert unfit.name == newer.parent.name
    assert "arrays.npz: must have" in unfit.reason
    assert policy.resumed_steps == int(older.parent.name)
    assert policy.digest == expected.digest


def test_a_training_that_would_be_late_is_refused_with_both_numbers(tmp_path: Path) -> None:
    # 20 ms for 16 steps: a million take 20 minutes.
    plan = plan_of(Algorithm.DQN, total_steps=1_000_000, deadline_seconds=300.0)
    heard: list[TrainingEvent] = []
    with pytest.raises(ForecastTooLong) as refused:
        trained(plan, tmp_path, market=SlowMarket(), report=heard.append)
    assert refused.value.deadline_seconds == 300.0
    assert refused.value.forecast_seconds > 1_000
    assert [e.seconds for e in heard if isinstance(e, Forecast)] == [refused.value.forecast_seconds]


def test_a_worker_stops_by_its_deadline_and_goes_on_later(
    whole: dict[Algorithm, tuple[TrainedPolicy, Path]], tmp_path: Path
) -> None:
    """A round takes 200 s: the worker begins at 400, has done one at 600, and 800 is too late."""
    expected, _ = whole[Algorithm.PPO]
    with pytest.raises(DeadlinePassed) as stopped:
        train(
            plan_of(Algorithm.PPO, deadline_seconds=500.0),
            SignalMarket(),
            folder=tmp_path,
            clock=HastyClock(tick_seconds=200.0),
            report=lambda _: None,
        )
    assert not stopped.value.killed
    assert stopped.value.steps == 2_048
    policy = trained(plan_of(Algorithm.PPO), tmp_path)
    assert policy.resumed_steps == stopped.value.steps
    assert policy.digest == expected.digest


def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    plan = plan_of(Algorithm.DQN, deadline_seconds=2.0)
    with pytest.raises(DeadlinePassed) as stopped:
        trained(plan, tmp_path, market=HangingMarket(), grace_seconds=1.0)
    assert stopped.value.killed
    assert children() == []


def test_a_market_that_refuses_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="bars: must be more than the 500 of an episode"):
        trained(plan_of(Algorithm.DQN), tmp_path, market=RefusingMarket())


def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="must stay finite"):
        trained(plan_of(Algorithm.DQN), tmp_path, market=BrokenMarket())
    assert sealed(tmp_path) == []


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_policy_can_be_stored_as_it_was_trained(
    algorithm: Algorithm, whole: dict[Algorithm, tuple[TrainedPolicy, Path]], tmp_path: Path
) -> None:
    policy, _ = whole[algorithm]
    part = DescribedPart(digest="b" * 64, body={})
    spec = PolicyArtifactSpec(
        network=policy.network,
        actions=tuple(
            ActionSpec(name=name, position=position)
            for name, position in (("flat", 0.0), ("long", 1.0), ("short", -1.0))
        ),
        features=part,
        scaler=part,
        environment=part,
        training=policy.record,
        golden=len(policy.observations),
    )
    stored = write(tmp_path, spec, policy.tensors, observations=policy.observations)
    assert read(tmp_path, stored.sha).spec.training.steps == STEPS[algorithm]


def test_the_parent_loads_no_torch() -> None:
    code = (
        "import sys, learners.reinforcement, learners.training_plan, learners.training_market\n"
        "print([m for m in ('torch', 'stable_baselines3', 'gymnasium') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
