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


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False, rename={"return_": "return"}):
    """A trade as it stands in a line."""

    assignment_id: UUID
    pnl: Decimal
    return_: Decimal
    opened_at: datetime
    closed_at: datetime
    fees: Decimal | None = None
    slippage: Decimal | None = None
    size: Decimal | None = None
    r_multiple: Decimal | None = None
    worst_excursion: Decimal | None = None


_DECODER = msgspec.json.Decoder(_Line)
_NUMBER = r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,20})?"
_MEMBER = (
    rf'"(?:(?:pnl|fees|slippage|size)": ?(?:{_NUMBER}|"{_NUMBER}")'
    rf'|(?:return|r_multiple|worst_excursion)": ?{_NUMBER}'
    rf'|(?:opened|closed)_at": ?"{INSTANT.pattern}"'
    rf'|assignment_id": ?"{UUID_TEXT.pattern}")'
)
# Possessive: no member could be read in another way, so nothing is ever tried again.
_USUAL = re.compile(rf"\{{{_MEMBER}(?:, ?{_MEMBER})*+\}}".encode())
_REQUIRED = 5


def _usual(line: bytes) -> Outcome | None:
    """Return the trade of a line in the usual form; None for every other line."""
    if _USUAL.fullmatch(line) is None:
        return None
    try:
        found = _DECODER.decode(line)
    except msgspec.MsgspecError:
        return None
    optional = (found.fees, found.slippage, found.size, found.r_multiple, found.worst_excursion)
    # A key that stands twice is a member too many: nothing else has a comma in it.
    if line.count(b",") + 1 != _REQUIRED + len(optional) - optional.count(None):
        return None
    return trade(
        found.assignment_id,
        pnl=found.pnl,
        return_ratio=found.return_,
        opened_at=found.opened_at,
        closed_at=found.closed_at,
        fees=found.fees,
        slippage=found.slippage,
        size=found.size,
        r_multiple=found.r_multiple,
        worst_excursion=found.worst_excursion,
    )
