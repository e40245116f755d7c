"""Hostile or damaged classifiers and encoders, under hashes that fit them: all refused by name."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_encoder_policy import embedding_policy
from made_up_policy import files_of, planted, refusal

from bandit.core.model import PolicySha
from learners.artifact import read
from learners.embedding import ServedEncoder
from learners.encoder_artifact import GOLDEN, GRAPH, SPEC, WEIGHTS, read_encoder
from learners.sealed_files import ArtifactRefused
from learners.sight import sight_of
from learners.tensor_file import encoded

Change = Callable[[bytes], bytes]
FILES = {
    "encoder": (SPEC, WEIGHTS, GRAPH, GOLDEN),
    "policy": (SPEC, WEIGHTS, "policy.onnx", GOLDEN, "drift.json", "drift.npz"),
}


class _Executed(Exception):
    """Raised by whoever unpickles what it must not read."""


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _explode, ("executed",)


def _explode(said: str) -> None:
    raise _Executed(said)


def put(path: str, item: object) -> Change:
    """Change one place of a JSON document, written as the product writes it."""

    def changed(content: bytes) -> bytes:
        document = json.loads(content)
        *way, last = path.split("/")
        inner = document
        for key in way:
            inner = inner[key]
        inner[last] = item
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    return changed


def number(at: int, found: float) -> Change:
    """Change one number of a tensor file."""

    def changed(content: bytes) -> bytes:
        size = 8 + int.from_bytes(content[:8], "little")
        values = np.frombuffer(content[size:], dtype="<f4").copy()
        values[at] = found
        return content[:size] + values.tobytes()

    return changed


OF_ANY_FILE: dict[str, Change] = {
    "empty": lambda _: b"",
    "cut_short": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "a_pickle": lambda _: pickle.dumps(_Bomb()),
    "a_bit_flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "a_pickle_before_it": lambda content: pickle.dumps(_Bomb()) + content,
}
OF_ENCODERS: dict[str, Change] = {
    "another_kind": put("kind", "lstm"),
    "format_true": put("format", True),
    "bars_of_gigabytes": put("form/bars", 2**31),
    "channels_negative": put("form/channels", -1),
    "d_model_huge": put("form/d_model", 10**9),
    "frequencies_none": put("form/frequencies", []),
    "frequencies_many": put("form/frequencies", list(range(1, 1_000))),
    "frequencies_a_word": put("form/frequencies", "abc"),
    "frequency_zero": put("form/frequencies", [0, 1]),
    "kernels_a_float": put("form/kernels", 3.0),
    "classes_none": put("classes", 0),
    "classes_huge": put("classes", 2**40),
    "form_a_list": put("form", []),
    "key_extra": put("run", "os.system"),
    "golden_huge": put("golden", 2**31),
}
OF_POLICIES: dict[str, Change] = {
    "encoder_a_path": put("encoder", "../../etc/passwd"),
    "encoder_a_number": put("encoder", 7),
    "encoder_itself_missing": put("encoder", "0" * 64),
    "encoder_left_out": put("encoder", None),
    "tabnet_wide": put("ensemble/tabnet/width", 10**9),
    "tabnet_steps": put("ensemble/tabnet/steps", 10**9),
    "tabnet_gamma_nan": put("ensemble/tabnet/gamma", "NaN"),
    "trees_many": put("ensemble/forest/trees", 10**12),
    "trees_negative": put("ensemble/forest/trees", -1),
    "nodes_many": put("ensemble/forest/nodes", 2**62),
    "weight_above_one": put("ensemble/forest_weight", 1.5),
    "weight_true": put("ensemble/forest_weight", True),
    "temperature_zero": put("ensemble/temperature", 0),
    "inputs_few": put("ensemble/inputs", 1),
    "inputs_huge": put("ensemble/inputs", 10**9),
    "forest_a_word": put("ensemble/forest", "forest"),
    "ensemble_a_list": put("ensemble", []),
    "horizon_zero": put("horizon_bars", 0),
    "horizon_none": put("horizon_bars", None),
    "format_one": put("format", 1),
    "key_extra": put("ensemble/run", "os.system"),
}


def changed_files(root: Path, part: str, file: str, change: Change) -> tuple[Path, PolicySha]:
    """Seal a policy and its encoder anew below `root`, one file of one of them changed."""
    artifact = embedding_policy(root / "good")
    assert artifact.encoder is not None
    sha = artifact.encoder.sha if part == "encoder" else artifact.sha
    files = files_of(root / "good", sha)
    altered = change(files[file])
    assert altered != files[file]
    bad = planted(root / "bad", {**files, file: altered})
    if part == "policy":  # its encoder lies beside it, sound
        planted_encoder = planted(root / "bad", files_of(root / "good", artifact.encoder.sha))
        assert planted_encoder == artifact.encoder.sha
    return root / "bad", bad


def refused(root: Path, part: str, sha: PolicySha) -> ArtifactRefused:
    if part == "policy":
        return refusal(root, sha)
    with pytest.raises(ArtifactRefused) as found:
        ServedEncoder(read_encoder(root, sha))
    return found.value


@pytest.mark.parametrize("case", OF_ANY_FILE)
@pytest.mark.parametrize(("part", "file"), [(p, f) for p, files in FILES.items() for f in files])
def test_damage_and_pickles_are_refused(part: str, file: str, case: str, tmp_path: Path) -> None:
    root, sha = changed_files(tmp_path, part, file, OF_ANY_FILE[case])
    found = refused(root, part, sha)
    # A last bit of the weights is another model, which its graph does not show.
    also = {FILES[part][2], GOLDEN} if file in (WEIGHTS, GOLDEN) else set()
    assert found.file in {file, *also}


@pytest.mark.parametrize("case", OF_ENCODERS)
def test_a_resealed_encoder_specification_is_refused(case: str, tmp_path: Path) -> None:
    root, sha = changed_files(tmp_path, "encoder", SPEC, OF_ENCODERS[case])
    assert refused(root, "encoder", sha).file == SPEC


@pytest.mark.parametrize("case", OF_POLICIES)
def test_a_resealed_classifier_specification_is_refused(case: str, tmp_path: Path) -> None:
    root, sha = changed_files(tmp_path, "policy", SPEC, OF_POLICIES[case])
    with pytest.raises(ArtifactRefused):
        sight_of(read(root, sha))


@pytest.mark.parametrize("found", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", FILES)
def test_weights_that_are_no_numbers_are_refused(part: str, found: float, tmp_path: Path) -> None:
    root, sha = changed_files(tmp_path, part, WEIGHTS, number(0, found))
    assert "must be finite" in refused(root, part, sha).rule


def test_a_tree_that_runs_in_a_circle_is_refused(tmp_path: Path) -> None:
    artifact = embedding_policy(tmp_path / "good")
    tensors = {name: tensor.copy() for name, tensor in artifact.tensors.items()}
    for name, at in (("forest.left", 0), ("forest.right", 0), ("forest.feature", 1e6)):
        spoilt = {key: tensor.copy() for key, tensor in tensors.items()}
        spoilt[name][0, 0] = at
        files = files_of(tmp_path / "good", artifact.sha)
        sha = planted(tmp_path / name, {**files, WEIGHTS: encoded(spoilt)})
        assert refused(tmp_path / name, "policy", sha).file == WEIGHTS
