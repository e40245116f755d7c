"""How a stored policy was asked for, so that it can be asked for again on newer bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bandit.core.errors import InvalidInput
from bandit.core.model import checked_document


class Learner(StrEnum):
    """What is asked: the name of a command of `liveops learn`."""

    AGENT = "rl"
    CLASSIFIER = "tabnet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A command of `liveops learn` and all of its options, those that were left out included.

    >>> recipe = Recipe.of(Learner.AGENT, candles=[Path("/data/btc.csv")], seed=1, source=None)
    >>> recipe.options
    {'candles': ['/data/btc.csv'], 'seed': 1, 'source': None}
    >>> Recipe.from_json(recipe.to_json()) == recipe
    True
    """

    learner: Learner
    options: Mapping[str, Any]

    @classmethod
    def of(cls, learner: Learner, *, candles: list[Path] | None, **options: Any) -> Recipe:
        """Write down what was asked; files under names that hold wherever it is asked again."""
        files = None if candles is None else [str(file.absolute()) for file in candles]
        return cls(learner=learner, options={"candles": files, **options})

    def arguments(self) -> dict[str, Any]:
        """Return the options as the command's function takes them."""
        files = self.options["candles"]
        found = None if files is None else [Path(file) for file in files]
        return {**self.options, "candles": found}

    def to_json(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return {"learner": self.learner.value, "options": dict(self.options)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Recipe:
        """Return what `to_json` gave; raises `InvalidInput` for anything else."""
        learners = [member.value for member in Learner]
        options = stored.get("options")
        if stored.get("learner") not in learners or not isinstance(options, dict):
            rule = f"must have options and one of the learners {', '.join(learners)}"
            raise InvalidInput(field="recipe", rule=rule, found=stored.get("learner"))
        if "candles" not in options:
            raise InvalidInput(field="recipe", rule="must say its candles", found=sorted(options))
        return cls(learner=Learner(stored["learner"]), options=options)

    def __post_init__(self) -> None:
        """Refuse what JSON cannot hold."""
        checked_document(dict(self.options), field="options")
