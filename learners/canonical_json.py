"""JSON in its one canonical form (RFC 8785): equal values are equal bytes, and the other way round.

So a document is read strictly by writing it again: repeated keys, blanks, other spellings of a
number and whatever else two readers could take for two things come out differently.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import rfc8785

from bandit.core.errors import InvalidInput

DEPTH_MAX = 16
"""Deepest nesting of arrays and objects."""


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value.

    >>> canonical({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'

    Raises `InvalidInput` for what is no JSON: NaN, infinities, integers that a double cannot hold,
    keys that are no text, half a surrogate pair, nesting deeper than `DEPTH_MAX`.
    """
    _require_shallow(value, field="document")
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(
            field="document", rule="must be JSON as of RFC 8785", found=error
        ) from error


def parsed(data: bytes, *, field: str) -> Any:
    """Return the value of a canonical document.

    >>> parsed(b'{"a":1,"a":2}', field="spec.json")
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: spec.json: must not repeat a key, found 'a'

    Raises `InvalidInput`, named after `field`, for anything but the canonical bytes of one value.
    """
    try:
        value = json.loads(data.decode("utf-8"), **_STRICT)
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at {error.start}"
        raise InvalidInput(field=field, rule="must be UTF-8", found=found) from None
    except _Fault as fault:
        raise InvalidInput(field=field, rule=fault.rule, found=fault.found) from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} at {error.pos}"
        raise InvalidInput(field=field, rule="must be JSON", found=found) from None
    except (ValueError, RecursionError) as error:  # an integer of 4301 digits, a deep nest
        raise InvalidInput(field=field, rule="must be JSON", found=type(error).__name__) from None
    _require_shallow(value, field=field)
    try:
        again = canonical(value)
    except InvalidInput as error:
        raise InvalidInput(field=field, rule=error.rule, found=error.found) from None
    if again != data:
        at = next(
            (i for i, pair in enumerate(zip(again, data, strict=False)) if pair[0] != pair[1]),
            min(len(again), len(data)),
        )
        rule = "must be in the canonical form of RFC 8785"
        raise InvalidInput(field=field, rule=rule, found=f"another byte at {at}")
    return value


def as_float(value: object) -> object:
    """Return a whole number as the float that it was before RFC 8785 wrote it; else the value.

    >>> as_float(parsed(canonical(25.0), field="limit"))
    25.0
    """
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


class _Fault(Exception):
    def __init__(self, rule: str, found: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.found = found


def _constant(token: str) -> NoReturn:
    raise _Fault("must hold finite numbers only", token)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, item in pairs:
        if key in members:
            raise _Fault("must not repeat a key", repr(key))
        members[key] = item
    return members


_STRICT: dict[str, Any] = {"parse_constant": _constant, "object_pairs_hook": _object}


def _require_shallow(value: Any, *, field: str) -> None:
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise InvalidInput(field=field, rule=f"must be nested at most {DEPTH_MAX} deep", found="more")
