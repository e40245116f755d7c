"""JSON as RFC 8259 means it: nothing that two readers could take for two different bodies.

Python's own reader takes NaN, 1e400, repeated keys and lone surrogates; each would be a wrong row
or a fault deep inside. Here each is a `MalformedJson` that names where it stands.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from typing import Any, NoReturn

from bandit.core.errors import InvalidInput

DEPTH_MAX = 32
"""Deepest nesting of arrays and objects."""

DIGITS_MAX = 40
"""Most digits of one number, those of its exponent included."""

EXPONENT_MAX = 308
"""Numbers other than 0 lie in 1e-308 to 1e308 in size, as every reader of doubles can hold them."""

_UNSTORABLE = re.compile("[\\ud800-\\udfff\\x00]")


class MalformedJson(InvalidInput):
    """The body is not JSON, or JSON that readers disagree about; nothing was stored."""

    code = "malformed_json"


class _Fault:
    """Stands in a parsed value where something unlawful stood, until its place is known."""

    def __init__(self, rule: str, found: str) -> None:
        self.rule = rule
        self.found = found


def parse(body: bytes) -> Any:
    """Return the value of a JSON document, every number as `Decimal`.

    >>> parse(b'{"pnl": 12.340, "tags": ["a"]}')
    {'pnl': Decimal('12.340'), 'tags': ['a']}
    >>> parse(b'{"pnl": NaN}')
    Traceback (most recent call last):
    liveops.api.strict_json.MalformedJson: pnl: must be a finite number, found NaN

    Raises `MalformedJson` for anything but one RFC 8259 document in UTF-8 with unique keys, at most
    `DEPTH_MAX` deep, with numbers of at most `DIGITS_MAX` digits.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{body[error.start]:02x} at {error.start}"
        raise MalformedJson(field="body", rule="must be UTF-8", found=found) from None
    if text.startswith("\ufeff"):
        raise MalformedJson(field="body", rule="must not start with a byte order mark", found="BOM")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise MalformedJson(field="body", rule=f"must be JSON: {error.msg}", found=where) from None
    except RecursionError:
        _refuse_depth("body")
    _check(value, where="body", depth=0)
    return value


def plain(value: Any) -> Any:
    """Return a parsed value with plain numbers, for what is stored as it came.

    >>> plain({"lookback": Decimal("30"), "threshold": Decimal("0.65")})
    {'lookback': 30, 'threshold': 0.65}
    """
    match value:
        case Decimal():
            exponent = value.as_tuple().exponent
            return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case _:
            return value


def _number(token: str) -> Decimal | _Fault:
    if sum(map(str.isdigit, token)) > DIGITS_MAX:
        return _Fault(f"must have at most {DIGITS_MAX} digits", token)
    mantissa, _, exponent = token.lower().partition("e")
    # Judged before it is built: Decimal itself gives up on exponents of twenty digits.
    if mantissa.strip("-0.") and abs(int(exponent or 0)) > EXPONENT_MAX + DIGITS_MAX:
        return _out_of_range(token)
    value = Decimal(token) if mantissa.strip("-0.") else Decimal(mantissa)
    if value and abs(value.adjusted()) > EXPONENT_MAX:
        return _out_of_range(token)
    return value


def _out_of_range(token: str) -> _Fault:
    return _Fault(f"must be 0, or 1e-{EXPONENT_MAX} to 1e{EXPONENT_MAX} in size", token)


def _constant(token: str) -> _Fault:
    return _Fault("must be a finite number", token)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fault:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    ((repeated, _),) = Counter(key for key, _ in pairs).most_common(1)
    return _Fault("must not repeat a key", repr(repeated))


def _check(value: Any, *, where: str, depth: int) -> None:
    match value:
        case _Fault():
            raise MalformedJson(field=where, rule=value.rule, found=value.found)
        case str():
            _check_text(value, where)
        case dict() | list():
            if depth == DEPTH_MAX:
                _refuse_depth(where)
            top = "" if depth == 0 else where
            members = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in members:
                if isinstance(key, str):
                    _check_text(key, where)
                    inner = f"{top}.{key}" if top else key
                else:
                    inner = f"{top}[{key}]"
                _check(item, where=inner, depth=depth + 1)


def _check_text(text: str, where: str) -> None:
    found = _UNSTORABLE.search(text)
    if found is not None:
        rule = "must not hold \\u0000 or half of a surrogate pair"
        raise MalformedJson(field=where, rule=rule, found=f"\\u{ord(found[0]):04x}")


def _refuse_depth(where: str) -> NoReturn:
    rule = f"must be nested at most {DEPTH_MAX} deep"
    raise MalformedJson(field=where, rule=rule, found="more") from None


_DECODER = json.JSONDecoder(
    parse_float=_number,
    parse_int=_number,
    parse_constant=_constant,
    object_pairs_hook=_object,
)
