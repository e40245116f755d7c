"""Performance guards: written with the outcomes that move them, and every change appended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.performance_guard import Guard, GuardTrade
from bandit.storage.engine import one, rows, run, uuids


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a guard watches: an experiment of an account, or without one all of the account."""

    account_id: int
    experiment_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRecord:
    """A guard as the ledger holds it; `change_id` is its newest change, None before the first.

    `name` is that of its experiment, or of its account.
    """

    id: int
    scope: Scope
    name: str
    guard: Guard
    change_id: int | None

    @property
    def kind(self) -> str:
        """What it watches, in a word."""
        return "account" if self.scope.experiment_id is None else "experiment"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChange:
    """A change of a guard's state: from which to which, by whom and why."""

    id: int
    before: GuardState
    after: GuardState
    at: datetime
    actor: str
    reason: str
    reasons: tuple[Mapping[str, Any], ...]


_GUARDS = """
  SELECT g.*, coalesce(e.name, a.name) AS name FROM guard_states g
  JOIN accounts a ON a.id = g.account_id LEFT JOIN experiments e ON e.id = g.experiment_id
"""
_OF_EXPERIMENTS = """
  WHERE g.account_id IN (SELECT x.account_id FROM experiments x WHERE x.id = ANY(:ids))
    AND (g.experiment_id IS NULL OR g.experiment_id = ANY(:ids))
"""


_IN_ORDER = "ORDER BY g.account_id, g.experiment_id NULLS FIRST"


def locked(connection: Connection, experiment_ids: Iterable[int]) -> dict[Scope, GuardRecord]:
    """Lock the guards of these experiments and of their accounts, in ascending order."""
    found = rows(
        connection,
        f"{_GUARDS}{_OF_EXPERIMENTS} ORDER BY g.id FOR NO KEY UPDATE OF g",
        ids=sorted(set(experiment_ids)),
    )
    return {record.scope: record for record in map(_record, found)}


def locked_scope(connection: Connection, scope: Scope) -> GuardRecord:
    """Lock one guard."""
    condition = (
        "WHERE g.account_id = :account_id AND g.experiment_id IS NOT DISTINCT FROM :experiment_id"
    )
    found = one(
        connection,
        f"{_GUARDS}{condition} FOR NO KEY UPDATE OF g",
        account_id=scope.account_id,
        experiment_id=scope.experiment_id,
    )
    assert found is not None
    return _record(found)


def all_of(connection: Connection) -> list[GuardRecord]:
    """Return every guard: each account's before those of its experiments."""
    return [_record(row) for row in rows(connection, f"{_GUARDS}{_IN_ORDER}")]


def of_experiments(connection: Connection, ids: Iterable[int]) -> list[GuardRecord]:
    """Return the guards of these experiments and of their accounts as this transaction sees it."""
    statement = f"{_GUARDS}{_OF_EXPERIMENTS}{_IN_ORDER}"
    found = rows(connection, statement, ids=sorted(set(ids)))
    return [_record(row) for row in found]


def newest_changes(connection: Connection, guard_ids: Iterable[int]) -> dict[int, StoredChange]:
    """Return the newest change of each of these guards that ever changed."""
    found = rows(
        connection,
        "SELECT DISTINCT ON (c.guard_id) c.* FROM guard_changes c WHERE c.guard_id = ANY(:ids) "
        "ORDER BY c.guard_id, c.id DESC",
        ids=sorted(guard_ids),
    )
    return {row["guard_id"]: _change(row) for row in found}


def changes_between(
    connection: Connection, *, since: datetime, until: datetime
) -> list[tuple[str, StoredChange]]:
    """Return every guard's changes from `since` to before `until`, oldest first, and whose."""
    found = rows(
        connection,
        """
        SELECT c.*, CASE WHEN e.id IS NULL THEN 'account ' || a.name
                         ELSE 'experiment ' || e.name END AS whose
        FROM guard_changes c JOIN guard_states g ON g.id = c.guard_id
        JOIN accounts a ON a.id = g.account_id LEFT JOIN experiments e ON e.id = g.experiment_id
        WHERE c.at >= :since AND c.at < :until ORDER BY c.id
        """,
        since=since,
        until=until,
    )
    return [(row["whose"], _change(row)) for row in found]


