"""Where files of ours are kept outside the ledger: what every such place promises.

There are two: a directory (`snapshots.local_store`) and a bucket (`snapshots.s3_store`). One set of
tests runs over both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from bandit.core.errors import BanditError, InvalidInput

KEY_LENGTH_MAX = 512
BLOB_SIZE_MAX = 256 * 1024 * 1024
"""The most bytes that `BlobStore.get` returns unless it is told otherwise."""

# A part begins with a letter or digit: no `..`, no hidden file, nothing that a shell could expand.
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*(/[A-Za-z0-9][A-Za-z0-9._=-]*)*")


class BlobMissing(BanditError):
    """Nothing is kept under this key."""

    code = "blob_missing"


class BlobExists(BanditError):
    """Other bytes are kept under this key already; they stay as they are."""

    code = "blob_exists"


class BlobTooLarge(BanditError):
    """What is kept under this key is larger than whoever reads it can take; none of it was read."""

    code = "blob_too_large"


class BlobDamaged(BanditError):
    """What was stored did not read back as it was sent."""

    code = "blob_damaged"


class StoreUnavailable(BanditError):
    """The store cannot be reached, refuses, or has no room: try again later."""

    code = "store_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFacts:
    """What a store says of a blob: its size in bytes and when it was stored."""

    size: int
    stored_at: datetime


class BlobStore(Protocol):
    """Keeps bytes under keys such as `objects/sha256/ab/abcd`.

    Every method raises `InvalidInput` for a key that is none (`checked_key`) and
    `StoreUnavailable` where the store does not do its work.
    """

    @property
    def kind(self) -> str:
        """Return `local` or `s3`."""
        ...

    def put(self, key: str, body: bytes | Path, *, if_absent: bool = False) -> None:
        """Keep bytes, or those of a file: they appear whole or not at all, and last.

        They have been read back when this returns; raises `BlobDamaged` where they differ. Whatever
        was there before is replaced, but with `if_absent`: then other bytes under the key raise
        `BlobExists` and stay, and the same bytes are as good as stored. So a put whose answer was
        lost is simply put again.
        """
        ...

    def get(self, key: str, *, size_max: int = BLOB_SIZE_MAX) -> bytes:
        """Return what is kept; raises `BlobMissing`, `BlobTooLarge`."""
        ...

    def get_file(self, key: str, into: Path, *, size_max: int | None = None) -> None:
        """Write what is kept to the new file `into`, on disk when this returns.

        After an error nothing is there. Raises `BlobMissing`, `BlobTooLarge`, `FileExistsError`.
        """
        ...

    def facts(self, key: str) -> BlobFacts:
        """Return size and time of what is kept; raises `BlobMissing`."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield every key that begins with `prefix`, in order."""
        ...

    def delete(self, key: str) -> None:
        """Keep nothing under the key any longer; nothing there is no error."""
        ...

    def forget_unfinished(self, *, before: datetime) -> int:
        """Remove what writers left half written before a moment; return how many there were."""
        ...


def checked_key(key: str) -> str:
    """Return a key that can be used.

    >>> checked_key("objects/sha256/ab/abcd")
    'objects/sha256/ab/abcd'
    >>> checked_key("../KILLED")
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: key: must be names of a-z A-Z 0-9 . _ = -, found '../KILLED'
    """
    if len(key) > KEY_LENGTH_MAX or _KEY.fullmatch(key) is None:
        rule = "must be names of a-z A-Z 0-9 . _ = -"
        raise InvalidInput(field="key", rule=rule, found=ascii(key))
    return key


def body_sha256(body: bytes | Path) -> str:
    """Return the SHA-256 of some bytes, or of a file's, as 64 hexadecimal digits."""
    if isinstance(body, bytes):
        return hashlib.sha256(body).hexdigest()
    with body.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
