"""Models that were made anew, as the ledger keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.model import PolicyName, Verdict
from bandit.core.rotation import Placing
from bandit.storage.engine import one, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What became of a model on a day: the new one, its gates, and its place by experiment."""

    day: date
    policy: PolicyName
    new: PolicyName
    verdict: Verdict
    triggers: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    placings: Mapping[str, Placing]
    recorded_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "day": self.day.isoformat(),
            "policy": self.policy,
            "new": self.new,
            "verdict": self.verdict.value,
            "triggers": self.triggers,
            "gates": self.gates,
            "placings": {name: placed.value for name, placed in self.placings.items()},
            "recorded_at": self.recorded_at.isoformat(),
        }


_COLUMNS = """
  SELECT r.day, p.name AS policy, n.name AS new, r.verdict, r.triggers, r.gates, r.placings,
         r.recorded_at
  FROM rotations r JOIN policies p ON p.id = r.policy_id JOIN policies n ON n.id = r.new_id
"""


def insert(
    connection: Connection,
    rotation: Rotation,
    *,
    policy_id: int,
    new_id: int,
) -> bool:
    """Store what became of a model; False where that day has it already."""
    inserted = one(
        connection,
        """
        INSERT INTO rotations (day, policy_id, new_id, verdict, triggers, gates, placings,
                               recorded_at)
        VALUES (:day, :policy_id, :new_id, :verdict, CAST(:triggers AS jsonb),
                CAST(:gates AS jsonb), CAST(:placings AS jsonb), :now)
        ON CONFLICT (day, policy_id) DO NOTHING RETURNING new_id
        """,
        day=rotation.day,
        policy_id=policy_id,
        new_id=new_id,
        verdict=rotation.verdict.value,
        triggers=json.dumps(rotation.triggers, allow_nan=False),
        gates=json.dumps(rotation.gates, allow_nan=False),
        placings=json.dumps({k: v.value for k, v in rotation.placings.items()}, sort_keys=True),
        now=rotation.recorded_at,
    )
    return inserted is not None


def of_day(connection: Connection, day: date, policy: PolicyName) -> Rotation | None:
    """Return what became of a model on a day; None where nothing did."""
    found = one(
        connection, _COLUMNS + " WHERE r.day = :day AND p.name = :policy", day=day, policy=policy
    )
    return None if found is None else _rotation(found)


def newest(connection: Connection, *, most: int) -> list[Rotation]:
    """Return the newest rotations, the newest first."""
    found = rows(connection, _COLUMNS + " ORDER BY r.day DESC, r.policy_id LIMIT :most", most=most)
    return [_rotation(row) for row in found]


def of_policy(connection: Connection, policy: PolicyName) -> list[Rotation]:
    """Return what ever became of a model, the newest first."""
    found = rows(
        connection, _COLUMNS + " WHERE p.name = :policy ORDER BY r.day DESC", policy=policy
    )
    return [_rotation(row) for row in found]


def _rotation(row: Mapping[str, Any]) -> Rotation:
    return Rotation(
        day=row["day"],
        policy=PolicyName(row["policy"]),
        new=PolicyName(row["new"]),
        verdict=Verdict(row["verdict"]),
        triggers=row["triggers"],
        gates=row["gates"],
        placings={name: Placing(placed) for name, placed in row["placings"].items()},
        recorded_at=row["recorded_at"],
    )
