"""The scaler: brings features to one size, by what was seen in training and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.canonical_json import as_float

Floats = NDArray[np.float64]

_ROUNDING = 1e-12  # a spread this far under its mean is rounding: the column is constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """Mean and scale of each column in the training rows; what is applied is clipped to `clip`.

    Raises `InvalidInput` for numbers that are not finite, and a scale or clip that is not positive.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float

    def __post_init__(self) -> None:
        """Refuse what would scale to nothing, or to anything but numbers."""
        if len(self.mean) != len(self.scale) or not self.mean:
            found = f"{len(self.mean)} means, {len(self.scale)} scales"
            raise InvalidInput(field="scaler", rule="must have a scale for a mean", found=found)
        for name, values in (("mean", self.mean), ("scale", self.scale), ("clip", (self.clip,))):
            for value in values:
                if type(value) is not float or not math.isfinite(value):
                    raise InvalidInput(field=name, rule="must be finite floats", found=value)
                if name != "mean" and value <= 0:
                    raise InvalidInput(field=name, rule="must be positive", found=value)

    @classmethod
    def fit(cls, values: Floats, *, clip: float = 5.0) -> Self:
        """Learn mean and standard deviation of the training rows; rows with a NaN do not count.

        A column that is constant keeps its size. Raises `InvalidInput` for fewer than two complete
        rows.

        >>> Scaler.fit(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 9.0]]))
        Scaler(mean=(2.0, 5.0), scale=(1.0, 1.0), clip=5.0)
        """
        rows = np.ascontiguousarray(values[np.isfinite(values).all(axis=1)])
        if len(rows) < 2:
            rule = "must have two complete rows or more"
            raise InvalidInput(field="training rows", rule=rule, found=len(rows))
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        moves = spread > _ROUNDING * np.abs(mean)
        scale = np.where(moves, spread, 1.0)
        return cls(mean=tuple(mean.tolist()), scale=tuple(scale.tolist()), clip=clip)

    def apply(self, values: Floats) -> Floats:
        """Return rows (or one row) in units of the training spread; NaN stays NaN.

        >>> Scaler(mean=(2.0,), scale=(0.5,), clip=3.0).apply(np.array([[2.5], [9.0]])).tolist()
        [[1.0], [3.0]]
        """
        if values.shape[-1:] != (len(self.mean),):
            rule = f"must have {len(self.mean)} columns"
            raise InvalidInput(field="rows", rule=rule, found=values.shape)
        scaled: Floats = np.clip((values - self.mean) / self.scale, -self.clip, self.clip)
        return scaled

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document of the exact numbers; `from_json` reads it back."""
        return {"mean": list(self.mean), "scale": list(self.scale), "clip": self.clip}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises `InvalidInput` for anything else.

        >>> scaler = Scaler(mean=(0.1,), scale=(1 / 3,), clip=5.0)
        >>> Scaler.from_json(scaler.to_json()) == scaler
        True
        """
        rule = "must have the lists mean and scale, and clip"
        if not isinstance(document, Mapping) or document.keys() != {"mean", "scale", "clip"}:
            raise InvalidInput(field="scaler", rule=rule, found=document)
        mean, scale = document["mean"], document["scale"]
        if type(mean) is not list or type(scale) is not list:
            raise InvalidInput(field="scaler", rule=rule, found=document)
        numbers: dict[str, Any] = {
            "mean": tuple(map(as_float, mean)),
            "scale": tuple(map(as_float, scale)),
            "clip": as_float(document["clip"]),
        }
        return cls(**numbers)
