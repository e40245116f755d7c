"""Decisions and the allocation versions they made: append-only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.model import Allocation, DecisionKind, PolicyName, Ppm
from bandit.core.rederivation import inputs_text
from bandit.storage.engine import one, rows, run, streamed
from bandit.storage.experiments import ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision with everything needed to derive it again.

    `inputs` is what it read; `reasons` holds the checks per policy; `trading_day` is set on a
    night's scaling decision only, `version` when it made a new allocation.
    """

    id: int
    experiment: str
    kind: DecisionKind
    trading_day: date | None
    decided_at: datetime
    actor: str
    reason: str
    profile: str
    strategy: str
    seed: int | None
    code_version: str
    inputs: Mapping[str, Any]
    inputs_digest: str
    reasons: Mapping[str, Any]
    version: int | None


def append(
    connection: Connection,
    record: ExperimentRecord,
    *,
    kind: DecisionKind,
    now: datetime,
    actor: str,
    reason: str,
    code_version: str,
    inputs: Mapping[str, Any],
    reasons: Mapping[str, Any],
    trading_day: date | None = None,
    seed: int | None = None,
) -> int | None:
    """Store a decision and return its id; None when the night was decided before."""
    text = inputs_text(inputs)
    inserted = one(
        connection,
        """
        INSERT INTO decisions (experiment_id, kind, trading_day, decided_at, actor, reason, profile,
                               strategy, seed, code_version, inputs, inputs_digest, reasons)
        VALUES (:experiment_id, :kind, :trading_day, :now, :actor, :reason, :profile, :strategy,
                :seed, :code_version, CAST(:inputs AS jsonb), :digest, CAST(:reasons AS jsonb))
        ON CONFLICT (experiment_id, trading_day) WHERE trading_day IS NOT NULL DO NOTHING
        RETURNING id
        """,
        experiment_id=record.id,
        kind=kind.value,
        trading_day=trading_day,
        now=now,
        actor=actor,
        reason=reason,
        profile=record.experiment.profile.value,
        strategy=record.experiment.strategy.value,
        seed=seed,
        code_version=code_version,
        inputs=text,
        digest=hashlib.sha256(text.encode()).digest(),
        reasons=json.dumps(reasons, sort_keys=True, allow_nan=False),
    )
    return None if inserted is None else int(inserted["id"])


def append_allocation(
    connection: Connection,
    record: ExperimentRecord,
    ppm: Mapping[PolicyName, Ppm],
    *,
    decision_id: int,
    now: datetime,
) -> int:
    """Store the next version of the experiment's allocation and return it.

    The database applies it to the arms, begins a new epoch, and refuses what breaks a limit.
    """
    arms = record.kept_arms
    inserted = one(
        connection,
        """
        INSERT INTO allocations (experiment_id, version, epoch, decision_id, policy_ids, ppm,
                                 champion_index, floor_ppm, created_at)
        SELECT e.id, 1 + coalesce((SELECT max(version) FROM allocations
                                   WHERE experiment_id = e.id), 0),
               e.epoch + 1, :decision_id, :policy_ids, :ppm, 1, 0, :now
        FROM experiments e WHERE e.id = :experiment_id
        RETURNING version
        """,
        experiment_id=record.id,
        decision_id=decision_id,
        policy_ids=[arm.policy_id for arm in arms],
        ppm=[int(ppm[arm.place.policy]) for arm in arms],
        now=now,
    )
    assert inserted is not None
    return int(inserted["version"])


def allocations(
    connection: Connection, name: str, *, since: int = 1
) -> list[tuple[Allocation, datetime]]:
    """Return the versions of an experiment's allocation `since` one, with times, oldest first."""
    found = rows(
        connection,
        """
        SELECT v.version, v.ppm, v.champion_index, v.created_at,
               (SELECT array_agg(p.name::text ORDER BY p.id) FROM policies p
                WHERE p.id = ANY(v.policy_ids)) AS policies
        FROM allocations v JOIN experiments e ON e.id = v.experiment_id
        WHERE e.name = :name AND v.version >= :since ORDER BY v.version
        """,
        name=name,
        since=since,
    )
    return [(_allocation(row), row["created_at"]) for row in found]


def newest_version(connection: Connection, experiment_id: int) -> int:
    """Return the version of the allocation in force."""
    statement = "SELECT max(version) AS version FROM allocations WHERE experiment_id = :id"
    found = one(connection, statement, id=experiment_id)
    assert found is not None
    return int(found["version"])


