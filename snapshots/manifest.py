"""What a snapshot consists of: one canonical document that names every object by its SHA-256.

A snapshot is named by its date, and there is one of each. Its objects lie under the SHA-256 of what
is in them; its manifest is written last, and whoever reads believes nothing that is not named in it
and held against it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final, NoReturn

import rfc8785

from bandit.core.errors import BanditError

FORMAT: Final = 1
MANIFEST_SIZE_MAX: Final = 16 * 1024 * 1024
ENTRY_SIZE_MAX: Final = 256 * 1024 * 1024
ENTRIES_MAX: Final = 50_000
MANIFESTS, OBJECTS = "manifests/", "objects/sha256/"

POLICIES, CONFIGURATION = "policies.json", "configuration.json"
ALLOCATION = "allocation.json"

_SHA: Final = re.compile(r"[0-9a-f]{64}")
# Nothing but what a snapshot writes: no path out of it, no file that anything runs or unpickles.
_PATH: Final = re.compile(
    r"artifacts/[0-9a-f]{64}/([a-z_]{1,40}\.(json|safetensors|onnx)|drift\.npz)"
    r"|cards/[0-9a-f]{64}\.json|policies\.json|configuration\.json|allocation\.json"
)
_MANIFEST_KEY: Final = re.compile(r"manifests/([0-9]{4}-[0-9]{2}-[0-9]{2})\.json")
_OBJECT_KEY: Final = re.compile(r"objects/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")


class SnapshotDamaged(BanditError):
    """A snapshot is not what was written; nothing of it is used.

    >>> str(SnapshotDamaged(file="policies.json", rule="must have 3 bytes", found=4))
    'policies.json: must have 3 bytes, found 4'
    """

    code = "snapshot_damaged"

    def __init__(self, *, file: str, rule: str, found: object) -> None:
        shown = ascii(str(found))[1:-1]
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{file}: {rule}, found {shown}")
        self.file = file
        self.rule = rule


class EntryKind(StrEnum):
    """What a file of a snapshot is."""

    ENCODER = "encoder"
    TABNET = "tabnet"
    POLICY = "policy"
    CONFIGURATION = "configuration"
    ALLOCATION_STATE = "allocation_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a snapshot: where it belongs, its SHA-256, its size in bytes."""

    path: str
    sha256: str
    size: int
    kind: EntryKind

    def __post_init__(self) -> None:
        """Refuse what no snapshot holds."""
        if _PATH.fullmatch(self.path) is None:
            raise _refused("paths must be those of a snapshot's files", self.path)
        if _SHA.fullmatch(self.sha256) is None:
            raise _refused(f"{self.path} must have a SHA-256", self.sha256)
        if not 0 <= self.size <= ENTRY_SIZE_MAX:
            raise _refused(f"{self.path} must have at most {ENTRY_SIZE_MAX} bytes", self.size)

    @property
    def key(self) -> str:
        """Where a store keeps it."""
        return object_key(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A snapshot: of which day and ledger, by which release, and its files by path.

    `left_out` are the files that should be in it and were not sound, with the reason.
    """

    date: date
    made_at: datetime
    ledger: str
    schema: str
    version: str
    entries: tuple[Entry, ...]
    left_out: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse repeated and unordered paths."""
        paths = [entry.path for entry in self.entries]
        if len(paths) > ENTRIES_MAX:
            raise _refused(f"must have at most {ENTRIES_MAX} files", len(paths))
        if paths != sorted(set(paths)):
            raise _refused("must name each path once, in order", "another order")

    @property
    def size(self) -> int:
        """Return how many bytes its objects have, each counted once."""
        return sum({entry.sha256: entry.size for entry in self.entries}.values())

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the manifest as it is stored."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def artifacts(self) -> dict[str, dict[str, Entry]]:
        """Return the files of each stored artefact, by its hash and their names."""
        found: dict[str, dict[str, Entry]] = {}
        for entry in self.entries:
            folder, _, rest = entry.path.partition("/")
            if folder == "artifacts":
                sha, _, name = rest.partition("/")
                found.setdefault(sha, {})[name] = entry
        return found

    def to_bytes(self) -> bytes:
        """Return the manifest as it is stored: canonical JSON (RFC 8785) with a digest of itself.

        >>> made = Manifest(date=date(2026, 3, 1), made_at=datetime(2026, 3, 1, tzinfo=UTC),
        ...     ledger="l", schema="0035", version="1", entries=(), left_out={})
        >>> read_manifest(made.to_bytes(), day=made.date) == made
        True
        """
        body = self._body()
        return rfc8785.dumps(body | {"digest": _digest(body)})

    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "date": self.date.isoformat(),
            "made_at": self.made_at.isoformat(),
            "ledger": self.ledger,
            "schema": self.schema,
            "version": self.version,
            "entries": [
                {
                    "path": entry.path,
                    "sha256": entry.sha256,
                    "size": entry.size,
                    "kind": entry.kind.value,
                }
                for entry in self.entries
            ],
            "left_out": dict(self.left_out),
        }


