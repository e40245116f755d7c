"""The ONNX graph of a TimesNet encoder, as `learners.onnx_bytes` writes it from form and weights.

Between blocks a series is (n, bars, d_model), for the layer norm; inside a block it is (n, d_model,
bars), of which an image (n, d_model, cycles, period) is only another shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learners.onnx_bytes import FLOAT, model, node, value
from learners.tensor_file import Tensor
from learners.timesnet import NORM_EPSILON, TimesNetForm, positions, waves

INPUT, EMBEDDING = "window", "embedding"


def graph(form: TimesNetForm, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the model: `window` (n, bars, channels) to `embedding` (n, embedding), both float32.

    >>> form = TimesNetForm(bars=12, channels=2, frequencies=(1,))
    >>> zeros = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    >>> graph(form, zeros) == graph(form, zeros)
    True
    """
    nodes = _embedded()
    series = "embedded"
    for i in range(form.layers):
        nodes += _block(form, i, series)
        series = f"series.{i}"
        nodes.append(
            node(
                "LayerNormalization",
                [f"mixed.{i}", "norm.weight", "norm.bias"],
                series,
                axis=2,
                epsilon=NORM_EPSILON,
            )
        )
    nodes.append(node("ReduceMean", [series], "mean", axes=[1], keepdims=0))
    inputs = ["mean", "projection.weight", "projection.bias"]
    nodes.append(node("Gemm", inputs, "projected", transB=1))
    nodes.append(node("Tanh", ["projected"], EMBEDDING))
    return model(
        nodes,
        _constants(form, tensors),
        inputs=[value(INPUT, FLOAT, form.bars, form.channels)],
        outputs=[value(EMBEDDING, FLOAT, form.embedding)],
    )


def _constants(form: TimesNetForm, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    # Every tensor but the embedding's, whose three taps become rows of one matrix.
    found: dict[str, np.ndarray] = {name: tensors[name] for name in sorted(form.shapes())}
    taps = found.pop("embedding.weight")
    bars = np.arange(form.bars, dtype="<i8")
    count = len(form.frequencies)
    found |= {
        "taps": taps.transpose(2, 1, 0).reshape(3 * form.channels, form.d_model),
        "positions": positions(form),
        "bar.before": np.roll(bars, 1),
        "bar.after": np.roll(bars, -1),
        "waves": waves(form),
        "parts": np.array([0, 2, count, form.d_model], dtype="<i8"),
        "line": np.array([0, form.d_model, -1], dtype="<i8"),
        "half": np.array(0.5),
        "one": np.array(1.0),
        "root": np.array(np.sqrt(2.0)),
    }
    if any(form.bars % period for period in form.periods):
        cut = {"start": 0, "end": form.bars, "time": 2}
        found |= {name: np.array([number], dtype="<i8") for name, number in cut.items()}
    for i, period in enumerate(form.periods):
        found[f"which.{i}"] = np.array([i], dtype="<i8")
        found[f"image.{i}"] = np.array([0, form.d_model, -1, period], dtype="<i8")
        if form.bars % period:
            found[f"padding.{i}"] = np.array([0] * 5 + [-form.bars % period], dtype="<i8")
    return found


def _embedded() -> list[bytes]:
    return [
        node("Gather", [INPUT, "bar.before"], "before", axis=1),
        node("Gather", [INPUT, "bar.after"], "after", axis=1),
        node("Concat", ["before", INPUT, "after"], "around", axis=2),
        node("MatMul", ["around", "taps"], "valued"),
        node("Add", ["valued", "positions"], "embedded"),
    ]


def _block(form: TimesNetForm, i: int, series: str) -> list[bytes]:
    nodes = [
        node("MatMul", ["waves", series], f"spectrum.{i}"),
        node("Reshape", [f"spectrum.{i}", "parts"], f"parts.{i}"),
        node("ReduceL2", [f"parts.{i}"], f"amplitudes.{i}", axes=[1], keepdims=0),
        node("ReduceMean", [f"amplitudes.{i}"], f"amplitude.{i}", axes=[2], keepdims=1),
        node("Softmax", [f"amplitude.{i}"], f"shares.{i}", axis=1),
        node("Transpose", [series], f"line.{i}", perm=[0, 2, 1]),
    ]
    for j in range(len(form.periods)):
        nodes += _folded(form, i, j)
    summands = [f"line.{i}", *(f"weighted.{i}.{j}" for j in range(len(form.periods)))]
    nodes.append(node("Sum", summands, f"sum.{i}"))
    nodes.append(node("Transpose", [f"sum.{i}"], f"mixed.{i}", perm=[0, 2, 1]))
    return nodes


def _folded(form: TimesNetForm, i: int, j: int) -> list[bytes]:
    # One period of one block: its line of bars folded, convolved twice, unfolded and weighted.
    here = f"{i}.{j}"
    margin = [form.side // 2] * 4
    is_padded = form.bars % form.periods[j] != 0
    line = f"padded.{here}" if is_padded else f"line.{i}"
    unfolded = f"unfolded.{here}"
    nodes = [node("Pad", [f"line.{i}", f"padding.{j}"], line)] if is_padded else []
    stages = {
        stage: [f"block.{i}.{stage}.weight", f"block.{i}.{stage}.bias"]
        for stage in ("widen", "narrow")
    }
    nodes += [
        node("Reshape", [line, f"image.{j}"], f"image.{here}"),
        node("Conv", [f"image.{here}", *stages["widen"]], f"wide.{here}", pads=margin),
        *_gelu(f"wide.{here}", f"active.{here}"),
        node("Conv", [f"active.{here}", *stages["narrow"]], f"narrow.{here}", pads=margin),
        node("Reshape", [f"narrow.{here}", "line"], unfolded),
    ]
    if is_padded:
        nodes.append(node("Slice", [unfolded, "start", "end", "time"], f"cut.{here}"))
        unfolded = f"cut.{here}"
    nodes.append(node("Gather", [f"shares.{i}", f"which.{j}"], f"share.{here}", axis=1))
    nodes.append(node("Mul", [unfolded, f"share.{here}"], f"weighted.{here}"))
    return nodes


def _gelu(given: str, result: str) -> list[bytes]:
    # x / 2 * (1 + erf(x / sqrt 2)); the operator set has no Gelu of its own.
    return [
        node("Div", [given, "root"], f"{given}.scaled"),
        node("Erf", [f"{given}.scaled"], f"{given}.erf"),
        node("Add", [f"{given}.erf", "one"], f"{given}.shifted"),
        node("Mul", [given, f"{given}.shifted"], f"{given}.product"),
        node("Mul", [f"{given}.product", "half"], result),
    ]
