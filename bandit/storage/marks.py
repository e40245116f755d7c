"""Marks of open positions: the newest and the worst of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.marks import Mark, PositionMark
from bandit.storage.engine import rows, run, uuids


def of_assignments(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, PositionMark]:
    """Return the marks of the assignments among `ids` that have one, open or closed."""
    statement = "SELECT * FROM marks WHERE assignment_id = ANY(CAST(:ids AS uuid[]))"
    found = rows(connection, statement, ids=uuids(ids))
    return {
        row["assignment_id"]: PositionMark(
            newest=Mark(
                assignment_id=row["assignment_id"],
                unrealised_pnl=row["unrealised_pnl"],
                marked_at=row["marked_at"],
            ),
            worst_pnl=row["worst_pnl"],
            worst_at=row["worst_at"],
        )
        for row in found
    }


def write(connection: Connection, marks: Sequence[PositionMark]) -> None:
    """Store marks that are newer than those there are, one for each assignment."""
    run(
        connection,
        """
        INSERT INTO marks (assignment_id, unrealised_pnl, marked_at, worst_pnl, worst_at)
        SELECT r.* FROM json_to_recordset(CAST(:rows AS json)) AS r (
          assignment_id uuid, unrealised_pnl numeric, marked_at timestamptz, worst_pnl numeric,
          worst_at timestamptz)
        ORDER BY r.assignment_id
        ON CONFLICT (assignment_id) DO UPDATE SET
          unrealised_pnl = excluded.unrealised_pnl, marked_at = excluded.marked_at,
          worst_pnl = excluded.worst_pnl, worst_at = excluded.worst_at
        """,
        rows=json.dumps(
            [
                {
                    "assignment_id": str(mark.newest.assignment_id),
                    "unrealised_pnl": f"{mark.newest.unrealised_pnl:f}",
                    "marked_at": mark.newest.marked_at.isoformat(),
                    "worst_pnl": f"{mark.worst_pnl:f}",
                    "worst_at": mark.worst_at.isoformat(),
                }
                for mark in marks
            ]
        ),
    )