def manifest_key(day: date) -> str:
    """Return where the manifest of a day is kept.

    >>> manifest_key(date(2026, 3, 1))
    'manifests/2026-03-01.json'
    """
    return f"{MANIFESTS}{day.isoformat()}.json"


def object_key(sha256: str) -> str:
    """Return where what has this SHA-256 is kept."""
    return f"{OBJECTS}{sha256[:2]}/{sha256}"


def dates_of(keys: Iterable[str]) -> list[date]:
    """Return the days that have a manifest among these keys, oldest first; other keys are none."""
    found = []
    for key in keys:
        matched = _MANIFEST_KEY.fullmatch(key)
        if matched is not None:
            try:
                found.append(date.fromisoformat(matched[1]))
            except ValueError:  # the 31st of February is no snapshot of ours
                continue
    return sorted(found)


def object_sha256(key: str) -> str | None:
    """Return the SHA-256 that a key of ours names; None for any other key."""
    matched = _OBJECT_KEY.fullmatch(key)
    return None if matched is None else matched[2]


def read_manifest(content: bytes, *, day: date) -> Manifest:
    """Return the manifest of a day; raises `SnapshotDamaged` for anything `to_bytes` did not write.

    It is read strictly by writing it again: repeated keys, blanks, other spellings and other fields
    come out differently.
    """
    if len(content) > MANIFEST_SIZE_MAX:
        raise _refused(f"must have at most {MANIFEST_SIZE_MAX} bytes", len(content))
    try:
        body = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _refused("must be JSON", type(error).__name__) from None
    found = _manifest(body)
    if found.to_bytes() != content:
        raise _refused("must be what this version writes, with its own digest", "other bytes")
    if found.date != day:
        raise _refused(f"must be of {day.isoformat()}", found.date.isoformat())
    return found


def _manifest(body: Any) -> Manifest:
    match body:
        case {
            "date": str(day),
            "made_at": str(made_at),
            "ledger": str(ledger),
            "schema": str(schema),
            "version": str(version),
            "entries": list(entries),
            "left_out": dict(left_out),
        } if all(isinstance(reason, str) for reason in left_out.values()):
            try:
                moment = datetime.fromisoformat(made_at)
                if moment.utcoffset() is None:
                    raise _refused("made_at must be in UTC", made_at)
                return Manifest(
                    date=date.fromisoformat(day),
                    made_at=moment.astimezone(UTC),
                    ledger=ledger,
                    schema=schema,
                    version=version,
                    entries=tuple(_entry(entry) for entry in entries),
                    left_out=left_out,
                )
            except (ValueError, OverflowError):
                raise _refused("must have a date and a time", f"{day} {made_at}") from None
    raise _refused("must have the fields of a manifest", type(body).__name__)


def _entry(body: Any) -> Entry:
    match body:
        case {"path": str(path), "sha256": str(sha256), "size": int(size), "kind": str(kind)} if (
            not isinstance(size, bool) and kind in {each.value for each in EntryKind}
        ):
            return Entry(path=path, sha256=sha256, size=size, kind=EntryKind(kind))
    raise _refused("files must have path, sha256, size and kind", body)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(dict(body))).hexdigest()


def _no_number(token: str) -> NoReturn:
    raise ValueError(token)


def _refused(rule: str, found: object) -> SnapshotDamaged:
    return SnapshotDamaged(file="manifest", rule=rule, found=found)
