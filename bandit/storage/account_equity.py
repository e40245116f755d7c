"""Account equity: written with the outcomes and marks that move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from bandit.core.account import AccountEquity, LossLimit, LossLimits
from bandit.storage.engine import rows, run


def insert(connection: Connection, account_id: int, *, limits: LossLimits, day: date) -> None:
    """Begin the account's equity under `limits`; one that is there keeps its own."""
    run(
        connection,
        f"INSERT INTO account_equity (account_id, {', '.join(_COLUMNS)}) "  # noqa: S608 - names are ours
        f"VALUES (:account_id, {', '.join(f':{name}' for name in _COLUMNS)}) "
        "ON CONFLICT (account_id) DO NOTHING",
        account_id=account_id,
        **_columns(AccountEquity.opened(day=day, limits=limits)),
    )


def locked(connection: Connection, account_ids: Sequence[int]) -> dict[int, AccountEquity]:
    """Lock the equity of `account_ids`, in ascending order, and return it."""
    found = rows(
        connection,
        "SELECT * FROM account_equity WHERE account_id = ANY(:ids) "
        "ORDER BY account_id FOR NO KEY UPDATE",
        ids=sorted(account_ids),
    )
    return {row["account_id"]: _equity(row) for row in found}


def of_accounts(connection: Connection, account_ids: Sequence[int]) -> dict[int, AccountEquity]:
    """Return the equity of `account_ids` as this transaction sees it."""
    found = rows(
        connection,
        "SELECT * FROM account_equity WHERE account_id = ANY(:ids)",
        ids=list(account_ids),
    )
    return {row["account_id"]: _equity(row) for row in found}


def realised_by_day(connection: Connection, name: str, *, since: date) -> dict[date, Decimal]:
    """Return what all experiments of an account realised by UTC day since one, in their order."""
    found = rows(
        connection,
        """
        SELECT d.day, sum(d.pnl) AS pnl FROM arm_days d
        JOIN arms a ON a.id = d.arm_id
        JOIN experiments e ON e.id = a.experiment_id
        JOIN accounts c ON c.id = e.account_id
        WHERE c.name = :name AND d.day >= :since GROUP BY d.day ORDER BY d.day
        """,
        name=name,
        since=since,
    )
    return {row["day"]: row["pnl"] for row in found}


def write(connection: Connection, account_id: int, equity: AccountEquity) -> None:
    """Store what became of a locked account."""
    statement = (
        f"UPDATE account_equity SET {', '.join(f'{name} = :{name}' for name in _COLUMNS)} "  # noqa: S608 - names are ours
        "WHERE account_id = :account_id"
    )
    run(connection, statement, account_id=account_id, **_columns(equity))


_COLUMNS = (
    "max_daily_loss",
    "max_drawdown",
    "capital",
    "realised_pnl",
    "unrealised_pnl",
    "peak",
    "trading_day",
    "day_start",
    *(f"{limit}_low" for limit in LossLimit),
)


def _columns(equity: AccountEquity) -> dict[str, Any]:
    return {
        "max_daily_loss": equity.limits.daily_loss,
        "max_drawdown": equity.limits.drawdown,
        "capital": equity.capital,
        "realised_pnl": equity.realised,
        "unrealised_pnl": equity.unrealised,
        "peak": equity.peak,
        "trading_day": equity.day,
        "day_start": equity.day_start,
        **{f"{limit}_low": equity.lows.get(limit) for limit in LossLimit},
    }


def _equity(row: Mapping[str, Any]) -> AccountEquity:
    lows = {limit: row[f"{limit}_low"] for limit in LossLimit}
    return AccountEquity(
        limits=LossLimits(daily_loss=row["max_daily_loss"], drawdown=row["max_drawdown"]),
        capital=row["capital"],
        realised=row["realised_pnl"],
        unrealised=row["unrealised_pnl"],
        peak=row["peak"],
        day=row["trading_day"],
        day_start=row["day_start"],
        lows={limit: low for limit, low in lows.items() if low is not None},
    )
