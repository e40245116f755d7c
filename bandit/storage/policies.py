"""Policies: registered once, never changed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.errors import AmbiguousName, Conflict, UnknownName
from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from bandit.storage.engine import one, rows

_COLUMNS = """
  SELECT p.id, p.name, p.kind, p.sha, p.data_cutoff, parent.name AS parent, p.metadata,
         p.registered_at
  FROM policies p LEFT JOIN policies parent ON parent.id = p.parent_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy as the ledger holds it."""

    id: int
    policy: Policy
    registered_at: datetime


def register(connection: Connection, policy: Policy, *, now: datetime) -> tuple[PolicyRecord, bool]:
    """Store `policy` and return it with True, or with False the same one stored before.

    Raises `Conflict` when the name or the sha belongs to another policy.
    """
    parent = None if policy.parent is None else by_name(connection, policy.parent).id
    inserted = one(
        connection,
        """
        INSERT INTO policies (name, kind, sha, data_cutoff, parent_id, metadata, registered_at)
        VALUES (:name, :kind, :sha, :data_cutoff, :parent_id, CAST(:metadata AS jsonb), :now)
        ON CONFLICT DO NOTHING RETURNING id
        """,
        name=policy.name,
        kind=policy.kind.value,
        sha=policy.sha,
        data_cutoff=policy.data_cutoff,
        parent_id=parent,
        metadata=json.dumps(dict(policy.metadata), sort_keys=True, allow_nan=False),
        now=now,
    )
    taken = rows(
        connection,
        _COLUMNS + " WHERE p.name = :name OR p.sha = :sha ORDER BY p.id",
        name=policy.name,
        sha=policy.sha,
    )
    stored = _record(taken[0])
    if len(taken) > 1 or stored.policy != policy:
        raise Conflict(
            f"policy {policy.name!r} with sha {policy.sha} differs from the registered "
            f"{stored.policy.name!r} with sha {stored.policy.sha}; a policy never changes"
        )
    return stored, inserted is not None


def by_name(connection: Connection, name: str) -> PolicyRecord:
    """Return the policy with exactly this name, or raise `UnknownName`."""
    found = one(connection, _COLUMNS + " WHERE p.name = :name", name=name)
    if found is None:
        raise UnknownName(kind="policy", name=name, known=_names(connection))
    return _record(found)


def by_reference(connection: Connection, reference: str) -> PolicyRecord:
    """Return the policy with this full name, full sha, or unique sha prefix.

    Raises `UnknownName` or `AmbiguousName`, both with the candidates.
    """
    exact = rows(
        connection, _COLUMNS + " WHERE p.name = :ref OR p.sha = :ref ORDER BY p.id", ref=reference
    )
    if len(exact) == 1:
        return _record(exact[0])
    if exact:  # the name of one policy is the sha of another
        raise AmbiguousName(name=reference, candidates=[str(row["name"]) for row in exact])
    # A prefix is hexadecimal, so it can hold no wildcard of LIKE.
    is_prefix = re.fullmatch(r"[0-9a-f]{1,64}", reference) is not None
    found = (
        rows(connection, _COLUMNS + " WHERE p.sha LIKE :ref || '%' ORDER BY p.id", ref=reference)
        if is_prefix
        else []
    )
    if len(found) == 1:
        return _record(found[0])
    if found:
        raise AmbiguousName(name=reference, candidates=[str(row["name"]) for row in found])
    raise UnknownName(kind="policy", name=reference, known=_names(connection))


def all_policies(connection: Connection) -> list[PolicyRecord]:
    """Return every registered policy, oldest first."""
    return [_record(row) for row in rows(connection, _COLUMNS + " ORDER BY p.id")]


def _names(connection: Connection) -> Sequence[str]:
    return [
        row["name"] for row in rows(connection, "SELECT name FROM policies ORDER BY id LIMIT 20")
    ]


def _record(row: dict[str, Any]) -> PolicyRecord:
    policy = Policy(
        name=PolicyName(row["name"]),
        kind=PolicyKind(row["kind"]),
        sha=PolicySha(row["sha"]),
        data_cutoff=row["data_cutoff"],
        parent=None if row["parent"] is None else PolicyName(row["parent"]),
        metadata=row["metadata"],
    )
    return PolicyRecord(id=row["id"], policy=policy, registered_at=row["registered_at"])
