"""Outcomes as lines of JSON, each of which stands or falls alone."""

from __future__ import annotations

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.outcomes import Outcome
from liveops.api.bodies import NewOutcome, read
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
        return read(NewOutcome, parse(line)).outcome()
    except InvalidInput as error:
        return error
