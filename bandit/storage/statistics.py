"""Arm statistics: sums, windows and the fold, written with the outcomes they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from bandit.core.equity import EquityState
from bandit.core.performance import Streaks, WindowNumbers
from bandit.core.tally import DaySums, Fold, Sums
from bandit.storage.engine import one, rows, run


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStatistics:
    """Everything kept of an arm's outcomes: O(1) in their number."""

    arm_id: int
    sums: Sums
    fold: Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTerms:
    """What an arm's experiment says of how its outcomes are counted."""

    arm_id: int
    equity_fraction: float
    windows: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedArm:
    """An arm's statistics with the terms they follow."""

    terms: ArmTerms
    statistics: ArmStatistics


def locked(connection: Connection, arm_ids: Iterable[int]) -> dict[int, CountedArm]:
    """Lock the statistics of `arm_ids`, in ascending order, and return them."""
    found = rows(
        connection,
        """
        SELECT s.*, e.equity_fraction, (e.rules #>> '{checklist,window}')::integer AS short_window,
               (e.rules #>> '{checklist,long_window}')::integer AS long_window
        FROM arm_statistics s
        JOIN arms a ON a.id = s.arm_id JOIN experiments e ON e.id = a.experiment_id
        WHERE s.arm_id = ANY(:ids) ORDER BY s.arm_id FOR NO KEY UPDATE OF s
        """,
        ids=sorted(arm_ids),
    )
    return {row["arm_id"]: _counted(row) for row in found}


def lock(connection: Connection, arm_ids: Iterable[int]) -> None:
    """Lock the statistics of arms, in ascending order, whatever they say."""
    run(
        connection,
        "SELECT FROM arm_statistics WHERE arm_id = ANY(:ids) ORDER BY arm_id FOR NO KEY UPDATE",
        ids=sorted(arm_ids),
    )


def _counted(row: Mapping[str, Any]) -> CountedArm:
    terms = ArmTerms(
        arm_id=row["arm_id"],
        equity_fraction=row["equity_fraction"],
        windows=(row["short_window"], row["long_window"]),
    )
    return CountedArm(terms=terms, statistics=_statistics(row))


class DayReturns(NamedTuple):
    """An arm's trades by UTC day, the oldest first: how many, and the sums of their returns.

    A day is its `date.toordinal`.
    """

    days: Sequence[int] = ()
    n: Sequence[int] = ()
    totals: Sequence[float] = ()


