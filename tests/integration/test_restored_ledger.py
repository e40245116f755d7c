"""A ledger that was restored from before its newest anchors does not trade by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from audit_log import anchoring_app
from ledger import NOON, assign, open_btc
from sqlalchemy import Engine, make_url, text

from bandit.core.audit_chain import anchor_of
from bandit.core.errors import Killed
from bandit.core.kill_switch import KillCause
from bandit.service import auditing, killing
from bandit.storage.engine import connect
from liveops.anchors import AnchorsUnreadable, anchor_file
from liveops.kill_watch import look
from liveops.latch import Latch
from liveops.sealer import Sealer, sealing
from liveops.wiring import App

Restore = Callable[[], None]


@pytest.fixture
def restore(engine: Engine, database_url: str) -> Iterator[tuple[Restore, Restore]]:
    """Two calls: keep a copy of the ledger as it is, and put that copy back in its place."""
    here = make_url(database_url)
    copy = f"{here.database}_copy"
    owner = connect(here.set(database="postgres").render_as_string(hide_password=False))

    def run(*statements: str) -> None:
        engine.dispose()
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.execute(text(statement))

    def keep() -> None:
        run(f"CREATE DATABASE {copy} TEMPLATE {here.database}")

    def put_back() -> None:
        run(f"DROP DATABASE {here.database} WITH (FORCE)",
            f"CREATE DATABASE {here.database} TEMPLATE {copy}")  # fmt: skip

    yield keep, put_back
    run(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")
    owner.dispose()


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    return replace(anchoring_app(engine, tmp_path), latch=Latch(tmp_path / "KILLED"))


def test_kill_that_a_restored_ledger_forgot_still_holds(
    app: App, restore: tuple[Restore, Restore], caplog: pytest.LogCaptureFixture
) -> None:
    keep, put_back = restore
    with sealing(app):
        open_btc(app.engine)
    keep()
    with sealing(app):
        killing.kill(app.engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    put_back()
    # The row is gone; by itself the ledger would trade.
    assert assign(app.engine, ["before-the-service"])
    with caplog.at_level(logging.ERROR, logger="liveops.sealer"), sealing(app):
        # Known before the first request is served.
        with pytest.raises(Killed):
            app.latch.require_open()
        look(app)
        with pytest.raises(Killed):
            assign(app.engine, ["after"])
    assert "not the one that was anchored" in caplog.text
    [account] = killing.states(app.engine)
    assert account.is_killed
    assert account.newest is not None
    assert "as after a restore" in account.newest.reason
    # A person looks at it and lets it go on; it is not stopped for the same a second time.
    killing.release(app.engine, None, reason="checked", now=NOON + timedelta(1), actor="test")
    app.latch.clear()
    with sealing(app):
        assert not app.latch.is_set()
        assert assign(app.engine, ["released"])


def test_ledger_that_lost_nothing_goes_on(app: App, restore: tuple[Restore, Restore]) -> None:
    keep, put_back = restore
    with sealing(app):
        open_btc(app.engine)
    keep()
    put_back()
    with sealing(app):
        assert not app.latch.is_set()
    assert assign(app.engine, ["u"])


def test_ledger_restored_under_a_running_service_is_killed(
    app: App, restore: tuple[Restore, Restore]
) -> None:
    keep, put_back = restore
    sealer = Sealer(app)
    open_btc(app.engine)
    sealer.seal()
    keep()
    assign(app.engine, ["u"])
    sealer.seal()
    assert not app.latch.is_set()
    put_back()
    sealer.seal()
    assert app.latch.is_set()


def test_another_host_does_not_stop_again_what_a_person_let_go_on(
    app: App, restore: tuple[Restore, Restore], tmp_path: Path
) -> None:
    keep, put_back = restore
    spare = replace(anchoring_app(app.engine, tmp_path / "spare"), latch=Latch(tmp_path / "SPARE"))
    with sealing(app):
        open_btc(app.engine)
    keep()
    with sealing(spare):
        assign(app.engine, ["seen-by-the-spare"])
    with sealing(app):
        assign(app.engine, ["seen-by-one"])
    put_back()
    with sealing(app):
        assert app.latch.is_set()
    app.latch.clear()
    with sealing(spare):
        assert not spare.latch.is_set()
    # The next restore is news again.
    with sealing(spare):
        for number in range(9):
            assign(app.engine, [f"after-{number}"])
    put_back()
    with sealing(spare):
        assert spare.latch.is_set()


def test_ledger_whose_whole_log_is_gone_is_killed(app: App) -> None:
    with sealing(app):
        open_btc(app.engine)
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM audit_seals"))
        connection.execute(text("DELETE FROM audit_log"))
    with sealing(app):
        assert app.latch.is_set()


def test_older_anchor_that_was_written_last_hides_no_newer_one(app: App) -> None:
    open_btc(app.engine)
    first = auditing.seal(app.engine, now=NOON)
    assign(app.engine, ["u"])
    second = auditing.seal(app.engine, now=NOON)
    assert first is not None
    assert second is not None
    # Of two services the slower one anchors what it saw.
    for seal in (second, first):
        anchor_file(app).append(anchor_of(seal))
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("DELETE FROM audit_seals WHERE sequence = :last"), {"last": second.sequence}
        )
    Sealer(app).compare()
    assert app.latch.is_set()


def test_service_does_not_start_on_anchors_that_it_cannot_read(app: App) -> None:
    open_btc(app.engine)
    file = anchor_file(app)
    file.path.mkdir()
    with pytest.raises(AnchorsUnreadable), sealing(app):
        raise AssertionError("it started")
