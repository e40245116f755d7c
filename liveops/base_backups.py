"""Copy the files of the embedded server, from which its log leads to any later moment."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bandit.core.backups import BackupDamaged, RestoreRefused
from config.settings import Settings
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.ledger_server import state_home, wal_archive_dir
from liveops.postgres_archive import first_needed
from liveops.postgres_programs import run_program
from snapshots.backup_files import Backup

CLUSTER: Final = "cluster"
MANIFEST: Final = "backup_manifest"
PASSWORD: Final = "pgpass"  # noqa: S105 - the name of a file


def archive_of(settings: Settings) -> Path:
    """Return where the embedded server's log is archived; raises `RestoreRefused` without one."""
    folder = wal_archive_dir(settings)
    if settings.database.url is not None:
        raise RestoreRefused(
            "files and log of a server of your own are copied with its own tools: pg_basebackup, "
            "pgBackRest, or what its host offers"
        )
    if folder is None:
        raise RestoreRefused("no log is archived: set backup.wal_archive_dir, and start anew")
    return folder


def copy_server(settings: Settings, part: Path) -> None:
    """Copy the running embedded server's files into `part`, with what opens them."""
    archive_of(settings)
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


def forget_log(settings: Settings, kept: Sequence[Backup]) -> None:
    """Remove what the oldest of the kept copies does not need of the archived log."""
    needed = [first_needed(backup.path / CLUSTER) for backup in kept]
    if needed:
        run_program("pg_archivecleanup", str(archive_of(settings)), min(needed, key=_place))


def _place(name: str) -> str:
    return name[8:]  # without its timeline