def of_arms(connection: Connection, arm_ids: Sequence[int]) -> dict[int, ArmStatistics]:
    """Return the statistics of `arm_ids` as this transaction sees them."""
    found = rows(
        connection, "SELECT * FROM arm_statistics WHERE arm_id = ANY(:ids)", ids=list(arm_ids)
    )
    return {row["arm_id"]: _statistics(row) for row in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmWindows:
    """An arm's numbers of its newest trades; `since` is when the oldest of them closed."""

    short: WindowNumbers
    long: WindowNumbers
    since: datetime | None


def columns_of(statistics: ArmStatistics, windows: ArmWindows) -> dict[str, Any]:
    """Return the row of `arm_statistics` that holds these numbers."""
    short, long = windows.short, windows.long
    columns = (
        asdict(statistics.sums)
        | fold_columns(statistics.fold)
        | {
            "pf_short": short.profit_factor.value,
            "pf_short_state": short.profit_factor.state.value,
            "dd_short_percent": short.drawdown_percent,
            "pf_long": long.profit_factor.value,
            "pf_long_state": long.profit_factor.state.value,
            "dd_long_percent": long.drawdown_percent,
            "window_from": windows.since,
        }
    )
    assert columns.pop("fold_n") == statistics.sums.n_trades
    return columns


def write(connection: Connection, statistics: ArmStatistics, windows: ArmWindows) -> None:
    """Store an arm's sums, fold and windows."""
    columns = columns_of(statistics, windows)
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    statement = f"UPDATE arm_statistics SET {assignments} WHERE arm_id = :arm_id"  # noqa: S608 - names are ours
    run(connection, statement, arm_id=statistics.arm_id, **columns)


def add_days(
    connection: Connection,
    arm_id: int,
    days: Mapping[tuple[date, str], DaySums],
    *,
    table: Literal["arm_days", "aged_days"] = "arm_days",
) -> None:
    """Add trades, newly counted or aged, to the sums of their UTC day and instrument."""
    added = [
        {"day": day, "instrument": instrument, **asdict(sums)}
        for (day, instrument), sums in days.items()
    ]
    run(
        connection,
        f"""
        INSERT INTO {table} AS d (arm_id, day, instrument, n_trades, n_wins, n_losses, pnl, fees,
                                   return_gain, return_loss)
        SELECT :arm_id, r.day, r.instrument, r.n_trades, r.n_wins, r.n_losses, r.pnl, r.fees,
               r.return_gain, r.return_loss
        FROM json_to_recordset(CAST(:days AS json)) AS r (
          day date, instrument text, n_trades bigint, n_wins bigint, n_losses bigint, pnl numeric,
          fees numeric, return_gain numeric, return_loss numeric)
        ON CONFLICT (arm_id, day, instrument) DO UPDATE SET
          n_trades = d.n_trades + excluded.n_trades, n_wins = d.n_wins + excluded.n_wins,
          n_losses = d.n_losses + excluded.n_losses, pnl = d.pnl + excluded.pnl,
          fees = d.fees + excluded.fees, return_gain = d.return_gain + excluded.return_gain,
          return_loss = d.return_loss + excluded.return_loss
        """,  # noqa: S608 - two names of ours
        arm_id=arm_id,
        days=msgspec.json.encode(added).decode(),
    )


def take_from_day(
    connection: Connection, arm_id: int, day: date, instrument: str, sums: DaySums
) -> None:
    """Take trades that no longer count from the sums of their day; one without trades goes."""
    place = {"arm_id": arm_id, "day": day, "instrument": instrument}
    of_day = "arm_id = :arm_id AND day = :day AND instrument = :instrument"
    # Before the update, whose result without trades would be unlawful.
    run(
        connection,
        f"DELETE FROM arm_days WHERE {of_day} AND n_trades = :n",  # noqa: S608 - constants
        **place,
        n=sums.n_trades,
    )
    changes = ", ".join(f"{name} = {name} - :{name}" for name in DaySums.__slots__)
    run(
        connection,
        f"UPDATE arm_days SET {changes} WHERE {of_day}",  # noqa: S608 - names are ours
        **place,
        **asdict(sums),
    )


def sums_by_day(
    connection: Connection, arm_ids: Sequence[int], *, since: date, until: date
) -> dict[int, dict[date, DaySums]]:
    """Return the sums of arms over UTC days from `since` to before `until`, in their order."""
    sums = ", ".join(f"sum({name}) AS {name}" for name in DaySums.__slots__)
    found = rows(
        connection,
        f"SELECT arm_id, day, {sums} FROM arm_days "  # noqa: S608 - names are ours
        "WHERE arm_id = ANY(:arm_ids) AND day >= :since AND day < :until "
        "GROUP BY arm_id, day ORDER BY arm_id, day",
        arm_ids=list(arm_ids),
        since=since,
        until=until,
    )
    by_arm: dict[int, dict[date, DaySums]] = {arm_id: {} for arm_id in arm_ids}
    for row in found:
        told = {name: row[name] for name in DaySums.__slots__}
        for name in ("n_trades", "n_wins", "n_losses"):  # sums of counts come as decimals
            told[name] = int(told[name])
        by_arm[row["arm_id"]][row["day"]] = DaySums(**told)
    return by_arm


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


def profit_of_all_by_day(
    connection: Connection, experiment_id: int, *, days: int
) -> dict[date, Decimal]:
    """Return the net money of all arms by UTC day over the `days` up to their newest."""
    found = rows(
        connection,
        """
        WITH mine AS (SELECT id FROM arms WHERE experiment_id = :id)
        SELECT day, sum(pnl) AS pnl FROM arm_days WHERE arm_id IN (SELECT id FROM mine)
          AND day > (SELECT max(day) FROM arm_days WHERE arm_id IN (SELECT id FROM mine))
                    - CAST(:days AS integer)
        GROUP BY day ORDER BY day
        """,
        id=experiment_id,
        days=days,
    )
    return {row["day"]: row["pnl"] for row in found}


def pnl_of_all(connection: Connection, experiment_id: int) -> Decimal:
    """Return the net money that all arms of an experiment have made, retired ones too."""
    found = one(
        connection,
        "SELECT coalesce(sum(s.gross_profit - s.gross_loss), 0) AS pnl FROM arm_statistics s"
        " JOIN arms a ON a.id = s.arm_id WHERE a.experiment_id = :id",
        id=experiment_id,
    )
    assert found is not None
    return Decimal(found["pnl"])


def returns_by_day(connection: Connection, arm_ids: Iterable[int]) -> dict[int, DayReturns]:
    """Return what the trades of arms earned by the UTC day they closed on; of each that had any."""
    found = rows(
        connection,
        """
        SELECT a.id AS arm_id, d.* FROM unnest(CAST(:arm_ids AS bigint[])) AS a(id)
        CROSS JOIN LATERAL (
          SELECT array_agg(day - DATE '0001-01-01' + 1 ORDER BY day) AS days,
                 array_agg(n ORDER BY day) AS n,
                 array_agg(total::double precision ORDER BY day) AS totals
          FROM (SELECT day, sum(n_trades)::bigint AS n, sum(return_gain - return_loss) AS total
                FROM arm_days WHERE arm_id = a.id GROUP BY day) AS s
          HAVING count(*) > 0) AS d
        """,
        arm_ids=list(arm_ids),
    )
    return {row.pop("arm_id"): DayReturns(**row) for row in found}


def newest_close(connection: Connection) -> datetime | None:
    """Return when the newest trade of any arm closed; None when there is none."""
    found = one(connection, "SELECT max(last_closed_at) AS newest FROM arm_statistics")
    return None if found is None else found["newest"]


def checkpoint_before(
    connection: Connection, arm_id: int, place: tuple[datetime, str]
) -> Fold | None:
    """Return the newest checkpoint before `place`, if there is one; drop those from there on."""
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
    return None if found is None else fold_of(found)


def add_checkpoints(connection: Connection, arm_id: int, folds: Sequence[Fold]) -> None:
    """Keep places at which the fold can be taken up again."""
    if not folds:
        return
    statement = text(
        """
        INSERT INTO equity_checkpoints (
          arm_id, closed_at, unit_id, n_trades, equity, equity_peak, drawdown_max,
          losing_streak, losing_streak_max, winning_streak, winning_streak_max)
        VALUES (:arm_id, :closed_at, :unit_id, :n_trades, :equity, :equity_peak,
                :drawdown_max, :losing_streak, :losing_streak_max, :winning_streak,
                :winning_streak_max)
        """
    )
    rows = [{"arm_id": arm_id, **checkpoint_columns(fold)} for fold in folds]
    connection.execute(statement, rows)


def checkpoint_columns(fold: Fold) -> dict[str, Any]:
    """Return the row of `equity_checkpoints` that holds a fold.

    >>> checkpoint_columns(Fold())["n_trades"]
    0
    """
    columns = fold_columns(fold)
    names = {"fold_n": "n_trades", "last_closed_at": "closed_at", "last_unit_id": "unit_id"}
    return {names.get(name, name): value for name, value in columns.items()}


def fold_columns(fold: Fold) -> dict[str, Any]:
    """Return a fold under the names of the columns of `arm_statistics`, its count as `fold_n`."""
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
        arm_id=row["arm_id"], sums=sums, fold=fold_of(dict(row) | {"fold_n": row["n_trades"]})
    )


def fold_of(row: Mapping[str, Any]) -> Fold:
    """Return the fold that such columns hold."""
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
