"""Plant a long history of trades, and the statistics that belong to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy import Engine

from bandit.service import rebuilding
from bandit.storage.experiments import ArmRecord
from benchmarks.temporary_ledger import ACTOR, INSTRUMENT

END = datetime(2026, 1, 1, tzinfo=UTC)
"""When the newest planted trade closes."""

_ASSIGNMENTS = """
INSERT INTO assignments (id, experiment_id, unit_id, instrument, arm_id, mode, role,
                         allocation_version, epoch, propensity, is_fallback, size_multiplier,
                         confidence_bump, decided_at, expires_at, audit_id)
SELECT md5(u.unit)::uuid, a.experiment_id, u.unit, %(instrument)s, a.id, a.mode, %(role)s,
       1, 1, a.traffic_allocation, false, 1, 0, u.at, u.at + interval '2 seconds', 0
FROM arms a CROSS JOIN LATERAL (
  SELECT format('%%s-%%s', a.id, i) AS unit,
         date_trunc('second', %(end)s - interval '1 hour' - (%(trades)s - i) * %(every)s) AS at
  FROM generate_series(1, %(trades)s) i) u
WHERE a.id = %(arm)s
"""

# Returns of -0.96 % to 1.04 %: a profit factor near 1.2, and no account that ends at nothing. The
# hash is that of `Outcome.body_hash`.
_OUTCOMES = """
WITH drawn AS MATERIALIZED (
  SELECT s.*, round(((random() - 0.48) * 0.02)::numeric, 12) AS earned
  FROM assignments s WHERE s.arm_id = %(arm)s),
told AS (
  SELECT d.*, round(1000 * d.earned, 8) AS pnl, 1.00000000 AS fees,
         d.decided_at + interval '1 hour' AS closed_at FROM drawn d)
INSERT INTO outcomes (assignment_id, arm_id, unit_id, instrument, no_trade, pnl, return_ratio, fees,
                      opened_at, closed_at, expired, unclaimed, body_hash, recorded_at,
                      audit_id)
SELECT t.id, t.arm_id, t.unit_id, t.instrument, false, t.pnl, t.earned, t.fees, t.decided_at,
       t.closed_at, false, true, sha256(convert_to(format(
         '{"assignment_id": "%%s", "closed_at": "%%s+00:00", "fees": "%%s", "no_trade": false, '
         '"opened_at": "%%s+00:00", "pnl": "%%s", "r_multiple": null, "return_ratio": "%%s", '
         '"size": null, "slippage": null, "worst_excursion": null}',
         t.id, to_char(t.closed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'), t.fees,
         to_char(t.decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'), t.pnl, t.earned),
         'UTF8')), t.closed_at, 0
FROM told t ORDER BY t.decided_at
"""


def plant(connection: psycopg.Connection, arm: ArmRecord, *, trades: int, every: timedelta) -> None:
    """Give `arm` a history of `trades`, one `every` so often, through every constraint there is.

    Nothing is counted of it: `count_planted` does that once, after the last arm.
    """
    values = {
        "arm": arm.id,
        "role": arm.place.role.value,
        "instrument": INSTRUMENT,
        "end": END,
        "trades": trades,
        "every": every,
    }
    connection.execute("SELECT setseed(0.5)")
    connection.execute(_ASSIGNMENTS, values)
    connection.execute(_OUTCOMES, values)
    # So much at once, and nobody has looked at it yet: the planner would take it for nothing.
    connection.execute("ANALYZE assignments, outcomes")


def count_planted(engine: Engine) -> None:
    """Make the statistics of every arm those of its outcomes."""
    rebuilding.repair(engine, now=END, actor=ACTOR)


def sums_agree(engine: Engine) -> bool:
    """Say whether every arm's statistics are those of its outcomes, counted again."""
    return rebuilding.compare(engine, now=END).mismatches == ()
