"""How accounts compare with what their bots tell, and the ledger's side of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.reconciling import (
    Finding,
    Key,
    Kind,
    Reconciliation,
    ReconciliationState,
    Standing,
    summary,
)
from bandit.storage.engine import one, rows, run, uuids


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationRecord:
    """How an account compared at `judged_at`; `since` is when its state was entered.

    `change_id` and `since` are None before the first change.
    """

    account_id: int
    state: ReconciliationState
    reconciliation: Reconciliation
    judged_at: datetime
    change_id: int | None = None
    since: datetime | None = None

    @property
    def differs(self) -> str:
        """What is in force, in words; empty where nothing is."""
        found = self.reconciliation
        return summary(found.in_force, accepted_difference=found.accepted_difference)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as the API and the CLI print it."""
        found = self.reconciliation
        accepted = sorted(str(key.position) for key in found.accepted)
        return {
            "state": self.state.value,
            "since": None if self.since is None else self.since.isoformat(),
            "judged_at": self.judged_at.isoformat(),
            "differs": self.differs,
            "findings": [finding.to_json() for finding in found.findings],
            "accepted_positions": accepted,
            "accepted_difference": f"{found.accepted_difference:f}",
        }


_RECORDS = """
  SELECT r.*, c.at AS since FROM reconciliations r
  LEFT JOIN reconciliation_changes c ON c.id = r.change_id
"""


def locked(connection: Connection, account_id: int, *, now: datetime) -> ReconciliationRecord:
    """Lock how an account compares and return it; one that never did agrees."""
    run(
        connection,
        "INSERT INTO reconciliations (account_id, state, differs, findings, accepted, "
        "accepted_difference, judged_at) VALUES (:id, 'AGREES', '', '[]', '[]', 0, :now) "
        "ON CONFLICT (account_id) DO NOTHING",
        id=account_id,
        now=now,
    )
    statement = f"{_RECORDS} WHERE r.account_id = :id FOR NO KEY UPDATE OF r"
    found = one(connection, statement, id=account_id)
    assert found is not None
    return _record(found)


def of_accounts(
    connection: Connection, account_ids: Sequence[int]
) -> dict[int, ReconciliationRecord]:
    """Return how those of `account_ids` compare of which anything was told."""
    statement = f"{_RECORDS} WHERE r.account_id = ANY(:ids)"
    found = rows(connection, statement, ids=list(account_ids))
    return {row["account_id"]: _record(row) for row in found}


def write(connection: Connection, record: ReconciliationRecord) -> None:
    """Store what became of a locked account."""
    found = record.reconciliation
    run(
        connection,
        "UPDATE reconciliations SET state = :state, change_id = :change_id, differs = :differs, "
        "findings = CAST(:findings AS jsonb), accepted = CAST(:accepted AS jsonb), "
        "accepted_difference = :accepted_difference, judged_at = :judged_at "
        "WHERE account_id = :account_id",
        account_id=record.account_id,
        state=record.state.value,
        change_id=record.change_id,
        differs=record.differs,
        findings=json.dumps([finding.to_json() for finding in found.findings]),
        accepted=json.dumps(sorted((key.kind.value, str(key.position)) for key in found.accepted)),
        accepted_difference=found.accepted_difference,
        judged_at=record.judged_at,
    )


def append_change(
    connection: Connection,
    before: ReconciliationRecord,
    after: ReconciliationRecord,
    *,
    findings: Iterable[Finding],
    now: datetime,
    actor: str,
    reason: str,
) -> int:
    """Append a change of an account's state and return its id; the account has to follow it."""
    found = one(
        connection,
        "INSERT INTO reconciliation_changes (account_id, from_state, to_state, at, actor, reason, "
        "findings, accepted_difference) VALUES (:account_id, :before, :after, :now, :actor, "
        ":reason, CAST(:findings AS jsonb), :accepted_difference) RETURNING id",
        account_id=before.account_id,
        before=before.state.value,
        after=after.state.value,
        now=now,
        actor=actor,
        reason=reason,
        findings=json.dumps([finding.to_json() for finding in findings]),
        accepted_difference=after.reconciliation.accepted_difference,
    )
    assert found is not None
    return int(found["id"])


def open_positions(
    connection: Connection, account_id: int, *, now: datetime
) -> dict[UUID, datetime]:
    """Return what an account has open, by when it was claimed.

    Live decisions that opened a position, were claimed and have no outcome. One that was neither
    claimed nor marked within its experiment's attribution window came to nothing.
    """
    found = rows(
        connection,
        "SELECT p.assignment_id AS id, p.claimed_at FROM positions_open(:account_id, :now) p",
        account_id=account_id,
        now=now,
    )
    return {row["id"]: row["claimed_at"] for row in found}


def standings(connection: Connection, account_id: int, ids: Iterable[UUID]) -> dict[UUID, Standing]:
    """Return what the ledger says of positions that bots of an account tell of."""
    told = list(ids)
    found = rows(
        connection,
        """
        SELECT k.id, coalesce(s.claimed_at, s.decided_at) AS at,
               CASE WHEN s.id IS NULL THEN 'unknown'
                    WHEN s.account_id <> :account_id THEN 'other_account'
                    WHEN s.mode <> 'live' THEN 'not_live'
                    WHEN s.position_id IS NOT NULL THEN 'not_opening'
                    WHEN s.is_closed THEN 'closed'
                    -- Nothing was claimed of what a bot decided alone: there was nobody to ask.
                    WHEN s.claimed_at IS NULL AND NOT s.is_fallback THEN 'unclaimed' END AS kind
        FROM unnest(CAST(:ids AS uuid[])) AS k (id)
        LEFT JOIN LATERAL (
          SELECT x.id, e.account_id, x.mode, x.position_id, x.is_fallback, x.decided_at,
                 c.claimed_at,
                 EXISTS (SELECT FROM outcomes o WHERE o.assignment_id = x.id) AS is_closed
          FROM assignments x JOIN experiments e ON e.id = x.experiment_id
          LEFT JOIN claims c ON c.assignment_id = x.id WHERE x.id = k.id
          UNION ALL
          SELECT g.id, e.account_id, g.mode, g.position_id, g.is_fallback, g.decided_at,
                 g.claimed_at, true
          FROM aged_assignments g JOIN experiments e ON e.id = g.experiment_id WHERE g.id = k.id
          OFFSET 0) s ON true
        """,
        account_id=account_id,
        ids=uuids(told),
    )
    return {
        row["id"]: Standing(None if row["kind"] is None else Kind(row["kind"]), row["at"])
        for row in found
    }


def _record(row: Mapping[str, Any]) -> ReconciliationRecord:
    return ReconciliationRecord(
        account_id=row["account_id"],
        state=ReconciliationState(row["state"]),
        reconciliation=Reconciliation(
            findings=tuple(Finding.from_json(stored) for stored in row["findings"]),
            accepted=frozenset(Key(Kind(kind), UUID(key)) for kind, key in row["accepted"]),
            accepted_difference=row["accepted_difference"],
        ),
        judged_at=row["judged_at"],
        change_id=row["change_id"],
        since=row["since"],
    )
