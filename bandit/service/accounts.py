"""Accounts as people read them: money, losses against their limits, and the kill switch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.account import AccountEquity
from bandit.core.model import checked_instant
from bandit.storage import account_equity, accounts, reconciliations
from bandit.storage.accounts import AccountRecord
from bandit.storage.engine import snapshot
from bandit.storage.reconciliations import ReconciliationRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReport:
    """One account with its equity on one day, and how it compares with what its bots tell.

    `reconciliation` is None where none ever told anything of it.
    """

    record: AccountRecord
    equity: AccountEquity
    reconciliation: ReconciliationRecord | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the account as the API and the CLI print it."""
        record, equity = self.record, self.equity
        event = record.newest if record.is_killed else None
        told = self.reconciliation
        return {
            "name": record.name,
            "currency": record.currency,
            "capital": f"{equity.capital:f}",
            "realised_pnl": f"{equity.realised:f}",
            "unrealised_pnl": f"{equity.unrealised:f}",
            "equity": f"{equity.equity:f}",
            "peak": f"{equity.peak:f}",
            "drawdown_percent": equity.drawdown_percent,
            "trading_day": equity.day.isoformat(),
            "day_start": f"{equity.day_start:f}",
            "daily_loss_percent": equity.daily_loss_percent,
            "limits": [reason.to_json() for reason in equity.reasons()],
            "killed": record.is_killed,
            "cause": None if event is None else event.cause.value,
            "reason": None if event is None else event.reason,
            "actor": None if event is None else event.actor,
            "since": None if record.killed_since is None else record.killed_since.isoformat(),
            "reconciliation": None if told is None else told.to_json(),
        }


def listed(engine: Engine, *, now: datetime) -> list[AccountReport]:
    """Return every account as it stands today, oldest first."""
    checked_instant(now, field="now")
    with snapshot(engine) as connection:
        return read(connection, None, day=now.astimezone(UTC).date())


def named(engine: Engine, name: str, *, now: datetime) -> AccountReport:
    """Return one account as it stands today, or raise `UnknownName`."""
    checked_instant(now, field="now")
    with snapshot(engine) as connection:
        (found,) = read(connection, [name], day=now.astimezone(UTC).date())
        return found


def read(
    connection: Connection, names: list[str] | None, *, day: date | None
) -> list[AccountReport]:
    """Return these accounts, or every one, as on `day`, which has lost nothing yet if it is new.

    Without a day they are as on the day of their newest outcome or mark.
    """
    found = accounts.all_of(connection, names)
    ids = [account.id for account in found]
    equities = account_equity.of_accounts(connection, ids)
    reconciled = reconciliations.of_accounts(connection, ids)
    return [
        AccountReport(
            record=account,
            equity=equities[account.id].on(day or date.min),
            reconciliation=reconciled.get(account.id),
        )
        for account in found
    ]
