"""The training environment as gymnasium and Stable-Baselines3 see it, by checks of their own."""

from __future__ import annotations

import numpy as np
import pytest
from environments import features_of, spec_of

pytest.importorskip("gymnasium", reason="the learners' packages are not installed")
pytest.importorskip("stable_baselines3", reason="the learners' packages are not installed")

import torch
from gymnasium.utils.env_checker import check_env as check_as_gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_as_sb3
from stable_baselines3.common.vec_env import VecMonitor

from bandit.core.errors import InvalidInput
from learners.environment import MarketEnvironment
from learners.environment_interfaces import GymMarket, MarketVecEnv
from learners.market.candles import shipped_candles

CANDLES = shipped_candles()
FEATURES = features_of(CANDLES, columns=4)


def environment(count: int = 1, *, seed: int = 3, **changes: object) -> MarketEnvironment:
    spec = spec_of(**({"holding_bars_max": 12, "episode_bars": 20} | changes))
    return MarketEnvironment(CANDLES, FEATURES, spec, count=count, bars=range(100, 9000), seed=seed)


@pytest.mark.parametrize("shorts_allowed", [True, False])
def test_gymnasium_and_stable_baselines_find_nothing_to_say(shorts_allowed: bool) -> None:
    market = GymMarket(environment(shorts_allowed=shorts_allowed))

    check_as_gymnasium(market, skip_render_check=True)
    check_as_sb3(market)

    assert market.action_space.n == (3 if shorts_allowed else 2)  # type: ignore[attr-defined]


def test_a_gymnasium_episode_is_that_of_the_batch() -> None:
    market, batch = GymMarket(environment()), environment()

    seen, _ = market.reset(seed=11)
    np.testing.assert_array_equal(seen, batch.reset(seed=11)[0])
    for action in [1, 1, 2, 0] * 5:
        seen, reward, terminated, truncated, _ = market.step(np.int64(action))
        step = batch.step(np.array([action]))
        expected = step.final_observations if len(step.ended) else step.observations
        np.testing.assert_array_equal(seen, expected[0])
        assert (reward, terminated, truncated) == (
            step.rewards[0], step.terminated[0], step.truncated[0],
        )  # fmt: skip
    assert truncated
    with pytest.raises(InvalidInput, match="step: must follow a reset, found the end"):
        market.step(np.int64(0))


def test_an_episode_that_ends_says_how_and_what_it_saw_last() -> None:
    one, two = environment(3), environment(2, seed=5, equity_ratio_min=0.9999)
    batch = MarketVecEnv([one, two])
    plain = [environment(3), environment(2, seed=5, equity_ratio_min=0.9999)]

    assert batch.num_envs == 5
    np.testing.assert_array_equal(batch.reset(), np.concatenate([p.reset() for p in plain]))
    ended_by = set()
    for number in range(40):
        actions = np.arange(5) % 3 if number % 3 else np.array([2, 1, 0, 1, 2])
        seen, rewards, dones, infos = batch.step(actions)
        steps = [plain[0].step(actions[:3]), plain[1].step(actions[3:])]
        np.testing.assert_array_equal(seen, np.concatenate([s.observations for s in steps]))
        assert rewards.dtype == np.float32
        np.testing.assert_allclose(rewards, np.concatenate([s.rewards for s in steps]), rtol=1e-6)
        last = [row for step in steps for row in step.final_observations]
        for i in range(5):
            step, episode = (steps[0], i) if i < 3 else (steps[1], i - 3)
            assert dones[i] == (step.terminated[episode] or step.truncated[episode])
            if dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], last.pop(0))
                assert infos[i]["TimeLimit.truncated"] == step.truncated[episode]
                ended_by.add(infos[i]["TimeLimit.truncated"])
            else:
                assert infos[i] == {}
    assert ended_by == {True, False}


def test_a_seed_takes_effect_at_the_next_reset() -> None:
    batch = MarketVecEnv([environment(4), environment(4)])
    batch.seed(9)
    first = batch.reset()
    other = batch.reset()
    batch.seed(9)

    np.testing.assert_array_equal(batch.reset(), first)
    assert not np.array_equal(other, first)
    # the second market is not a copy of the first
    assert not np.array_equal(first[:4], first[4:])


def test_what_a_batch_cannot_do_is_refused() -> None:
    with pytest.raises(InvalidInput, match="environments: must be at least one, alike"):
        MarketVecEnv([environment(), environment(shorts_allowed=False)])
    with pytest.raises(InvalidInput, match="environments: must be at least one, alike"):
        MarketVecEnv([])
    with pytest.raises(InvalidInput, match="count: must be 1, found 2"):
        GymMarket(environment(2))
    batch = MarketVecEnv([environment(2)])
    with pytest.raises(InvalidInput, match="spec: cannot be set"):
        batch.set_attr("spec", None)
    with pytest.raises(InvalidInput, match="reset: cannot be called on one episode"):
        batch.env_method("reset")
    assert batch.get_attr("count", indices=[0]) == [2]
    assert batch.env_is_wrapped(VecMonitor) == [False, False]  # type: ignore[arg-type]  # any class


def test_a_learner_of_stable_baselines_trains_and_two_runs_are_one() -> None:
    torch.set_num_threads(1)

    def trained() -> list[np.ndarray]:
        batch = VecMonitor(MarketVecEnv([environment(8), environment(8, seed=4)]))
        model = PPO(
            "MlpPolicy", batch, n_steps=32, batch_size=256, n_epochs=2, seed=1, device="cpu"
        )
        model.learn(1024)
        assert len(model.ep_info_buffer or []) == 48
        return [p.detach().numpy() for p in model.policy.parameters()]

    for first, second in zip(trained(), trained(), strict=True):
        np.testing.assert_array_equal(first, second)
