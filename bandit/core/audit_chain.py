"""The audit log's chain: a seal covers one row and, through the seal before it, all earlier ones.

`sequence` is the order of sealing, not of ids: a transaction that was rolled back leaves a gap in
the ids, one that committed late a smaller id behind a larger one, and both are lawful. An anchor is
a head of the chain that was written down outside the database; a chain that was made anew after a
change agrees with itself, but not with its anchors.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NewType

from bandit.core.errors import InvalidInput
from bandit.core.model import checked_instant

AuditId = NewType("AuditId", int)

MISFITS_MAX = 100
"""So many changed rows are compared with one another, to tell swapped ones from edited ones."""

_BEFORE_THE_FIRST = bytes(32)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One row of the audit log, as the text that the ledger stores."""

    id: AuditId
    at: str
    actor: str
    action: str
    subject: str
    details: str

    @property
    def text(self) -> str:
        """The one text of the row that is hashed: RFC 8785 JSON of an array of its columns.

        >>> row = AuditRow(id=AuditId(7), at="2026-03-01T12:00:00.000000Z", actor="cli:ann",
        ...                action="HALT", subject="btc", details='{"version": 3}')
        >>> print(row.text)
        [7,"2026-03-01T12:00:00.000000Z","cli:ann","HALT","btc","{\\"version\\": 3}"]
        """
        columns = [self.id, self.at, self.actor, self.action, self.subject, self.details]
        return json.dumps(columns, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A link of the chain: which row it covers, and the hash of all that it vouches for."""

    sequence: int
    audit_id: AuditId
    row_hash: bytes
    chain_hash: bytes
    sealed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The head of the chain at one moment, kept where the database's superuser cannot write."""

    sequence: int
    chain_hash: bytes
    sealed_at: datetime

    def __post_init__(self) -> None:
        """Check what was read from outside."""
        if self.sequence < 1:
            raise InvalidInput(field="sequence", rule="must be 1 or more", found=self.sequence)
        if len(self.chain_hash) != 32:
            rule = "must have 32 bytes"
            raise InvalidInput(field="chain_hash", rule=rule, found=self.chain_hash.hex())
        checked_instant(self.sealed_at, field="sealed_at")

    @property
    def line(self) -> str:
        """One line of JSON, as an anchor file holds it."""
        body = {
            "sequence": self.sequence,
            "chain_hash": self.chain_hash.hex(),
            "sealed_at": self.sealed_at.isoformat(),
        }
        return json.dumps(body)


class FindingKind(StrEnum):
    """What happened to a row, or to the chain."""

    EDITED = "edited"
    SWAPPED = "swapped"
    DELETED = "deleted"
    FORGED = "forged"
    BROKEN = "broken"
    REHASHED = "rehashed"
    TRUNCATED = "truncated"
    UNANCHORED = "unanchored"
    BATCH_CHANGED = "batch_changed"
    BASE_CHANGED = "base_changed"
    ARCHIVE_CHANGED = "archive_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; `audit_id` and `sequence` say where, as far as that is known."""

    kind: FindingKind
    audit_id: AuditId | None = None
    sequence: int | None = None
    message: str

    def __str__(self) -> str:
        """Say it in one line.

        >>> print(Finding(kind=FindingKind.EDITED, audit_id=AuditId(7), sequence=5, message="gone"))
        edited: audit row 7, sequence 5: gone
        """
        places = (("audit row", self.audit_id), ("sequence", self.sequence))
        where = ", ".join(f"{name} {number}" for name, number in places if number is not None)
        return ": ".join(part for part in (self.kind.value, where, self.message) if part)

    def to_json(self) -> dict[str, Any]:
        """Return the finding under the names of the columns."""
        return {
            "kind": self.kind.value,
            "audit_id": self.audit_id,
            "sequence": self.sequence,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A seal with the row it covers; None where that row is gone."""

    seal: Seal
    row: AuditRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """An audit id without a seal: whether its row is there, and whether it waits to be sealed."""

    audit_id: AuditId
    is_there: bool
    waits: bool


def row_hash(row: AuditRow) -> bytes:
    """Return the SHA-256 of the row's text."""
    return hashlib.sha256(row.text.encode()).digest()


def chain_hash(before: bytes, row: bytes, *, sequence: int, sealed_at: datetime) -> bytes:
    """Return the SHA-256 of the hash before, the row's hash, the sequence and the microseconds."""
    micros = (sealed_at - _EPOCH) // timedelta(microseconds=1)
    numbers = sequence.to_bytes(8, "big", signed=True) + micros.to_bytes(8, "big", signed=True)
    return hashlib.sha256(before + row + numbers).digest()


def sealed(rows: Iterable[AuditRow], *, after: Seal | None, now: datetime) -> Iterator[Seal]:
    """Return the seals of `rows`, in their order, that continue a chain whose head is `after`."""
    sequence, before = (
        (0, _BEFORE_THE_FIRST) if after is None else (after.sequence, after.chain_hash)
    )
    for row in rows:
        sequence += 1
        digest = row_hash(row)
        before = chain_hash(before, digest, sequence=sequence, sealed_at=now)
        yield Seal(
            sequence=sequence, audit_id=row.id, row_hash=digest, chain_hash=before, sealed_at=now
        )


def anchor_of(seal: Seal) -> Anchor:
    """Return what is written down outside when `seal` is the head."""
    return Anchor(sequence=seal.sequence, chain_hash=seal.chain_hash, sealed_at=seal.sealed_at)


def parsed_anchor(line: str) -> Anchor | None:
    """Return the anchor that a line of an anchor file holds; None for a torn line.

    >>> parsed_anchor('{"sequence": 12, "chain_ha') is None
    True
    """
    try:
        body = json.loads(line)
        text = body["chain_hash"]
        if type(body["sequence"]) is not int or _HASH.fullmatch(text) is None:
            return None
        return Anchor(
            sequence=body["sequence"],
            chain_hash=bytes.fromhex(text),
            sealed_at=datetime.fromisoformat(body["sealed_at"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInput):
        return None


def chain_findings(links: Iterable[Link]) -> Iterator[Finding]:
    """Compare every seal, in the order of `sequence`, with its row and with the seal before it."""
    last, before = 0, _BEFORE_THE_FIRST
    misfits: list[tuple[Seal, AuditRow]] = []
    for link in links:
        seal = link.seal
        yield from _place_findings(seal, last=last, before=before)
        if link.row is None:
            yield _at(seal, FindingKind.DELETED, "the row that was sealed is gone")
        elif row_hash(link.row) != seal.row_hash:
            misfits.append((seal, link.row))
        if len(misfits) > MISFITS_MAX:
            yield from _misfit_findings(misfits)
            misfits.clear()
        last, before = seal.sequence, seal.chain_hash
    yield from _misfit_findings(misfits)


def stray_findings(strays: Iterable[Stray]) -> Iterator[Finding]:
    """Judge the audit ids without a seal: a row that is there and waits is as it should be."""
    for stray in strays:
        if not stray.is_there:
            message = "the row is gone, before it was sealed"
            yield Finding(kind=FindingKind.DELETED, audit_id=stray.audit_id, message=message)
        elif not stray.waits:
            message = "has no seal and waits for none: put in behind the log, or its seal removed"
            yield Finding(kind=FindingKind.FORGED, audit_id=stray.audit_id, message=message)


@dataclass(slots=True, kw_only=True)
class AnchorCheck:
    """Holds anchors, as they come, against the chain whose head has sequence `head`.

    `agreeing` is the newest anchor that the chain agrees with.
    """

    head: int
    agreeing: Anchor | None = field(default=None, init=False)
    torn_lines: int = field(default=0, init=False)
    _contradicting: int | None = field(default=None, init=False)
    _beyond: int = field(default=0, init=False)

    def compare(self, anchor: Anchor | None, chain: bytes | None) -> None:
        """Hold one anchor, None for a torn line, against the chain's hash at its sequence."""
        if anchor is None:
            self.torn_lines += 1
        elif anchor.sequence > self.head:
            self._beyond = max(self._beyond, anchor.sequence)
        elif chain is not None and chain != anchor.chain_hash:
            earliest = self._contradicting
            self._contradicting = min(anchor.sequence, earliest or anchor.sequence)
        elif chain is not None and (
            self.agreeing is None or anchor.sequence > self.agreeing.sequence
        ):
            self.agreeing = anchor

    def findings(self) -> Iterator[Finding]:
        """Say what the anchors compared so far betray."""
        if self._contradicting is not None:
            message = "another chain was anchored here: the seals up to it were made anew"
            yield Finding(kind=FindingKind.REHASHED, sequence=self._contradicting, message=message)
        if self._beyond:
            message = f"was anchored, but the chain ends at {self.head}: its tail was cut off"
            yield Finding(kind=FindingKind.TRUNCATED, sequence=self._beyond, message=message)
        seen = (self.agreeing, self._contradicting, self._beyond or None)
        if self.head and all(one is None for one in seen):
            message = (
                "no anchor vouches for the chain: rows changed and all rehashed would not show"
            )
            yield Finding(kind=FindingKind.UNANCHORED, sequence=self.head, message=message)


def _place_findings(seal: Seal, *, last: int, before: bytes) -> Iterator[Finding]:
    if seal.sequence <= last:
        yield _at(seal, FindingKind.FORGED, "there is more than one seal of this sequence")
    elif seal.sequence > last + 1:
        message = f"the seals {last + 1} to {seal.sequence - 1} are gone"
        yield Finding(kind=FindingKind.DELETED, sequence=last + 1, message=message)
    elif seal.chain_hash != chain_hash(
        before, seal.row_hash, sequence=seal.sequence, sealed_at=seal.sealed_at
    ):
        message = "the seal does not follow from the one before it: one was rewritten or moved"
        yield _at(seal, FindingKind.BROKEN, message)


def _misfit_findings(misfits: Sequence[tuple[Seal, AuditRow]]) -> Iterator[Finding]:
    """Tell rows that hold each other's content from rows that hold something new."""
    for seal, row in misfits:
        owner = next(
            (
                other
                for other, _ in misfits
                if other is not seal and row_hash(replace(row, id=other.audit_id)) == other.row_hash
            ),
            None,
        )
        if owner is None:
            yield _at(seal, FindingKind.EDITED, "the row is not what was sealed")
        else:
            message = f"the row holds what was sealed as audit row {owner.audit_id}"
            yield _at(seal, FindingKind.SWAPPED, message)


def _at(seal: Seal, kind: FindingKind, message: str) -> Finding:
    return Finding(kind=kind, audit_id=seal.audit_id, sequence=seal.sequence, message=message)
