"""What decisions have done to one arm."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from bandit.core.model import Ppm
from bandit.storage import decisions
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import one
from bandit.storage.experiments import ArmRecord, ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A decision that changed what an arm holds, in ppm; `before` is None where the arm joined."""

    decision: DecisionRecord
    before: Ppm | None
    after: Ppm


def newest_move(connection: Connection, record: ExperimentRecord, arm: ArmRecord) -> Move:
    """Return the newest decision that changed an arm's part; at first that is how it joined."""
    found = one(
        connection,
        """
        WITH parts AS (
          SELECT v.version, v.decision_id, v.ppm[array_position(v.policy_ids, :policy_id)] AS part
          FROM allocations v
          WHERE v.experiment_id = :experiment_id AND :policy_id = ANY(v.policy_ids)
        ), moves AS (
          SELECT p.*, lag(p.part) OVER (ORDER BY p.version) AS before FROM parts p
        )
        SELECT decision_id, before, part FROM moves
        WHERE before IS DISTINCT FROM part ORDER BY version DESC LIMIT 1
        """,
        experiment_id=record.id,
        policy_id=arm.policy_id,
    )
    assert found is not None
    before = found["before"]
    return Move(
        decision=decisions.by_id(connection, record.experiment.name, found["decision_id"]),
        before=None if before is None else Ppm(before),
        after=Ppm(found["part"]),
    )


def newest_stop(
    connection: Connection, record: ExperimentRecord, arm: ArmRecord
) -> DecisionRecord | None:
    """Return the newest decision that took an arm out of the traffic; None where none did."""
    found = one(
        connection,
        """
        SELECT max(id) AS id FROM decisions
        WHERE experiment_id = :experiment_id
          AND (kind IN ('THROTTLE', 'HALT', 'RETIRE') AND inputs ->> 'policy' = :policy
               OR kind = 'ROLL_BACK' AND inputs ->> 'demoted' = :policy)
        """,
        experiment_id=record.id,
        policy=arm.place.policy,
    )
    assert found is not None
    if found["id"] is None:
        return None
    return decisions.by_id(connection, record.experiment.name, found["id"])
