"""A served policy gives the answers it was trained to give, and nothing on its way unpickles."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_policy import ACTIONS, network_of, observations_of, spec_of, stored, weights_of

from bandit.core.errors import InvalidInput
from learners.artifact import read, write
from learners.network import Activation, Algorithm, Network, evaluate, from_stable_baselines
from learners.serving import ServedPolicy

INPUTS = 8
STEPS = 512


@pytest.mark.parametrize(
    "network",
    [
        network_of(),
        network_of(hidden=()),
        network_of(Algorithm.DQN, activation=Activation.RELU, temperature=0.1),
        network_of(Algorithm.QR_DQN, quantiles=9, temperature=0.1),
        network_of(Algorithm.DQN, inputs=64, hidden=(256, 256), temperature=0.01),
    ],
    ids=lambda n: f"{n.algorithm}-{len(n.hidden)}",
)
def test_it_wants_what_its_network_says(tmp_path: Path, network: Network) -> None:
    artifact = stored(tmp_path, network)
    served = ServedPolicy(read(tmp_path, artifact.sha))
    asked = np.random.default_rng(9).standard_normal((200, network.inputs)).astype(np.float32)
    said = evaluate(network, artifact.tensors, asked)
    for row, scores, probabilities in zip(asked, said.scores, said.probabilities, strict=True):
        choice = served.choose(row)
        best = int(scores.argmax())
        assert (choice.name, choice.position) == (ACTIONS[best].name, ACTIONS[best].position)
        assert choice.confidence == pytest.approx(probabilities[best], abs=1e-4)


def test_other_observations_are_refused(tmp_path: Path) -> None:
    served = ServedPolicy(stored(tmp_path))
    for shape in ((), (3,), (5,), (1, 4)):
        with pytest.raises(InvalidInput, match="must have the shape"):
            served.choose(np.zeros(shape))
    for number in (np.nan, np.inf, -np.inf):
        with pytest.raises(InvalidInput, match="must be finite"):
            served.choose(np.array([0.0, number, 0.0, 0.0]))


def test_threads_that_share_a_policy_hear_what_one_alone_hears(tmp_path: Path) -> None:
    served = ServedPolicy(stored(tmp_path))
    asked = np.random.default_rng(9).standard_normal((2000, 4))
    alone = [served.choose(row) for row in asked]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(served.choose, asked)) == alone


def agent_of(algorithm: Algorithm) -> Any:
    """An agent on a small task whose best action is told by the first number it sees."""
    pytest.importorskip("stable_baselines3")
    import gymnasium
    import torch
    from sb3_contrib import QRDQN
    from stable_baselines3 import DQN, PPO

    class Sign(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-5, 5, (INPUTS,), np.float32)
        action_space = gymnasium.spaces.Discrete(len(ACTIONS))

        def reset(
            self,
            *,
            seed: int | None = None,
            options: Any = None,  # noqa: ARG002 - gymnasium's
        ) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self.seen = self.np_random.uniform(-1, 1, INPUTS).astype(np.float32)
            return self.seen, {}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            reward = float(action == np.sign(self.seen[0]) + 1)
            self.seen = self.np_random.uniform(-1, 1, INPUTS).astype(np.float32)
            return self.seen, reward, bool(self.np_random.random() < 0.1), False, {}

    torch.set_num_threads(1)
    common: dict[str, Any] = {"policy": "MlpPolicy", "env": Sign(), "seed": 3, "device": "cpu"}
    match algorithm:
        case Algorithm.PPO:
            return PPO(**common, n_steps=128)
        case Algorithm.DQN:
            return DQN(**common, learning_starts=64)
        case Algorithm.QR_DQN:
            return QRDQN(**common, learning_starts=64, policy_kwargs={"n_quantiles": 10})


NETWORKS = {
    Algorithm.PPO: network_of(inputs=INPUTS, hidden=(64, 64)),
    Algorithm.DQN: network_of(
        Algorithm.DQN, inputs=INPUTS, hidden=(64, 64), activation=Activation.RELU, temperature=0.2
    ),
    Algorithm.QR_DQN: network_of(
        Algorithm.QR_DQN,
        inputs=INPUTS,
        hidden=(64, 64),
        activation=Activation.RELU,
        quantiles=10,
        temperature=0.2,
    ),
}


@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "trained"])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_it_acts_as_stable_baselines_predicts(
    tmp_path: Path, algorithm: Algorithm, trained: bool
) -> None:
    agent = agent_of(algorithm)
    if trained:
        agent.learn(STEPS)
    parameters = {name: tensor.numpy() for name, tensor in agent.policy.state_dict().items()}
    spec = spec_of(NETWORKS[algorithm])
    weights = from_stable_baselines(spec.network, parameters)
    served = ServedPolicy(write(tmp_path, spec, weights, observations=observations_of(spec)))
    asked = np.random.default_rng(11).uniform(-2, 2, (2000, INPUTS)).astype(np.float32)
    choices = [served.choose(row) for row in asked]
    theirs, _ = agent.predict(asked, deterministic=True)
    assert len({choice.name for choice in choices}) > 1
    assert [choice.name for choice in choices] == [ACTIONS[action].name for action in theirs]
    confidences = np.array([choice.confidence for choice in choices])
    assert np.abs(confidences - their_confidence(agent, algorithm, asked)).max() < 1e-6


def their_confidence(agent: Any, algorithm: Algorithm, asked: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        observations = torch.from_numpy(asked)
        if algorithm is Algorithm.PPO:
            probabilities = agent.policy.get_distribution(observations).distribution.probs
        elif algorithm is Algorithm.DQN:
            probabilities = torch.softmax(agent.q_net(observations) / 0.2, dim=1)
        else:
            probabilities = torch.softmax(agent.quantile_net(observations).mean(1) / 0.2, dim=1)
    return probabilities.max(dim=1).values.numpy()


GUARD = """
    import builtins, io, pickle, sys
    from pathlib import Path

    FORBIDDEN = {"cloudpickle", "dill", "joblib", "onnx", "safetensors", "sb3_contrib",
                 "shelve", "stable_baselines3", "torch"}

    class Wall:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in FORBIDDEN:
                raise ImportError(f"{name} is behind the wall")

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    import _pickle
    sys.meta_path.insert(0, Wall())
    assert not FORBIDDEN & sys.modules.keys()
    for module in (pickle, _pickle):
        for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
            if hasattr(module, name):
                setattr(module, name, refuse)
