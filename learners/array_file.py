"""Files of numpy arrays in the npz format, of which each has exactly one form here.

Whoever knows the types and shapes knows every header in the file, so a reader compares headers and
interprets nothing: no type, shape or length is believed, and no object is ever unpickled.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.sealed_files import ArtifactRefused

Arrays = Mapping[str, NDArray[Any]]

_TIME = (1980, 1, 1, 0, 0, 0)
_MEMBER_BYTES = 1_024  # more than the names and headers of one array take


class Form(NamedTuple):
    """The type and shape of an array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return how many bytes the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def forms_of(arrays: Arrays) -> dict[str, Form]:
    """Return the forms of arrays by name."""
    return {name: Form(array.dtype, array.shape) for name, array in arrays.items()}


def size_max(forms: Mapping[str, Form]) -> int:
    """Return a bound of the bytes of a file of arrays of these forms."""
    return sum(form.size + _MEMBER_BYTES for form in forms.values()) + _MEMBER_BYTES


def encoded(arrays: Arrays) -> bytes:
    """Return the file of these arrays, which `numpy.load` reads too; no array may hold objects.

    >>> decoded(encoded({"a": np.arange(3.0)}), {"a": Form(np.dtype("<f8"), (3,))}, file="a.npz")
    {'a': array([0., 1., 2.])}
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as members:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape)
            assert not array.dtype.hasobject, name
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_TIME)
            members.writestr(info, _header(forms_of({name: array})[name]) + array.tobytes())
    return file.getvalue()


def decoded(content: bytes, forms: Mapping[str, Form], *, file: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file that must hold exactly these forms, finite where floats.

    Raises `ArtifactRefused`, named after `file`, for anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            _require_members(members, forms, file=file)
            return {
                name: _array(members.read(f"{name}.npy"), form, name=name, file=file)
                for name, form in forms.items()
            }
    # NotImplementedError and RuntimeError: what is encrypted, or compressed in an unknown way.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ArtifactRefused(file=file, rule="must be a whole zip file", found=error) from error


def _require_members(members: zipfile.ZipFile, forms: Mapping[str, Form], *, file: str) -> None:
    listed = members.infolist()
    if sorted(info.filename for info in listed) != sorted(f"{name}.npy" for name in forms):
        odd = {info.filename for info in listed} ^ {f"{name}.npy" for name in forms}
        found = f"a difference in {', '.join(sorted(odd))}" if odd else "one twice"
        raise ArtifactRefused(file=file, rule=f"must hold {len(forms)} arrays", found=found)
    for info in listed:
        form = forms[info.filename.removesuffix(".npy")]
        size = len(_header(form)) + form.size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
            rule = f"{info.filename} must be stored, of {size} bytes"
            raise ArtifactRefused(file=file, rule=rule, found=info.file_size)


def _array(content: bytes, form: Form, *, name: str, file: str) -> NDArray[Any]:
    header = _header(form)
    if not content.startswith(header):
        rule = f"{name} must have the header of {form.dtype.str} {form.shape}"
        found = content[: len(header)].decode("latin-1").strip()
        raise ArtifactRefused(file=file, rule=rule, found=found)
    values = np.frombuffer(content, dtype=form.dtype, offset=len(header)).reshape(form.shape)
    if form.dtype.kind == "f" and not np.isfinite(values).all():
        raise ArtifactRefused(file=file, rule=f"{name} must be finite", found="NaN or an infinity")
    return values.copy()


def _header(form: Form) -> bytes:
    file = io.BytesIO()
    described = {"descr": form.dtype.str, "fortran_order": False, "shape": form.shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()
