"""Files of float32 tensors in the safetensors format, of which each has exactly one form here.

Names in order, no gaps, no metadata, the header padded with blanks to eight bytes: what the
library `safetensors` writes too. Whoever knows the shapes knows every byte of the header, so a
reader compares it and interprets nothing that stands in the file: there is no offset, shape or
length to believe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learners.sealed_files import ArtifactRefused

Tensor = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

_LENGTH_BYTES = 8
_ITEM_BYTES = 4


def header_of(shapes: Shapes) -> bytes:
    """Return the length field and header of a file that holds tensors of these shapes.

    >>> header_of({"b": (2,)})
    b'8\\x00\\x00\\x00\\x00\\x00\\x00\\x00{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  '
    """
    entries: dict[str, object] = {}
    offset = 0
    for name in sorted(shapes):
        end = offset + _ITEM_BYTES * math.prod(shapes[name])
        entries[name] = {
            "dtype": "F32",
            "shape": list(shapes[name]),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def encoded(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the file of these tensors."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    data = [np.ascontiguousarray(tensors[name], dtype="<f4").tobytes() for name in sorted(shapes)]
    return b"".join([header_of(shapes), *data])


def decoded(content: bytes, shapes: Shapes, *, file: str) -> dict[str, Tensor]:
    """Return the tensors of a file that must hold exactly these shapes; they cannot be written to.

    Raises `ArtifactRefused`, named after `file`, for another length, length field or header, and
    for a value that is not finite.
    """
    header = header_of(shapes)
    size = len(header) + _ITEM_BYTES * sum(math.prod(shape) for shape in shapes.values())
    if len(content) != size:
        raise ArtifactRefused(file=file, rule=f"must have {size} bytes", found=len(content))
    announced = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if announced != len(header) - _LENGTH_BYTES:
        rule = f"must announce a header of {len(header) - _LENGTH_BYTES} bytes"
        raise ArtifactRefused(file=file, rule=rule, found=announced)
    if not content.startswith(header):
        raise ArtifactRefused(
            file=file,
            rule="header must be the one that spec.json implies",
            found=content[_LENGTH_BYTES : len(header)].decode("latin-1").strip(),
        )
    tensors: dict[str, Tensor] = {}
    offset = len(header)
    for name in sorted(shapes):
        count = math.prod(shapes[name])
        values = np.frombuffer(content, dtype="<f4", count=count, offset=offset)
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values)))
            found = f"{values[first]} at {first}"
            raise ArtifactRefused(file=file, rule=f"{name} must be finite", found=found)
        tensors[name] = values.reshape(shapes[name])
        offset += _ITEM_BYTES * count
    return tensors
