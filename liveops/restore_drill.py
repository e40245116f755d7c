"""`liveops drill restore`: restore the newest backup aside, compare it, measure, leave nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from bandit.core.backups import BackupDamaged, BackupKind, RestoreDrill
from bandit.core.errors import BanditError, UnknownName
from bandit.service import backups as service
from bandit.service import killing, rebuilding
from bandit.storage.engine import connect
from bandit.storage.locks import Require
from liveops import backups, restoring
from liveops import postgres_home as home
from liveops.backups import Say
from liveops.clock import monotonic
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.ledger_server import PRODUCTION_DATABASE, backup_dir, state_home
from liveops.postgres_launch import ENVIRONMENT, RunAs, launch_command
from liveops.restoring import Restored
from liveops.wiring import App
from snapshots.backup_files import LATEST, Backup

READY_SECONDS_MAX: Final = 300.0
_POLL_SECONDS: Final = 0.05
_LEAVE_SECONDS: Final = 60.0
_FAILURE_LENGTH: Final = 1000
_SERVE: Final = "from liveops.cli import main; main()"
_LEDGERS: Final = (BackupKind.DATABASE,)


class NotTheSame(BanditError):
    """The restored ledger is not what was backed up."""

    code = "not_the_same"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    rows: int
    rto_seconds: float


def exercise(app: App, *, actor: str, say: Say) -> RestoreDrill:
    """Restore the newest backup of the ledger into a server of its own, and compare the two.

    Takes a backup where there is none. The time to recovery is that from the first byte read until
    `/ready` of a service on the restored ledger answers 200; the comparison comes behind it. How it
    went is a row of the ledger, also where it failed. Raises `LockHeldElsewhere` while another
    process is at it, and `LedgerUnavailable` where another may be by now.
    """
    doing = "drill of a restore"
    with (
        service.only_one(app.engine, doing=doing, is_drill=True) as require,
        _scratch(app, require) as scratch,
    ):
        backup = _newest(app, say)
        began_at = app.clock.now()
        rows, seconds, failure = 0, None, None
        try:
            found = _measured(app, backup, scratch, actor=actor, say=say)
            rows, seconds = found.rows, found.rto_seconds
        except (BanditError, OSError) as error:
            failure = str(error)[:_FAILURE_LENGTH] or type(error).__name__
        drill = RestoreDrill(
            began_at=began_at,
            backup=backup.name,
            rows=rows,
            rpo_seconds=max((began_at - backup.taken_at).total_seconds(), 0.0),
            rto_seconds=seconds,
            failure=failure,
        )
    service.record_drill(app.engine, drill)
    return drill


def _newest(app: App, say: Say) -> Backup:
    root = backup_dir(app.settings, demo=app.demo)
    try:
        return backups.found(root, LATEST, kinds=_LEDGERS)
    except UnknownName:
        made = backups.take(app, BackupKind.DATABASE, say=say)
        assert made is not None
        return made
    except BackupDamaged as error:
        # It is the newest one: what a disaster would find.
        say(f"the newest backup cannot be used: {error}")
        raise


def _measured(app: App, backup: Backup, scratch: Path, *, actor: str, say: Say) -> _Measured:
    began = monotonic()
    server = EmbeddedPostgres(data_dir=scratch / "postgres")
    with server:
        server.create_database(PRODUCTION_DATABASE)
        url = server.url(PRODUCTION_DATABASE)
        nowhere = scratch / "backups"  # the scratch ledger is compared as it was
        restored = restoring.restore(
            backup, url, root=nowhere, now=app.clock.now, actor=actor, say=say
        )
        say("starting a service on it")
        with _serving(scratch):
            seconds = monotonic() - began
        say("counting its numbers again")
        _compare(url, restored, now=app.clock.now)
    return _Measured(rows=restored.rows, rto_seconds=seconds)


def _compare(url: str, restored: Restored, *, now: Callable[[], datetime]) -> None:
    """Hold the restored ledger against the one that was backed up; raises `NotTheSame`.

    Its restore counted the rows of every table and held the digest of all that the domain remembers
    against the backup's; here every number is made again from the outcomes.
    """
    if restored.digest is None:
        raise NotTheSame(f"{restored.backup.name} is of another release: take a new one")
    engine = connect(url, statement_seconds=1800)
    try:
        wrong = rebuilding.compare(engine, now=now()).mismatches
        if wrong:
            raise NotTheSame(f"{len(wrong)} numbers are not those of their outcomes: {wrong[0]}")
        if not all(account.is_killed for account in killing.states(engine)):
            raise NotTheSame("an account of the restored ledger is not killed")
    finally:
        engine.dispose()


@contextmanager
def _scratch(app: App, require: Require) -> Iterator[Path]:
    """Yield an empty private directory, cleared of what a killed drill left; remove it at the end.

    A fixed one: what is left of a drill that was killed is found again.
    """
    folder = state_home(app.settings) / ("restore_drill.demo" if app.demo else "restore_drill")
    _clear(folder)
    folder.mkdir(parents=True)
    folder.chmod(0o711)  # root's server may have to run as another user
    try:
        yield folder
    finally:
        require()  # else it may be that of another drill by now
        _clear(folder)


def _clear(folder: Path) -> None:
    server = folder / "postgres"
    if server.exists():
        os.close(home.lock_for_server(server))  # until the last process of a killed one is gone
        home.remove_socket_directory(server)
    home.cleared(folder)


@contextmanager
def _serving(scratch: Path) -> Iterator[None]:
    """Serve the ledger in `scratch` until the context ends; it begins when the service is ready.

    With default settings: whom the real service tells things, this one tells nothing.
    """
    port = _free_port()
    config = scratch / "config.yaml"
    config.write_text("{}\n", encoding="utf-8")
    variables = {
        **ENVIRONMENT,
        "LIVEOPS_HOME": str(scratch),
        "LIVEOPS_PORT": str(port),
        "LIVEOPS_ADMIN_PORT": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    serve = ("-c", _SERVE, "serve", "--config", str(config))
    with (scratch / "serve.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program, no text from outside
            launch_command(RunAs.OWN_USER, Path(sys.executable), *serve),
            env=variables,
            cwd=scratch,  # no .env of somebody else's
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_ready(process, port, scratch / "serve.log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import httpx

    pause, began = threading.Event(), monotonic()
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while monotonic() - began < READY_SECONDS_MAX:
            try:
                if client.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if process.poll() is not None:
                break
            pause.wait(_POLL_SECONDS)
    said = home.last_lines(log.read_text(errors="replace"))
    raise NotTheSame(f"a service on the restored ledger is not ready:\n{said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
