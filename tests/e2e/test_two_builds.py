"""Two builds that decide by different rules stand on one ledger, and one of them decides (F20)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from bots import trading
from commands import REPOSITORY, free_port, running, wait_for
from sqlalchemy import Engine, make_url

from bandit.storage import locks
from bandit.storage.engine import PROTOCOL, transaction
from benchmarks.operation_check import Snapshot, faults
from benchmarks.operation_log import Phase, Verb
from benchmarks.temporary_ledger import EXPERIMENT, INSTRUMENT, open_experiment

NEWER = PROTOCOL + 1
ASSIGN = f"/v1/experiments/{EXPERIMENT}/assignments"


@dataclass(kw_only=True)
class Builds:
    """The addresses of both builds, and the ledger that they share."""

    older: str
    newer: str
    ledger: psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def newer_source(tmp_path: Path) -> Path:
    """A copy of the product that speaks the next decision protocol."""
    copy = tmp_path / "source"
    for package in ("alerts", "bandit", "config", "learners", "liveops", "migrations", "snapshots"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, copy / package, ignore=ignored)
    engine = copy / "bandit" / "storage" / "engine.py"
    text, changed = re.subn(r"(?m)^PROTOCOL = .*$", f"PROTOCOL = {NEWER}", engine.read_text())
    assert changed == 1
    engine.write_text(text)
    return copy


@pytest.fixture
def builds(
    engine: Engine, database_url: str, tmp_path: Path, newer_source: Path
) -> Iterator[Builds]:
    open_experiment(engine, challenger_ppm=100_000)
    plain = make_url(database_url).set(drivername="postgresql")
    with (
        psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as ledger,
        ExitStack() as stack,
    ):
        urls, starting = [], []
        for name, source in (("old", {}), ("new", {"PYTHONPATH": str(newer_source)})):
            port, log = str(free_port()), tmp_path / f"{name}.log"
            shared = {"LIVEOPS_DATABASE_URL": database_url, **source}
            serving = running("serve", "--port", port, home=tmp_path / name, log=log, **shared)
            starting.append((log, stack.enter_context(serving)))
            urls.append(f"http://127.0.0.1:{port}")
        for log, process in starting:
            wait_for("serving http", log, process)
        yield Builds(older=urls[0], newer=urls[1], ledger=ledger)


def assigned_since(builds: Builds, name: str, moment: Snapshot) -> int:
    """How many units of a build's bots were committed after `moment`, by the ledger alone."""
    statement = "SELECT xmin::text FROM assignments WHERE unit_id LIKE %s || '-%%'"
    found = builds.ledger.execute(statement, [name]).fetchall()
    return sum(not moment.sees(int(str(xid))) for (xid,) in found)


def speak_newer(builds: Builds, engine: Engine) -> Snapshot:
    """Let the ledger ask for the newer protocol; return the moment from which it alone is spoken.

    A batch that was under way then had been asked before: whoever takes the gate waits for it.
    """
    builds.ledger.execute("UPDATE decision_protocol SET version = %s", [NEWER])
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, 1)
    [moment] = builds.ledger.execute("SELECT pg_current_snapshot()::text").fetchone() or [""]
    return Snapshot.of(str(moment))


def require_refused(url: str, detail: str) -> None:
    """Hold what a build says that may not decide."""
    asked = {"unit_id": "asked", "instrument": INSTRUMENT}
    for refused in (httpx.post(url + ASSIGN, json=asked), httpx.get(f"{url}/ready")):
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (503, "foreign_protocol")
        assert problem["detail"] == detail
    health = httpx.get(f"{url}/health")
    assert (health.status_code, health.json()["issues"]) == (503, [detail])


def test_only_the_build_that_speaks_the_ledgers_protocol_decides(
    builds: Builds, engine: Engine
) -> None:
    with trading({"old": builds.older, "new": builds.newer}) as bots:
        bots.await_more(Phase.OK, 5, name="old")
        bots.await_more(Phase.UNKNOWN, 5, name="new")
        require_refused(
            builds.newer, f"this process speaks decision protocol {NEWER}, the ledger {PROTOCOL}"
        )
        assert httpx.get(f"{builds.older}/ready").status_code == 200

        moment = speak_newer(builds, engine)
        bots.await_more(Phase.UNKNOWN, 20, name="old")
        bots.await_more(Phase.OK, 20, Verb.ASSIGN, name="new")
        require_refused(
            builds.older, f"this process speaks decision protocol {PROTOCOL}, the ledger {NEWER}"
        )
        assert httpx.get(f"{builds.newer}/ready").status_code == 200
        # The older takes no decision any more, and still takes risk away.
        halt = f"{builds.older}/v1/experiments/{EXPERIMENT}/arms/challenger/halt"
        assert httpx.post(halt, json={"reason": "drill"}).status_code == 200
        bots.abandon.set()  # whoever is refused asks for ever
    assert assigned_since(builds, "old", moment) == 0
    # The control: the same count of the newer one, which went on.
    assert assigned_since(builds, "new", moment) >= 20
    refused = [e.answer for e in bots.entries("old") if e.phase is Phase.UNKNOWN]
    assert all('"code":"foreign_protocol"' in answer for answer in refused)
    assert faults(bots.entries(), builds.ledger) == []
