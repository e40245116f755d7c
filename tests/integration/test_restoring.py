"""What comes back from a backup is the ledger that was backed up, stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from audit_log import anchoring_app, seal_and_anchor
from backed_up import (
    MINUTE,
    TAKEN,
    backing_up,
    digest_at,
    later,
    live,
    quiet,
    restored,
    taken,
    trade_on,
)
from ledger import CHALLENGER, NOON, assign, change, open_btc, promote
from postgres_server import PostgresServer
from reconciled_ledger import opened, state
from sqlalchemy import Engine, text
from vitals import beat

from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused
from bandit.core.errors import Killed, Unreconciled
from bandit.core.kill_switch import DailyLossRelease, KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.reconciling import ReconciliationState
from bandit.service import auditing, experiments, health, killing
from bandit.service.ledger import ledger_digest
from bandit.storage import migrate
from bandit.storage.engine import connect
from bandit.storage.roles import as_application
from liveops import backups, restoring
from liveops.latch import Latch
from liveops.restoring import RestoreFailed
from liveops.sealer import sealing
from liveops.wiring import App
from snapshots.backup_files import LATEST, Backup


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


def test_anchors_that_are_newer_than_the_backup_set_the_latch_of_the_service(
    app: App, engine: Engine, restored_engine: Engine, empty_url: str, tmp_path: Path
) -> None:
    made = taken(app)
    with sealing(anchoring_app(engine, tmp_path / "anchors")):
        trade_on(engine)
    restored(made, empty_url)
    latch = Latch(tmp_path / "KILLED")
    serves = replace(anchoring_app(restored_engine, tmp_path / "anchors"), latch=latch)
    with sealing(serves):
        assert latch.is_set()
    # A person looks at both, and is not stopped for the same a second time.
    killing.release(restored_engine, None, reason="checked", now=TAKEN, actor="ann")
    latch.clear()
    with sealing(serves):
        assert not latch.is_set()
        assert assign(restored_engine, ["next"], now=TAKEN)


def test_backups_can_be_moved_and_still_be_restored(
    app: App, empty_url: str, tmp_path: Path
) -> None:
    made = taken(app)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(made.path, elsewhere / made.name)
    found = backups.found(elsewhere, LATEST)
    assert restored(found, empty_url).digest == made.metadata["digest"]
