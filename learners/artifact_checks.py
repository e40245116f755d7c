"""What stored policies and stored encoders are both held against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bandit.core.errors import InvalidInput
from learners.sealed_files import ArtifactRefused
from learners.tensor_file import Shapes, Tensor


def require_graph(file: str, found: bytes, expected: bytes) -> None:
    """Raise `ArtifactRefused` for a graph that is another than the one that was written anew."""
    if found == expected:
        return
    differing = np.frombuffer(found[: len(expected)], np.uint8) != np.frombuffer(
        expected[: len(found)], np.uint8
    )
    at = int(differing.argmax()) if differing.any() else min(len(found), len(expected))
    rule = "must be the graph that spec.json and weights.safetensors imply"
    raise ArtifactRefused(file=file, rule=rule, found=f"another byte at {at} of {len(found)} bytes")


def require_tensors(tensors: Mapping[str, Tensor], shapes: Shapes) -> None:
    """Raise `InvalidInput` for other names, types or shapes, and values that are not finite."""
    if tensors.keys() != shapes.keys():
        raise InvalidInput(
            field="tensors",
            rule=f"must be {', '.join(sorted(shapes))}",
            found=", ".join(sorted(tensors)),
        )
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.shape != shape:
            found = f"{tensor.dtype} {tensor.shape}"
            raise InvalidInput(field=name, rule=f"must be float32 of shape {shape}", found=found)
        if not np.isfinite(tensor).all():
            raise InvalidInput(field=name, rule="must be finite", found="NaN or an infinity")
