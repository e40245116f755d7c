"""The log of each embedded server in a directory of its own: who needs it, who says it stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from backed_up import live, quiet
from ledger import assign
from server_log import archived, failed, segments, settings_of, switched

from bandit.core.backups import BackupKind, RestoreRefused
from bandit.core.health import HealthLimits, assess
from bandit.core.health_table import Condition
from bandit.service import health
from liveops import backups, cli
from liveops.backups import BackupFailed
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.postgres_archive import first_needed
from liveops.wiring import App, running_app
from snapshots.backup_files import METADATA, Backup


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """The service on an embedded server of its own that archives its log."""
    with running_app(settings_of(tmp_path), demo=False, create=True, upgrade=True) as found:
        live(found.engine)
        yield found


@pytest.fixture
def admin(app: App) -> Iterator[psycopg.Connection]:
    """A session of its server's owner."""
    server = EmbeddedPostgres(data_dir=Path(app.settings.home) / "postgres")
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as found:
        yield found


def base(app: App, say: Any = quiet) -> Backup:
    """A copy of the server's files that is taken now."""
    made = backups.take(app, BackupKind.BASE, say=say)
    assert made is not None
    return made


def log(app: App) -> Path:
    """Where the server archives."""
    [found] = Path(str(app.settings.backup.wal_archive_dir)).iterdir()
    return found


def files(folder: Path) -> list[str]:
    return [path.name for path in segments(folder)]


def grown(app: App, admin: psycopg.Connection, unit: str) -> None:
    """Decide something, and let it leave for the archive."""
    assign(app.engine, [unit])
    archived(admin)


def test_the_demo_takes_nothing_of_what_the_real_ledger_needs(
    app: App, admin: psycopg.Connection, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = base(app)
    grown(app, admin, "one")
    grown(app, admin, "two")
    before = files(log(app))
    assert before[0] == first_needed(real.path / "cluster")
    with pytest.raises(RestoreRefused, match="those of the real ledger"):
        base(replace(app, demo=True))
    assert files(log(app)) == before

    config = tmp_path / "config.yaml"
    told = {"home": str(app.settings.home), "backup": {"wal_archive_dir": str(log(app).parent)}}
    config.write_text(json.dumps(told))
    typed = ["backup", "take", "--kind", "base", "--if-archived", "--demo", "--json"]
    capfd.readouterr()
    assert cli.exit_code(cli.app, [*typed, "--config", str(config)]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["done"] == []
    assert "those of the real ledger" in answer["why_not"]


def test_a_log_that_cannot_be_archived_is_told_until_it_is(
    app: App, admin: psycopg.Connection
) -> None:
    def is_told() -> bool:
        found = assess(health.read(app.engine, now=app.clock.now()).vitals, HealthLimits())
        return Condition.LOG_UNARCHIVED in {issue.condition for issue in found.issues}

    grown(app, admin, "one")
    assert not is_told()
    place = log(app)
    away = place.rename(place.with_name("unmounted"))
    missed = switched(admin)
    failed(admin, missed)
    assert is_told()
    with pytest.raises(BackupFailed, match=f"{missed} fails") as refused:
        base(app)
    assert str(place.parent) in str(refused.value)
    away.rename(place)
    grown(app, admin, "two")
    assert missed in files(place)
    assert not is_told()
    base(app)


def test_a_damaged_copy_keeps_its_log_and_does_not_fail_the_next(
    app: App, admin: psycopg.Connection
) -> None:
    grown(app, admin, "before")
    lost = base(app)
    needed = first_needed(lost.path / "cluster")
    grown(app, admin, "one")
    grown(app, admin, "two")
    (lost.path / METADATA).write_text("{")
    (lost.path / "cluster" / "backup_label").unlink()
    said: list[str] = []
    base(app, said.append)
    assert [line for line in said if line.startswith(f"{lost.name} is damaged")]
    assert files(log(app))[0] == needed
    shutil.rmtree(lost.path)
    base(app)
    assert files(log(app))[0] > needed


def test_two_servers_with_one_archive_never_meet(tmp_path: Path) -> None:
    logs = {}
    for name in ("lost", "new"):
        settings = settings_of(tmp_path)
        settings = settings.model_copy(update={"home": tmp_path / name})
        with running_app(settings, demo=False, create=True, upgrade=True) as app:
            live(app.engine)
            server = EmbeddedPostgres(data_dir=tmp_path / name / "postgres")
            with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
                archived(admin)
        for each in (tmp_path / "wal").iterdir():
            logs.setdefault(each.name, files(each))
    old, new = logs.values()
    assert set(old) & set(new)
