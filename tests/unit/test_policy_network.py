"""The network, its graph and its files agree with the libraries that others use for them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import safetensors.numpy
from made_up_policy import network_of, weights_of
from onnx import TensorProto, helper, numpy_helper

from bandit.core.errors import InvalidInput
from learners.network import Activation, Algorithm, Network, evaluate, from_stable_baselines
from learners.onnx_graph import graph
from learners.tensor_file import encoded

NETWORKS = [
    network_of(),
    network_of(hidden=()),
    network_of(Algorithm.DQN, activation=Activation.RELU, temperature=0.05),
    network_of(Algorithm.QR_DQN, activation=Activation.RELU, quantiles=7, temperature=2.0),
    network_of(Algorithm.QR_DQN, hidden=(300,), quantiles=200, inputs=130),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.algorithm}-{len(n.hidden)}")
def test_tensor_files_are_those_of_the_safetensors_library(network: Network) -> None:
    weights = weights_of(network)
    assert encoded(weights) == safetensors.numpy.save(weights)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.algorithm}-{len(n.hidden)}")
def test_graphs_are_those_of_the_onnx_library(network: Network) -> None:
    weights = weights_of(network)
    model = onnx_model(network, weights)
    onnx.checker.check_model(model, full_check=True)
    assert graph(network, weights) == model.SerializeToString(deterministic=True)


def onnx_model(network: Network, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes, current = [], "observation"
    operator = "Tanh" if network.activation is Activation.TANH else "Relu"
    for i in range(network.layers):
        is_last = i == network.layers - 1
        summed = "scores" if is_last and network.quantiles == 1 else f"sum.{i}"
        names = [current, f"layer.{i}.weight", f"layer.{i}.bias"]
        nodes.append(helper.make_node("Gemm", names, [summed], transB=1))
        if not is_last:
            current = f"hidden.{i}"
            nodes.append(helper.make_node(operator, [summed], [current]))
    constants = [numpy_helper.from_array(weights[name], name) for name in sorted(weights)]
    scale = np.array(network.temperature, dtype=np.float32)
    constants.append(numpy_helper.from_array(scale, "temperature"))
    if network.quantiles > 1:
        form = np.array([-1, network.quantiles, network.actions])
        constants.append(numpy_helper.from_array(form, "form"))
        nodes.append(helper.make_node("Reshape", [summed, "form"], ["quantiles"]))
        mean = helper.make_node("ReduceMean", ["quantiles"], ["scores"], axes=[1], keepdims=0)
        nodes.append(mean)
    nodes += [
        helper.make_node("Div", ["scores", "temperature"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["action"], axis=1, keepdims=0),
    ]
    floats, whole = TensorProto.FLOAT, TensorProto.INT64
    answers = ["n", network.actions]
    body = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", floats, ["n", network.inputs])],
        [
            helper.make_tensor_value_info("scores", floats, answers),
            helper.make_tensor_value_info("probabilities", floats, answers),
            helper.make_tensor_value_info("action", whole, ["n"]),
        ],
        constants,
    )
    return helper.make_model(
        body,
        producer_name="liveops",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )


def test_scores_and_probabilities_by_hand() -> None:
    network = network_of(
        Algorithm.QR_DQN, inputs=2, hidden=(2,), activation=Activation.RELU, quantiles=2,
        temperature=0.5,
    )  # fmt: skip
    weights = {
        "layer.0.weight": np.array([[1, -1], [2, 0]], dtype=np.float32),
        "layer.0.bias": np.array([0, 1], dtype=np.float32),
        # Quantile by quantile, each with the three actions.
        "layer.1.weight": np.array([[0, 1], [0, 0], [1, 0], [0, 1], [0, 2], [0, 0]], np.float32),
        "layer.1.bias": np.zeros(6, dtype=np.float32),
    }
    # Hidden: relu(1 - 3) = 0 and relu(2 * 1 + 1) = 3; quantiles (3, 0, 0) and (3, 6, 0).
    found = evaluate(network, weights, np.array([[1.0, 3.0]]))
    assert found.scores.tolist() == [[3.0, 3.0, 0.0]]
    # softmax(6, 6, 0)
    even = 1 / (2 + np.exp(-6))
    assert found.probabilities[0] == pytest.approx([even, even, np.exp(-6) * even], abs=1e-15)
    assert found.magnitude == 6.0


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.algorithm}-{len(n.hidden)}")
def test_a_torch_network_with_the_same_weights_says_the_same(network: Network) -> None:
    torch = pytest.importorskip("torch")
    weights = weights_of(network)
    layers: list[object] = []
    for i in range(network.layers):
        outputs, inputs = weights[f"layer.{i}.weight"].shape
        linear = torch.nn.Linear(inputs, outputs)
        parts = {
            part: torch.from_numpy(weights[f"layer.{i}.{part}"]) for part in ("weight", "bias")
        }
        linear.load_state_dict(parts)
        layers.append(linear)
        if i < network.layers - 1:
            is_tanh = network.activation is Activation.TANH
            layers.append(torch.nn.Tanh() if is_tanh else torch.nn.ReLU())
    asked = np.random.default_rng(3).standard_normal((500, network.inputs)).astype(np.float32)
    with torch.no_grad():
        values = torch.nn.Sequential(*layers)(torch.from_numpy(asked))
        scores = values.view(-1, network.quantiles, network.actions).mean(dim=1)
        probabilities = torch.softmax(scores / network.temperature, dim=1)
    found = evaluate(network, weights, asked)
    assert np.abs(found.scores - scores.numpy()).max() < 1e-6 * max(1.0, found.magnitude)
    bound = 1e-6 * max(1.0, found.magnitude) / min(1.0, network.temperature)
    assert np.abs(found.probabilities - probabilities.numpy()).max() < bound


def test_parameters_without_a_layer_are_refused() -> None:
    network = network_of(hidden=(5,))
    parameters = {
        "mlp_extractor.policy_net.0.weight": np.zeros((5, 4)),
        "mlp_extractor.policy_net.0.bias": np.zeros(5),
        "action_net.weight": np.zeros((2, 5)),
    }
    with pytest.raises(InvalidInput, match=r"action_net.weight: must have the shape \(3, 5\)"):
        from_stable_baselines(network, parameters)
    del parameters["mlp_extractor.policy_net.0.bias"]
    with pytest.raises(InvalidInput, match=r"policy_net.0.bias: must have .* found nothing"):
        from_stable_baselines(network, parameters)