"""


def behind_the_wall(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which no unpickler works and none of the learners' packages can be loaded.

    The wall stands before anything of ours or numpy is imported. It shows that this path called no
    unpickler of the standard library, by whatever name it was reached before; code of a compiled
    extension that unpickled on its own, without `pickle`, would not be seen.
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GUARD) + textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )


def test_reading_and_serving_unpickle_nothing_and_load_no_torch(tmp_path: Path) -> None:
    sha = stored(tmp_path).sha
    program = """
        import numpy as np
        from learners.artifact import read
        from learners.serving import ServedPolicy
        served = ServedPolicy(read(Path(sys.argv[1]), sys.argv[2]))
        print(served.choose(np.zeros(4)).name)
        assert not FORBIDDEN & sys.modules.keys(), FORBIDDEN & sys.modules.keys()
    """
    ran = behind_the_wall(program, str(tmp_path), sha)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() in {action.name for action in ACTIONS}


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        ("pickle.loads(pickle.dumps(1))", "something was unpickled"),
        ("import numpy as np; f = io.BytesIO(); np.save(f, np.array([None])); f.seek(0);"
         "np.load(f, allow_pickle=True)", "something was unpickled"),
        ("import multiprocessing.reduction as r; r.ForkingPickler.loads(b'N.')", "unpickled"),
        ("import torch", "torch is behind the wall"),
        ("import joblib", "joblib is behind the wall"),
    ],
)  # fmt: skip
def test_the_wall_stands(attempt: str, said: str) -> None:
    ran = behind_the_wall(attempt)
    assert ran.returncode == 1
    assert said in ran.stderr


def test_what_does_not_act_stays_behind_and_weights_become_single_precision() -> None:
    network = network_of(hidden=())
    parameters = {
        "action_net.weight": weights_of(network)["layer.0.weight"].astype(np.float64),
        "action_net.bias": np.zeros(3),
        "value_net.weight": np.zeros((1, 4)),
    }
    found = from_stable_baselines(network, parameters)
    assert found.keys() == {"layer.0.weight", "layer.0.bias"}
    assert {tensor.dtype for tensor in found.values()} == {np.dtype(np.float32)}
