"""Selections of instruments, as the ledger keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.selection import Selection
from bandit.storage.engine import one, rows, run, uuids


def newest(connection: Connection, experiment_id: int) -> Selection | None:
    """Return the selection in force; None before the first."""
    found = one(
        connection,
        "SELECT at, chosen, scores FROM selections WHERE experiment_id = :id "
        "ORDER BY at DESC LIMIT 1",
        id=experiment_id,
    )
    if found is None:
        return None
    return Selection(at=found["at"], chosen=tuple(found["chosen"]), scores=found["scores"])


def insert(
    connection: Connection, experiment_id: int, selection: Selection, *, actor: str, reason: str
) -> None:
    """Store a selection that is newer than every other of its experiment."""
    run(
        connection,
        "INSERT INTO selections (experiment_id, at, chosen, scores, actor, reason) "
        "VALUES (:id, :at, :chosen, CAST(:scores AS jsonb), :actor, :reason)",
        id=experiment_id,
        at=selection.at,
        chosen=list(selection.chosen),
        scores=json.dumps(dict(selection.scores)),
        actor=actor,
        reason=reason,
    )


def decided(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these decisions were taken before, those that have left included."""
    found = rows(
        connection,
        "SELECT s.id FROM answered_assignments s WHERE s.id = ANY (CAST(:ids AS uuid[]))",
        ids=uuids(ids),
    )
    return {row["id"] for row in found}
