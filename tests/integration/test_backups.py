"""Backups are whole or not there, and damage of any of them is seen."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from backed_up import (
    MINUTE,
    TAKEN,
    backing_up,
    digest_at,
    flip,
    live,
    quiet,
    restored,
    taken,
)
from ledger import CHALLENGER, assign, change, count
from reconciled_ledger import opened
from sqlalchemy import Engine, text

from bandit.core.backups import BackupDamaged, BackupKind
from bandit.core.errors import LockHeldElsewhere, UnknownName
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.service import auditing, killing
from bandit.service import backups as service
from bandit.service.ledger import ledger_digest
from bandit.storage import migrate
from bandit.storage.engine import connect
from liveops import backups
from liveops.wiring import App
from snapshots import backup_files
from snapshots.backup_files import LATEST, METADATA


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


# --- taking --------------------------------------------------------------------------------------


def test_a_database_backup_says_what_it_holds(app: App, engine: Engine) -> None:
    made = taken(app)
    assert made.name == "database_backup_20260305_120000"
    told = json.loads((made.path / METADATA).read_text())
    assert told["schema"] == migrate.head()
    assert told["ledger"] == str(auditing.ledger_id(engine))
    assert told["digest"] == ledger_digest(engine)
    for table in ("outcomes", "assignments", "kill_events", "audit_log"):
        assert told["rows"][f"public.{table}"] == count(engine, table)
    assert set(told["files"]) >= {"ledger.dump", "state/arms.json", "state/configuration.json"}
    for name, file in told["files"].items():
        assert (made.path / name).stat().st_size == file["bytes"]
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    assert service.known(engine).newest[BackupKind.DATABASE].taken_at == TAKEN


def test_a_state_backup_says_who_may_trade_and_no_secret(engine: Engine, tmp_path: Path) -> None:
    live(engine)
    change(engine, ArmVerb.HALT)
    opened(engine, "held")
    killing.kill(engine, None, cause=KillCause.DRAWDOWN, reason="deep", now=TAKEN, actor="test")
    app, _ = backing_up(engine, tmp_path)
    app = _with_key(app, "lo_" + "s" * 43)
    made = taken(app, BackupKind.STATE)
    assert made.name == "state_backup_20260305_120000"
    found = backups.state_of(made)
    assert {(a["policy"], a["status"]) for a in found["arms"]} == {
        ("prod", "active"),
        (CHALLENGER, "halted"),
    }
    [account] = found["accounts"]
    assert (account["name"], account["is_killed"], account["cause"]) == ("usd", True, "drawdown")
    assert sum(part["ppm"] for part in found["allocations"]) == 1_000_000
    assert [position["unit_id"] for position in found["open_positions"]] == ["held"]
    assert {guard["state"] for guard in found["guards"]} == {"NORMAL"}
    everything = b"".join(path.read_bytes() for path in made.path.rglob("*.json"))
    assert b"ssss" not in everything
    assert b'"database.url": null' in everything


def _with_key(app: App, key: str) -> App:
    settings = app.settings.model_validate({**app.settings.model_dump(), "api_key": key})
    return replace(app, settings=settings)


def test_what_is_committed_while_a_backup_runs_is_in_it_whole_or_not_at_all(
    app: App, engine: Engine, empty_url: str
) -> None:
    before = ledger_digest(engine)

    def busy(line: str) -> None:
        if line.startswith(("dumping", "counting")):
            trade_on_with(engine, line)

    made = backups.take(app, BackupKind.DATABASE, say=busy)
    assert made is not None
    assert ledger_digest(engine) != before
    restored(made, empty_url)
    assert digest_at(empty_url) == made.metadata["digest"] == before


def trade_on_with(engine: Engine, prefix: str) -> None:
    assign(engine, [f"{prefix[:5]}-{i}" for i in range(3)], now=TAKEN)


def test_once_a_day_is_enough_where_the_day_is_named(app: App, engine: Engine) -> None:
    day = date(2026, 3, 5)
    assert backups.take(app, BackupKind.DATABASE, since=day, say=quiet) is not None
    assert backups.take(app, BackupKind.DATABASE, since=day, say=quiet) is None
    root = backups.backup_dir(app.settings, demo=False)
    assert len(backup_files.names(root)) == 1
    assert backups.take(app, BackupKind.STATE, since=day, say=quiet) is not None
    # One whose taker was killed before it could say so is written down by the next.
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM backups"))
    assert backups.take(app, BackupKind.DATABASE, since=day, say=quiet) is None
    assert set(service.known(engine).newest) == {BackupKind.DATABASE}


def test_only_one_process_takes_a_backup(app: App) -> None:
    def second(line: str) -> None:
        with pytest.raises(LockHeldElsewhere):
            backups.take(app, BackupKind.STATE, say=quiet)

    assert backups.take(app, BackupKind.STATE, say=second) is not None


def test_old_backups_go_and_the_newest_of_each_kind_stays(engine: Engine, tmp_path: Path) -> None:
    live(engine)
    app, clock = backing_up(engine, tmp_path, keep_days=2)
    first = taken(app)
    states = []
    for hours in (0, 24, 48, 49):
        clock.advance_to(TAKEN + timedelta(hours=hours))
        states.append(taken(app, BackupKind.STATE))
    assert backup_files.names(first.path.parent) == [
        *(state.name for state in reversed(states[1:])),
        first.name,
    ]


def test_metadata_of_a_killed_taker_is_never_seen(app: App) -> None:
    root = backups.backup_dir(app.settings, demo=False)
    (root / "state_backup_20260305_115959.part").mkdir(parents=True)
    assert backup_files.names(root) == []
    made = taken(app, BackupKind.STATE)
    assert [path.name for path in root.iterdir()] == [made.name]


# --- damage --------------------------------------------------------------------------------------


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the archive": lambda p: flip(p / "ledger.dump", -1),
    "the first bit of the archive": lambda p: flip(p / "ledger.dump", 0),
    "a cut archive": lambda p: os.truncate(p / "ledger.dump", 1000),
    "an empty archive": lambda p: os.truncate(p / "ledger.dump", 0),
    "no archive": lambda p: (p / "ledger.dump").unlink(),
    "a bit of the state": lambda p: flip(p / "state" / "arms.json", 40),
    "a file too many": lambda p: (p / "state" / "more.json").write_text("{}"),
    "a link": lambda p: (p / "link").symlink_to(p / "ledger.dump"),
    "cut metadata": lambda p: os.truncate(p / METADATA, 100),
    "no metadata": lambda p: (p / METADATA).unlink(),
    "metadata of another": lambda p: p.rename(p.with_name("database_backup_20260304_120000")),
    "metadata of a list": lambda p: (p / METADATA).write_text("[]"),
    "another row count": lambda p: edit(p, rows={"public.outcomes": 1}),
    "another digest": lambda p: edit(p, digest="0" * 64),
}


def edit(path: Path, **changes: object) -> None:
    told = json.loads((path / METADATA).read_text())
    (path / METADATA).write_text(json.dumps(told | changes))


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_backup_is_refused_and_nothing_is_restored(
    app: App, empty_url: str, restored_engine: Engine, what: str
) -> None:
    made = taken(app)
    root = made.path.parent
    DAMAGE[what](made.path)
    with pytest.raises(BackupDamaged):
        restored(backups.found(root, LATEST), empty_url, root=root)
    assert migrate.current(empty_url) is None


def test_a_state_that_is_damaged_is_passed_over_for_an_older_one(
    engine: Engine, tmp_path: Path
) -> None:
    live(engine)
    app, clock = backing_up(engine, tmp_path)
    older = taken(app, BackupKind.STATE)
    clock.advance_to(TAKEN + MINUTE)
    newer = taken(app, BackupKind.STATE)
    ledger = str(auditing.ledger_id(engine))
    found = backups.newest_state(newer.path.parent, ledger=ledger)
    assert found is not None
    assert found.name == newer.name
    flip(newer.path / "state" / "arms.json", 40)
    found = backups.newest_state(newer.path.parent, ledger=ledger)
    assert found is not None
    assert found.name == older.name
    assert backups.newest_state(newer.path.parent, ledger="another") is None


def test_names_that_are_no_backups_are_refused(app: App) -> None:
    root = backups.backup_dir(app.settings, demo=False)
    with pytest.raises(UnknownName, match="backup of the state in"):
        backups.found(root, LATEST, kinds=(BackupKind.STATE,))
    with pytest.raises(UnknownName):
        backups.found(root, "state_backup_20260305_120000")
