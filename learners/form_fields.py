"""Fields of a form that is read from JSON which somebody else may have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bandit.core.errors import InvalidInput


def members(kind: type[Any], stored: object, *, field: str) -> dict[str, Any]:
    """Return the members of an object that must have exactly the fields of the dataclass `kind`.

    Raises `InvalidInput`, named after `field`, for anything else.
    """
    if not isinstance(stored, Mapping):
        raise InvalidInput(field=field, rule="must be an object", found=type(stored).__name__)
    expected = {made.name for made in fields(kind)}
    if stored.keys() != expected:
        odd = ", ".join(sorted(ascii(name) for name in stored.keys() ^ expected))
        rule = f"must have the keys {', '.join(sorted(expected))}"
        raise InvalidInput(field=field, rule=rule, found=f"a difference in {odd}")
    return dict(stored)


def number(field: str, found: object, least: float, most: float) -> float:
    """Return a number from `least` to `most` as a float; raises `InvalidInput` for anything else.

    Canonical JSON writes 1.0 as 1, so a whole number is one too.

    >>> number("gamma", 1, 1.0, 4.0)
    1.0
    """
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not least <= found <= most:  # type: ignore[operator]  # a number by then
        rule = f"must be a number from {least:g} to {most:g}"
        raise InvalidInput(field=field, rule=rule, found=found)
    return float(found)  # type: ignore[arg-type]
