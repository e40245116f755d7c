"""Close orders, the positions they concern, and what bots said of those they could not close."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.closing import CloseFailure, CloseTarget, WaitingToClose
from bandit.core.model import PolicyName
from bandit.storage.engine import one, rows, run


def newest_decision(
    connection: Connection, experiment_id: int, *, looked_from: datetime
) -> datetime | None:
    """Return when an experiment decided last; None where it never did.

    Decisions after `looked_from` are found at once; only without any is all of history read.
    """
    found = one(
        connection,
        """
        SELECT coalesce(
          (SELECT max(decided_at) FROM assignments
           WHERE experiment_id = :id AND decided_at >= :looked_from),
          (SELECT max(decided_at) FROM assignments WHERE experiment_id = :id)) AS decided_at
        """,
        id=experiment_id,
        looked_from=looked_from,
    )
    assert found is not None
    moment: datetime | None = found["decided_at"]
    return moment


def append_order(
    connection: Connection,
    experiment_id: int,
    *,
    now: datetime,
    actor: str,
    reason: str,
    decided_to: datetime | None,
) -> int:
    """Append an order and return its id."""
    found = one(
        connection,
        "INSERT INTO close_orders (experiment_id, at, actor, reason, decided_to) "
        "VALUES (:experiment_id, :now, :actor, :reason, :decided_to) RETURNING id",
        experiment_id=experiment_id,
        now=now,
        actor=actor,
        reason=reason,
        decided_to=decided_to,
    )
    assert found is not None
    return int(found["id"])


def append_targets(
    connection: Connection, order_id: int, *, experiment_id: int, since: datetime
) -> None:
    """Let an order concern what is open and was heard of `since`, but what another order has.

    A position is heard of by a claim, which what a bot decided alone needs not, or by a mark: its
    own, or that of a later decision on it.
    """
    run(
        connection,
        """
        WITH heard AS (
          SELECT coalesce(x.position_id, x.id) AS id FROM assignments x
          WHERE x.experiment_id = :experiment_id AND x.decided_at >= :since
            AND (x.is_fallback
                 OR EXISTS (SELECT FROM claims c WHERE c.assignment_id = x.id OFFSET 0))
          UNION
          SELECT coalesce(x.position_id, x.id)
          FROM marks m JOIN assignments x ON x.id = m.assignment_id
          WHERE m.marked_at >= :since AND x.experiment_id = :experiment_id)
        INSERT INTO close_targets (assignment_id, order_id)
        SELECT s.id, :order_id FROM heard h JOIN assignments s ON s.id = h.id
        WHERE s.mode = 'live' AND s.position_id IS NULL
          AND NOT EXISTS (SELECT FROM outcomes o WHERE o.assignment_id = s.id OFFSET 0)
        -- Sorted, so that two orders never wait for each other in a circle.
        ORDER BY s.id
        ON CONFLICT (assignment_id) DO NOTHING
        """,
        order_id=order_id,
        experiment_id=experiment_id,
        since=since,
    )


def of_order(connection: Connection, order_id: int) -> list[CloseTarget]:
    """Return the targets of an order, in the order of their decisions."""
    return _targets(connection, "order_id = :order_id", order_id=order_id)


def of_experiment(connection: Connection, experiment: str) -> list[CloseTarget]:
    """Return the targets of all orders of an experiment, closed ones too."""
    return _targets(connection, "experiment = :experiment", experiment=experiment)


def waiting(connection: Connection, experiment: str) -> list[CloseTarget]:
    """Return the targets of an experiment that are not closed."""
    condition = "experiment = :experiment AND NOT is_closed"
    return _targets(connection, condition, experiment=experiment)


def waiting_by_experiment(connection: Connection) -> list[WaitingToClose]:
    """Return the experiments with targets that are not closed."""
    found = rows(
        connection,
        "SELECT experiment, count(*) AS positions, min(since)::timestamptz AS since "
        "FROM close_positions WHERE NOT is_closed GROUP BY 1 ORDER BY 1",
    )
    return [WaitingToClose(**row) for row in found]


def target(connection: Connection, order_id: int, assignment_id: UUID) -> CloseTarget | None:
    """Return one target of an order; None where the order does not concern it."""
    condition = "order_id = :order_id AND assignment_id = :assignment_id"
    found = _targets(connection, condition, order_id=order_id, assignment_id=assignment_id)
    return found[0] if found else None


def append_failure(
    connection: Connection, order_id: int, assignment_id: UUID, failure: CloseFailure
) -> None:
    """Append a failure of a target."""
    run(
        connection,
        "INSERT INTO close_failures (order_id, assignment_id, at, actor, reason) "
        "VALUES (:order_id, :assignment_id, :at, :actor, :reason)",
        order_id=order_id,
        assignment_id=assignment_id,
        at=failure.at,
        actor=failure.actor,
        reason=failure.reason,
    )


def _targets(connection: Connection, condition: str, **values: Any) -> list[CloseTarget]:
    statement = f"SELECT * FROM close_positions WHERE {condition} ORDER BY decided_at, unit_id"  # noqa: S608 - ours
    return [_target(row) for row in rows(connection, statement, **values)]


def _target(row: Mapping[str, Any]) -> CloseTarget:
    failure = None
    if row["failed_at"] is not None:
        failure = CloseFailure(at=row["failed_at"], actor=row["failed_by"], reason=row["failure"])
    told = {key: row[key] for key in row if not key.startswith("fail")}
    return CloseTarget(**told | {"policy": PolicyName(row["policy"]), "failure": failure})
