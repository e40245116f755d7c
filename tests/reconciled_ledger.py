"""Bots of the account `usd` that tell what they hold, and how that compares with its ledger."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ledger import NOON, assign
from sqlalchemy import Engine, text
from vitals import beat

from bandit.core.model import Assignment
from bandit.core.reconciling import ReconciliationRule, ReconciliationState
from bandit.service import accounts, health, reconciling
from bandit.service.assigning import Router

SECOND = timedelta(seconds=1)
RULE = ReconciliationRule()
AGREES, DIFFERS, BLOCKED = ReconciliationState


def tell(
    engine: Engine,
    seconds: float = 0,
    *held: Assignment | UUID,
    rule: ReconciliationRule = RULE,
    **fields: Any,
) -> None:
    """A heartbeat of a bot of `usd` that holds these positions."""
    at = NOON + seconds * SECOND
    positions = tuple(p if isinstance(p, UUID) else p.id for p in held)
    told = {"account": "usd", "positions": positions, "open_positions": len(positions)} | fields
    health.hear(engine, beat(sent_at=at, **told), now=at, window=10 * 60 * SECOND, rule=rule)


def opened(engine: Engine, *units: str, now: datetime = NOON) -> list[Assignment]:
    """Decisions of `btc` that a bot claimed."""
    made = assign(engine, units, now=now)
    for assignment in made:
        Router(engine).claim(assignment.id, now=now)
    return made


def found(engine: Engine, name: str = "usd") -> Any:
    """How an account compares, or None."""
    [report] = [a for a in accounts.listed(engine, now=NOON) if a.record.name == name]
    return report.reconciliation


def state(engine: Engine) -> ReconciliationState | None:
    """What came of the comparison, or None."""
    compared = found(engine)
    return None if compared is None else compared.state


def differs(engine: Engine, *held: Assignment | UUID, **fields: Any) -> None:
    """Let what is told differ for as long as it takes."""
    for seconds in (0, 60):
        tell(engine, seconds, *held, **fields)


def accept(engine: Engine, reason: str = "checked") -> None:
    """Accept what differs, as a person does."""
    reconciling.accept(engine, "usd", reason=reason, now=NOON + 90 * SECOND, actor="alice")


def changes(engine: Engine) -> list[tuple[str, str, str]]:
    """Every change of a state: from, to, by whom."""
    statement = "SELECT from_state, to_state, actor FROM reconciliation_changes ORDER BY id"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]  # type: ignore[misc]
