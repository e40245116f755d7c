"""A stored policy reads back as it was written, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from made_up_policy import (
    ACTIONS,
    network_of,
    observations_of,
    spec_of,
    stored,
    weights_of,
)

from bandit.core.errors import InvalidInput
from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from learners.artifact import read, write
from learners.artifact_spec import ActionSpec, DescribedPart, spec_from_bytes
from learners.network import Algorithm
from learners.sealed_files import ArtifactRefused, forget_parts

NAMES = {"golden.safetensors", "manifest.json", "policy.onnx", "spec.json", "weights.safetensors"}


def test_what_was_written_reads_back(tmp_path: Path) -> None:
    spec = spec_of(network_of(Algorithm.QR_DQN, quantiles=5, temperature=0.25))
    weights = weights_of(spec.network)
    sha = write(tmp_path, spec, weights, observations=observations_of(spec)).sha
    found = read(tmp_path, sha)
    assert found.spec == spec
    assert found.tensors.keys() == weights.keys()
    assert all(np.array_equal(found.tensors[name], weights[name]) for name in weights)
    assert np.array_equal(found.golden.observations, observations_of(spec))
    assert found.graph == (tmp_path / sha / "policy.onnx").read_bytes()


def test_the_hash_is_that_of_the_manifest_and_the_manifest_has_those_of_the_files(
    tmp_path: Path,
) -> None:
    artifact = stored(tmp_path)
    folder = tmp_path / artifact.sha
    assert {path.name for path in folder.iterdir()} == NAMES
    manifest = (folder / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == artifact.sha
    assert json.loads(manifest) == artifact.manifest
    for name, entry in artifact.manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_a_policy_can_be_registered_with_the_hash_and_the_manifest(tmp_path: Path) -> None:
    artifact = stored(tmp_path)
    policy = Policy(
        name=PolicyName("reinforcement_1"),
        kind=PolicyKind.REINFORCEMENT,
        sha=artifact.sha,
        metadata={"artifact": artifact.manifest},
    )
    assert policy.sha == artifact.sha


def test_the_same_policy_twice_is_one_directory_that_is_not_touched(tmp_path: Path) -> None:
    first = stored(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / first.sha).iterdir()}
    assert stored(tmp_path).sha == first.sha
    assert [path.name for path in tmp_path.iterdir()] == [first.sha]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / first.sha).iterdir()} == before


def test_another_weight_another_seed_or_another_observation_is_another_policy(
    tmp_path: Path,
) -> None:
    spec = spec_of(network_of())
    weights, asked = weights_of(spec.network), observations_of(spec)
    nudged = {**weights, "layer.0.bias": weights["layer.0.bias"] + np.float32(1e-3)}
    retrained = replace(spec, training=replace(spec.training, seed=8))
    shas = {
        write(tmp_path, spec, weights, observations=asked).sha,
        write(tmp_path, spec, nudged, observations=asked).sha,
        write(tmp_path, retrained, weights, observations=asked).sha,
        write(tmp_path, spec, weights, observations=asked + np.float32(0.5)).sha,
    }
    assert len(shas) == 4


def test_writing_again_over_a_damaged_copy_says_which_file_is_damaged(tmp_path: Path) -> None:
    artifact = stored(tmp_path)
    (tmp_path / artifact.sha / "policy.onnx").write_bytes(b"")
    with pytest.raises(ArtifactRefused) as refused:
        stored(tmp_path)
    assert refused.value.file == "policy.onnx"


def test_kill_9_while_writing_leaves_whole_policies_only(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom made_up_policy import stored\n"
        "for seed in range(10_000):\n"
        "    print(stored(Path(sys.argv[1]), seed=seed).sha, flush=True)\n"
    )
    rng = np.random.default_rng(4)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    acknowledged: set[str] = set()
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as writer:
            assert writer.stdout is not None
            acknowledged.add(writer.stdout.readline().strip())
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(timeout=float(rng.uniform(0.0, 0.1)))
            writer.send_signal(signal.SIGKILL)
            acknowledged.update(
                line for line in writer.stdout.read().split("\n") if len(line) == 64
            )
    visible = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".part-")}
    assert acknowledged <= visible
    assert all(read(tmp_path, PolicySha(name)).sha == name for name in visible)


def test_what_killed_writers_left_is_forgotten_after_a_while(tmp_path: Path) -> None:
    whole = stored(tmp_path).sha
    below = tmp_path / "runs" / "000000001024"
    names = (".part-old", "runs/000000001024/.part-old", ".part-new", "kept")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_bytes(b"x")
    (tmp_path / ".part-file").write_bytes(b"x")
    (tmp_path / ".part-link").symlink_to(tmp_path / "kept")
    for path in (*(tmp_path / name for name in names), tmp_path / ".part-file", tmp_path / whole):
        is_new = path.name == ".part-new"
        os.utime(path, (0, 1_000_000 if is_new else 999_999))

    for _ in range(2):
        forget_parts(tmp_path, before=datetime.fromtimestamp(1_000_000, tz=UTC))

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {whole, "runs", ".part-new", "kept", ".part-file", ".part-link"}
    assert list(below.iterdir()) == []
    assert (tmp_path / "kept" / "weights").exists()
    forget_parts(tmp_path / "nowhere", before=datetime.now(tz=UTC))


def test_writers_that_meet_write_one_policy(tmp_path: Path) -> None:
    network = network_of(inputs=1024, hidden=(512,))
    with ThreadPoolExecutor(6) as threads:
        shas = {found.sha for found in threads.map(lambda _: stored(tmp_path, network), range(12))}
    assert {path.name for path in tmp_path.iterdir()} == shas
    assert len(shas) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_weights_of_another_type_are_refused(tmp_path: Path, dtype: type) -> None:
    spec = spec_of(network_of())
    weights = {name: tensor.astype(dtype) for name, tensor in weights_of(spec.network).items()}
    with pytest.raises(InvalidInput, match="must be float32 of shape"):
        write(tmp_path, spec, weights, observations=observations_of(spec))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"layer.0.bias": np.full(5, np.nan, dtype=np.float32)}, "layer.0.bias"),
        ({"layer.0.bias": np.zeros(4, dtype=np.float32)}, "layer.0.bias"),
        ({"layer.9.bias": np.zeros(4, dtype=np.float32)}, "tensors"),
        # Finite weights whose sums are not.
        ({"layer.2.weight": np.full((3, 3), 3e38, dtype=np.float32)}, "scores"),
    ],
)
def test_weights_that_cannot_act_are_not_written(
    tmp_path: Path, change: dict[str, np.ndarray], field: str
) -> None:
    spec = spec_of(network_of())
    weights = {**weights_of(spec.network), **change}
    with pytest.raises(InvalidInput) as refused:
        write(tmp_path, spec, weights, observations=observations_of(spec))
    assert refused.value.field == field
    assert not list(tmp_path.iterdir())


def test_a_specification_is_the_same_after_its_bytes() -> None:
    spec = spec_of(network_of(Algorithm.DQN, temperature=0.125))
    again = spec_from_bytes(spec.to_bytes())
    assert again == spec
    assert again.training.data_to == datetime(2024, 6, 30, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hidden": (0,)}, "hidden"),
        ({"hidden": (4097,)}, "hidden"),
        ({"hidden": (8,) * 9}, "hidden layers"),
        ({"hidden": (4096, 4096)}, "parameters"),
        ({"inputs": 0}, "inputs"),
        ({"actions": 1}, "actions"),
        ({"actions": 65}, "actions"),
        ({"quantiles": 2}, "quantiles"),
        ({"algorithm": Algorithm.QR_DQN, "quantiles": 201}, "quantiles"),
        ({"temperature": 0.5}, "temperature"),
        ({"algorithm": Algorithm.DQN, "temperature": 0.0}, "temperature"),
        ({"algorithm": Algorithm.DQN, "temperature": float("nan")}, "temperature"),
    ],
)
def test_a_network_out_of_bounds_is_refused(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(network_of(), **change)
    assert refused.value.field == field


def test_a_specification_whose_parts_do_not_fit_is_refused() -> None:
    spec = spec_of(network_of())
    with pytest.raises(InvalidInput, match="must be the 3 of the network"):
        replace(spec, actions=ACTIONS[:2])
    with pytest.raises(InvalidInput, match="must have different names"):
        replace(spec, actions=(*ACTIONS[:2], ActionSpec(name="flat", position=0.5)))
    with pytest.raises(InvalidInput, match="must have at most 65536 bytes"):
        replace(spec, scaler=DescribedPart(digest="b" * 64, body={"mean": [0.5] * 20_000}))
    with pytest.raises(InvalidInput, match="must be after data_from"):
        replace(spec.training, data_to=spec.training.data_from)


def test_the_largest_lawful_policy_is_written_and_read(tmp_path: Path) -> None:
    # 1022 * 4096 + 1022 + 3 * 1022 + 3 = 4,190,203 of at most 4,194,304 parameters.
    network = network_of(inputs=4096, hidden=(1022,))
    spec = spec_of(network, golden=256)
    artifact = write(tmp_path, spec, weights_of(network), observations=observations_of(spec))
    assert read(tmp_path, artifact.sha).spec == spec
