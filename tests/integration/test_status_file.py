"""The status file: whole at every moment, in step with the level, whatever the ledger does."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_service import application
from fault_proxy import FaultProxy
from ledger import NOON, feed, open_btc
from sdk_bot import eventually
from sqlalchemy import Engine, make_url, text
from vitals import beat

from bandit.core.kill_switch import KillCause
from bandit.service import health, killing
from bandit.storage.engine import connect
from liveops import status_file as module
from liveops.cli import exit_code, health_app, status_app
from liveops.clock import VirtualClock
from liveops.latch import Latch
from liveops.ledger_server import status_file
from liveops.status_file import StatusKeeper, keeping_status_file
from liveops.status_reading import StatusUnknown, read_status
from liveops.wiring import App

WINDOW = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)


class Kept:
    """A keeper under a clock that is moved by hand."""

    def __init__(self, engine: Engine, folder: Path, **operations: Any) -> None:
        self.clock = VirtualClock(NOON)
        self.latch = Latch(folder / "KILLED")
        settings = {"home": str(folder), "operations": operations}
        self.app = application(engine, clock=self.clock, latch=self.latch, settings=settings)
        self.path = status_file(self.app.settings, demo=False)
        self.keeper = StatusKeeper(self.app, self.path)

    def look(self, *, after: timedelta = timedelta(0)) -> dict[str, Any]:
        """Let time pass, look once, and return what the file says then."""
        self.clock.advance_to(self.clock.now() + after)
        self.keeper.look()
        found: dict[str, Any] = json.loads(self.path.read_bytes())
        return found


@pytest.fixture
def kept(engine: Engine, tmp_path: Path) -> Kept:
    open_btc(engine)
    return Kept(engine, tmp_path)


def hear(engine: Engine, at: datetime, **fields: Any) -> None:
    told = beat(sent_at=at, **fields)
    health.hear(engine, told, now=at, window=WINDOW)


def kill(engine: Engine, reason: str = "drill") -> None:
    killing.kill(engine, None, cause=KillCause.HAND, reason=reason, now=NOON, actor="test")


def test_the_file_lies_under_home_where_the_documents_look(kept: Kept, tmp_path: Path) -> None:
    assert kept.path == tmp_path / "logs" / "bot_status.json"
    told = kept.look()
    assert (told["health_status"], told["issues"], told["warnings"]) == ("HEALTHY", [], [])
    assert told["metrics"]["performance_guard_status"] == "NORMAL"
    assert told["metrics"]["open_positions"] is None
    assert told["written_at"] == NOON.isoformat()
    assert [path.name for path in kept.path.parent.iterdir()] == ["bot_status.json"]


def test_an_absolute_path_stays_and_the_demo_has_its_own(engine: Engine, tmp_path: Path) -> None:
    chosen = tmp_path / "elsewhere" / "status.json"
    settings = application(
        engine, settings={"operations": {"status_file_path": str(chosen)}}
    ).settings
    assert status_file(settings, demo=False) == chosen
    assert status_file(settings, demo=True) == chosen.with_name("status.json.demo")


def test_it_is_written_each_interval_and_at_once_when_the_level_changes(
    engine: Engine, kept: Kept
) -> None:
    assert kept.look()["written_at"] == NOON.isoformat()
    hear(engine, NOON)
    # Nothing changed for the level: the interval decides.
    assert kept.look(after=MINUTE)["bots"] == []
    hear(engine, NOON + 5 * MINUTE, running=False)
    assert kept.look(after=MINUTE)["written_at"] == (NOON + 2 * MINUTE).isoformat()
    assert kept.look(after=MINUTE)["written_at"] == (NOON + 2 * MINUTE).isoformat()
    later = kept.look(after=4 * MINUTE)
    assert later["written_at"] == (NOON + 7 * MINUTE).isoformat()
    assert later["health_status"] == "UNHEALTHY"


def test_changes_are_logged_once_with_the_phrases_operators_grep(
    engine: Engine, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO, logger="liveops.status_file"):
        kept.look()
        assert said() == []  # healthy from the start is no news
        kill(engine)
        for _ in range(3):
            kept.look(after=MINUTE)
        assert said() == ["[ALERT] health DEGRADED", "Trading halted"]
        kill(engine, "another reason")
        kept.look()
        assert said() == ["Trading halted"]
        hear(engine, kept.clock.now(), api_connected=False)
        kept.look()
        assert said() == ["[ALERT] health UNHEALTHY"]
        health.forget(engine, "alpha", reason="sold", now=NOON, actor="test")
        killing.release(engine, None, reason="over", now=NOON, actor="test")
        told = kept.look()
        assert said() == ["[ALERT] health HEALTHY", "Trading resumed"]
        kept.latch.set(reason="drill", actor="ann", now=NOON)
        kept.look()
        assert said() == ["[ALERT] health DEGRADED", "Trading halted"]
    texts = [alert["text"] for alert in told["recent_alerts"]]
    assert [text.partition(":")[0] for text in texts] == [
        "[ALERT] health DEGRADED",
        "[ALERT] health UNHEALTHY",
        "[ALERT] health HEALTHY",
    ]
    assert "drill" in texts[0]


def test_alerts_of_an_earlier_run_are_kept_up_to_twenty(engine: Engine, kept: Kept) -> None:
    for _ in range(15):
        kill(engine)
        kept.look(after=MINUTE)
        killing.release(engine, None, reason="over", now=NOON, actor="test")
        kept.look(after=MINUTE)
    before = json.loads(kept.path.read_bytes())["recent_alerts"]
    assert len(before) == 20
    kept.keeper = StatusKeeper(kept.app, kept.path)
    assert kept.look()["recent_alerts"] == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"written_at": 1}'])
def test_whatever_lay_there_before_is_replaced(kept: Kept, content: bytes) -> None:
    kept.path.parent.mkdir()
    kept.path.write_bytes(content)
    with pytest.raises(StatusUnknown):
        read_status(kept.path)
    assert kept.look()["recent_alerts"] == []


def test_a_place_that_cannot_be_written_loses_no_alert(
    engine: Engine, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.path.mkdir(parents=True)  # a folder stands in its place
    kill(engine)
    with caplog.at_level(logging.INFO, logger="liveops.status_file"):
        for _ in range(2):
            with pytest.raises(Exception, match="was not written"):
                kept.keeper.look()
    assert [r.getMessage() for r in caplog.records] == ["[ALERT] health DEGRADED", "Trading halted"]
    kept.path.rmdir()
    assert len(kept.look()["recent_alerts"]) == 1


def test_readers_never_see_half_a_file_while_two_services_write_it(tmp_path: Path) -> None:
    """Two processes, as two services of one host are, and a reader that never rests."""
    target = tmp_path / "bot_status.json"
    target.write_text(json.dumps({"filler": ""}))
    script = (
        "import json, os, sys, pathlib\n"
        "from liveops.whole_files import write_whole\n"
        "for n in range(400):\n"
        "    text = json.dumps({'filler': sys.argv[2] * (n * 500)})\n"
        "    own = f'{os.getpid()}.part'\n"
        "    write_whole(pathlib.Path(sys.argv[1]), text.encode(), part_suffix=own)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(target), letter]) for letter in "ab"
    ]
    sizes = set()
    while any(writer.poll() is None for writer in writers):
        found = json.loads(target.read_bytes())["filler"]
        assert len(set(found)) <= 1
        sizes.add(len(found))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(sizes) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["bot_status.json"]


@contextmanager
def through_a_proxy(database_url: str) -> Iterator[tuple[Engine, FaultProxy]]:
    there = make_url(database_url)
    socket = f"{there.query['host']}/.s.PGSQL.{there.query['port']}"
    with FaultProxy(target=socket).running() as proxy:
        through = there.set(host="127.0.0.1", port=proxy.port)
        url = through.difference_update_query(["host", "port"])
        engine = connect(url.render_as_string(hide_password=False))
        yield engine, proxy
        engine.dispose()


def level_in(path: Path) -> str:
    try:
        return read_status(path).level.value
    except StatusUnknown:
        return "none"


def restart(engine: Engine, proxy: FaultProxy) -> Callable[[], None]:
    """The server ends every session and lets nobody in."""
    proxy.is_refusing = True
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )

    def back() -> None:
        proxy.is_refusing = False

    return back


def swallow(_: Engine, proxy: FaultProxy) -> Callable[[], None]:
    """The network says nothing any more."""
    proxy.is_black_hole = True

    def back() -> None:
        proxy.is_black_hole = False
        proxy.cut()

    return back


@pytest.mark.parametrize("fault", [restart, swallow])
def test_the_loop_outlives_its_ledger_and_stops_when_it_is_told(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Engine, FaultProxy], Callable[[], None]],
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.05)
    open_btc(engine)
    settings = {"home": str(tmp_path)}
    with through_a_proxy(database_url) as (behind, proxy):
        app: App = application(behind, settings=settings)
        path = status_file(app.settings, demo=False)
        with keeping_status_file(app):
            eventually(lambda: level_in(path) == "HEALTHY")
            back = fault(engine, proxy)
            eventually(lambda: level_in(path) == "UNHEALTHY")
            assert read_status(path).document["findings"][0]["code"] == "ledger_unready"
            assert read_status(path).document["trading"]["halted"] is None
            back()
            eventually(lambda: level_in(path) == "HEALTHY")
        assert "status-file" not in {thread.name for thread in threading.enumerate()}
    assert level_in(path) == "HEALTHY"


def run(entry: Any, folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("LIVEOPS_HOME", str(folder))
    return exit_code(entry, arguments)


def rewritten(path: Path, **fields: Any) -> None:
    document = json.loads(path.read_bytes()) | fields
    path.write_text(json.dumps(document))


def test_the_commands_print_what_the_documents_scripts_print(
    engine: Engine,
    kept: Kept,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = feed(engine, "prod", ["-0.1"])
    kept.clock.advance_to(now)
    hear(engine, now, open_positions=2)
    kept.look()
    kill(engine)
    kept.look()
    rewritten(kept.path, written_at=datetime.now(tz=NOON.tzinfo).isoformat())
    assert run(status_app, tmp_path, monkeypatch=monkeypatch) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "=== Bot Status ==="
    assert said[1].startswith("health: DEGRADED, written ")
    assert "warning: account usd is killed (hand): drill" in said
    for line in (
        "performance guard: NORMAL",
        "open positions: 2",
        "trading halted: true",
        "equity: 9900.0 USD",
        "daily pnl: -100.0 USD",
        "max drawdown: 0.01",
        "=== Recent Alerts ===",
        "=== Recent Trades ===",
    ):
        assert line in said
    assert [line for line in said if "[ALERT] health DEGRADED" in line]
    [trade] = [line for line in said if "Closed position" in line]
    assert "prod of btc: -100" in trade
    for entry in (health_app, status_app):
        assert run(entry, tmp_path, "--json", monkeypatch=monkeypatch) == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["health_status"], told["stale"]) == ("DEGRADED", False)
        assert told["warnings"] == ["account usd is killed (hand): drill"]


@pytest.mark.parametrize(
    ("level", "age_seconds", "code"),
    [
        ("HEALTHY", 0, 0),
        ("DEGRADED", 0, 1),
        ("UNHEALTHY", 0, 2),
        ("HEALTHY", 590, 0),
        ("HEALTHY", 601, 2),
        ("DEGRADED", 601, 2),
        ("HEALTHY", -299, 0),
        ("HEALTHY", -330, 2),
    ],
)
def test_exit_codes_by_level_and_age(
    kept: Kept,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    age_seconds: int,
    code: int,
) -> None:
    kept.look()
    written = datetime.now(tz=NOON.tzinfo) - timedelta(seconds=age_seconds)
    rewritten(kept.path, health_status=level, written_at=written.isoformat())
    for entry in (status_app, health_app):
        for arguments in ((), ("--json",)):
            assert run(entry, tmp_path, *arguments, monkeypatch=monkeypatch) == code


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"written_at": "now"}', b'{"health_status": "FINE"}']
)
def test_a_missing_or_foreign_file_exits_2_and_says_so(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    path = tmp_path / "logs" / "bot_status.json"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    for entry in (status_app, health_app):
        assert run(entry, tmp_path, monkeypatch=monkeypatch) == 2
        said = capsys.readouterr()
        assert "status_unknown" in said.err
        assert said.out == ""


def test_a_file_that_lacks_its_parts_exits_2(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.look()
    now = datetime.now(tz=NOON.tzinfo).isoformat()
    rewritten(kept.path, written_at=now, metrics=[], issues=None)
    for entry in (status_app, health_app):
        assert run(entry, tmp_path, monkeypatch=monkeypatch) == 2
    assert "not whole" in capsys.readouterr().err


@pytest.mark.real_part
def test_the_documents_script_reads_the_file_with_jq(engine: Engine, kept: Kept) -> None:
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not on PATH (Debian package jq)")
    hear(engine, NOON, open_positions=2)
    kept.look()
    filters = ".health_status, .metrics.performance_guard_status, .metrics.open_positions, .issues"
    found = subprocess.run(
        [jq, "-c", filters, str(kept.path)], text=True, capture_output=True, check=True
    )
    assert found.stdout.split() == ['"HEALTHY"', '"NORMAL"', "2", "[]"]
