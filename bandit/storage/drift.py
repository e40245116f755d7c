"""Drift checks: appended once for each window of an artefact, never changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from bandit.core.drift import DriftCheck, DriftMetric, DriftRun
from bandit.core.model import PolicySha, Verdict
from bandit.core.upkeep import EncoderCheck
from bandit.storage.engine import rows

_DIGITS_MIN = 16  # what is shorter, a float holds exactly


def append(connection: Connection, run: DriftRun) -> int:
    """Append the checks of a run that are not there yet; return how many those were."""
    inserted = rows(
        connection,
        """
        INSERT INTO drift_checks (run_id, sha, metric, subject, value, limit_value, p_value,
                                  verdict, n, n_effective, window_from, window_to, checked_at,
                                  detail)
        SELECT :run_id, :sha, c.metric, c.subject, c.value, c.limit_value, c.p_value, c.verdict,
               c.n, c.n_effective, :window_from, :window_to, :checked_at, c.detail
        FROM unnest(
          CAST(:metrics AS text[]), CAST(:subjects AS text[]),
          CAST(:numbers AS double precision[]), CAST(:limits AS double precision[]),
          CAST(:p_values AS double precision[]), CAST(:verdicts AS text[]),
          CAST(:counts AS bigint[]), CAST(:effective AS double precision[]),
          CAST(:details AS jsonb[]))
          WITH ORDINALITY AS c (metric, subject, value, limit_value, p_value, verdict, n,
                                n_effective, detail, place)
        ORDER BY c.place
        ON CONFLICT (sha, window_from, window_to, metric, subject) DO NOTHING RETURNING id
        """,
        run_id=run.run_id,
        sha=run.sha,
        window_from=run.window_from,
        window_to=run.window_to,
        checked_at=run.checked_at,
        **_columns(run.checks),
    )
    return len(inserted)


def of_window(
    connection: Connection, sha: PolicySha, window_from: datetime, window_to: datetime
) -> DriftRun | None:
    """Return the run of one window; None where it was not checked."""
    found = rows(
        connection,
        "SELECT *, detail::text AS told FROM drift_checks WHERE sha = :sha"
        " AND window_from = :window_from AND window_to = :window_to ORDER BY id",
        sha=sha,
        window_from=window_from,
        window_to=window_to,
    )
    return _run(found) if found else None


def newest(connection: Connection, *, since: datetime, artifacts_max: int) -> list[DriftRun]:
    """Return the run with the newest window of each artefact that was checked at `since` or later.

    Of more artefacts than `artifacts_max`, those checked last. What it costs grows with the number
    of artefacts, not with that of their runs.
    """
    found = rows(
        connection,
        """
        WITH RECURSIVE artifacts AS (
          (SELECT sha FROM drift_checks ORDER BY sha LIMIT 1)
          UNION ALL
          SELECT (SELECT d.sha FROM drift_checks d WHERE d.sha > a.sha ORDER BY d.sha LIMIT 1)
          FROM artifacts a WHERE a.sha IS NOT NULL),
        newest AS (
          SELECT n.* FROM artifacts a CROSS JOIN LATERAL (
            SELECT d.sha, d.window_from, d.window_to, d.checked_at FROM drift_checks d
            WHERE d.sha = a.sha ORDER BY d.window_to DESC, d.id DESC LIMIT 1) n
          WHERE n.checked_at >= :since ORDER BY n.checked_at DESC, n.sha LIMIT :artifacts_max)
        SELECT d.*, d.detail::text AS told
        FROM newest n JOIN drift_checks d USING (sha, window_from, window_to)
        ORDER BY n.checked_at DESC, d.sha, d.id
        """,
        since=since,
        artifacts_max=artifacts_max,
    )
    return [_run(list(group)) for _, group in groupby(found, key=lambda row: row["run_id"])]


def newest_of_encoders(
    connection: Connection, shas: Sequence[PolicySha]
) -> dict[PolicySha, EncoderCheck]:
    """Return the newest check of each artefact's encoder; nothing of what was never checked."""
    found = rows(
        connection,
        """
        SELECT n.* FROM unnest(CAST(:shas AS text[])) AS asked (sha) CROSS JOIN LATERAL (
          SELECT d.*, d.detail::text AS told FROM drift_checks d
          WHERE d.sha = asked.sha AND d.metric = :metric
          ORDER BY d.window_to DESC, d.id DESC LIMIT 1) n
        """,
        shas=list(shas),
        metric=DriftMetric.ENCODER_KL.value,
    )
    return {
        PolicySha(row["sha"]): EncoderCheck(
            check=_check(row), run_id=row["run_id"], window_to=row["window_to"]
        )
        for row in found
    }


def _columns(checks: Sequence[DriftCheck]) -> dict[str, Any]:
    return {
        "metrics": [check.metric.value for check in checks],
        "subjects": [check.subject for check in checks],
        "numbers": [check.value for check in checks],
        "limits": [check.limit for check in checks],
        "p_values": [check.p_value for check in checks],
        "verdicts": [check.verdict.value for check in checks],
        "counts": [check.n for check in checks],
        "effective": [check.n_effective for check in checks],
        "details": [json.dumps(dict(check.detail), allow_nan=False) for check in checks],
    }


def _run(found: Sequence[dict[str, Any]]) -> DriftRun:
    first = found[0]
    return DriftRun(
        sha=PolicySha(first["sha"]),
        window_from=first["window_from"],
        window_to=first["window_to"],
        checked_at=first["checked_at"],
        checks=tuple(_check(row) for row in found),
    )


def _check(row: dict[str, Any]) -> DriftCheck:
    return DriftCheck(
        metric=DriftMetric(row["metric"]),
        subject=row["subject"],
        value=row["value"],
        limit=row["limit_value"],
        p_value=row["p_value"],
        verdict=Verdict(row["verdict"]),
        n=row["n"],
        n_effective=row["n_effective"],
        detail=json.loads(row["told"], parse_int=_number),
    )


def _number(digits: str) -> int | float:
    # jsonb writes a large float as a whole number, which is another one than the float.
    return int(digits) if len(digits) < _DIGITS_MIN else float(digits)
