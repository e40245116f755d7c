"""Plant a long history of trades, and the statistics that belong to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy import Connection, Engine

from bandit.core.performance import ClosedTrade, window_numbers
from bandit.core.tally import Fold, Sums, folded, is_checkpoint
from bandit.storage import outcomes, statistics
from bandit.storage.engine import one, snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.statistics import ArmStatistics
from benchmarks.temporary_ledger import INSTRUMENT

END = datetime(2026, 1, 1, tzinfo=UTC)
"""When the newest planted trade closes."""

_ASSIGNMENTS = """
INSERT INTO assignments (id, experiment_id, unit_id, instrument, arm_id, mode, role,
                         allocation_version, epoch, propensity, size_multiplier, confidence_bump,
                         decided_at, expires_at)
SELECT md5(u.unit)::uuid, a.experiment_id, u.unit, %(instrument)s, a.id, a.mode, %(role)s,
       1, 1, a.traffic_allocation, 1, 0, u.at, u.at + interval '2 seconds'
FROM arms a CROSS JOIN LATERAL (
  SELECT format('%%s-%%s', a.id, i) AS unit,
         %(end)s - interval '1 hour' - (%(trades)s - i) * %(every)s AS at
  FROM generate_series(1, %(trades)s) i) u
WHERE a.id = %(arm)s
"""

# Returns of -0.96 % to 1.04 %: a profit factor near 1.2, and no account that ends at nothing.
_OUTCOMES = """
WITH drawn AS MATERIALIZED (
  SELECT s.*, round(((random() - 0.48) * 0.02)::numeric, 12) AS earned
  FROM assignments s WHERE s.arm_id = %(arm)s)
INSERT INTO outcomes (assignment_id, arm_id, unit_id, instrument, no_trade, pnl, return_ratio, fees,
                      opened_at, closed_at, expired, body_hash, recorded_at)
SELECT d.id, d.arm_id, d.unit_id, d.instrument, false, round(1000 * d.earned, 8), d.earned, 1,
       d.decided_at, d.decided_at + interval '1 hour', false, sha256(d.unit_id::bytea),
       d.decided_at + interval '1 hour'
FROM drawn d ORDER BY d.decided_at
"""

_IDS_BY_DAY = """
SELECT array_agg(assignment_id) FROM outcomes WHERE arm_id = %s
GROUP BY (closed_at AT TIME ZONE 'UTC')::date
"""

_SUMS = """
SELECT count(*) AS n_outcomes,
       count(*) FILTER (WHERE NOT no_trade) AS n_trades,
       count(*) FILTER (WHERE return_ratio > 0) AS n_wins,
       count(*) FILTER (WHERE return_ratio < 0) AS n_losses,
       count(*) FILTER (WHERE expired) AS n_expired,
       coalesce(sum(pnl) FILTER (WHERE pnl > 0), 0) AS gross_profit,
       coalesce(-sum(pnl) FILTER (WHERE pnl < 0), 0) AS gross_loss,
       coalesce(sum(fees), 0) AS fees,
       coalesce(sum(return_ratio) FILTER (WHERE return_ratio > 0), 0) AS return_gain,
       coalesce(-sum(return_ratio) FILTER (WHERE return_ratio < 0), 0) AS return_loss,
       coalesce(sum(return_ratio * return_ratio), 0) AS return_squares
FROM outcomes WHERE arm_id = :arm_id
"""


def plant(
    engine: Engine,
    connection: psycopg.Connection,
    record: ExperimentRecord,
    arm: ArmRecord,
    *,
    trades: int,
    every: timedelta,
) -> None:
    """Give `arm` a history of `trades`, one `every` so often, through every constraint there is."""
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
    fold = _folded(engine, connection, record, arm)
    rule, fraction = record.rules.checklist, record.experiment.equity_fraction
    with transaction(engine) as ledger:
        newest = outcomes.newest_trades(ledger, arm.id, rule.long_window)
        statistics.write(
            ledger,
            ArmStatistics(arm_id=arm.id, sums=_sums(ledger, arm), fold=fold),
            short=window_numbers(newest, window=rule.window, nominal_fraction=fraction),
            long=window_numbers(newest, window=rule.long_window, nominal_fraction=fraction),
            window_from=newest[0].closed_at,
        )
        for (ids,) in connection.execute(_IDS_BY_DAY, [arm.id]):
            statistics.add_days(ledger, ids)


def sums_agree(engine: Engine, arm: ArmRecord) -> bool:
    """Say whether an arm's stored sums are those of its outcomes, counted again."""
    with snapshot(engine) as connection:
        return statistics.of_arms(connection, [arm.id])[arm.id].sums == _sums(connection, arm)


def _sums(connection: Connection, arm: ArmRecord) -> Sums:
    found = one(connection, _SUMS, arm_id=arm.id)
    assert found is not None
    return Sums(**found)


def _folded(
    engine: Engine,
    connection: psycopg.Connection,
    record: ExperimentRecord,
    arm: ArmRecord,
) -> Fold:
    state = Fold()
    with (
        transaction(engine) as ledger,
        connection.transaction(),
        connection.cursor(name="trades") as cursor,
    ):
        cursor.itersize = 10_000  # rows that are here at a time
        rows = cursor.execute(
            "SELECT closed_at, unit_id, return_ratio FROM outcomes WHERE arm_id = %s "
            "ORDER BY closed_at, unit_id",
            [arm.id],
        )
        trades = (
            ClosedTrade(closed_at=closed_at, unit=unit, result=float(earned))
            for closed_at, unit, earned in rows
        )
        for state in folded(Fold(), trades, equity_fraction=record.experiment.equity_fraction):
            if is_checkpoint(state):
                statistics.add_checkpoint(ledger, arm.id, state)
    return state
