"""Pulses of monitors: the newest of each experiment, in the place of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from bandit.core.watch import Pulse
from bandit.storage.engine import one, rows, run

_PULSES = """
  SELECT e.name AS experiment, m.who, m.at, m.interval_seconds, m.is_ended,
         greatest(extract(epoch FROM clock_timestamp() - m.at), 0) AS age_seconds
  FROM monitor_pulses m JOIN experiments e ON e.id = m.experiment_id
"""


def every(connection: Connection) -> list[Pulse]:
    """Return the newest pulse of each experiment that has one, as old as it is now."""
    return [_pulse(row) for row in rows(connection, f"{_PULSES} ORDER BY e.name")]


def locked(connection: Connection, experiment: str) -> Pulse | None:
    """Lock an experiment's pulse and return it; None where it never had one."""
    row = one(connection, f"{_PULSES} WHERE e.name = :name FOR UPDATE OF m", name=experiment)
    return None if row is None else _pulse(row)


def write(connection: Connection, experiment: str, *, who: str, interval_seconds: float) -> None:
    """Store a pulse of now, by the database's clock, in the place of the one before."""
    run(
        connection,
        """
        INSERT INTO monitor_pulses (experiment_id, at, interval_seconds, is_ended, who)
        SELECT e.id, clock_timestamp(), :interval, false, :who FROM experiments e
        WHERE e.name = :name
        ON CONFLICT (experiment_id) DO UPDATE SET at = excluded.at, who = excluded.who,
          interval_seconds = excluded.interval_seconds, is_ended = false
        """,
        name=experiment,
        interval=interval_seconds,
        who=who,
    )


def end(connection: Connection, *, who: str) -> list[str]:
    """Expect no more pulses of a monitor, and return the experiments that it was expected for."""
    found = rows(
        connection,
        """
        UPDATE monitor_pulses m SET is_ended = true FROM experiments e
        WHERE e.id = m.experiment_id AND m.who = :who AND NOT m.is_ended RETURNING e.name
        """,
        who=who,
    )
    return sorted(row["name"] for row in found)


def _pulse(row: Mapping[str, Any]) -> Pulse:
    return Pulse(
        experiment=row["experiment"],
        who=row["who"],
        at=row["at"],
        age_seconds=float(row["age_seconds"]),
        interval_seconds=float(row["interval_seconds"]),
        is_ended=row["is_ended"],
    )
