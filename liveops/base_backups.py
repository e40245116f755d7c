"""Copy the files of the embedded server, from which its log leads to any later moment."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused, kind_and_second
from bandit.core.errors import InvalidInput
from config.settings import Settings
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.ledger_server import state_home, wal_archive_dir
from liveops.postgres_archive import archived_since, first_needed, log_of
from liveops.postgres_programs import run_program
from snapshots import backup_files

CLUSTER: Final = "cluster"
MANIFEST: Final = "backup_manifest"
PASSWORD: Final = "pgpass"  # noqa: S105 - the name of a file


def archive_of(settings: Settings, *, demo: bool) -> Path:
    """Return where the logs of embedded servers are archived, each in a directory of its own.

    Raises `RestoreRefused` where nothing is archived, and for the demo: it is a database of the
    server whose files and log belong to the real ledger.
    """
    folder = wal_archive_dir(settings)
    if settings.database.url is not None:
        raise RestoreRefused(
            "files and log of a server of your own are copied with its own tools: pg_basebackup, "
            "pgBackRest, or what its host offers"
        )
    if demo:
        raise RestoreRefused("the server's files are those of the real ledger: leave --demo out")
    if folder is None:
        raise RestoreRefused("no log is archived: set backup.wal_archive_dir, and start anew")
    return folder


def copy_server(settings: Settings, part: Path) -> None:
    """Copy the running embedded server's files into `part`, with what opens them."""
    server = EmbeddedPostgres(data_dir=state_home(settings) / "postgres")
    run_program(
        "pg_basebackup",
        f"--pgdata={part / CLUSTER}",
        *("--checkpoint=fast", "--wal-method=stream", "--manifest-checksums=SHA256", "--no-sync"),
        *("-d", server.conninfo("postgres")),
    )
    target = part / PASSWORD
    target.touch(mode=0o600)
    shutil.copyfile(server.data_dir / PASSWORD, target)


def check_copy(copied: Path) -> None:
    """Hold copied files against the manifest that the server wrote, and read their part of the log.

    As pg_verifybackup does, which in the packaged PostgreSQL 18 for Linux crashes before it reads
    anything. Raises `BackupDamaged` and `ProgramFailed`.
    """
    text = (copied / MANIFEST).read_bytes()
    manifest = json.loads(text)
    # Its last line is the digest of everything before.
    told = text[: text.rindex(b'"Manifest-Checksum"')]
    if hashlib.sha256(told).hexdigest() != manifest["Manifest-Checksum"]:
        raise BackupDamaged(f"{MANIFEST} of the server is not what it wrote")
    for file in manifest["Files"]:
        name = file.get("Path") or bytes.fromhex(file["Encoded-Path"]).decode()
        path = copied / name
        if not path.is_file() or path.stat().st_size != file["Size"]:
            raise BackupDamaged(f"the server copied {name} with {file['Size']} bytes")
        with path.open("rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() != file["Checksum"]:
                raise BackupDamaged(f"the server copied other bytes of {name}")
    for part in manifest["WAL-Ranges"]:
        run_program(
            "pg_waldump",
            *("--quiet", f"--path={copied / 'pg_wal'}", f"--timeline={part['Timeline']}"),
            *(f"--start={part['Start-LSN']}", f"--end={part['End-LSN']}"),
        )


def forget_log(archive: Path, root: Path, *, say: Callable[[str], None]) -> None:
    """Remove from the archived logs what no copy in `root` needs.

    Of one that is damaged, what was archived since it was begun is kept. A log of a server of which
    there is no copy stays as it is, as it may be that of another home.
    """
    needed: dict[Path, list[str]] = {}
    damaged: list[datetime] = []
    for name in backup_files.names(root, BackupKind.BASE):
        copied = root / name / CLUSTER
        try:
            backup_files.opened(root, name)
            needed.setdefault(log_of(archive, copied), []).append(first_needed(copied))
        except (BackupDamaged, InvalidInput, OSError) as error:
            say(f"{name} is damaged, and the log since then is kept: {error}")
            damaged.append(kind_and_second(name)[1])
    for log, names in needed.items():
        names += [name for since in damaged for name in archived_since(log, since)]
        run_program("pg_archivecleanup", str(log), min(names, key=_place))
    for log in () if damaged else sorted(set(_logs(archive)) - needed.keys()):
        say(f"of the server whose log is {log} there is no base backup: is it needed?")


def _logs(archive: Path) -> Iterator[Path]:
    return (path for path in archive.iterdir() if path.is_dir() and path.name.isdecimal())


def _place(name: str) -> str:
    return name[8:]  # without its timeline
