"""`liveops data` as a person types it: exit codes, what it prints, and whom a pause refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from data_facts import fact, record
from data_nights import BARS, grow
from ledger import NOON
from sqlalchemy import Engine

from bandit.core.data_runs import NIGHT, ROLLBACK, DataStage
from bandit.service import data_runs
from learners.market.candle_store import CandleStore
from liveops import cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Types a line in a directory whose settings name two files."""
    grow(tmp_path / "files", days=20)
    feeds = "".join(
        f"    - {{instrument: {name}, files: {tmp_path / 'files' / name}.csv}}\n" for name in BARS
    )
    (tmp_path / "config.yaml").write_text(f"data:\n  feeds:\n{feeds}")
    monkeypatch.setenv("LIVEOPS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    entries = {
        "liveops": cli.app,
        "validate_data": cli.validate_app,
        "rollback_data": cli.rollback_app,
    }

    def types(line: str, *more: str) -> tuple[int, str, str]:
        program, *arguments = line.split()
        code = cli.exit_code(entries[program], [*arguments, *more])
        written = capfd.readouterr()
        return code, written.out, written.err

    return types


def test_a_night_is_run_validated_shown_and_rolled_back(command: Command, tmp_path: Path) -> None:
    planned = command("liveops data run --date 2024-01-21 --dry-run --json")
    first = command("liveops data run --date 2024-01-21 --json")
    again = command("liveops data run --date 2024-01-21")
    valid = command("validate_data --date 2024-01-21")
    shown = command("liveops data status")
    would = command("rollback_data 2024-01-21 --dry-run --reason x --json")
    back = command("rollback_data 2024-01-21 --json --reason", "bad prints")
    empty = command("liveops data validate --date 2024-01-21 --json")

    codes = [one[0] for one in (planned, first, again, valid, shown, would, back, empty)]
    assert codes == [0] * 8
    assert json.loads(planned[1])["would_do"] == [stage.value for stage in NIGHT]
    assert json.loads(first[1])["done"] == [stage.value for stage in NIGHT]
    assert again[1] == "2024-01-21 was done before\n"
    assert valid[1].endswith("2024-01-21: PASS\n")
    assert "PASS         file AAA 1h: completeness 0, at most 0.05 (24 of 24 bars" in valid[1]
    assert "can be rolled back: 2024-01-21\n" in shown[1]
    assert "2024-01-21 attempt 1 load       done" in shown[1]
    assert json.loads(would[1])["series"]["file/AAA/1h"] == {"bars": 480, "would_be": 0}
    assert json.loads(back[1])["done"] == [stage.value for stage in ROLLBACK]
    assert json.loads(empty[1])["verdict"] == "INCONCLUSIVE"
    assert CandleStore(tmp_path / "home" / "candles").series() == ()


def test_a_damaged_file_is_exit_1_and_the_status_says_why(command: Command, tmp_path: Path) -> None:
    (tmp_path / "files" / "AAA.csv").write_text("nothing\n")

    code, out, err = command("liveops data run --date 2024-01-21")

    assert (code, out) == (1, "")
    assert err.startswith("data_refused: nothing of 2024-01-21 was loaded")
    shown = command("liveops data status")[1]
    assert "2024-01-21 attempt 1 validate   failed" in shown
    assert "AAA.csv: columns: must name the time" in shown
    told = json.loads(command("liveops data status --json")[1])
    assert (told["paused"], told["can_roll_back"]) == (None, [])


def test_usage_is_exit_2_and_another_process_exit_3(command: Command, engine: Engine) -> None:
    assert command("liveops data run --date 2999-01-01")[0] == 2
    assert command("liveops data run --date tomorrow")[0] == 2
    assert command("liveops data rollback 2024-01-21")[0] == 2  # without a reason
    code, _, err = command("liveops data rollback 2024-01-21 --reason drill")
    assert (code, err.startswith("unknown_name: ")) == (2, True)
    with data_runs.alone(engine, doing="drill"):
        assert command("liveops data run --date 2024-01-21")[0] == 3


def test_a_training_is_refused_while_a_load_is_being_taken_back(
    command: Command, engine: Engine
) -> None:
    pytest.importorskip("stable_baselines3", reason="the learners are not installed")
    command("liveops data run --date 2024-01-21")
    record(engine, fact(DataStage.PAUSE, NOON))

    code, out, err = command("liveops learn rl drill --instrument AAA --steps 1")

    assert (code, out) == (1, "")
    assert "data_paused: the candles are being rolled back to before 2026-03-01" in err
    assert command("liveops data run --date 2024-01-22")[0] == 1
    assert "trainings are refused" in command("liveops data status")[1]


def test_a_pipeline_without_feeds_has_nothing_to_do(command: Command, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data:\n  feeds: []\n")

    code, out, err = command("liveops data run --date 2024-01-21 --json")

    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "date": "2024-01-21",
        "state": "idle",
        "done": [],
        "done_before": [],
        "why": "data.feeds names no series",
    }
    said = (0, "nothing to do for 2024-01-21: data.feeds names no series\n", "")
    assert command("liveops data run --date 2024-01-21") == said
    assert command("liveops data run --date 2024-01-21 --dry-run") == said
    assert command("liveops data status")[1] == "can be rolled back: nothing\n"
    assert command("validate_data --date 2024-01-21")[0] == 2
    assert command("rollback_data 2024-01-21 --reason drill")[0] == 2


def test_the_demo_has_its_own_file_and_its_own_store(
    command: Command, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The demo's database is another one; here the test's stands in for it.
    monkeypatch.setattr("liveops.ledger_server._configured", lambda url, **_: url)

    code, out, err = command("liveops data run --demo")

    assert (code, err) == (0, "")
    assert out.startswith("2019-10-17 is done: extract, validate, anomalies, transform, load")
    assert "  demo BTCUSD 1h: 16892 new bars\n" in out
    assert command("liveops data validate --demo")[1].endswith("2019-10-17: PASS\n")
    assert command("liveops candles show")[1].startswith("no candles yet")
    assert (tmp_path / "home" / "demo" / "candles" / "demo" / "BTCUSD" / "1h").is_dir()
