"""Checkpoints are kept whole, two of them, and refused for what is wrong in them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners import array_file, tensor_file
from learners.array_file import forms_of
from learners.checkpoints import (
    ARRAYS,
    COUNTERS,
    TENSORS,
    Checkpoint,
    Contents,
    Counters,
    read_checkpoint,
    set_aside,
    stored_steps,
    write_checkpoint,
)
from learners.sealed_files import ArtifactRefused, seal

RUN = "a" * 64
NAME = "000000000512"


def checkpoint_of(steps: int = 512, **counters: int) -> Checkpoint:
    counted = {"steps": steps, "updates": 3, "remembered": 2, "next_row": 2} | counters
    return Checkpoint(
        counters=Counters(run=RUN, **counted),
        tensors={"policy.weight": np.ones((2, 3), np.float32), "step": np.float32(3) * ONE},
        arrays={"replay": np.arange(4.0).reshape(2, 2), "generator": np.arange(6, dtype="<u8")},
    )


ONE: NDArray[np.float32] = np.ones((), np.float32)


def contents(counters: Counters) -> Contents:
    if counters.remembered > 2:
        raise InvalidInput(field="remembered", rule="must be at most 2", found=counters.remembered)
    made = checkpoint_of()
    shapes = {name: tensor.shape for name, tensor in made.tensors.items()}
    return Contents(tensors=shapes, arrays=forms_of(made.arrays))


def read(root: Path, name: str = NAME, *, run: str = RUN) -> Checkpoint:
    limits = {TENSORS: 4_096, ARRAYS: 8_192}
    return read_checkpoint(root, name, run=run, contents=contents, sizes_max=limits)


def refusal(root: Path, **asked: Any) -> str:
    with pytest.raises(ArtifactRefused) as refused:
        read(root, **asked)
    return str(refused.value)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    made = checkpoint_of()
    write_checkpoint(tmp_path, made)
    found = read(tmp_path)
    assert found.counters == made.counters
    for name in made.tensors:
        np.testing.assert_array_equal(found.tensors[name], made.tensors[name])
    for name in made.arrays:
        np.testing.assert_array_equal(found.arrays[name], made.arrays[name])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    assert stored_steps(tmp_path / "nowhere") == []
    for steps in (256, 512, 768, 1024):
        write_checkpoint(tmp_path, checkpoint_of(steps))
    assert stored_steps(tmp_path) == ["000000001024", "000000000768"]


def test_what_is_set_aside_is_no_checkpoint_any_more(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint_of())
    set_aside(tmp_path, NAME)
    assert stored_steps(tmp_path) == []
    write_checkpoint(tmp_path, checkpoint_of())
    set_aside(tmp_path, NAME)
    assert [path.name for path in tmp_path.iterdir()] == [f"refused-{NAME}"]


def sealed(root: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Seal other contents, as somebody who means harm would: every digest is right."""
    made = checkpoint_of()
    files = {
        COUNTERS: made.counters.to_bytes(),
        TENSORS: tensor_file.encoded(made.tensors),
        ARRAYS: array_file.encoded(made.arrays),
    }
    change(files)
    seal(root / NAME, files)


def with_tensor(name: str, values: NDArray[np.float32]) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[TENSORS] = tensor_file.encoded({**checkpoint_of().tensors, name: values})

    return change


def with_array(name: str, values: NDArray[Any]) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        file = io.BytesIO()
        np.savez(file, **{**checkpoint_of().arrays, name: values})  # type: ignore[arg-type]
        files[ARRAYS] = file.getvalue()

    return change


def with_bytes(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[name] = content

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_tensor("policy.weight", np.full((2, 3), np.nan, np.float32)), "must be finite"),
        (with_tensor("policy.weight", np.ones((3, 2), np.float32)), "header must be the one"),
        (with_tensor("policy.weight", np.ones((2, 4), np.float32)), "tensors.safetensors: must"),
        (with_array("replay", np.full((2, 2), np.inf)), "arrays.npz: replay must be finite"),
        (with_array("replay", np.ones((1, 2))), "arrays.npz: replay.npy must be stored"),
        (with_array("replay", np.array([[{}, {}]] * 2)), "arrays.npz: replay"),
        (with_bytes(TENSORS, pickle.dumps(print)), "tensors.safetensors: must have"),
        (with_bytes(ARRAYS, pickle.dumps(print)), "arrays.npz: must be a whole zip file"),
        (with_bytes(COUNTERS, pickle.dumps(print)), "checkpoint.json: must be UTF-8"),
        (with_bytes(COUNTERS, b"{}"), "checkpoint.json: must have format, next_row"),
        (with_bytes(COUNTERS, checkpoint_of(513).counters.to_bytes()), "after 512 steps"),
        (
            with_bytes(COUNTERS, checkpoint_of(remembered=3).counters.to_bytes()),
            "remembered must be at most 2",
        ),
        (
            with_bytes(COUNTERS, checkpoint_of().counters.to_bytes().replace(b":3", b":-3")),
            "checkpoint.json: updates must be",
        ),
        (with_bytes(ARRAYS, bytes(10_000)), "arrays.npz must be at most 8192 bytes"),
    ],
)
def test_hostile_contents_are_refused_by_file_and_rule(
    tmp_path: Path, change: Callable[[dict[str, bytes]], None], reason: str
) -> None:
    sealed(tmp_path, change)
    assert reason in refusal(tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint_of())
    assert "must be of the run bbbbbbbbbbbb" in refusal(tmp_path, run="b" * 64)


def test_a_file_that_was_cut_or_changed_is_refused(tmp_path: Path) -> None:
    sha = write_checkpoint(tmp_path, checkpoint_of())
    file = tmp_path / NAME / sha / TENSORS
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "tensors.safetensors: must have" in refusal(tmp_path)
    file.write_bytes(whole[:-1] + b"\x01")
    assert "tensors.safetensors: must have the SHA-256" in refusal(tmp_path)


def test_one_that_was_never_finished_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME / ".part-1").mkdir(parents=True)
    assert "must hold one whole checkpoint, found 0" in refusal(tmp_path)
