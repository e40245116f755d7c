"""Rows of the spool as the values they stand for."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from liveops.client.contact import Contact, Standing
from liveops.client.delivery import Row
from liveops.client.errors import Problem
from liveops.client.protocol import with_assignment
from liveops.client.values import AssignmentId, Champion, Fallback, Kind, Reason, Refusal, Sizing
from liveops.client.watch import Watch


def row_of(
    number: int,
    kind: str,
    unit_id: str | None,
    body: str,
    turn: int,
    assignment: str | None = None,
) -> Row:
    """Return a spooled row as it is to be sent."""
    if assignment is not None and kind != Kind.FALLBACK:
        body = with_assignment(body, AssignmentId(assignment))
    return Row(id=number, kind=Kind(kind), unit_id=unit_id, body=body, turn=turn)


def refusal_of(number: int, kind: str, body: str, problem: str, refused_at: str) -> Refusal:
    """Return a refused row."""
    return Refusal(
        id=number,
        kind=Kind(kind),
        body=body,
        problem=Problem(**json.loads(problem)),
        refused_at=datetime.fromisoformat(refused_at),
    )


def fallback_of(*values: Any) -> Fallback:
    """Return a decision taken alone."""
    *plain, decided_at, expires_at, reason, assignment_id, problem = values
    unit_id, instrument, policy, policy_sha, size_multiplier, confidence_bump = plain
    return Fallback(
        unit_id=unit_id,
        instrument=instrument,
        policy=policy,
        policy_sha=policy_sha,
        size_multiplier=size_multiplier,
        confidence_bump=confidence_bump,
        decided_at=datetime.fromisoformat(decided_at),
        expires_at=datetime.fromisoformat(expires_at),
        reason=Reason(reason),
        assignment_id=assignment_id,
        problem=None if problem is None else Problem(**json.loads(problem)),
    )


def contact_of(said: dict[str, Any]) -> Contact:
    """Return what is known of the service."""
    champion, known_at = said["champion"], said["known_at"]
    watch = {"heard_at": None} | said.get("watch", {})  # none of a release before there were any
    sizing = said.get("sizing")
    return Contact(
        **said
        | {
            "standing": Standing(said["standing"]),
            "known_at": _time(known_at),
            "watch": Watch(**watch | {"heard_at": _time(watch["heard_at"])}),
            "champion": None if champion is None else Champion(**champion),
            "sizing": None if sizing is None else Sizing(**sizing),
        }
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
