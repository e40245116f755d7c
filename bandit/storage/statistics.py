"""Arm statistics: sums, windows and the fold, written with the outcomes they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.equity import EquityState
from bandit.core.performance import Streaks, WindowNumbers
from bandit.core.tally import Fold, Sums
from bandit.storage.engine import one, rows, run


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStatistics:
    """Everything kept of an arm's outcomes: O(1) in their number."""

    arm_id: int
    sums: Sums
    fold: Fold


def locked(connection: Connection, arm_ids: Sequence[int]) -> dict[int, ArmStatistics]:
    """Lock the statistics of `arm_ids`, in ascending order, and return them."""
    found = rows(
        connection,
        "SELECT * FROM arm_statistics WHERE arm_id = ANY(:ids) ORDER BY arm_id FOR NO KEY UPDATE",
        ids=sorted(arm_ids),
    )
    return {row["arm_id"]: _statistics(row) for row in found}


def of_arms(connection: Connection, arm_ids: Sequence[int]) -> dict[int, ArmStatistics]:
    """Return the statistics of `arm_ids` as this transaction sees them."""
    found = rows(
        connection, "SELECT * FROM arm_statistics WHERE arm_id = ANY(:ids)", ids=list(arm_ids)
    )
    return {row["arm_id"]: _statistics(row) for row in found}


def write(
    connection: Connection,
    statistics: ArmStatistics,
    *,
    short: WindowNumbers,
    long: WindowNumbers,
    window_from: datetime | None,
) -> None:
    """Store an arm's sums, fold and windows."""
    sums = asdict(statistics.sums)
    columns = (
        sums
        | _fold_columns(statistics.fold)
        | {
            "pf_short": short.profit_factor.value,
            "pf_short_state": short.profit_factor.state.value,
            "dd_short_percent": short.drawdown_percent,
            "pf_long": long.profit_factor.value,
            "pf_long_state": long.profit_factor.state.value,
            "dd_long_percent": long.drawdown_percent,
            "window_from": window_from,
        }
    )
    columns.pop("fold_n")
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    statement = f"UPDATE arm_statistics SET {assignments} WHERE arm_id = :arm_id"  # noqa: S608 - names are ours
    run(connection, statement, arm_id=statistics.arm_id, **columns)


def add_days(connection: Connection, assignment_ids: Sequence[UUID]) -> None:
    """Add newly stored trades to the sums of their arm, UTC day and instrument."""
    run(
        connection,
        """
        INSERT INTO arm_days AS d (arm_id, day, instrument, n_trades, n_wins, n_losses, pnl, fees,
                                   return_gain, return_loss)
        SELECT o.arm_id, (o.closed_at AT TIME ZONE 'UTC')::date, o.instrument, count(*),
               count(*) FILTER (WHERE o.return_ratio > 0),
               count(*) FILTER (WHERE o.return_ratio < 0),
               sum(o.pnl), coalesce(sum(o.fees), 0), sum(greatest(o.return_ratio, 0)),
               -sum(least(o.return_ratio, 0))
        FROM outcomes o WHERE o.assignment_id = ANY(:ids) AND NOT o.no_trade
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (arm_id, day, instrument) DO UPDATE SET
          n_trades = d.n_trades + excluded.n_trades, n_wins = d.n_wins + excluded.n_wins,
          n_losses = d.n_losses + excluded.n_losses, pnl = d.pnl + excluded.pnl,
          fees = d.fees + excluded.fees, return_gain = d.return_gain + excluded.return_gain,
          return_loss = d.return_loss + excluded.return_loss
        """,
        ids=list(assignment_ids),
    )


def profit_by_day(connection: Connection, arm_id: int, *, days: int) -> dict[date, Decimal]:
    """Return an arm's net money by UTC day over the `days` up to its newest, in their order."""
    found = rows(
        connection,
        """
        SELECT day, sum(pnl) AS pnl FROM arm_days
        WHERE arm_id = :arm_id
          AND day > (SELECT max(day) FROM arm_days WHERE arm_id = :arm_id) - CAST(:days AS integer)
        GROUP BY day ORDER BY day
        """,
        arm_id=arm_id,
        days=days,
    )
    return {row["day"]: row["pnl"] for row in found}


def newest_close(connection: Connection) -> datetime | None:
    """Return when the newest trade of any arm closed; None when there is none."""
    found = one(connection, "SELECT max(last_closed_at) AS newest FROM arm_statistics")
    return None if found is None else found["newest"]


def checkpoint_before(connection: Connection, arm_id: int, place: tuple[datetime, str]) -> Fold:
    """Return the newest checkpoint before `place`, and drop those from there on.

    An arm without one starts from nothing.
    """
    closed_at, unit_id = place
    run(
        connection,
        "DELETE FROM equity_checkpoints WHERE arm_id = :arm_id "
        "AND (closed_at, unit_id) >= (:closed_at, :unit_id)",
        arm_id=arm_id,
        closed_at=closed_at,
        unit_id=unit_id,
    )
    found = one(
        connection,
        "SELECT *, n_trades AS fold_n, closed_at AS last_closed_at, unit_id AS last_unit_id "
        "FROM equity_checkpoints WHERE arm_id = :arm_id "
        "ORDER BY closed_at DESC, unit_id DESC LIMIT 1",
        arm_id=arm_id,
    )
    return Fold() if found is None else _fold(found)


def add_checkpoint(connection: Connection, arm_id: int, fold: Fold) -> None:
    """Keep a place at which the fold can be taken up again."""
    run(
        connection,
        """
        INSERT INTO equity_checkpoints (
          arm_id, closed_at, unit_id, n_trades, equity, equity_peak, drawdown_max,
          losing_streak, losing_streak_max, winning_streak, winning_streak_max)
        VALUES (:arm_id, :last_closed_at, :last_unit_id, :fold_n, :equity, :equity_peak,
                :drawdown_max, :losing_streak, :losing_streak_max, :winning_streak,
                :winning_streak_max)
        """,
        arm_id=arm_id,
        **_fold_columns(fold),
    )


def _fold_columns(fold: Fold) -> dict[str, Any]:
    closed_at, unit_id = fold.last or (None, None)
    return {
        "fold_n": fold.n,
        "last_closed_at": closed_at,
        "last_unit_id": unit_id,
        "equity": fold.equity.equity,
        "equity_peak": fold.equity.high_water_mark,
        "drawdown_max": fold.equity.drawdown_max_percent,
        "losing_streak": fold.streaks.current_losing,
        "losing_streak_max": fold.streaks.longest_losing,
        "winning_streak": fold.streaks.current_winning,
        "winning_streak_max": fold.streaks.longest_winning,
    }


def _statistics(row: Mapping[str, Any]) -> ArmStatistics:
    sums = Sums(**{name: row[name] for name in Sums.__slots__})
    return ArmStatistics(
        arm_id=row["arm_id"], sums=sums, fold=_fold(dict(row) | {"fold_n": row["n_trades"]})
    )


def _fold(row: Mapping[str, Any]) -> Fold:
    last = row["last_closed_at"]
    return Fold(
        n=row["fold_n"],
        equity=EquityState(
            starting_capital=1.0,
            equity=row["equity"],
            high_water_mark=row["equity_peak"],
            drawdown_max_percent=row["drawdown_max"],
        ),
        streaks=Streaks(
            longest_losing=row["losing_streak_max"],
            current_losing=row["losing_streak"],
            longest_winning=row["winning_streak_max"],
            current_winning=row["winning_streak"],
        ),
        last=None if last is None else (last, row["last_unit_id"]),
    )
