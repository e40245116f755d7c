"""Blobs as files below one directory: each whole and on disk, or not there."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from snapshots.blob_store import (
    BLOB_SIZE_MAX,
    BlobDamaged,
    BlobExists,
    BlobFacts,
    BlobMissing,
    BlobTooLarge,
    StoreUnavailable,
    body_sha256,
    checked_key,
)
from snapshots.durable_files import sync_directory

PART = ".part-"
"""How the names of files begin that are not whole yet: no key has such a name."""

# A link is never followed, a pipe never waited for, a terminal never becomes ours.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class LocalStore:
    """A `BlobStore` in a directory; the directory itself may be a link, nothing in it may."""

    kind = "local"

    def __init__(self, root: Path) -> None:
        """Keep blobs below `root`, which need not be there yet."""
        self._root = root

    def put(self, key: str, body: bytes | Path, *, if_absent: bool = False) -> None:
        """Keep bytes as one file; `if_absent` lets one of several writers win."""
        *folders, name = checked_key(key).split("/")
        sha256 = body_sha256(body)
        with self._told(key), self._folder(folders, make=True) as folder:
            part = f"{PART}{secrets.token_hex(8)}"
            try:
                _write(folder, part, body)
                if _sha256(folder, part) != sha256:
                    raise BlobDamaged(f"{key}: the disk holds other bytes than were written")
                if if_absent:
                    _link(folder, part, name, key=key, sha256=sha256)
                else:
                    os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)

    def get(self, key: str, *, size_max: int = BLOB_SIZE_MAX) -> bytes:
        """Return the bytes of one file."""
        with self._opened(key, size_max=size_max) as file:
            content = file.read(size_max + 1)
        if len(content) > size_max:  # it grew while it was read
            raise _too_large(key, size_max)
        return content

    def get_file(self, key: str, into: Path, *, size_max: int | None = None) -> None:
        """Copy one file."""
        with self._opened(key, size_max=size_max) as file, new_file(into) as copy:
            shutil.copyfileobj(file, copy)

    def facts(self, key: str) -> BlobFacts:
        """Return the size of one file and when it was last written."""
        with self._opened(key, size_max=None) as file:
            found = os.fstat(file.fileno())
        stored_at = datetime.fromtimestamp(found.st_mtime, UTC)
        return BlobFacts(size=found.st_size, stored_at=stored_at)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the files that are whole, by name."""
        whole = [path for path in self._files() if not path.name.startswith(PART)]
        keys = sorted(path.relative_to(self._root).as_posix() for path in whole)
        yield from (key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Remove one file."""
        *folders, name = checked_key(key).split("/")
        with suppress(BlobMissing), self._told(key), self._folder(folders, make=False) as folder:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def forget_unfinished(self, *, before: datetime) -> int:
        """Remove parts of files that nobody has written to since `before`."""
        forgotten = 0
        for path in self._files():
            with suppress(FileNotFoundError):  # its writer is done
                if path.name.startswith(PART) and path.lstat().st_mtime < before.timestamp():
                    path.unlink()
                    forgotten += 1
        return forgotten

    def _files(self) -> list[Path]:
        found = os.walk(self._root)  # passes over what vanishes meanwhile, follows no links
        return [Path(folder, name) for folder, _, names in found for name in names]

    @contextmanager
    def _opened(self, key: str, *, size_max: int | None) -> Iterator[BinaryIO]:
        *folders, name = checked_key(key).split("/")
        with self._told(key), self._folder(folders, make=False) as folder:
            handle = os.open(name, _FILE, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(handle)
                if not stat.S_ISREG(found.st_mode):
                    raise StoreUnavailable(f"{key}: is no regular file in {self._root}")
                if size_max is not None and found.st_size > size_max:
                    raise _too_large(key, size_max)
                yield file

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Say in our words what the file system refuses."""
        try:
            yield
        except FileNotFoundError as error:
            raise BlobMissing(f"nothing is kept under {key} in {self._root}") from error
        except FileExistsError:
            raise
        except OSError as error:
            found = error.strerror or error
            raise StoreUnavailable(f"{key}: {found} in {self._root}") from error

    @contextmanager
    def _folder(self, names: list[str], *, make: bool) -> Iterator[int]:
        """Yield a handle of the directory that holds a blob."""
        if make and not self._root.is_dir():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_directory(self._root.parent)
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, mode=0o700, dir_fd=handle)
                        os.fsync(handle)
                inner = os.open(name, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write that is on disk when the context ends well; else nothing is there.

    Raises `FileExistsError`; `StoreUnavailable` where the disk refuses.
    """
    with path.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            path.unlink()
            raise StoreUnavailable(f"{path}: {error.strerror or error}") from error
        except BaseException:
            path.unlink()
            raise
    sync_directory(path.parent)


def _write(folder: int, name: str, body: bytes | Path) -> None:
    handle = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    with os.fdopen(handle, "wb") as file:
        if isinstance(body, bytes):
            file.write(body)
        else:
            with body.open("rb") as source:
                shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(handle)


def _link(folder: int, part: str, name: str, *, key: str, sha256: str) -> None:
    """Give the part its name if nothing has it; the same bytes there already are as good."""
    try:
        os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if _sha256(folder, name) != sha256:
            raise BlobExists(f"other bytes are kept under {key} already") from None


def _sha256(folder: int, name: str) -> str:
    handle = os.open(name, _FILE, dir_fd=folder)
    with closing(os.fdopen(handle, "rb")) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _too_large(key: str, size_max: int) -> BlobTooLarge:
    return BlobTooLarge(f"{key}: must have at most {size_max} bytes, found more")
