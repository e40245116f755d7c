"""Replicas learn of each other's changes: told at once, else by asking, and after a lost link."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from api_service import application
from ledger import change, open_btc
from sqlalchemy import Engine, text

from bandit.core.lifecycle import ArmVerb
from bandit.service.assigning import Router
from bandit.storage import changes
from liveops import following
from liveops.following import following_changes

PATIENCE_SECONDS = 60


@pytest.fixture
def router(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """What a replica remembers that follows changes, and never asks for them by itself."""
    monkeypatch.setattr(following, "POLL_SECONDS", 1e9)
    open_btc(engine)
    app = application(engine)
    app.router.table("btc")
    with following_changes(app):
        yield app.router


def wait_for_epoch(router: Router, epoch: int) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 50):
        if router.table("btc").record.epoch == epoch:
            return
        pause.wait(0.02)
    raise AssertionError(f"epoch {router.table('btc').record.epoch}, expected {epoch}")


def wait_for_listener(engine: Engine) -> int:
    """Return the process id of the session that listens."""
    statement = text(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'liveops-listener'"
        " AND datname = current_database() AND query LIKE 'SELECT name%'"
    )
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 50):
        with engine.connect() as connection:
            found = connection.execute(statement).scalar_one_or_none()
        if found is not None:
            return int(found)
        pause.wait(0.02)
    raise AssertionError("nobody listens")


def test_change_elsewhere_is_told(engine: Engine, router: Router) -> None:
    wait_for_listener(engine)
    change(engine, ArmVerb.HALT)
    wait_for_epoch(router, 2)
    change(engine, ArmVerb.RESUME)
    wait_for_epoch(router, 3)


def test_change_that_nobody_told_is_found_by_asking(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_btc(engine)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(changes, "STOP_SECONDS", 0.01)
    monkeypatch.setattr(changes, "CHANNEL", "nobody_tells")
    app = application(engine)
    app.router.table("btc")
    with following_changes(app):
        wait_for_listener(engine)
        change(engine, ArmVerb.HALT)
        wait_for_epoch(app.router, 2)


def test_change_during_a_lost_connection_is_found_afterwards(
    engine: Engine, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.05)
    listener = wait_for_listener(engine)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": listener})
    change(engine, ArmVerb.HALT)
    wait_for_epoch(router, 2)
    assert wait_for_listener(engine) != listener
