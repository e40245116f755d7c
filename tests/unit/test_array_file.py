"""Files of arrays are read by what they have to hold, and nothing in them is believed."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.array_file import decoded, encoded, forms_of, size_max
from learners.sealed_files import ArtifactRefused

ARRAYS: dict[str, NDArray[Any]] = {
    "a.rewards": np.linspace(0.0, 1.0, 6, dtype=np.float32).reshape(2, 3),
    "keys": np.arange(4, dtype=np.uint64),
    "starts": np.array([True, False]),
    "none": np.zeros((0, 3), dtype=np.int64),
}


def npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    """The file of numpy's own writer, which also pickles."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # names of our own
    return file.getvalue()


def refusal(content: bytes) -> str:
    with pytest.raises(ArtifactRefused) as refused:
        decoded(content, forms_of(ARRAYS), file="arrays.npz")
    assert refused.value.file == "arrays.npz"
    return str(refused.value)


def test_arrays_come_back_as_they_were_and_numpy_reads_them_too() -> None:
    content = encoded(ARRAYS)
    assert len(content) <= size_max(forms_of(ARRAYS))
    theirs = np.load(io.BytesIO(content), allow_pickle=False)
    ours = decoded(content, forms_of(ARRAYS), file="arrays.npz")
    for name, array in ARRAYS.items():
        for read in (ours[name], theirs[name]):
            assert read.dtype == array.dtype
            np.testing.assert_array_equal(read, array)
        ours[name].flags.writeable = True  # what is restored has to be written to


def test_equal_arrays_are_equal_bytes() -> None:
    assert encoded(ARRAYS) == encoded(dict(reversed(ARRAYS.items())))


def test_what_numpy_writes_is_read() -> None:
    decoded(npz(ARRAYS), forms_of(ARRAYS), file="arrays.npz")


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.trace,))


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    evil = np.empty(4, dtype=object)
    evil[:] = [Evil(trace)] * 4
    assert "keys" in refusal(npz({**ARRAYS, "keys": evil}))
    # One of exactly the right length, in place of the array.
    content = pickle.dumps(Evil(trace))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as members, zipfile.ZipFile(io.BytesIO(npz(ARRAYS))) as plain:
        for name in plain.namelist():
            kept = plain.read(name)
            is_keys = name == "keys.npy"
            members.writestr(name, content.ljust(len(kept), b"\0") if is_keys else kept)
    assert "keys must have the header of <u8 (4,)" in refusal(whole.getvalue())
    assert not trace.exists()
    pickle.loads(content)  # noqa: S301 - the trap is a trap
    assert trace.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a.rewards": np.full((2, 3), np.nan, np.float32)}, "a.rewards must be finite"),
        ({"a.rewards": np.full((2, 3), np.inf, np.float32)}, "a.rewards must be finite"),
        ({"a.rewards": np.zeros((3, 2), np.float32)}, "a.rewards must have the header"),
        ({"a.rewards": np.zeros((2, 3), np.float64)}, "a.rewards.npy must be stored, of"),
        ({"a.rewards": np.zeros((2, 3), ">f4")}, "a.rewards must have the header"),
        ({"a.rewards": np.asfortranarray(ARRAYS["a.rewards"])}, "a.rewards must have the header"),
        ({"keys": np.arange(5, dtype=np.uint64)}, "keys.npy must be stored, of"),
        ({"surplus": np.zeros(1)}, "must hold 4 arrays"),
    ],
)
def test_other_arrays_are_refused_by_name(change: dict[str, NDArray[Any]], reason: str) -> None:
    assert reason in refusal(npz({**ARRAYS, **change}))


def test_what_is_compressed_or_cut_or_changed_is_refused() -> None:
    squeezed = io.BytesIO()
    np.savez_compressed(squeezed, **ARRAYS)
    assert "must be stored" in refusal(squeezed.getvalue())
    whole = encoded(ARRAYS)
    assert "whole zip file" in refusal(whole[:-30])
    assert "whole zip file" in refusal(b"")
    at = whole.index(ARRAYS["a.rewards"].tobytes())
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    assert "whole zip file" in refusal(changed)  # by its checksum
