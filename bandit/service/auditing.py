"""Seal the audit log, and say whether it is still what was sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.audit_chain import (
    Anchor,
    AnchorCheck,
    AuditRow,
    Finding,
    FindingKind,
    Seal,
    chain_findings,
    sealed,
    stray_findings,
)
from bandit.core.model import checked_instant
from bandit.storage import archives, audit, bases, batches, locks
from bandit.storage.archives import ToldArchive
from bandit.storage.bases import ChangedBase
from bandit.storage.batches import ChangedBatch
from bandit.storage.engine import snapshot, taking_long, transaction

SEALS_MAX = 5_000
"""Rows that one transaction seals; what waits beyond that is the next call's."""

FINDINGS_MAX = 1000
"""At so many rows and seals a verification stops to look for more: they would say nothing new."""

_ANCHORS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What a verification saw: `rows` are all rows, `waiting` those of them not sealed yet.

    `head` is the newest seal, `anchored` the newest anchor that agrees with the chain, and
    `torn_lines` counts what could not be read as an anchor.
    """

    findings: tuple[Finding, ...]
    rows: int
    waiting: int
    head: Seal | None
    anchored: Anchor | None
    torn_lines: int

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "rows": self.rows,
            "waiting": self.waiting,
            "sealed_to": None if self.head is None else self.head.sequence,
            "anchored_to": None if self.anchored is None else self.anchored.sequence,
            "torn_lines": self.torn_lines,
            "findings": [finding.to_json() for finding in self.findings],
        }


def ledger_id(engine: Engine) -> UUID:
    """Return what tells this ledger from every other one."""
    with snapshot(engine) as connection:
        return audit.ledger_id(connection)


def seal(engine: Engine, *, now: datetime) -> Seal | None:
    """Chain the committed rows that have no seal; return the newest seal, None where there is none.

    Any number of processes may call this at once: one after the other they extend one chain.
    """
    checked_instant(now, field="now")
    with transaction(engine) as connection:
        if not audit.waiting(connection):
            return audit.head(connection)
        locks.audit_chain(connection)
        head = audit.head(connection)
        rows = audit.unsealed(connection, rows_max=SEALS_MAX)
        seals = list(sealed(rows, after=head, now=now))
        audit.append_seals(connection, seals)
    return seals[-1] if seals else head


@dataclass(frozen=True, slots=True, kw_only=True)
class LostAnchor:
    """A head that was anchored and that the chain, which ends at `sealed_to`, does not have."""

    anchor: Anchor
    sealed_to: int


def lost(engine: Engine, anchors: Sequence[Anchor]) -> LostAnchor | None:
    """Return the newest of `anchors` that the chain has lost, unless that was noted before."""
    with snapshot(engine) as connection:
        chained = audit.chain_hashes(connection, [anchor.sequence for anchor in anchors])
        noted = audit.noted_as_lost(connection)
        head = audit.head(connection)
    gone = [
        anchor
        for anchor in anchors
        if chained.get(anchor.sequence) != anchor.chain_hash and anchor.sequence > noted
    ]
    if not gone:
        return None
    newest = max(gone, key=lambda anchor: anchor.sequence)
    return LostAnchor(anchor=newest, sealed_to=0 if head is None else head.sequence)


def note_lost(engine: Engine, lost: LostAnchor, *, now: datetime, actor: str) -> None:
    """Append that what was anchored is lost, for every service that compares after this one."""
    with transaction(engine) as connection:
        audit.append(
            connection,
            now=now,
            actor=actor,
            action=audit.LOST,
            subject="audit_log",
            details={"sealed_to": lost.sealed_to, "anchored_to": lost.anchor.sequence},
        )


def sealed_to(engine: Engine) -> int:
    """Return up to where the log is sealed, from which `sealed_since` may go on."""
    with snapshot(engine) as connection:
        return audit.sealed_to(connection)


def sealed_since(
    engine: Engine, after: int, *, actions: Sequence[str]
) -> tuple[list[AuditRow], int]:
    """Return the rows of these actions that were sealed later, and up to where this looked.

    At most `SEALS_MAX` seals are looked through: what lies beyond is the next call's.
    """
    with snapshot(engine) as connection:
        to = min(audit.sealed_to(connection), after + SEALS_MAX)
        return audit.sealed_rows(connection, after=after, to=to, actions=actions), max(to, after)


def unsealed_rows(engine: Engine) -> int:
    """Return how many rows wait to be sealed."""
    with snapshot(engine) as connection:
        return audit.waiting(connection)


def _no_files(_name: str) -> bytes | None:
    return None


def verify(
    engine: Engine,
    anchors: Iterable[Anchor | None],
    *,
    archive_sha256: Callable[[str], bytes | None] = _no_files,
) -> AuditReport:
    """Compare every row with its seal, the seals with one another, and the chain with its anchors.

    So too every batch of assignments and outcomes, the base of every arm that decisions have left,
    and the files these went to, with the digests that the log holds of them.

    `anchors` must have been written before the call: later ones belong to seals it does not see.
    None among them is a torn line. `archive_sha256` returns the SHA-256 of an archive's file by its
    name, None when that is gone. Neither rows nor anchors are held in memory.
    """
    with (
        snapshot(engine) as connection,
        taking_long(connection),
        closing(audit.links(connection)) as links,
        closing(audit.strays(connection)) as strays,
        closing(batches.changed(connection)) as changed,
        closing(bases.changed(connection)) as changed_bases,
        closing(archives.told(connection)) as told,
    ):
        head = audit.head(connection)
        check = AnchorCheck(head=0 if head is None else head.sequence)
        _compare(connection, anchors, check)
        in_the_log = chain(
            chain_findings(links),
            stray_findings(strays),
            map(_batch_finding, changed),
            map(_base_finding, changed_bases),
            _archive_findings(told, archive_sha256),
        )
        return AuditReport(
            findings=(*islice(in_the_log, FINDINGS_MAX), *check.findings()),
            rows=audit.appended(connection),
            waiting=audit.waiting(connection),
            head=head,
            anchored=check.agreeing,
            torn_lines=check.torn_lines,
        )


def _batch_finding(batch: ChangedBatch) -> Finding:
    told, found = batch.rows_told, batch.rows_found
    if told == found:
        message = f"one of its {told} {batch.table} is not what was stored"
    else:
        message = f"it was stored with {told} {batch.table}, and has {found}"
    return Finding(kind=FindingKind.BATCH_CHANGED, audit_id=batch.audit_id, message=message)


def _base_finding(base: ChangedBase) -> Finding:
    message = f"the base of arm {base.arm_id} is not what the log holds of it"
    return Finding(kind=FindingKind.BASE_CHANGED, audit_id=base.audit_id, message=message)


def _archive_findings(
    told: Iterable[ToldArchive], archive_sha256: Callable[[str], bytes | None]
) -> Iterator[Finding]:
    for archive in told:
        found = archive_sha256(archive.name) if archive.name and archive.registered else None
        if not archive.registered:
            message = f"{archive.name} is not registered as the log tells of it"
        elif found is None:
            message = f"the file {archive.name} is gone"
        elif found.hex() != archive.sha256:
            message = f"the file {archive.name} is not what was written"
        else:
            continue
        yield Finding(kind=FindingKind.ARCHIVE_CHANGED, audit_id=archive.audit_id, message=message)


def _compare(connection: Connection, anchors: Iterable[Anchor | None], check: AnchorCheck) -> None:
    remaining = iter(anchors)
    while some := list(islice(remaining, _ANCHORS_AT_ONCE)):
        sequences = [anchor.sequence for anchor in some if anchor is not None]
        chained = audit.chain_hashes(connection, sequences)
        for anchor in some:
            check.compare(anchor, None if anchor is None else chained.get(anchor.sequence))