def of_experiment(
    connection: Connection, name: str, *, newest: int | None = None
) -> list[DecisionRecord]:
    """Return an experiment's decisions, newest first, at most `newest` of them."""
    return [_decision(row) for row in rows(connection, _DECISIONS, name=name, newest=newest)]


def between(
    connection: Connection, name: str, *, since: datetime, until: datetime
) -> list[DecisionRecord]:
    """Return an experiment's decisions from `since` to before `until`, oldest first."""
    statement = (
        f"SELECT * FROM ({_DECISIONS}) d "  # noqa: S608 - constant
        "WHERE d.decided_at >= :since AND d.decided_at < :until ORDER BY d.id"
    )
    found = rows(connection, statement, name=name, newest=None, since=since, until=until)
    return [_decision(row) for row in found]


def by_id(connection: Connection, name: str, decision_id: int) -> DecisionRecord:
    """Return a decision that an experiment is known to have made."""
    statement = f"SELECT * FROM ({_DECISIONS}) d WHERE d.id = :decision_id"  # noqa: S608 - constant
    found = one(connection, statement, name=name, newest=None, decision_id=decision_id)
    assert found is not None
    return _decision(found)


def judged_since(
    connection: Connection, experiment_id: int, policies: Sequence[PolicyName]
) -> dict[PolicyName, datetime]:
    """Return when arms were last resumed or replaced as the champion; nothing of one never was.

    Their checklists read only trades since.
    """
    found = rows(
        connection,
        """
        SELECT policy, max(at) AS at FROM (
          SELECT inputs ->> 'policy' AS policy, decided_at AS at FROM decisions
          WHERE experiment_id = :id AND kind = 'RESUME' AND inputs ->> 'policy' = ANY(:policies)
          UNION ALL
          SELECT inputs ->> 'demoted', decided_at FROM decisions
          WHERE experiment_id = :id AND kind = 'PROMOTE' AND inputs ->> 'demoted' = ANY(:policies)
        ) AS began GROUP BY policy
        """,
        id=experiment_id,
        policies=list(policies),
    )
    return {PolicyName(row["policy"]): row["at"] for row in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """A decision that took an arm's traffic: when, and what it held before."""

    since: datetime
    held: Ppm


def throttled_by(
    connection: Connection, experiment_id: int, policy: PolicyName, *, check: str
) -> Throttle | None:
    """Return how `check` throttled an arm; None where something else has decided on it since."""
    found = one(
        connection,
        """
        SELECT decided_at, (inputs -> 'before' ->> :policy)::integer AS held,
               kind = 'THROTTLE' AND reasons -> :policy @> CAST(:asked AS jsonb) AS is_asked
        FROM decisions WHERE experiment_id = :id AND kind IN ('THROTTLE', 'HALT', 'RESUME')
          AND inputs ->> 'policy' = :policy ORDER BY id DESC LIMIT 1
        """,
        id=experiment_id,
        policy=policy,
        asked=json.dumps([{"check": check}]),
    )
    if found is None or not found["is_asked"]:
        return None
    return Throttle(since=found["decided_at"], held=Ppm(found["held"]))


def champions(connection: Connection, experiment_id: int) -> list[PolicyName]:
    """Return everyone who was ever the champion, whoever was it last first."""
    found = rows(
        connection,
        """
        SELECT p.name FROM (
          SELECT v.policy_ids[v.champion_index] AS policy_id, max(v.version) AS newest
          FROM allocations v WHERE v.experiment_id = :id GROUP BY 1) c
        JOIN policies p ON p.id = c.policy_id ORDER BY c.newest DESC
        """,
        id=experiment_id,
    )
    return [PolicyName(row["name"]) for row in found]


def newest_succession(connection: Connection, name: str) -> DecisionRecord | None:
    """Return the decision that made the present champion one; None where it opened with it."""
    found = one(
        connection,
        f"SELECT * FROM ({_DECISIONS}) d WHERE d.kind IN ('PROMOTE', 'ROLL_BACK') "  # noqa: S608 - constant
        "ORDER BY d.id DESC LIMIT 1",
        name=name,
        newest=None,
    )
    return None if found is None else _decision(found)


def discoveries(connection: Connection, experiment_id: int) -> list[datetime]:
    """Return when arms were promoted that evidence had made eligible, oldest first.

    A night reads the rungs of the night before; those it found itself stand beside.
    """
    found = rows(
        connection,
        """
        SELECT d.decided_at FROM decisions d
        WHERE d.experiment_id = :id AND d.kind = 'PROMOTE' AND (
          d.inputs -> 'rungs' ->> (d.inputs ->> 'policy') = 'eligible' OR EXISTS (
            SELECT FROM jsonb_array_elements(d.inputs -> 'readings') r
            WHERE r ->> 'policy' = d.inputs ->> 'policy' AND r ->> 'rung' = 'eligible'))
        ORDER BY 1
        """,
        id=experiment_id,
    )
    return [row["decided_at"] for row in found]


def of_night(connection: Connection, name: str, trading_day: date) -> DecisionRecord | None:
    """Return the scaling decision of a night, or None while it is open."""
    statement = f"SELECT * FROM ({_DECISIONS}) d WHERE d.trading_day = :day"  # noqa: S608 - constant
    found = one(connection, statement, name=name, newest=None, day=trading_day)
    return None if found is None else _decision(found)


def newest_night(connection: Connection, name: str, experiment_id: int) -> DecisionRecord | None:
    """Return an experiment's newest scaling decision, or None before the first."""
    found = one(
        connection,
        "SELECT max(trading_day) AS day FROM decisions WHERE experiment_id = :id",
        id=experiment_id,
    )
    assert found is not None
    return None if found["day"] is None else of_night(connection, name, found["day"])


def nights(
    connection: Connection, experiment_id: int, *, name: str, day: date | None
) -> Iterator[DecisionRecord]:
    """Stream the scaling decisions of all nights, or of that of `day`, oldest first.

    Before each come the decisions of its moment that stopped an arm, brought one back or promoted
    one.
    """
    found = streamed(
        connection,
        f"""
        SELECT d.* FROM ({_DECISIONS}) d WHERE d.decided_at IN (
          SELECT n.decided_at FROM decisions n
          WHERE n.experiment_id = :id AND n.trading_day IS NOT NULL
            AND (CAST(:day AS date) IS NULL OR n.trading_day = :day))
          AND (d.trading_day IS NOT NULL OR d.kind IN ('THROTTLE', 'HALT', 'RESUME', 'PROMOTE'))
        ORDER BY d.id
        """,  # noqa: S608 - constant
        id=experiment_id,
        name=name,
        newest=None,
        day=day,
    )
    return (_decision(row) for row in found)


def record_parameters(
    connection: Connection,
    experiment_id: int,
    parameters: Mapping[str, Any],
    *,
    now: datetime,
    actor: str,
    reason: str,
) -> None:
    """Append each parameter that differs from its newest entry in the history."""
    run(
        connection,
        """
        INSERT INTO parameter_history (timestamp, experiment_id, parameter, old_value, new_value,
                                       actor, reason)
        SELECT :now, :experiment_id, p.key, h.new_value, p.value, :actor, :reason
        FROM jsonb_each(CAST(:parameters AS jsonb)) p
        LEFT JOIN LATERAL (
          SELECT new_value FROM parameter_history
          WHERE experiment_id = :experiment_id AND parameter = p.key ORDER BY id DESC LIMIT 1) h
          ON true
        WHERE h.new_value IS DISTINCT FROM p.value
        """,
        now=now,
        experiment_id=experiment_id,
        parameters=json.dumps(parameters, sort_keys=True, allow_nan=False),
        actor=actor,
        reason=reason,
    )


_DECISIONS = """
  SELECT d.*, e.name AS experiment, v.version
  FROM decisions d
  JOIN experiments e ON e.id = d.experiment_id
  LEFT JOIN allocations v ON v.decision_id = d.id
  WHERE e.name = :name ORDER BY d.id DESC LIMIT CAST(:newest AS bigint)
"""


def _allocation(row: Mapping[str, Any]) -> Allocation:
    policies: Sequence[PolicyName] = [PolicyName(name) for name in row["policies"]]
    return Allocation(
        version=row["version"],
        champion=policies[row["champion_index"] - 1],
        ppm={name: Ppm(part) for name, part in zip(policies, row["ppm"], strict=True)},
    )


def _decision(row: Mapping[str, Any]) -> DecisionRecord:
    return DecisionRecord(
        id=row["id"],
        experiment=row["experiment"],
        kind=DecisionKind(row["kind"]),
        trading_day=row["trading_day"],
        decided_at=row["decided_at"],
        actor=row["actor"],
        reason=row["reason"],
        profile=row["profile"],
        strategy=row["strategy"],
        seed=row["seed"],
        code_version=row["code_version"],
        inputs=row["inputs"],
        inputs_digest=bytes(row["inputs_digest"]).hex(),
        reasons=row["reasons"],
        version=row["version"],
    )
