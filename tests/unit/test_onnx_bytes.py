"""Models written by hand are what the ONNX library reads, whatever they may hold."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from learners.onnx_bytes import FLOAT, TREES, TREES_VERSION, Attribute, model, node, value


@pytest.mark.parametrize(
    "found", [3, -1, 2**40, 0.5, "BRANCH_LEQ", [1, -2, 300], [0.5, -1.25], ["LEAF", "BRANCH_LEQ"]]
)
def test_an_attribute_reads_back(found: Attribute) -> None:
    read = onnx.NodeProto.FromString(node("Any", ["a"], ["b", "c"], domain="x", kept=found))
    back = onnx.helper.get_attribute_value(read.attribute[0])
    assert decoded(list(back) if isinstance(found, list) else back) == found
    assert (read.domain, list(read.input), list(read.output)) == ("x", ["a"], ["b", "c"])


def decoded(found: object) -> object:
    """Bytes as the text they are, also within a list."""
    if isinstance(found, list):
        return [decoded(each) for each in found]
    return found.decode() if isinstance(found, bytes) else found


def test_a_model_of_two_domains_is_checked_and_runs() -> None:
    trees = node(
        "TreeEnsembleRegressor",
        ["x"],
        "leaf",
        domain=TREES,
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[1, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[-1.0, 2.0],
    )
    content = model(
        [trees, node("Add", ["leaf", "one"], "y")],
        {"one": np.array([[1.0]], dtype=np.float32)},
        inputs=[value("x", FLOAT, 2)],
        outputs=[value("y", FLOAT, 1)],
        domains={TREES: TREES_VERSION},
    )
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": np.array([[0, 0.5], [0, 0.75]], dtype=np.float32)})
    assert found.tolist() == [[0.0], [3.0]]
