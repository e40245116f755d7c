"""A training plan refuses what cannot be meant, and survives JSON."""

from __future__ import annotations

from typing import Any

import pytest

from bandit.core.errors import InvalidInput
from learners.network import Activation, Algorithm
from learners.training_plan import Profile, ReplaySettings, RolloutSettings, TrainingPlan


def plan_of(**changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {"algorithm": Algorithm.PPO, "seed": 7} | changes
    return TrainingPlan(**values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.0),
        ("total_steps", 0),
        ("total_steps", True),
        ("environments", 0),
        ("environments", 96),
        ("environments", 2048),
        ("checkpoint_every_steps", 0),
        ("deadline_seconds", 0.0),
        ("deadline_seconds", float("nan")),
        ("deadline_seconds", "60"),
        ("layers", (0,)),
        ("layers", (64, 4096)),
    ],
)
def test_bad_numbers_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        plan_of(**{field: value})
    assert refused.value.field == field


def test_a_network_has_one_to_eight_hidden_layers() -> None:
    for layers in ((), (8,) * 9):
        with pytest.raises(InvalidInput, match="hidden layers: must be"):
            plan_of(layers=layers)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("profile", Profile)
def test_a_plan_survives_json(algorithm: Algorithm, profile: Profile) -> None:
    plan = plan_of(algorithm=algorithm, profile=profile, layers=(32,), deadline_seconds=12.5)
    assert TrainingPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"algorithm": "sac"}, "algorithm"),
        ({"profile": "small"}, "profile"),
        ({"layers": 64}, "layers"),
        ({"surplus": 1}, "plan"),
    ],
)
def test_other_json_is_refused_by_name(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TrainingPlan.from_json({**plan_of().to_json(), **change})
    assert refused.value.field == field


def test_steps_are_whole_rounds() -> None:
    # PPO's textbook round is a rollout of 2048; 256 environments step together in any case.
    assert plan_of(profile=Profile.TEXTBOOK, total_steps=5_000).steps == 3 * 2_048
    replayed = plan_of(algorithm=Algorithm.DQN, profile=Profile.TEXTBOOK, environments=1)
    assert replayed.round_steps == 4
    assert plan_of(algorithm=Algorithm.DQN, total_steps=250_000).steps == 977 * 256


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("profile", Profile)
def test_batches_and_environments_divide_every_round(
    algorithm: Algorithm, profile: Profile
) -> None:
    for environments in (2**power for power in range(11)):
        plan = plan_of(algorithm=algorithm, profile=profile, environments=environments)
        assert plan.round_steps % environments == 0
        settings = plan.settings
        if isinstance(settings, RolloutSettings):
            assert plan.round_steps % settings.batch == 0
        else:
            assert settings.updates * plan.round_steps % settings.collect == 0
            assert settings.quantiles <= 50


def test_the_textbook_is_that_of_stable_baselines() -> None:
    """The defaults of PPO, DQN and QRDQN in version 2.9."""
    ppo = plan_of(profile=Profile.TEXTBOOK)
    assert ppo.settings == RolloutSettings(rollout=2048, batch=64, epochs=10, learning_rate=3e-4)
    assert ppo.activation is Activation.TANH
    dqn = plan_of(algorithm=Algorithm.DQN, profile=Profile.TEXTBOOK)
    assert isinstance(dqn.settings, ReplaySettings)
    assert (dqn.settings.collect, dqn.settings.updates, dqn.settings.batch) == (4, 1, 32)
    assert dqn.activation is Activation.RELU
