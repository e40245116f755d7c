"""Sweeps and what they found, as the ledger keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.model import PolicyName
from bandit.core.optimization import OptimizationRun, RunState, TrialCounts
from bandit.storage.engine import REACHABLE, one, rows, run, session_options

_COLUMNS = """
  SELECT r.study, r.timestamp AS began_at, r.changed_at, r.trials, r.asked, r.state,
         r.trials_complete, r.trials_pruned, r.trials_failed, r.best_value, r.parameters,
         p.name AS policy
  FROM optimization_runs r LEFT JOIN policies p ON p.id = r.policy_id
"""


def insert(connection: Connection, begun: OptimizationRun) -> bool:
    """Store a sweep that begins, and return whether there was none of its name."""
    made = one(
        connection,
        """
        INSERT INTO optimization_runs (timestamp, changed_at, study, trials, asked, parameters,
                                       state, trials_complete, trials_pruned, trials_failed)
        VALUES (:began_at, :changed_at, :study, :trials, CAST(:asked AS jsonb), '{}', :state,
                0, 0, 0)
        ON CONFLICT (study) DO NOTHING RETURNING id
        """,
        began_at=begun.began_at,
        changed_at=begun.changed_at,
        study=begun.study,
        trials=begun.trials,
        asked=_json(begun.asked),
        state=begun.state.value,
    )
    return made is not None


def by_study(connection: Connection, study: str, *, lock: bool = False) -> OptimizationRun | None:
    """Return a sweep, or None; with `lock` nobody else changes it in the meantime."""
    held = " FOR UPDATE OF r" if lock else ""
    found = one(connection, _COLUMNS + " WHERE r.study = :study" + held, study=study)
    return None if found is None else _run(found)


def newest(connection: Connection, *, most: int) -> list[OptimizationRun]:
    """Return the sweeps that began last, the newest first."""
    found = rows(connection, _COLUMNS + " ORDER BY r.timestamp DESC, r.id DESC LIMIT :n", n=most)
    return [_run(row) for row in found]


def write(connection: Connection, changed: OptimizationRun) -> None:
    """Store how far a sweep is."""
    run(
        connection,
        """
        UPDATE optimization_runs
        SET changed_at = :changed_at, state = :state, trials_complete = :complete,
            trials_pruned = :pruned, trials_failed = :failed, best_value = :best_value,
            parameters = CAST(:parameters AS jsonb),
            policy_id = (SELECT id FROM policies WHERE name = :policy)
        WHERE study = :study
        """,
        study=changed.study,
        changed_at=changed.changed_at,
        state=changed.state.value,
        complete=changed.counts.complete,
        pruned=changed.counts.pruned,
        failed=changed.counts.failed,
        best_value=changed.best_value,
        parameters=_json(changed.parameters),
        policy=changed.policy,
    )


def record_parameters(
    connection: Connection, found: OptimizationRun, *, now: datetime, actor: str, reason: str
) -> None:
    """Append each parameter that differs from what the sweep before chose."""
    run(
        connection,
        """
        INSERT INTO parameter_history (timestamp, study, parameter, old_value, new_value, actor,
                                       reason)
        SELECT :now, :study, p.key, h.new_value, p.value, :actor, :reason
        FROM jsonb_each(CAST(:parameters AS jsonb)) p
        LEFT JOIN LATERAL (
          SELECT new_value FROM parameter_history
          WHERE study IS NOT NULL AND parameter = p.key ORDER BY id DESC LIMIT 1) h ON true
        WHERE h.new_value IS DISTINCT FROM p.value
        ORDER BY p.key
        """,
        now=now,
        study=found.study,
        parameters=_json(found.parameters),
        actor=actor,
        reason=reason,
    )


def has_room_for_studies(connection: Connection) -> bool:
    """Say whether Optuna has a schema that this user may make tables in."""
    found = one(
        connection,
        "SELECT coalesce(has_schema_privilege(to_regnamespace('optuna'), 'CREATE'), false) AS may",
    )
    assert found is not None
    return bool(found["may"])


def study_arguments(url: str) -> dict[str, Any]:
    """Return what Optuna is to connect with, so that it sees its own schema alone.

    >>> study_arguments("postgresql+psycopg://h/d")["options"]
    '-c timezone=UTC -c search_path=optuna'
    """
    options = session_options(url, "-c timezone=UTC -c search_path=optuna")
    return {**REACHABLE, "options": options}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, allow_nan=False)


def _run(row: Mapping[str, Any]) -> OptimizationRun:
    return OptimizationRun(
        study=row["study"],
        began_at=row["began_at"],
        changed_at=row["changed_at"],
        trials=row["trials"],
        asked=row["asked"],
        state=RunState(row["state"]),
        counts=TrialCounts(
            complete=row["trials_complete"],
            pruned=row["trials_pruned"],
            failed=row["trials_failed"],
        ),
        best_value=row["best_value"],
        parameters=row["parameters"],
        policy=None if row["policy"] is None else PolicyName(row["policy"]),
    )
