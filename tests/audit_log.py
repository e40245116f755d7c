"""Builders of audit logs for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from api_service import application
from ledger import NOON
from sqlalchemy import Connection, Engine, text

from bandit.core.audit_chain import Anchor, AuditId, anchor_of
from bandit.service import auditing
from bandit.service.auditing import AuditReport
from bandit.storage import audit
from bandit.storage.engine import transaction
from config.settings import Settings
from liveops.wiring import App


def append(connection: Connection, number: int) -> None:
    """Append one audit row, in the transaction of `connection`."""
    audit.append(
        connection,
        now=NOON,
        actor="test",
        action="drill",
        subject="btc",
        details={"n": number, "why": 'é "quoted"\n', "ratio": 1.50},
    )


def note(engine: Engine, *numbers: int) -> None:
    """Append audit rows, each in a transaction of its own."""
    for number in numbers:
        with transaction(engine) as connection:
            append(connection, number)


def seal_and_anchor(engine: Engine) -> Anchor:
    """Seal what waits and return the anchor of it."""
    head = auditing.seal(engine, now=NOON)
    assert head is not None
    return anchor_of(head)


def order(engine: Engine) -> list[tuple[int, AuditId]]:
    """Sequence and audit id of every seal, as sealed."""
    statement = text("SELECT sequence, audit_id FROM audit_seals ORDER BY sequence")
    with engine.connect() as connection:
        return [(sequence, audit_id) for sequence, audit_id in connection.execute(statement)]


def seen(
    engine: Engine, anchors: Iterable[Anchor | None]
) -> list[tuple[str, int | None, int | None]]:
    """What a verification finds: kind, audit id, sequence."""
    return told(auditing.verify(engine, anchors))


def told(report: AuditReport) -> list[tuple[str, int | None, int | None]]:
    """Kind, audit id and sequence of every finding."""
    return [(f.kind.value, f.audit_id, f.sequence) for f in report.findings]


def anchoring_app(engine: Engine, anchor_dir: Path) -> App:
    """An App that keeps its anchors in `anchor_dir`."""
    settings = Settings.model_validate({"audit": {"anchor_dir": str(anchor_dir)}})
    return replace(application(engine), settings=settings)
