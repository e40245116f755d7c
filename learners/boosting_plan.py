"""How gradient boosting is to go; a frozen value that JSON can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from learners.form_fields import number
from learners.network import require_count

DEPTH_MAX = 9
"""A full tree of this depth is the largest that a form can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostingPlan:
    """How to boost: `rounds` of one tree a class (of two classes, one tree) up to `depth`.

    `learning_rate` shrinks every tree, a leaf has at least `leaf_rows_min` rows, and
    `l2_regularization` pulls its value towards 0.
    """

    rounds: int = 100
    depth: int = 6
    learning_rate: float = 0.1
    leaf_rows_min: int = 20
    l2_regularization: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a plan outside the bounds."""
        require_count("rounds", self.rounds, 1, 1000)
        require_count("depth", self.depth, 1, DEPTH_MAX)
        require_count("leaf_rows_min", self.leaf_rows_min, 1, 2**20)
        number("learning_rate", self.learning_rate, 1e-4, 1.0)
        number("l2_regularization", self.l2_regularization, 0.0, 1e6)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)
