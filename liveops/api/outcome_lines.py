"""Outcomes as lines of JSON, each of which stands or falls alone.

A line of the usual form is read by msgspec, several times as fast as by the strict reader. Whatever
is not certain to mean the same to both is left to the strict one, and so is every refusal.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.outcomes import Outcome, trade
from liveops.api.bodies import INSTANT, UUID_TEXT, NewOutcome, read
from liveops.api.strict_json import parse


def outcomes_in(body: bytes) -> list[Outcome | BanditError]:
    """Return what each line of an NDJSON body tells, or why it tells nothing.

    >>> outcomes_in(b'{"assignment_id": 7}')
    [InvalidInput('assignment_id: must be a UUID, found 7')]
    """
    return [outcome_in(line) for line in body.removesuffix(b"\n").split(b"\n")]


def outcome_in(line: bytes) -> Outcome | BanditError:
    """Return the outcome that a line tells, or why it tells none."""
    try:
        return _usual(line) or read(NewOutcome, parse(line)).outcome()
    except InvalidInput as error:
        return error


class _Line(msgspec.Struct, forbid_unknown_fields=True, rename={"return_": "return"}):
    """A trade with its amounts as they stand in the line."""

    assignment_id: str
    pnl: msgspec.Raw
    return_: msgspec.Raw
    opened_at: str
    closed_at: str
    fees: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    slippage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    size: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    r_multiple: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    worst_excursion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DECODER = msgspec.json.Decoder(_Line)
_NUMBER = rb"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,20})?"
_RATIO = re.compile(_NUMBER)
_MONEY = re.compile(rb'"(%b)"|%b' % (_NUMBER, _NUMBER))
_AMOUNTS = (
    # Name, form, and the quotes that its key adds to those of a line with nothing optional.
    ("pnl", _MONEY, 0),
    ("return_", _RATIO, 0),
    ("fees", _MONEY, 2),
    ("slippage", _MONEY, 2),
    ("size", _MONEY, 2),
    ("r_multiple", _RATIO, 2),
    ("worst_excursion", _RATIO, 2),
)
_TEXTS = (UUID_TEXT, INSTANT, INSTANT)
_QUOTES = 2 * 5 + 2 * len(_TEXTS)


def _usual(line: bytes) -> Outcome | None:
    """Return the trade of a line in the usual form; None for every other line."""
    if b"\\" in line or not line.isascii():
        return None
    try:
        found = _DECODER.decode(line)
    except msgspec.MsgspecError:
        return None
    amounts: dict[str, Decimal] = {}
    quotes = _QUOTES
    for name, pattern, own_quotes in _AMOUNTS:
        raw = getattr(found, name)
        if raw is msgspec.UNSET:
            continue
        token = pattern.fullmatch(raw)
        if token is None:
            return None
        # Money may be text, with two quotes more.
        quotes += own_quotes + 2 * (token.lastindex == 1)
        amounts[name] = Decimal((token[token.lastindex or 0]).decode())
    texts = (found.assignment_id, found.opened_at, found.closed_at)
    # A key that stands twice brings quotes that no field accounts for.
    if line.count(b'"') != quotes or not all(map(re.Pattern.fullmatch, _TEXTS, texts)):
        return None
    try:
        opened_at, closed_at = map(datetime.fromisoformat, texts[1:])
    except ValueError:
        return None
    return trade(
        msgspec.convert(found.assignment_id, UUID),
        return_ratio=amounts.pop("return_"),
        opened_at=opened_at,
        closed_at=closed_at,
        **amounts,
    )
