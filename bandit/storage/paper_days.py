"""Results on paper by arm and UTC day of the decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec
from sqlalchemy import Connection

from bandit.core.paper_days import PaperDay, PaperSums
from bandit.storage.engine import rows, run
from bandit.storage.statistics import DayReturns

DayTable = Literal["paper_days", "aged_paper_days"]


class DayKey(NamedTuple):
    """An arm and the UTC day of the decisions that it is told of."""

    arm_id: int
    day: date


def of_arm(
    connection: Connection,
    arm_id: int,
    *,
    table: DayTable = "paper_days",
) -> list[PaperDay]:
    """Return an arm's days, the newest first."""
    found = rows(
        connection,
        "SELECT day, n_trades, n_losses, return_sum, return_squares, return_gain, return_loss "  # noqa: S608 - a constant
        f"FROM {table} WHERE arm_id = :arm_id ORDER BY day DESC",
        arm_id=arm_id,
    )
    return [PaperDay(day=row.pop("day"), sums=PaperSums(**row)) for row in found]


def returns_by_day(
    connection: Connection, arm_ids: Iterable[int]
) -> dict[int, tuple[DayReturns, Decimal]]:
    """Return what arms would have earned by day, and the sum of all squares; of each told of."""
    found = rows(
        connection,
        """
        SELECT arm_id, array_agg(day - DATE '0001-01-01' + 1 ORDER BY day) AS days,
               array_agg(n_trades ORDER BY day) AS n,
               array_agg(return_sum::double precision ORDER BY day) AS totals,
               sum(return_squares) AS squares
        FROM paper_days WHERE arm_id = ANY(:arm_ids) GROUP BY 1
        """,
        arm_ids=list(arm_ids),
    )
    return {
        row["arm_id"]: (DayReturns(row["days"], row["n"], row["totals"]), row["squares"])
        for row in found
    }


def by_key(
    connection: Connection, arm_id: int, *, table: DayTable = "paper_days"
) -> dict[DayKey, PaperSums]:
    """Return every day of an arm under its key."""
    return {DayKey(arm_id, d.day): d.sums for d in of_arm(connection, arm_id, table=table)}


def add(
    connection: Connection, changes: Mapping[DayKey, PaperSums], *, table: DayTable = "paper_days"
) -> None:
    """Count trades into their days; rows are locked in the order of their keys."""
    if not changes:
        return
    told = [key._asdict() | asdict(sums) for key, sums in sorted(changes.items())]
    run(
        connection,
        f"""
        INSERT INTO {table} AS d (arm_id, day, n_trades, n_losses, return_sum, return_squares,
                                  return_gain, return_loss)
        SELECT x.arm_id, x.day, x.n_trades, x.n_losses, x.return_sum, x.return_squares,
               x.return_gain, x.return_loss
        FROM json_to_recordset(CAST(:told AS json)) AS x(
          arm_id bigint, day date, n_trades bigint, n_losses bigint, return_sum numeric,
          return_squares numeric, return_gain numeric, return_loss numeric)
        ORDER BY 1, 2
        ON CONFLICT (arm_id, day) DO UPDATE SET
          n_trades = d.n_trades + excluded.n_trades, n_losses = d.n_losses + excluded.n_losses,
          return_sum = d.return_sum + excluded.return_sum,
          return_squares = d.return_squares + excluded.return_squares,
          return_gain = d.return_gain + excluded.return_gain,
          return_loss = d.return_loss + excluded.return_loss
        """,  # noqa: S608 - a constant
        told=msgspec.json.encode(told).decode(),
    )


def replace(connection: Connection, arm_id: int, days: Mapping[DayKey, PaperSums]) -> None:
    """Write every day of an arm anew."""
    run(connection, "DELETE FROM paper_days WHERE arm_id = :arm_id", arm_id=arm_id)
    add(connection, days)
