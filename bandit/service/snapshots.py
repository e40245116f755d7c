"""What a snapshot keeps of the ledger, and what the ledger keeps of snapshots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.model import PolicySha, checked_instant, checked_text
from bandit.core.snapshots import SnapshotEvent, SnapshotRecord
from bandit.storage import (
    accounts,
    audit,
    decisions,
    experiments,
    guards,
    learner_jobs,
    policies,
    snapshots,
)
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ExperimentRecord
from bandit.storage.policies import PolicyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What a snapshot keeps of one ledger, as of one moment; documents are plain JSON.

    `placed` are the policies that have, or had, a place in an experiment.
    """

    identity: str
    revision: str
    policies: list[dict[str, Any]]
    allocation: dict[str, Any]
    placed: tuple[PolicySha, ...]


def ledger_state(engine: Engine) -> LedgerState:
    """Read everything that a snapshot keeps of the ledger, in one transaction."""
    with snapshot(engine) as connection:
        identity, revision = snapshots.identity(connection)
        registered = policies.all_policies(connection)
        opened = [experiments.load(connection, name) for name in experiments.names(connection)]
        return LedgerState(
            identity=identity,
            revision=revision,
            policies=[_policy(connection, record) for record in registered],
            allocation={
                "experiments": [_experiment(connection, record) for record in opened],
                "accounts": _accounts(connection),
                "guards": _guards(connection),
            },
            placed=tuple(dict.fromkeys(arm.policy_sha for record in opened for arm in record.arms)),
        )


def note(engine: Engine, record: SnapshotRecord, *, actor: str) -> bool:
    """Write down what happened to a snapshot; False where that was known.

    What changes which snapshots there are, or was found damaged, is a row of the audit log too.
    """
    checked_instant(record.recorded_at, field="recorded_at")
    with transaction(engine) as connection:
        is_new = snapshots.append(connection, record)
        if is_new and record.event is not SnapshotEvent.VERIFIED:
            audit.append(
                connection,
                now=record.recorded_at,
                actor=checked_text(actor, field="actor", length_max=200),
                action=f"snapshot_{record.event.value}",
                subject=record.date.isoformat(),
                details={
                    "store": record.store.value,
                    "manifest_sha256": record.manifest_sha256,
                    "bytes": record.size,
                },
            )
        return is_new


def ledger_identity(engine: Engine) -> str:
    """Return the ledger's own id, which a copy of it has too."""
    with snapshot(engine) as connection:
        return snapshots.identity(connection)[0]


def noted(engine: Engine) -> list[SnapshotRecord]:
    """Return the newest of each event of each snapshot and store, oldest day first."""
    with snapshot(engine) as connection:
        return snapshots.newest(connection)


def _policy(connection: Connection, record: PolicyRecord) -> dict[str, Any]:
    policy = record.policy
    return {
        "name": policy.name,
        "kind": policy.kind.value,
        "sha": policy.sha,
        "data_cutoff": _moment(policy.data_cutoff),
        "parent": policy.parent,
        "metadata": dict(policy.metadata),
        "registered_at": _moment(record.registered_at),
        "recipe": learner_jobs.recipe_of(connection, record.id),
    }


def _experiment(connection: Connection, record: ExperimentRecord) -> dict[str, Any]:
    """Return an experiment but for its salt: who knew that could tell who gets which policy."""
    opened = record.experiment
    version = decisions.newest_version(connection, record.id)
    [(allocation, since)] = decisions.allocations(connection, opened.name, since=version)
    return {
        "name": opened.name,
        "champion": opened.champion,
        "account": opened.account_name,
        "capital": f"{opened.capital:f}",
        "currency": opened.currency,
        "equity_fraction": opened.equity_fraction,
        "profile": opened.profile.value,
        "strategy": opened.strategy.value,
        "decision_seconds_valid": opened.decision_seconds_valid,
        "epoch": record.epoch,
        "limits": asdict(record.limits),
        "rules": asdict(record.rules),
        "opened_at": _moment(record.opened_at),
        "allocation": {"version": allocation.version, "since": _moment(since)},
        "arms": [
            {
                "policy": arm.place.policy,
                "sha": arm.policy_sha,
                "role": arm.place.role.value,
                "mode": arm.place.mode.value,
                "status": arm.place.status.value,
                "status_reason": arm.status_reason,
                "rung": arm.place.rung.value,
                "ppm": int(arm.place.ppm),
                "joined_at": _moment(arm.joined_at),
            }
            for arm in record.arms
        ],
    }


def _accounts(connection: Connection) -> list[dict[str, Any]]:
    return [
        {
            "name": account.name,
            "currency": account.currency,
            "is_killed": account.is_killed,
            "killed_since": _moment(account.killed_since),
            "reason": None if account.newest is None else account.newest.reason,
        }
        for account in accounts.all_of(connection, None)
    ]


def _guards(connection: Connection) -> list[dict[str, Any]]:
    return [
        {
            "scope": record.kind,
            "name": record.name,
            "state": record.guard.state.value,
            "rule": asdict(record.guard.rule),
            "losing_streak": record.guard.losing_streak,
            "trades_since": record.guard.trades_since,
        }
        for record in guards.all_of(connection)
    ]


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