def write(connection: Connection, changed: Iterable[GuardRecord]) -> None:
    """Store what became of locked guards."""
    run(
        connection,
        """
        UPDATE guard_states g
        SET state = x.state, size_multiplier = x.size_multiplier,
            confidence_bump = x.confidence_bump, change_id = x.change_id, trades = x.trades,
            losing_streak = x.losing_streak, trades_since = x.trades_since
        FROM json_to_recordset(CAST(:guards AS json)) AS x (
          id integer, state text, size_multiplier double precision,
          confidence_bump double precision, change_id bigint, trades jsonb, losing_streak bigint,
          trades_since bigint)
        WHERE g.id = x.id
        """,
        guards=json.dumps([_written(record) for record in changed]),
    )


def append_change(
    connection: Connection,
    guard_id: int,
    *,
    before: GuardState,
    after: GuardState,
    now: datetime,
    actor: str,
    reason: str,
    reasons: Iterable[object] = (),
) -> int:
    """Append a change of a guard and return its id; the guard has to follow it."""
    found = one(
        connection,
        "INSERT INTO guard_changes (guard_id, from_state, to_state, at, actor, reason, reasons) "
        "VALUES (:guard_id, :before, :after, :now, :actor, :reason, CAST(:reasons AS jsonb)) "
        "RETURNING id",
        guard_id=guard_id,
        before=before.value,
        after=after.value,
        now=now,
        actor=actor,
        reason=reason,
        reasons=json.dumps(list(reasons), sort_keys=True, allow_nan=False),
    )
    assert found is not None
    return int(found["id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An opportunity that a pause refused: by which changes, and what its trade would have held.

    `arm_id` is the arm that it was routed to, `notional` the experiment's nominal size.
    """

    arm_id: int
    account_id: int
    experiment_id: int
    account_change: int | None
    experiment_change: int | None
    notional: Decimal

    def refused_by(self, record: GuardRecord) -> bool:
        """Say whether it was refused by the pause that the guard is in."""
        if record.guard.state is not GuardState.PAUSED:
            return False
        of_account = record.scope.experiment_id is None
        return record.change_id == (self.account_change if of_account else self.experiment_change)


def refusals(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Refusal]:
    """Return those of these decisions that a pause refused."""
    found = rows(
        connection,
        """
        SELECT r.assignment_id, s.arm_id, e.account_id, e.id AS experiment_id, r.account_change,
               r.experiment_change, e.capital, e.equity_fraction
        FROM refusals r JOIN assignments s ON s.id = r.assignment_id
        JOIN experiments e ON e.id = s.experiment_id
        WHERE r.assignment_id = ANY(CAST(:ids AS uuid[]))
        """,
        ids=uuids(ids),
    )
    return {
        row["assignment_id"]: Refusal(
            arm_id=row["arm_id"],
            account_id=row["account_id"],
            experiment_id=row["experiment_id"],
            account_change=row["account_change"],
            experiment_change=row["experiment_change"],
            # By way of text: 0.01 is exact there, and as a float it is not.
            notional=row["capital"] * Decimal(str(row["equity_fraction"])),
        )
        for row in found
    }


def _record(row: Mapping[str, Any]) -> GuardRecord:
    trades = tuple(GuardTrade(Decimal(pnl), Decimal(equity)) for pnl, equity in row["trades"])
    return GuardRecord(
        id=row["id"],
        scope=Scope(account_id=row["account_id"], experiment_id=row["experiment_id"]),
        name=row["name"],
        guard=Guard(
            rule=GuardRule.from_json(row["rule"]),
            state=GuardState(row["state"]),
            trades=trades,
            losing_streak=row["losing_streak"],
            trades_since=row["trades_since"],
        ),
        change_id=row["change_id"],
    )


def _written(record: GuardRecord) -> dict[str, object]:
    guard = record.guard
    effect = guard.rule.effect(guard.state)
    return {
        "id": record.id,
        "state": guard.state.value,
        "size_multiplier": effect.size_multiplier,
        "confidence_bump": effect.confidence_bump,
        "change_id": record.change_id,
        # As text, so that no digit is lost.
        "trades": [(f"{trade.pnl:f}", f"{trade.equity_before:f}") for trade in guard.trades],
        "losing_streak": guard.losing_streak,
        "trades_since": guard.trades_since,
    }


def _change(row: Mapping[str, Any]) -> StoredChange:
    return StoredChange(
        id=row["id"],
        before=GuardState(row["from_state"]),
        after=GuardState(row["to_state"]),
        at=row["at"],
        actor=row["actor"],
        reason=row["reason"],
        reasons=tuple(row["reasons"]),
    )
