"""`liveops run`: the main job from the outside."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest
from commands import free_port, processes_of, running, script, wait_for

from learners.market.candles import SHIPPED_FILE

NIGHTS = "3"


def run(home: Path, *more: str) -> str:
    asked = ("run", "--nights", NIGHTS, "--no-learn", "--port", str(free_port()), *more)
    answer = script("liveops", *asked, home=home)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """State in a directory with a space in its name."""
    return tmp_path / "some where"


def test_run_replays_reports_and_ends(home: Path) -> None:
    said = run(home, "--exit")
    for expected in ("momentum-12-48", "breakout-55-200", "coin-flip", "contrarian-1", "checklist"):
        assert expected in said
    assert "/v1/experiments/paper-btcusd-" in said
    for name in ("replay.png", "replay.html"):
        assert str(home / name) in said
    assert (home / "replay.png").read_bytes().startswith(b"\x89PNG")
    assert (home / "replay.html").read_text(encoding="utf-8").count("<svg") == 2
    assert not processes_of(home), "nothing that was started stays"


def test_second_run_shows_what_was_replayed_before(home: Path) -> None:
    run(home, "--exit")
    before = script("liveops", "ledger", "digest", "--demo", home=home).stdout
    page = home / "replay.html"
    page.write_text("of an earlier replay", encoding="utf-8")
    (home / "replay.png.part").mkdir()  # in the way of the picture
    asked = ("run", "--nights", NIGHTS, "--no-learn", "--exit", "--port", str(free_port()))
    again = script("liveops", *asked, home=home)
    assert again.returncode == 0
    assert "was replayed before" in again.stderr
    assert "momentum-12-48" in again.stdout
    assert f"warning: {home / 'replay.png'} was not written" in again.stderr
    assert not (home / "replay.png").exists(), "that of the replay before is gone"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert script("liveops", "ledger", "digest", "--demo", home=home).stdout == before


def test_killed_run_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    log, port = tmp_path / "log", str(free_port())
    asked = ("run", "--nights", NIGHTS, "--no-learn", "--port", port)
    with running(*asked, home=home, log=log) as process:
        wait_for("replaying", log, process)
        process.kill()
        process.wait()
    run(home, "--exit")
    broken = script("liveops", "ledger", "digest", "--demo", home=home).stdout
    other = tmp_path / "unbroken"
    run(other, "--exit")
    assert broken == script("liveops", "ledger", "digest", "--demo", home=other).stdout


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_serving_run_stops_everything(
    home: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    log, port = tmp_path / "log", free_port()
    asked = ("run", "--nights", "1", "--no-learn", "--port", str(port))
    with running(*asked, home=home, log=log) as process:
        said = wait_for("serving; Ctrl-C", log, process)
        experiment = next(w for w in said.split("/") if w.startswith("paper-btcusd-"))
        url = f"http://127.0.0.1:{port}/v1/experiments/{experiment}/decisions"
        with urllib.request.urlopen(url, timeout=30) as answer:
            decisions = json.load(answer)
        assert decisions, "the decisions of the replayed night are explained over HTTP"
        process.send_signal(stop)
        assert process.wait(60) in (0, 130)
    assert not processes_of(home)


@pytest.mark.parametrize("serves", ["run", "serve"])
def test_what_a_replay_left_open_is_closed_by_who_serves_the_demo(
    home: Path, tmp_path: Path, serves: str
) -> None:
    log, port = tmp_path / "log", str(free_port())
    asked = ("run", "--nights", "1", "--no-learn", "--port", port)
    if serves == "serve":
        assert script("liveops", *asked, "--exit", home=home).returncode == 0
        asked = ("serve", "--demo", "--port", port)
    with running(*asked, home=home, log=log) as process:
        wait_for("Ctrl-C stops everything", log, process)
        listed = script("liveops", "experiment", "list", "--demo", "--json", home=home)
        [experiment] = json.loads(listed.stdout)
        command = ("close-all", experiment, "--demo", "--reason", "test", "--wait", "120")
        done = script("liveops", *command, home=home)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all are closed")
        assert not re.search(r"to be closed 0", done.stdout), "the replay left something open"
        url = f"http://127.0.0.1:{port}/v1/experiments/{experiment}/close-orders"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert json.load(answer) == []


def test_second_start_on_the_same_port_says_what_to_do(home: Path, tmp_path: Path) -> None:
    log, port = tmp_path / "log", str(free_port())
    asked = ("run", "--nights", "1", "--no-learn", "--port", port)
    with running(*asked, home=home, log=log) as process:
        wait_for("serving; Ctrl-C", log, process)
        second = script("liveops", *asked, "--exit", home=home)
        assert second.returncode == 1
        assert port in second.stderr
        assert "Traceback" not in second.stderr


def test_run_takes_other_candles_and_refuses_bad_ones(home: Path, tmp_path: Path) -> None:
    good = tmp_path / "eth_1h.csv"
    lines = ["time,open,high,low,close,volume"]
    price = 100.0
    for hour in range(24 * 20):
        step = 1.0 if hour % 7 < 4 else -1.1
        opened, price = price, price + step
        high, low = max(opened, price) + 0.5, min(opened, price) - 0.5
        stamp = f"2024-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z"
        lines.append(f"{stamp},{opened:.2f},{high:.2f},{low:.2f},{price:.2f},10")
    good.write_text("\n".join(lines), encoding="utf-8")
    asked = ("run", "--nights", NIGHTS, "--exit", "--port", str(free_port()))
    answer = script("liveops", *asked, "--candles", str(good), "--instrument", "ETHUSD", home=home)
    assert answer.returncode == 0
    assert "paper-ethusd-" in answer.stdout
    assert "a trained challenger takes no part" in answer.stderr, "too little to train on"
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join([*lines[:200], *lines[210:]]), encoding="utf-8")
    answer = script("liveops", "run", "--exit", "--candles", str(bad), home=home)
    assert answer.returncode == 2
    assert "gap" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_run_trains_challengers_once_and_routes_to_them(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="the learners are not installed")
    few = tmp_path / "btcusd.csv"
    with gzip.open(SHIPPED_FILE, "rt") as shipped:
        few.write_text("".join(itertools.islice(shipped, 2_200)))
    asked = ("run", "--nights", NIGHTS, "--exit", "--port", str(free_port()), "--candles", str(few))
    first = script("liveops", *asked, home=home)
    assert first.returncode == 0, first.stderr
    names = set(re.findall(r"\b(?:dqn|tabnet)-[0-9a-f]{8}\b", first.stdout))
    agent, classifier = sorted(names)
    cards = "".join(card.read_text(encoding="utf-8") for card in (home / "cards").glob("*.md"))
    for name in names:
        assert f"training {name}" in first.stderr
        assert f"# {name}\n" in cards
    shown = script("liveops", "policy", "list", "--json", "--demo", home=home)
    kinds = {policy["name"]: policy["kind"] for policy in json.loads(shown.stdout)}
    assert (kinds[agent], kinds[classifier]) == ("reinforcement", "ensemble")

    again = script("liveops", *asked, home=home)
    for name in names:
        assert f"{name} was trained before" in again.stderr
    assert "was replayed before" in again.stderr
    assert not processes_of(home)
