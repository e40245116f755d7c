"""Directories of files that are named by what is in them: written whole, read with distrust.

A sealed directory holds its files and `manifest.json`, which gives the size and SHA-256 of each.
The directory's name is the SHA-256 of the manifest. Who reads one brings that hash from elsewhere;
nothing inside the directory is believed before it has been held against it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.model import PolicySha
from learners.canonical_json import canonical, parsed
from learners.durable_files import sync_directory

MANIFEST = "manifest.json"
MANIFEST_SIZE_MAX = 4096
FORMAT = 1
PART = ".part-"
"""How the names of folders begin that are not whole yet."""

_FULL_SHA = re.compile(r"[0-9a-f]{64}")
# A pipe must not be waited for, a link not be followed, a terminal not become ours.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class ArtifactRefused(BanditError):
    """A stored artefact breaks a rule; nothing of it was used.

    >>> str(ArtifactRefused(file="spec.json", rule="must be there", found="nothing"))
    'spec.json: must be there, found nothing'
    """

    code = "artifact_refused"

    def __init__(self, *, file: str, rule: str, found: object) -> None:
        shown = ascii(str(found))[1:-1]  # a name out of the file system may hold anything
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{file}: {rule}, found {shown}")
        self.file = file
        self.rule = rule
        self.found = shown


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """Return the canonical manifest of some files: of each the size in bytes and the SHA-256."""
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in files.items()
    }
    return canonical({"files": entries, "format": FORMAT})


def seal(root: Path, files: Mapping[str, bytes]) -> PolicySha:
    """Write `files` to a directory below `root` that is named by them, and return that name.

    The directory appears whole or not at all, and is on disk when this returns. What lies there
    under that name already stays as it is; reading tells whether it is still whole.
    """
    manifest = manifest_of(files)
    sha = PolicySha(hashlib.sha256(manifest).hexdigest())
    root.mkdir(parents=True, exist_ok=True)
    if not (root / sha).exists():
        part = Path(tempfile.mkdtemp(prefix=PART, dir=root))
        try:
            for name, content in {**files, MANIFEST: manifest}.items():
                _write(part / name, content)
            sync_directory(part)
            part.chmod(0o755)
            with suppress(FileExistsError):  # who was quicker has written the same
                _rename(part, root / sha)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_directory(root)
    return sha


def forget_parts(root: Path, *, before: datetime) -> None:
    """Remove what writers below `root` left half written, if nothing moved there since `before`.

    Whoever still writes does so for seconds; one that was killed cannot clean up.
    """
    for folder, names, _ in os.walk(root):  # passes over what vanishes meanwhile
        for part in (Path(folder, name) for name in names if name.startswith(PART)):
            with suppress(FileNotFoundError):  # it is whole now, or another process was quicker
                found = part.lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_mtime < before.timestamp():
                    shutil.rmtree(part, ignore_errors=True)


def unseal(root: Path, sha: PolicySha, *, sizes_max: Mapping[str, int]) -> dict[str, bytes]:
    """Return the files of the directory `sha` below `root`: exactly those named in `sizes_max`.

    Each is opened inside the directory without following links, is refused by its size (bytes)
    before it is read, is read once, and is hashed as read. Raises `ArtifactRefused` with the file
    and the rule, `InvalidInput` for a hash that is not a full SHA-256.
    """
    if _FULL_SHA.fullmatch(sha) is None:
        rule = "must be 64 lower-case hexadecimal digits"
        raise InvalidInput(field="sha", rule=rule, found=repr(sha))
    with _opened(root / sha) as folder:
        _require_names(folder, {MANIFEST, *sizes_max})
        manifest = _read(folder, MANIFEST, size_max=MANIFEST_SIZE_MAX)
        _require_digest(MANIFEST, manifest, sha)
        entries = _entries(manifest, sizes_max)
        return {
            name: _read_entry(folder, name, *entries[name], size_max=size_max)
            for name, size_max in sizes_max.items()
        }


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError as error:
        if target.is_dir():  # ENOTEMPTY or EEXIST, as the system likes
            raise FileExistsError(str(target)) from error
        raise


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactRefused(
            file="directory", rule="must be a directory and no link", found=error.strerror
        ) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _require_names(folder: int, names: set[str]) -> None:
    missing = set(names)
    with os.scandir(folder) as listed:
        for entry in listed:
            if entry.name not in names:
                rule = f"must hold {', '.join(sorted(names))} and nothing else"
                raise ArtifactRefused(file="directory", rule=rule, found=entry.name)
            missing.discard(entry.name)
    if missing:
        raise ArtifactRefused(file=min(missing), rule="must be there", found="nothing")


def _read(folder: int, name: str, *, size_max: int) -> bytes:
    try:
        # Looked at before it is opened: opening a device may already do something.
        _require_plain(name, os.stat(name, dir_fd=folder, follow_symlinks=False), size_max)
        handle = os.open(name, _READ, dir_fd=folder)
        with os.fdopen(handle, "rb") as file:
            _require_plain(name, os.fstat(handle), size_max)
            content = file.read(size_max + 1)
    except OSError as error:
        raise ArtifactRefused(file=name, rule="must be readable", found=error.strerror) from error
    if len(content) > size_max:  # it grew while it was read
        raise ArtifactRefused(file=name, rule=f"must have at most {size_max} bytes", found="more")
    return content


def _require_plain(name: str, found: os.stat_result, size_max: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ArtifactRefused(
            file=name, rule="must be a regular file", found=stat.filemode(found.st_mode)
        )
    if found.st_size > size_max:
        rule = f"must have at most {size_max} bytes"
        raise ArtifactRefused(file=name, rule=rule, found=found.st_size)


def _require_digest(name: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ArtifactRefused(file=name, rule=f"must have the SHA-256 {expected}", found=found)


def _entries(manifest: bytes, sizes_max: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    try:
        body = parsed(manifest, field=MANIFEST)
    except InvalidInput as error:
        raise ArtifactRefused(file=MANIFEST, rule=error.rule, found=error.found) from error
    match body:
        case {"files": dict(files), "format": int(version), **rest} if not rest:
            pass
        case _:
            raise ArtifactRefused(
                file=MANIFEST, rule="must hold files and format, nothing else", found=body
            )
    if version != FORMAT or isinstance(version, bool):
        raise ArtifactRefused(file=MANIFEST, rule=f"format must be {FORMAT}", found=version)
    if files.keys() != sizes_max.keys():
        rule = f"files must be {', '.join(sorted(sizes_max))}"
        raise ArtifactRefused(file=MANIFEST, rule=rule, found=", ".join(sorted(files)))
    return {name: _entry(name, entry) for name, entry in files.items()}


def _entry(name: str, entry: object) -> tuple[int, str]:
    match entry:
        case {"size": int(size), "sha256": str(sha), **rest} if not rest and size >= 0:
            if _FULL_SHA.fullmatch(sha) is not None and not isinstance(size, bool):
                return size, sha
    rule = f"{name} must have a size in bytes and a SHA-256"
    raise ArtifactRefused(file=MANIFEST, rule=rule, found=entry)


def _read_entry(folder: int, name: str, size: int, sha: str, *, size_max: int) -> bytes:
    if size > size_max:
        rule = f"size of {name} must be at most {size_max} bytes"
        raise ArtifactRefused(file=MANIFEST, rule=rule, found=size)
    content = _read(folder, name, size_max=size)
    if len(content) != size:
        rule = f"must have {size} bytes"
        raise ArtifactRefused(file=name, rule=rule, found=len(content))
    _require_digest(name, content, sha)
    return content
