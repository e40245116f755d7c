"""A drill restores aside and compares, and health waits for the next backup."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from backed_up import (
    MINUTE,
    TAKEN,
    backing_up,
    flip,
    live,
    quiet,
    taken,
)
from ledger import count, open_btc
from sqlalchemy import Engine

from bandit.core.backups import BackupKind
from bandit.service import backups as service
from bandit.service import killing
from bandit.service.ledger import ledger_digest
from bandit.storage.engine import connect
from liveops import backups
from liveops.health import look, seen
from liveops.restore_drill import exercise
from liveops.wiring import App
from snapshots import backup_files
from snapshots.backup_files import METADATA, Backup


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    live(engine)
    return backing_up(engine, tmp_path)[0]


@pytest.fixture
def restored_engine(empty_url: str) -> Iterator[Engine]:
    """An engine on the database that tests restore into."""
    engine = connect(empty_url)
    yield engine
    engine.dispose()


def test_a_drill_restores_aside_and_says_how_old_and_how_long(
    engine: Engine, tmp_path: Path
) -> None:
    live(engine)
    app, clock = backing_up(engine, tmp_path)
    made = taken(app)
    clock.advance_to(TAKEN + 10 * MINUTE)
    before = ledger_digest(engine)
    drill = exercise(app, actor="test", say=quiet)
    assert (drill.backup, drill.failure, drill.rpo_seconds) == (made.name, None, 600)
    assert drill.rows == sum(made.metadata["rows"].values())
    assert drill.rto_seconds is not None
    assert service.known(engine).drill == drill
    # The real ledger was only read: nothing of it is killed, and nothing is left of the other.
    assert ledger_digest(engine) == before
    assert not killing.states(engine)[0].is_killed
    assert [path.name for path in tmp_path.iterdir()] == ["backups"]


def test_a_drill_without_a_backup_takes_one(app: App) -> None:
    drill = exercise(app, actor="test", say=quiet)
    assert drill.passed
    assert [drill.backup] == backup_files.names(backups.backup_dir(app.settings, demo=False))


def resealed(made: Backup, **changes: object) -> None:
    """Make a backup that says something else, as somebody who knows how."""
    (made.path / METADATA).unlink()
    told = {key: value for key, value in made.metadata.items() if key not in ("files", "format")}
    backup_files.seal(made.path, told | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "0" * 64}, "digest"),
        ({"schema": "9999"}, "schema 9999"),
        ({"product_version": "0"}, "another release"),
        ({"server_major": 19}, "PostgreSQL 19"),
    ],
)
def test_a_drill_that_fails_says_why_and_counts_for_nothing(
    app: App, engine: Engine, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    resealed(taken(app), **changes)
    drill = exercise(app, actor="test", say=quiet)
    assert drill.failure is not None
    assert said in drill.failure
    assert service.known(engine).drill is None
    assert count(engine, "restore_drills") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["backups"]


def test_a_drill_does_not_pass_over_a_newest_backup_that_is_damaged(
    engine: Engine, tmp_path: Path
) -> None:
    live(engine)
    app, clock = backing_up(engine, tmp_path)
    taken(app)
    clock.advance_to(TAKEN + MINUTE)
    flip(taken(app).path / "ledger.dump", -1)
    drill = exercise(app, actor="test", say=quiet)
    assert drill.failure is not None
    assert "another SHA-256" in drill.failure


def test_health_waits_for_the_next_backup_once_there_was_one(
    engine: Engine, tmp_path: Path
) -> None:
    open_btc(engine)
    app, clock = backing_up(engine, tmp_path)
    assert "backup_old" not in codes(app)
    taken(app, BackupKind.STATE)
    taken(app)
    clock.advance_to(TAKEN + 75 * MINUTE)
    assert "backup_old" not in codes(app)
    clock.advance_to(TAKEN + 76 * MINUTE)
    assert codes(app).count("backup_old") == 1
    clock.advance_to(TAKEN + timedelta(hours=27))
    assert codes(app).count("backup_old") == 2
    taken(app, BackupKind.STATE)
    assert codes(app).count("backup_old") == 1


def codes(app: App) -> list[str]:
    # The clock of the test is not the database's: only what is read of the ledger matters here.
    assert look(app) is not None
    return [issue.condition.value for issue in seen(app).health.issues]
