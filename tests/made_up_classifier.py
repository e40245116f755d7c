"""Small classifiers for tests: a TabNet, a forest, and how their graphs are run."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from learners.forest import ForestForm
from learners.onnx_bytes import FLOAT, TREES, TREES_VERSION, Part, model, value
from learners.tabnet import TabNetForm
from learners.tensor_file import Tensor

FORMS = {
    "default": TabNetForm(inputs=12, classes=3),
    "one_column": TabNetForm(inputs=1, classes=2),
    "no_shared": TabNetForm(inputs=12, classes=2, shared=0),
    "no_independent": TabNetForm(inputs=7, classes=3, independent=0, gamma=1.0),
    "one_layer": TabNetForm(inputs=12, classes=4, steps=1, width=3, shared=1, independent=0),
    "many_steps": TabNetForm(inputs=9, classes=3, steps=5, width=4, gamma=2.0),
}


def tensors_of_tabnet(form: TabNetForm, seed: int = 3) -> dict[str, Tensor]:
    """Weights as they are after a training that went well: sums about as large as what they sum."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in form.shapes().items()
    }
    tensors["input.scale"] = rng.uniform(0.5, 2.0, form.inputs).astype(np.float32)
    return tensors


def stumps(form: ForestForm, seed: int = 5) -> dict[str, Tensor]:
    """Trees with one split each, of three nodes."""
    rng = np.random.default_rng(seed)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    tensors["base"][:] = rng.standard_normal(form.classes)
    tensors["target"][:] = np.arange(form.trees) % form.classes
    tensors["feature"][:, 0] = rng.integers(0, form.inputs, form.trees)
    tensors["threshold"][:, 0] = rng.standard_normal(form.trees)
    tensors["left"][:, 0], tensors["right"][:, 0] = 1, 2
    tensors["value"][:, 1:3] = rng.standard_normal((form.trees, 2))
    return tensors


def rows_of(inputs: int, count: int = 200, seed: int = 7) -> Tensor:
    return np.random.default_rng(seed).standard_normal((count, inputs)).astype(np.float32)


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def model_of(part: Part, *, inputs: int, outputs: int, name: str | None = None) -> bytes:
    """The part as a model of its own that says `name`, or else what the part is for."""
    nodes, constants, said = part
    return model(
        nodes,
        constants,
        inputs=[value("rows", FLOAT, inputs)],
        outputs=[value(name or said, FLOAT, outputs)],
        domains={TREES: TREES_VERSION},
    )


def run(content: bytes, rows: Tensor) -> NDArray[np.float32]:
    [found] = session(content).run(None, {"rows": rows})
    return np.asarray(found)
