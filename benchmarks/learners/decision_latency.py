"""How long one decision takes: a stored policy through ONNX Runtime, beside SB3's `predict`.

The same untrained networks, one after the other in each round, one thread. Ours is all that is
done between an observation and an action without I/O: checks of the observation, the network,
confidence, regime and guards. Theirs is `predict(observation, deterministic=True)`.

A decision never waits, so its processor time is what it needs. On a machine with more to do than
cores, its 99th percentile by the wall clock is the length of a neighbour's turn. Both are claimed.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO

from bandit.core.acting import ActingRules, Regime, acted
from benchmarks.claims import QUICK, SECONDS_MAX, Target, claim, paired, progress
from benchmarks.learners._rounds import Round, timed
from learners.artifact import read, write
from learners.artifact_spec import ActionSpec, DescribedPart, PolicyArtifactSpec, TrainingRecord
from learners.network import Activation, Algorithm, Network, from_stable_baselines
from learners.serving import ServedPolicy

INPUTS = 32
ACTIONS = (("short", -1.0), ("flat", 0.0), ("long", 1.0))
QUANTILES = 25
ROUNDS = 5 if QUICK else 60
DECISIONS_A_ROUND = 200

P99_MICROSECONDS = 50.0
# Four times as fast as the way through torch, or a runtime of its own is not worth having.
BESIDE_PREDICT = 0.25

RISING = Regime(adx=31.0, trend=1, volatility=1.0)
RULES = ActingRules()


class Market(gymnasium.Env[Any, Any]):
    """As much of a market as an agent needs to be built."""

    observation_space = gymnasium.spaces.Box(-10, 10, (INPUTS,), np.float32)
    action_space = gymnasium.spaces.Discrete(len(ACTIONS))


def agent_of(algorithm: Algorithm) -> Any:
    """An untrained agent with two layers of 64, as the libraries come."""
    common: dict[str, Any] = {"policy": "MlpPolicy", "env": Market(), "seed": 1, "device": "cpu"}
    match algorithm:
        case Algorithm.PPO:
            return PPO(**common)
        case Algorithm.DQN:
            return DQN(**common, buffer_size=1)
        case Algorithm.QR_DQN:
            quantiles = {"n_quantiles": QUANTILES}
            return QRDQN(**common, buffer_size=1, policy_kwargs=quantiles)


def spec_of(algorithm: Algorithm) -> PolicyArtifactSpec:
    """What the agent is, in our words."""
    part = DescribedPart(digest="0" * 64, body={})
    return PolicyArtifactSpec(
        network=Network(
            algorithm=algorithm,
            inputs=INPUTS,
            hidden=(64, 64),
            activation=Activation.TANH if algorithm is Algorithm.PPO else Activation.RELU,
            actions=len(ACTIONS),
            quantiles=QUANTILES if algorithm is Algorithm.QR_DQN else 1,
            temperature=1.0,
        ),
        actions=tuple(ActionSpec(name=name, position=position) for name, position in ACTIONS),
        features=part,
        scaler=part,
        environment=part,
        training=TrainingRecord(
            seed=1,
            steps=0,
            data_digest="0" * 64,
            data_from=datetime(2024, 1, 1, tzinfo=UTC),
            data_to=datetime(2025, 1, 1, tzinfo=UTC),
            packages={},
        ),
        golden=16,
    )


def served(algorithm: Algorithm, agent: Any, root: Path) -> ServedPolicy:
    """The agent stored, read back and loaded."""
    spec = spec_of(algorithm)
    parameters = {name: tensor.numpy() for name, tensor in agent.policy.state_dict().items()}
    assert isinstance(spec.network, Network)
    weights = from_stable_baselines(spec.network, parameters)
    observations = np.random.default_rng(1).standard_normal((spec.golden, INPUTS))
    sha = write(root, spec, weights, observations=observations).sha
    return ServedPolicy(read(root, sha))


def measure(algorithm: Algorithm, root: Path) -> None:
    """Claim the median and the 99th percentile of one kind of policy."""
    agent = agent_of(algorithm)
    policy = served(algorithm, agent, root)

    def ours(row: np.ndarray) -> str:
        choice = policy.choose(row)
        acted(choice, held=0.0, regime=RISING, rules=RULES)
        return choice.name

    def theirs(row: np.ndarray) -> str:
        action, _ = agent.predict(row, deterministic=True)
        return ACTIONS[int(action)][0]

    rng = np.random.default_rng(2)
    observations = rng.standard_normal((DECISIONS_A_ROUND, INPUTS)).astype(np.float32)
    assert all(ours(row) == theirs(row) for row in observations)
    rounds: dict[str, list[Round]] = {"ours": [], "theirs": []}
    began = perf_counter()
    for i in range(ROUNDS):
        if perf_counter() - began > SECONDS_MAX / len(Algorithm):
            progress(f"stopped after {i} of {ROUNDS} rounds")
            break
        work = [("ours", ours), ("theirs", theirs)]
        for name, decide in work if i % 2 else reversed(work):
            rounds[name].append(timed(decide, observations))
    report(algorithm, rounds)


def report(algorithm: Algorithm, rounds: dict[str, list[Round]]) -> None:
    """Print the claims of one algorithm."""
    for clock in ("wall", "cpu"):
        for percent in (50, 99):
            found = {
                name: [float(np.percentile(getattr(taken, clock), percent)) for taken in of]
                for name, of in rounds.items()
            }
            ours, theirs = (median(found[name]) for name in ("ours", "theirs"))
            claim(
                f"learners.decision.{algorithm}.{clock}_p{percent}",
                ours=f"{ours:.1f}us",
                yardstick=f"{theirs:.1f}us",
                ratio=paired(found["ours"], found["theirs"]),
                side=Target.AT_MOST,
                target=BESIDE_PREDICT,
            )
        claim(
            f"learners.decision.{algorithm}.{clock}_p99_limit",
            ours=f"{ours:.1f}us",
            yardstick=f"{P99_MICROSECONDS:.0f}us",
            ratio=ours / P99_MICROSECONDS,
            side=Target.AT_MOST,
            target=1.0,
        )


def main() -> None:
    """Measure each kind of policy."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in Algorithm:
            measure(algorithm, Path(folder))


if __name__ == "__main__":
    main()
