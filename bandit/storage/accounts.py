"""Accounts and their kill switch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.kill_switch import KillCause, KillEvent, KillKind
from bandit.storage.engine import one, rows, run


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRecord:
    """An account with the newest event of its kill switch; None when there was none yet.

    `killed_since` is the first kill after the last release, while it is killed.
    """

    id: int
    name: str
    currency: str
    is_killed: bool
    killed_since: datetime | None
    newest: KillEvent | None


_ACCOUNTS = """
  SELECT a.id, a.name, a.currency, a.is_killed, k.kind, k.cause, k.at, k.actor, k.reason,
         (SELECT min(f.at) FROM kill_events f WHERE f.account_id = a.id AND a.is_killed
          AND f.id > coalesce((SELECT max(r.id) FROM kill_events r
                               WHERE r.account_id = a.id AND r.kind = 'RELEASE'), 0))
           AS killed_since
  FROM accounts a
  LEFT JOIN LATERAL (SELECT * FROM kill_events k WHERE k.account_id = a.id
                     ORDER BY k.id DESC LIMIT 1) k ON true
"""


def opened(connection: Connection, name: str, *, currency: str, now: datetime) -> int:
    """Return the id of the account, which is made where there is none of this name.

    Raises `InvalidInput` when it has another currency.
    """
    run(
        connection,
        "INSERT INTO accounts (name, currency, is_killed, opened_at) "
        "VALUES (:name, :currency, false, :now) ON CONFLICT (name) DO NOTHING",
        name=name,
        currency=currency,
        now=now,
    )
    found = one(connection, "SELECT id, currency FROM accounts WHERE name = :name", name=name)
    assert found is not None
    if found["currency"] != currency:
        rule = f"must be {found['currency']}, the currency of account {name}"
        raise InvalidInput(field="currency", rule=rule, found=currency)
    return int(found["id"])


def all_of(connection: Connection, names: Sequence[str] | None) -> list[AccountRecord]:
    """Return the accounts of these names in ascending order of ids; None asks for every one.

    Raises `UnknownName` for a name that no account has.
    """
    found = [_record(row) for row in rows(connection, f"{_ACCOUNTS} ORDER BY a.id")]
    if names is None:
        return found
    known = [account.name for account in found]
    for name in names:
        if name not in known:
            raise UnknownName(kind="account", name=name, known=known)
    return [account for account in found if account.name in names]


def id_of(connection: Connection, name: str) -> int | None:
    """Return the id of an account; None where none has this name."""
    found = one(connection, "SELECT id FROM accounts WHERE name = :name", name=name)
    return None if found is None else int(found["id"])


def by_id(connection: Connection, account_id: int) -> AccountRecord:
    """Return one account."""
    found = one(connection, f"{_ACCOUNTS} WHERE a.id = :id", id=account_id)
    assert found is not None
    return _record(found)


def append_kill_event(
    connection: Connection, account_id: int, event: KillEvent, *, reasons: Sequence[object] = ()
) -> None:
    """Append an event of an account's kill switch; the account follows it."""
    run(
        connection,
        "INSERT INTO kill_events (account_id, kind, cause, at, actor, reason, reasons) "
        "VALUES (:account_id, :kind, :cause, :at, :actor, :reason, CAST(:reasons AS jsonb))",
        account_id=account_id,
        kind=event.kind.value,
        cause=event.cause.value,
        at=event.at,
        actor=event.actor,
        reason=event.reason,
        reasons=json.dumps(list(reasons), sort_keys=True, allow_nan=False),
    )


def kill_events(
    connection: Connection, *, since: datetime, until: datetime
) -> list[tuple[str, KillEvent]]:
    """Return the events of every kill switch from `since` to before `until`, each with its account.

    The oldest comes first.
    """
    found = rows(
        connection,
        "SELECT a.name, k.* FROM kill_events k JOIN accounts a ON a.id = k.account_id "
        "WHERE k.at >= :since AND k.at < :until ORDER BY k.id",
        since=since,
        until=until,
    )
    return [(row["name"], _event(row)) for row in found]


def _record(row: dict[str, Any]) -> AccountRecord:
    newest = None if row["kind"] is None else _event(row)
    return AccountRecord(
        id=row["id"],
        name=row["name"],
        currency=row["currency"],
        is_killed=row["is_killed"],
        killed_since=row["killed_since"],
        newest=newest,
    )


def _event(row: dict[str, Any]) -> KillEvent:
    return KillEvent(
        kind=KillKind(row["kind"]),
        cause=KillCause(row["cause"]),
        at=row["at"],
        actor=row["actor"],
        reason=row["reason"],
    )
