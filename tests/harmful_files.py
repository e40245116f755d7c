"""Files that run a command when they are unpickled, each with the reader that really does it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


class Harm:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A file format that holds a pickle: how it is made, and how it goes off."""

    name: str
    made: Callable[[Harm], bytes]
    set_off: Callable[[bytes], object]


def _torch_zip(harm: Harm) -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({"weight": harm}, file)
    return file.getvalue()


def _torch_legacy(harm: Harm) -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({"weight": harm}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _torch_load(content: bytes) -> object:
    torch = pytest.importorskip("torch")
    return torch.load(io.BytesIO(content), weights_only=False)


def _stable_baselines(harm: Harm) -> bytes:
    item = {":type:": "function", ":serialized:": base64.b64encode(pickle.dumps(harm)).decode()}
    return _zipped({"data": json.dumps({"policy_class": item}).encode()})


def _stable_baselines_load(content: bytes) -> object:
    saving = pytest.importorskip("stable_baselines3.common.save_util")
    return saving.load_from_zip_file(io.BytesIO(content))


def _joblib(harm: Harm) -> bytes:
    joblib = pytest.importorskip("joblib")
    file = io.BytesIO()
    joblib.dump(harm, file)
    return file.getvalue()


def _joblib_load(content: bytes) -> object:
    return pytest.importorskip("joblib").load(io.BytesIO(content))


def _npy(harm: Harm) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([harm], dtype=object), allow_pickle=True)
    return file.getvalue()


def _npz(harm: Harm) -> bytes:
    file = io.BytesIO()
    np.savez(file, weights=np.array([harm], dtype=object))
    return file.getvalue()


def _numpy_load(content: bytes) -> object:
    found = np.load(io.BytesIO(content), allow_pickle=True)
    return found["weights"] if isinstance(found, np.lib.npyio.NpzFile) else found


def _zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


WRAPPERS = [
    Wrapper(name="pickle_0", made=lambda h: pickle.dumps(h, 0), set_off=pickle.loads),
    Wrapper(name="pickle_5", made=lambda h: pickle.dumps(h, 5), set_off=pickle.loads),
    Wrapper(
        name="gzip",
        made=lambda h: gzip.compress(pickle.dumps(h)),
        set_off=lambda content: pickle.loads(gzip.decompress(content)),  # noqa: S301 - the control
    ),
    Wrapper(name="torch_zip", made=_torch_zip, set_off=_torch_load),
    Wrapper(name="torch_legacy", made=_torch_legacy, set_off=_torch_load),
    Wrapper(name="sb3_zip", made=_stable_baselines, set_off=_stable_baselines_load),
    Wrapper(name="joblib", made=_joblib, set_off=_joblib_load),
    Wrapper(name="npy", made=_npy, set_off=_numpy_load),
    Wrapper(name="npz", made=_npz, set_off=_numpy_load),
]


def zip_slip(harm: Harm) -> bytes:
    """An archive whose members want to be written outside the folder it is unpacked in."""
    return _zipped({f"../../{harm.marker.name}": b"", str(harm.marker): b""})
