"""Count an arm's outcomes from the beginning: what its statistics must be, or once were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.performance import ClosedTrade
from bandit.core.tally import Sums
from bandit.storage.engine import one, rows, run, streamed


def sums(connection: Connection, arm_id: int, *, at: datetime | None = None) -> Sums:
    """Return the sums of an arm's outcomes that are still here, or were recorded at a moment."""
    found = one(connection, _SUMS.format(source=_source(at)), arm_id=arm_id, at=at)
    assert found is not None
    return Sums(**found)


def trades(
    connection: Connection, arm_id: int, *, at: datetime | None = None
) -> Iterator[ClosedTrade]:
    """Stream an arm's trades that are still here in closing order, or as recorded at a moment."""
    statement = (
        f"SELECT closed_at, unit_id, return_ratio FROM {_source(at)} "  # noqa: S608 - constants
        "WHERE arm_id = :arm_id AND NOT no_trade ORDER BY closed_at, unit_id"
    )
    for row in streamed(connection, statement, arm_id=arm_id, at=at):
        yield ClosedTrade(
            closed_at=row["closed_at"], unit=row["unit_id"], result=float(row["return_ratio"])
        )


def checkpoints(connection: Connection, arm_id: int) -> Iterator[dict[str, Any]]:
    """Stream the rows of an arm's stored checkpoints in closing order."""
    statement = (
        "SELECT * FROM equity_checkpoints WHERE arm_id = :arm_id ORDER BY closed_at, unit_id"
    )
    return streamed(connection, statement, arm_id=arm_id)


def wrong_day_columns(connection: Connection, arm_id: int) -> list[str]:
    """Name the columns of `arm_days` in which an arm's rows differ from its trades."""
    found = one(connection, _WRONG_DAYS, arm_id=arm_id)
    assert found is not None
    return [name for name, is_wrong in found.items() if is_wrong]


def replace_days(connection: Connection, arm_id: int) -> None:
    """Write an arm's sums by day and instrument anew."""
    run(connection, "DELETE FROM arm_days WHERE arm_id = :arm_id", arm_id=arm_id)
    columns = ", ".join(("arm_id", *_DAY_KEY, *_DAY_SUMS))
    run(connection, f"INSERT INTO arm_days ({columns}) {_DAYS} ORDER BY 2, 3", arm_id=arm_id)


def drop_checkpoints(connection: Connection, arm_id: int) -> None:
    """Forget an arm's checkpoints."""
    run(connection, "DELETE FROM equity_checkpoints WHERE arm_id = :arm_id", arm_id=arm_id)


def stored_columns(connection: Connection, arm_id: int) -> dict[str, Any]:
    """Return an arm's row of `arm_statistics` as it is stored."""
    found = one(connection, "SELECT * FROM arm_statistics WHERE arm_id = :arm_id", arm_id=arm_id)
    assert found is not None
    return found


def append_comparison(connection: Connection, *, now: datetime, arms: int, mismatches: int) -> None:
    """Remember what a comparison of all statistics found."""
    run(
        connection,
        "INSERT INTO statistics_comparisons (compared_at, arms, mismatches) "
        "VALUES (:now, :arms, :mismatches)",
        now=now,
        arms=arms,
        mismatches=mismatches,
    )


def newest_comparison(connection: Connection) -> tuple[datetime, int] | None:
    """Return when statistics were last compared, and how many columns differed then."""
    found = rows(
        connection,
        "SELECT compared_at, mismatches FROM statistics_comparisons ORDER BY id DESC LIMIT 1",
    )
    return (found[0]["compared_at"], found[0]["mismatches"]) if found else None


def _source(at: datetime | None) -> str:
    return "current_outcomes" if at is None else "outcomes_as_of(:at)"


_SUMS = """
SELECT count(*) AS n_outcomes,
       count(*) FILTER (WHERE NOT no_trade) AS n_trades,
       count(*) FILTER (WHERE return_ratio > 0) AS n_wins,
       count(*) FILTER (WHERE return_ratio < 0) AS n_losses,
       count(*) FILTER (WHERE expired) AS n_expired,
       count(*) FILTER (WHERE unclaimed) AS n_unclaimed,
       coalesce(sum(pnl) FILTER (WHERE pnl > 0), 0) AS gross_profit,
       coalesce(-sum(pnl) FILTER (WHERE pnl < 0), 0) AS gross_loss,
       coalesce(sum(fees), 0) AS fees,
       coalesce(sum(return_ratio) FILTER (WHERE return_ratio > 0), 0) AS return_gain,
       coalesce(-sum(return_ratio) FILTER (WHERE return_ratio < 0), 0) AS return_loss,
       coalesce(sum(return_ratio * return_ratio), 0) AS return_squares
FROM {source} WHERE arm_id = :arm_id
"""

_DAY_KEY = ("day", "instrument")
_DAY_SUMS = ("n_trades", "n_wins", "n_losses", "pnl", "fees", "return_gain", "return_loss")

_DAYS = """
SELECT arm_id, day, instrument, sum(n_trades)::bigint AS n_trades, sum(n_wins)::bigint AS n_wins,
       sum(n_losses)::bigint AS n_losses, sum(pnl) AS pnl, sum(fees) AS fees,
       sum(return_gain) AS return_gain, sum(return_loss) AS return_loss
FROM (
  SELECT arm_id, (closed_at AT TIME ZONE 'UTC')::date AS day, instrument, count(*) AS n_trades,
         count(*) FILTER (WHERE return_ratio > 0) AS n_wins,
         count(*) FILTER (WHERE return_ratio < 0) AS n_losses,
         sum(pnl) AS pnl, coalesce(sum(fees), 0) AS fees,
         sum(greatest(return_ratio, 0)) AS return_gain,
         -sum(least(return_ratio, 0)) AS return_loss
  FROM current_outcomes WHERE arm_id = :arm_id AND NOT no_trade GROUP BY 1, 2, 3
  UNION ALL
  SELECT arm_id, day, instrument, n_trades, n_wins, n_losses, pnl, fees, return_gain, return_loss
  FROM aged_days WHERE arm_id = :arm_id) parts
GROUP BY 1, 2, 3
"""

# A row too many or too few shows in its key; the sums of rows that both have are compared.
_DIFFERENT = ", ".join(f"coalesce(bool_or(s.{n} <> d.{n}), false) AS {n}" for n in _DAY_SUMS)
_WRONG_DAYS = f"""
SELECT coalesce(bool_or(s.day IS NULL OR d.day IS NULL), false) AS day, {_DIFFERENT}
FROM (SELECT * FROM arm_days WHERE arm_id = :arm_id) s FULL JOIN ({_DAYS}) d
  ON d.day = s.day AND d.instrument = s.instrument
"""  # noqa: S608 - names are ours
