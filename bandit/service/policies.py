"""Register and find policies."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from bandit.core.model import Policy, checked_instant, checked_text, require_past
from bandit.storage import audit, policies
from bandit.storage.engine import snapshot, transaction
from bandit.storage.policies import PolicyRecord


def register(
    engine: Engine, policy: Policy, *, now: datetime, actor: str
) -> tuple[PolicyRecord, bool]:
    """Store a policy once; again with the same body returns the stored one and False.

    Raises `Conflict` when the name or sha belongs to another policy, `UnknownName` for a parent
    that is not registered, `InvalidInput` for a policy that was made from data of the future.
    """
    checked_instant(now, field="now")
    if policy.data_cutoff is not None:
        require_past(policy.data_cutoff, field="data_cutoff", now=now)
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        record, is_new = policies.register(connection, policy, now=now)
        if is_new:
            audit.append(
                connection,
                now=now,
                actor=actor,
                action="register_policy",
                subject=policy.name,
                details={"sha": policy.sha, "kind": policy.kind.value},
            )
    return record, is_new


def find(engine: Engine, reference: str) -> PolicyRecord:
    """Return the policy with this full name, full sha or unique sha prefix."""
    with snapshot(engine) as connection:
        return policies.by_reference(connection, reference)


def listed(engine: Engine) -> list[PolicyRecord]:
    """Return every policy, oldest first."""
    with snapshot(engine) as connection:
        return policies.all_policies(connection)
