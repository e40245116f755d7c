"""Backups are whole or not there, and what comes back from them is the ledger, stopped."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from audit_log import seal_and_anchor
from backed_up import (
    MINUTE,
    TAKEN,
    backing_up,
    digest_at,
    live,
    quiet,
    restored,
    taken,
    trade_on,
)
from ledger import CHALLENGER, NOON, assign, change, count, open_btc, promote
from postgres_server import PostgresServer
from reconciled_ledger import opened, state
from sqlalchemy import Engine, text
from vitals import beat

from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused
from bandit.core.errors import Killed, LockHeldElsewhere, UnknownName, Unreconciled
from bandit.core.kill_switch import DailyLossRelease, KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.reconciling import ReconciliationState
from bandit.service import auditing, experiments, health, killing
from bandit.service import backups as service
from bandit.service.ledger import ledger_digest
from bandit.storage import migrate
from bandit.storage.engine import connect
from bandit.storage.roles import as_application
from liveops import backups, restoring
from liveops.health import look
from liveops.restore_drill import exercise
from liveops.restoring import RestoreFailed
from liveops.wiring import App
from snapshots import backup_files
from snapshots.backup_files import LATEST, METADATA, Backup


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


# --- taking ------------------------------------------------------------------------------------


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
    from dataclasses import replace

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


# --- damage ------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


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


# --- restoring ---------------------------------------------------------------------------------


def test_the_restored_ledger_is_the_one_that_was_backed_up(
    app: App, engine: Engine, empty_url: str, restored_engine: Engine
) -> None:
    anchor = seal_and_anchor(engine)
    made = taken(app)
    trade_on(engine)
    report = restored(made, empty_url)
    assert report.digest == made.metadata["digest"] == digest_at(empty_url)
    assert report.rows == sum(made.metadata["rows"].values())
    assert auditing.ledger_id(restored_engine) == auditing.ledger_id(engine)
    # It is as guarded as it was: facts stay, and a service has a service's rights.
    with pytest.raises(Exception, match="append-only"), restored_engine.begin() as connection:
        connection.execute(text("UPDATE outcomes SET pnl = 0"))
    assert as_application(empty_url) is not None
    assert auditing.verify(restored_engine, [anchor]).findings == ()


def test_nothing_trades_on_a_restored_ledger_before_a_person_releases_it(
    app: App, empty_url: str, restored_engine: Engine
) -> None:
    made = taken(app)
    restored(made, empty_url)
    with pytest.raises(Killed):
        assign(restored_engine, ["next"])
    [account] = killing.states(restored_engine)
    assert account.newest is not None
    assert made.name in account.newest.reason
    # Not even the rule that ends a day's loss with its day lets it go on.
    later = TAKEN + timedelta(days=9)
    assert killing.release_due(restored_engine, rule=DailyLossRelease.NEXT_DAY, now=later) == []
    killing.release(restored_engine, None, reason="checked", now=later, actor="ann")
    assert assign(restored_engine, ["next"], now=later)


def test_what_the_newest_state_knows_as_stopped_is_stopped(
    app: App, engine: Engine, empty_url: str, restored_engine: Engine
) -> None:
    made = taken(app)
    change(engine, ArmVerb.HALT)
    killing.kill(engine, None, cause=KillCause.DAILY_LOSS, reason="4 %", now=TAKEN, actor="rule")
    app = later(app, minutes=30)
    known = taken(app, BackupKind.STATE)
    report = restored(made, empty_url)
    assert report.known_from == known.name
    assert report.tightened.left == ()
    held = experiments.load(restored_engine, "btc")
    assert {arm.place.policy: arm.place.status for arm in held.arms}[CHALLENGER] == "halted"
    [account] = killing.states(restored_engine)
    assert account.newest is not None
    assert "daily_loss" in account.newest.reason
    assert account.newest.reason.endswith("4 %")
    assert account.newest.cause is KillCause.HAND


def later(app: App, *, minutes: int) -> App:
    clock = app.clock
    clock.advance_to(TAKEN + minutes * MINUTE)  # type: ignore[attr-defined]
    return app


def test_an_arm_that_is_stricter_than_the_state_knows_stays_so(
    app: App, engine: Engine, empty_url: str, restored_engine: Engine
) -> None:
    change(engine, ArmVerb.HALT)
    made = taken(app)
    change(engine, ArmVerb.RESUME)
    taken(later(app, minutes=30), BackupKind.STATE)
    restored(made, empty_url)
    held = experiments.load(restored_engine, "btc")
    assert {arm.place.policy: arm.place.status for arm in held.arms}[CHALLENGER] == "halted"


def test_a_champion_that_was_halted_later_is_named_and_its_account_killed(
    app: App, engine: Engine, empty_url: str, restored_engine: Engine
) -> None:
    made = taken(app)
    promote(engine)
    change(engine, ArmVerb.HALT, "prod")
    taken(later(app, minutes=30), BackupKind.STATE)
    [left] = restored(made, empty_url).tightened.left
    assert left.startswith("prod of btc was halted")
    with pytest.raises(Killed):
        assign(restored_engine, ["next"])


def test_after_a_restore_a_mismatch_blocks_what_would_open(
    app: App, engine: Engine, empty_url: str, restored_engine: Engine
) -> None:
    hear(engine, 0)
    made = taken(app)
    # Decided, claimed and opened after the backup: the restored ledger has never heard of it.
    [stray] = opened(engine, "after-the-backup", now=TAKEN)
    report = restored(made, empty_url)
    assert report.bots == ("alpha",)
    killing.release(restored_engine, None, reason="checked", now=TAKEN, actor="ann")
    # The bot was not restarted: still its next heartbeat counts as the first.
    hear(restored_engine, 5, stray.id)
    assert state(restored_engine) is ReconciliationState.BLOCKED
    with pytest.raises(Unreconciled, match="unknown"):
        assign(restored_engine, ["next"], now=TAKEN)


def hear(engine: Engine, minutes: int, *held: object) -> None:
    at = TAKEN + minutes * MINUTE
    told = beat(
        sent_at=at,
        account="usd",
        positions=tuple(held),
        open_positions=len(held),
        started_at=NOON,
    )
    health.hear(engine, told, now=at, window=10 * MINUTE)


def test_a_database_that_holds_anything_is_refused(
    app: App, engine: Engine, database_url: str, empty_url: str, restored_engine: Engine
) -> None:
    made = taken(app)
    before = ledger_digest(engine)
    with pytest.raises(RestoreRefused, match="not empty"):
        restored(made, database_url)
    assert ledger_digest(engine) == before
    assert not killing.states(engine)[0].is_killed
    with restored_engine.begin() as connection:
        connection.execute(text("CREATE TYPE somebodys AS (n integer)"))
    with pytest.raises(RestoreRefused, match="not empty"):
        restored(made, empty_url)


def test_a_second_restore_is_refused_and_halts_nothing_again(
    app: App, empty_url: str, restored_engine: Engine
) -> None:
    made = taken(app)
    restored(made, empty_url)
    killing.release(restored_engine, None, reason="checked", now=TAKEN, actor="ann")
    with pytest.raises(RestoreRefused, match="not empty"):
        restored(made, empty_url)
    assert not killing.states(restored_engine)[0].is_killed


def test_rows_that_went_missing_are_noticed_before_anything_is_visible(
    app: App, empty_url: str
) -> None:
    made = taken(app)
    rows = made.metadata["rows"]
    forged = Backup(
        path=made.path,
        kind=made.kind,
        taken_at=made.taken_at,
        metadata={**made.metadata, "rows": rows | {"public.outcomes": 61}},
    )
    with pytest.raises(RestoreFailed, match="outcomes has other rows than the 61"):
        restored(forged, empty_url)
    assert migrate.current(empty_url) is None


def test_another_digest_is_noticed_and_everything_is_killed(
    app: App, empty_url: str, restored_engine: Engine
) -> None:
    made = taken(app)
    forged = Backup(
        path=made.path,
        kind=made.kind,
        taken_at=made.taken_at,
        metadata={**made.metadata, "digest": "0" * 64},
    )
    for _ in range(2):
        with pytest.raises(RestoreFailed, match="digest"):
            restored(forged, empty_url)
    assert killing.states(restored_engine)[0].is_killed


def test_a_schema_that_this_release_does_not_know_is_refused(app: App, empty_url: str) -> None:
    made = taken(app)
    newer = Backup(
        path=made.path,
        kind=made.kind,
        taken_at=made.taken_at,
        metadata={**made.metadata, "schema": "9999"},
    )
    with pytest.raises(RestoreRefused, match="schema 9999"):
        restored(newer, empty_url)


def test_a_state_backup_stops_the_ledger_there_is(app: App, engine: Engine) -> None:
    change(engine, ArmVerb.HALT)
    known = taken(app, BackupKind.STATE)
    change(engine, ArmVerb.RESUME)
    for changed in (f"{CHALLENGER} of btc is halted",), ():
        stopped = restoring.halt_as_known(
            engine, known, now=TAKEN + MINUTE, actor="test", say=quiet
        )
        assert stopped.done == changed
    assert killing.states(engine)[0].is_killed
    with pytest.raises(RestoreRefused, match="holds no ledger"):
        restored(known, "postgresql+psycopg://nobody@127.0.0.1:1/nothing")


def test_a_state_of_another_ledger_stops_nothing(app: App, postgres_server: PostgresServer) -> None:
    known = taken(app, BackupKind.STATE)
    with postgres_server.database() as url:
        other = connect(url)
        open_btc(other)
        with other.begin() as connection:  # a copy of the same template has the same identity
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("UPDATE ledger_identity SET id = md5('other')::uuid"))
        with pytest.raises(BackupDamaged, match="is of ledger"):
            restoring.halt_as_known(other, known, now=TAKEN, actor="test", say=quiet)
        assert not killing.states(other)[0].is_killed
        other.dispose()


# --- health ------------------------------------------------------------------------------------


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
    from liveops.health import seen

    assert look(app) is not None
    return [issue.condition.value for issue in seen(app).health.issues]


def test_backups_can_be_moved_and_still_be_restored(
    app: App, empty_url: str, tmp_path: Path
) -> None:
    made = taken(app)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(made.path, elsewhere / made.name)
    found = backups.found(elsewhere, LATEST)
    assert restored(found, empty_url).digest == made.metadata["digest"]


# --- the drill ---------------------------------------------------------------------------------


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
