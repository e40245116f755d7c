"""Hostile contents under a hash that fits them, as if somebody had it registered: all refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from made_up_policy import (
    GOLDEN,
    GRAPH,
    MANIFEST,
    SPEC,
    WEIGHTS,
    files_of,
    planted,
    refusal,
    stored,
)
from onnx import TensorProto, helper

Change = Callable[[bytes], bytes]


def header(change: Callable[[str], str], *, length: int | None = None) -> Change:
    """Another header, of the same length unless the length field is to lie."""

    def changed(content: bytes) -> bytes:
        size = int.from_bytes(content[:8], "little")
        text = content[8 : 8 + size].decode()
        new = change(text).encode()
        assert length is not None or new != text.encode()
        new = new.rstrip(b" ").ljust(size) if len(new.rstrip(b" ")) <= size else new
        announced = len(new) if length is None else length
        return announced.to_bytes(8, "little") + new + content[8 + size :]

    return changed


def swapped(old: str, new: str) -> Change:
    return header(lambda text: text.replace(old, new, 1))


def value(number: float, *, at: int = -1) -> Change:
    def changed(content: bytes) -> bytes:
        size = 8 + int.from_bytes(content[:8], "little")
        values = np.frombuffer(content[size:], dtype="<f4").copy()
        values[at] = number
        return content[:size] + values.tobytes()

    return changed


def same(text: str) -> str:
    return text


BIAS = '"layer.0.bias":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}'


def bias_last(text: str) -> str:
    assert text.startswith(f"{{{BIAS},")
    return "{" + text.rstrip()[len(BIAS) + 2 : -1] + f",{BIAS}}}"


OF_TENSORS: dict[str, tuple[Change, str]] = {
    "empty": (lambda _: b"", "must have"),
    "cut_short": (lambda content: content[:-1], "must have"),
    "longer": (lambda content: content + b"\0", "must have"),
    "header_length_zero": (header(same, length=0), "must announce"),
    "header_length_one_less": (header(same, length=1), "must announce"),
    "header_length_huge": (header(same, length=2**40), "must announce"),
    "header_length_negative": (header(same, length=2**63), "must announce"),
    "header_length_overflow": (header(same, length=2**64 - 1), "must announce"),
    "header_wraps_round": (header(same, length=2**64 - 8), "must announce"),
    "header_huge": (
        lambda content: (50_000_000).to_bytes(8, "little") + b" " * 50_000_000 + content[8:],
        "must be at most",
    ),
    "offsets_overlap": (swapped("[20,100]", "[16,96]"), "header must be"),
    "offsets_beyond_the_end": (swapped("[0,20]", "[0,99]"), "header must be"),
    "offsets_negative": (swapped("[0,20]", "[-1,9]"), "header must be"),
    "offsets_backwards": (swapped("[0,20]", "[20,0]"), "header must be"),
    "offsets_leave_a_gap": (swapped("[20,100]", "[24,100]"), "header must be"),
    "shape_turned_round": (swapped("[5,4]", "[4,5]"), "header must be"),
    "shape_of_zero": (swapped('"shape":[5]', '"shape":[0]'), "header must be"),
    "shape_overflows": (swapped('"shape":[5]', f'"shape":[{2**62}]'), "must have"),
    "type_double": (swapped("F32", "F64"), "header must be"),
    "type_whole": (swapped("F32", "I32"), "header must be"),
    "type_unknown": (swapped("F32", "PKL"), "header must be"),
    "name_of_another_case": (swapped("layer.0.bias", "Layer.0.bias"), "header must be"),
    "name_repeated": (swapped("layer.0.bias", "layer.1.bias"), "header must be"),
    "name_in_cyrillic": (swapped("layer.0.bias", "l\u0430yer.0.bias"), "header must be"),
    "tensor_missing": (swapped(f"{BIAS},", ""), "header must be"),
    "tensor_extra": (
        swapped("{", '{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'),
        "must have",
    ),
    "metadata": (swapped("{", '{"__metadata__":{"run":"os.system"},'), "must have"),
    "order_changed": (header(bias_last), "header must be"),
    "header_not_json": (header(lambda text: "x" * len(text)), "header must be"),
    "header_nested_deeply": (header(lambda text: "[" * len(text)), "header must be"),
    "nan": (value(float("nan")), "must be finite"),
    "infinity": (value(float("inf"), at=0), "must be finite"),
    "minus_infinity": (value(float("-inf"), at=3), "must be finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_TENSORS)
def test_a_resealed_tensor_file_is_refused(tmp_path: Path, case: str) -> None:
    change, rule = OF_TENSORS[case]
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    sha = planted(tmp_path / "bad", {**files, WEIGHTS: change(files[WEIGHTS])})
    found = refusal(tmp_path / "bad", sha)
    assert found.file == (MANIFEST if case == "header_huge" else WEIGHTS)
    assert rule in found.rule


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_golden_answers_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    sha = planted(tmp_path / "bad", {**files, GOLDEN: value(number)(files[GOLDEN])})
    assert "must be finite" in refusal(tmp_path / "bad", sha).rule


def test_weights_and_graph_of_two_policies_are_refused(tmp_path: Path) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    others = files_of(tmp_path / "good", stored(tmp_path / "good", seed=5).sha)
    for name in (WEIGHTS, GRAPH):
        sha = planted(tmp_path / f"bad_{name}", {**files, name: others[name]})
        assert refusal(tmp_path / f"bad_{name}", sha).file == GRAPH


@pytest.mark.parametrize(("at", "answer"), [(-1, "scores"), (24, "probabilities")])
def test_a_policy_that_does_not_give_its_golden_answers_is_not_served(
    tmp_path: Path, at: int, answer: str
) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    # In the file: 24 observed numbers, 18 probabilities, 18 scores.
    sha = planted(tmp_path / "bad", {**files, GOLDEN: value(0.123, at=at)(files[GOLDEN])})
    found = refusal(tmp_path / "bad", sha)
    assert (found.file, found.rule.split()[0]) == (GOLDEN, answer)


def graph_case(change: Callable[[onnx.ModelProto], object]) -> Change:
    def changed(content: bytes) -> bytes:
        model = onnx.load_from_string(content)
        change(model)
        return model.SerializeToString()

    return changed


def _external(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def _branch(operator: str, **attributes: Any) -> Callable[[onnx.ModelProto], object]:
    inner = helper.make_graph([], "inner", [], [])
    bodies = dict.fromkeys(attributes.pop("bodies"), inner)
    return lambda model: model.graph.node.append(
        helper.make_node(operator, ["scores"], ["branch"], **bodies, **attributes)
    )


OF_GRAPHS: dict[str, Change] = {
    "empty": lambda _: b"",
    "cut_short": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "not_protobuf": lambda content: b"\xff" * len(content),
    "length_overflow": lambda content: b"\x3a" + b"\xff" * 9 + b"\x01" + content,
    "unknown_field": lambda content: content + b"\x82\x7d\x04evil",
    "twice": lambda content: content + content,
    "custom_domain": graph_case(lambda m: setattr(m.graph.node[0], "domain", "evil.ops")),
    "python_operator": graph_case(lambda m: setattr(m.graph.node[0], "op_type", "PyOp")),
    "other_operator": graph_case(lambda m: setattr(m.graph.node[1], "op_type", "Sigmoid")),
    "training_operator": graph_case(lambda m: setattr(m.graph.node[1], "domain", "ai.onnx.ml")),
    "external_passwd": graph_case(lambda m: _external(m, "../../../../etc/passwd")),
    "external_absolute": graph_case(lambda m: _external(m, "/dev/zero")),
    "external_beside": graph_case(lambda m: _external(m, "weights.safetensors")),
    "if": graph_case(_branch("If", bodies=("then_branch", "else_branch"))),
    "loop": graph_case(_branch("Loop", bodies=("body",))),
    "scan": graph_case(_branch("Scan", bodies=("body",), num_scan_inputs=1)),
    "function": graph_case(
        lambda m: m.functions.append(
            helper.make_function("evil", "Gemm", [], [], [], [helper.make_opsetid("", 17)])
        )
    ),
    "newer_operator_set": graph_case(lambda m: setattr(m.opset_import[0], "version", 23)),
    "second_operator_set": graph_case(lambda m: m.opset_import.add(domain="evil", version=1)),
    "metadata": graph_case(lambda m: m.metadata_props.add(key="ort_config", value="{}")),
    "doc_string": graph_case(lambda m: setattr(m, "doc_string", "x")),
    "input_of_another_shape": graph_case(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 5)
    ),
    "extra_output": graph_case(
        lambda m: m.graph.output.append(helper.make_tensor_value_info("hidden.0", 1, ["n", 5]))
    ),
    "sparse_initializer": graph_case(lambda m: m.graph.sparse_initializer.add()),
    "initializer_of_dims_2_62": graph_case(lambda m: m.graph.initializer[0].dims.append(2**62)),
    "weight_nudged": graph_case(
        lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0\0\0\x3f" * 5)
    ),
    "string_tensor": graph_case(
        lambda m: m.graph.initializer.add(data_type=TensorProto.STRING, string_data=[b"x"])
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_GRAPHS)
def test_a_resealed_graph_is_refused(tmp_path: Path, case: str) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    changed = OF_GRAPHS[case](files[GRAPH])
    assert changed != files[GRAPH]
    found = refusal(tmp_path / "bad", planted(tmp_path / "bad", {**files, GRAPH: changed}))
    assert found.file == GRAPH
    assert "must be the graph that spec.json and weights.safetensors imply" in found.rule


def test_a_giant_initializer_is_refused_by_its_size(tmp_path: Path) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    giant = graph_case(lambda m: m.graph.initializer.add(name="giant", raw_data=bytes(17_000_000)))(
        files[GRAPH]
    )
    found = refusal(tmp_path / "bad", planted(tmp_path / "bad", {**files, GRAPH: giant}))
    assert (found.file, found.found) == (MANIFEST, str(len(giant)))
    assert "policy.onnx must be at most" in found.rule


def spec_case(change: Callable[[dict[str, Any]], object]) -> Change:
    """Another value somewhere, written as canonically as we would."""

    def changed(content: bytes) -> bytes:
        body = json.loads(content)
        change(body)
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    return changed


def put(path: str, item: object) -> Change:
    def change(body: dict[str, Any]) -> None:
        *outer, last = path.split("/")
        for key in outer:
            body = body[int(key)] if isinstance(body, list) else body[key]
        body[int(last) if isinstance(body, list) else last] = item

    return spec_case(change)


def text(old: bytes, new: bytes) -> Change:
    def changed(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return changed


def nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return inner


def turned_round(content: bytes) -> bytes:
    body = dict(reversed(json.loads(content).items()))
    return json.dumps(body, separators=(",", ":")).encode()


EARLY = "2019-01-01T00:00:00.000000Z"
SHORT = "2024-06-30T23:00:00.0Z"
OF_SPECS: dict[str, tuple[Change, str]] = {
    "empty": (lambda _: b"", "must be JSON"),
    "not_an_object": (lambda _: b"[]", "must be an object"),
    "cut_short": (lambda content: content[:-1], "must be JSON"),
    "two_documents": (lambda content: content + b"{}", "must be JSON"),
    "byte_order_mark": (lambda content: b"\xef\xbb\xbf" + content, "must be JSON"),
    "utf_16": (lambda content: content.decode().encode("utf-16"), "must be UTF-8"),
    "not_utf_8": (text(b"flat", b"fl\xe0t"), "must be UTF-8"),
    "blank": (lambda content: content + b"\n", "canonical form"),
    "key_repeated": (text(b'{"actions"', b'{"actions":[],"actions"'), "must not repeat a key"),
    "key_spelled_otherwise": (text(b'"golden"', b'"g\\u006flden"'), "canonical form"),
    "keys_in_another_order": (turned_round, "canonical form"),
    "nan": (text(b"0.0005", b"NaN"), "must hold finite numbers only"),
    "infinity": (text(b"0.0005", b"-Infinity"), "must hold finite numbers only"),
    "number_too_large": (text(b"0.0005", b"1e999"), "must be JSON as of RFC 8785"),
    "whole_number_too_large": (text(b"0.0005", b"9007199254740993"), "must be JSON as of RFC 8785"),
    "number_of_5000_digits": (text(b"0.0005", b"1" * 5000), "must be JSON"),
    "number_spelled_otherwise": (text(b"0.0005", b"5e-4"), "canonical form"),
    "minus_zero": (text(b'"position":0}', b'"position":-0}'), "canonical form"),
    "half_a_surrogate_pair": (put("features/body/note", "HERE"), "canonical"),
    "nul": (put("features/body/note", "a\0b"), "NUL"),
    "nested_40_deep": (put("features/body/deep", nested(40)), "nested at most 16 deep"),
    "nested_30000_deep": (text(b"0.0005", b"[" * 30_000 + b"]" * 30_000), "must be JSON"),
    "larger_than_may_be": (put("features/body/long", "x" * 65_536), "must be at most"),
    "unknown_key": (put("python", "os.system"), "must have the keys"),
    "python_tag": (put("network/py_object", "os.system"), "must have the keys"),
    "key_of_another_case": (text(b'"golden"', b'"Golden"'), "canonical form"),
    "key_with_an_invisible_letter": (put("golden\u200b", 1), "must have the keys"),
    "format_of_the_future": (put("format", 3), "format must be 1 or 2"),
    "format_of_another_model": (put("format", 2), "must have the keys actions, encoder, ensemble"),
    "format_a_list": (put("format", [1]), "format must be 1 or 2"),
    "format_true": (put("format", True), "format must be 1 or 2"),
    "algorithm_unknown": (put("network/algorithm", "eval"), "must be one of"),
    "algorithm_of_another_case": (put("network/algorithm", "PPO"), "must be one of"),
    "activation_unknown": (put("network/activation", "__import__"), "must be one of"),
    "activation_a_list": (put("network/activation", ["tanh"]), "must be one of"),
    "inputs_negative": (put("network/inputs", -4), "must be a whole number"),
    "inputs_true": (put("network/inputs", True), "must be a whole number"),
    "inputs_a_fraction": (put("network/inputs", 4.5), "must be a whole number"),
    "inputs_text": (put("network/inputs", "4"), "must be a whole number"),
    "inputs_of_gigabytes": (put("network/inputs", 2**40), "must be a whole number"),
    "layers_of_gigabytes": (put("network/hidden", [4096, 4096, 4096]), "parameters"),
    "layers_too_many": (put("network/hidden", [4] * 9), "hidden layers"),
    "layers_no_list": (put("network/hidden", {"0": 5}), "must be a list"),
    "quantiles_of_ppo": (put("network/quantiles", 9), "quantiles must be"),
    "temperature_zero": (put("network/temperature", 0), "temperature must be"),
    "temperature_text": (put("network/temperature", "1"), "must be a number"),
    "actions_missing": (put("actions", []), "actions must be"),
    "action_names_alike": (put("actions/0/name", "flat"), "must have different names"),
    "action_name_a_path": (put("actions/0/name", "../flat"), "must match"),
    "action_of_ten_times_the_size": (put("actions/2/position", 10), "must be in [-1, 1]"),
    "digest_short": (put("features/digest", "abc"), "must match"),
    "part_no_object": (put("environment/body", "fee"), "must be an object"),
    "seed_negative": (put("training/seed", -1), "must be a whole number"),
    "time_without_a_date": (put("training/data_to", "now"), "must be a time"),
    "time_spelled_otherwise": (put("training/data_to", SHORT), "as this version"),
    "packages_no_object": (put("training/packages", ["torch"]), "must be an object"),
    "time_before_its_start": (put("training/data_to", EARLY), "after data_from"),
    "package_with_a_command": (put("training/packages/torch", "2; rm -rf /"), "must match"),
    "golden_none": (put("golden", 0), "must be a whole number"),
    "golden_of_gigabytes": (put("golden", 2**31), "must be a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_SPECS)
def test_a_resealed_specification_is_refused(tmp_path: Path, case: str) -> None:
    change, rule = OF_SPECS[case]
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    changed = change(files[SPEC])
    if case == "half_a_surrogate_pair":
        changed = changed.replace(b"HERE", b"\\ud800")
        rule = "RFC 8785"
    assert changed != files[SPEC]
    found = refusal(tmp_path / "bad", planted(tmp_path / "bad", {**files, SPEC: changed}))
    assert found.file == (MANIFEST if case == "larger_than_may_be" else SPEC)
    assert rule in found.rule


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("network/inputs", 5),
        ("network/hidden", [5, 4]),
        ("network/hidden", [5]),
        ("network/activation", "relu"),
        ("golden", 7),
    ],
)
def test_a_lawful_specification_of_other_files_is_refused(
    tmp_path: Path, path: str, item: object
) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    changed = put(path, item)(files[SPEC])
    sha = planted(tmp_path / "bad", {**files, SPEC: changed})
    assert refusal(tmp_path / "bad", sha).file in {WEIGHTS, GRAPH, GOLDEN}
