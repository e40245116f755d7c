"""`liveops tune`: a sweep of trials, from the command to the registered policy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_facts import fact, record
from ledger import NOON
from made_up_candles import HOUR, part, random_walk
from sqlalchemy import Engine, text
from sweeps import OPTIONS, STUDY, trials_of, written

from bandit.core.data_runs import DataStage
from bandit.core.model import PolicyKind
from bandit.core.optimization import RunState
from bandit.service import learner_jobs, optimizing, policies, trials
from config.settings import Settings
from learners import tuning
from learners.artifact import read
from learners.market.stored_series import SeriesName
from liveops import cli
from liveops.candle_import import candle_store, import_candle_file

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")


@pytest.fixture
def home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a file of candles, for this process and those that it starts."""
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    written(random_walk(1_800, seed=5), tmp_path / "BTCUSD.csv")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = cli.exit_code(cli.app, list(arguments))
    out, err = capsys.readouterr()
    assert found == code, err
    return out if code == 0 else err


def tuned(capsys: pytest.CaptureFixture[str], home: Path, *more: str) -> dict[str, Any]:
    candles = ("--candles", str(home / "BTCUSD.csv"))
    found: dict[str, Any] = json.loads(run(capsys, "tune", *OPTIONS, *candles, *more, "--json"))
    return found


def test_a_week_without_learners_has_no_sweep(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "PACKAGES", ("no-such-package",))
    assert "no-such-package is not installed" in run(capsys, "tune", code=1)
    found = json.loads(run(capsys, "tune", "--weekly", "--demo", "--json"))
    why = "no-such-package is not installed: make learners"
    assert found == {"done": [f"nothing: {why}"], "why_not": why}


def test_the_weekly_sweep_is_of_the_markets_that_the_settings_name(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weekly = ("tune", "--weekly", "--train-bars", "400", "--test-bars", "200")
    assert run(capsys, *weekly) == "nothing to do: tuning.instruments names no market\n"
    found = json.loads(run(capsys, *weekly, "--dry-run", "--json"))
    assert found["would"] == ["nothing: tuning.instruments names no market"]
    assert not (home / "tuning").exists()

    config = tmp_path / "liveops.yaml"
    config.write_text("tuning:\n  instruments: [ADA/USDT]\n  interval: 1h\n")
    named = (*weekly, "--config", str(config), "--dry-run")
    assert "ADA/USDT 1h" in run(capsys, *named, code=2)
    import_candle_file(
        candle_store(Settings.model_validate({"home": str(home)})),
        home / "BTCUSD.csv",
        instrument="ADA/USDT",
        source="file",
        allow_gaps=False,
        now=NOON,
    )
    assert ": would run 10 of 10 trials" in run(capsys, *named)
    assert "must not go with candles" in run(capsys, *named, "--instrument", "ADA/USDT", code=2)


def test_a_weekly_sweep_goes_on_where_the_bars_of_its_sunday_come_late(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home / "liveops.yaml"
    config.write_text("tuning:\n  instruments: [BTCUSD]\n  interval: 1h\n")
    store = candle_store(Settings.model_validate({"home": str(home)}))
    name = SeriesName(source="own", instrument="BTCUSD", interval=HOUR)
    walk = random_walk(1_800, seed=5)
    store.append(name, part(walk, 0, 1_500), now=NOON)
    asked = ("tune", "--weekly", *OPTIONS, "--trials", "1", "--config", str(config))
    with monkeypatch.context() as patched:
        # Broken off after it was begun, before any trial.
        patched.setitem(sys.modules, "ray", None)
        run(capsys, *asked, "--backend", "ray", code=1)
    store.append(name, part(walk, 1_500, 1_800), now=NOON)
    assert ": would run 1 of 1 trials" in run(capsys, *asked, "--dry-run")
    found = json.loads(run(capsys, *asked, "--json"))
    assert (found["state"], found["complete"]) == ("complete", 1)
    made = policies.find(engine, "tuned_20260301").policy
    assert made.data_cutoff == walk.closing(1_499), "trained on the bars of the beginning too"


def test_a_sweep_is_refused_while_a_load_of_candles_is_being_taken_back(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(engine, fact(DataStage.PAUSE, NOON))
    asked = ("tune", *OPTIONS, "--candles", str(home / "BTCUSD.csv"), "--trials", "3")

    for more in ([], ["--dry-run"]):
        assert run(capsys, *asked, *more, code=1).startswith("data_paused: the candles are being")
    assert not (home / "tuning").exists()
    assert optimizing.find(engine, STUDY) is None


def test_a_sweep_registers_its_best_and_keeps_two(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = tuned(capsys, home, "--trials", "3", "--dry-run")
    assert planned["would"][0] == "run 3 of 3 trials"
    assert not (home / "tuning").exists()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('optuna.trials')")).scalar() is None

    found = tuned(capsys, home, "--trials", "3")
    assert (found["state"], found["complete"], found["policy"]) == ("complete", 3, "tuned_20260301")
    tried = trials_of(engine)
    assert [trial["number"] for trial in tried] == [0, 1, 2]
    assert {trial["state"] for trial in tried} == {"COMPLETE"}
    ranked = sorted(tried, key=lambda trial: -float(trial["value"]))
    assert found["kept"] == [trial["number"] for trial in ranked[:2]]
    kept = sorted(path.name for path in (home / "tuning" / STUDY).iterdir())
    assert kept == sorted(f"made-{number}" for number in found["kept"])

    policy = policies.find(engine, "tuned_20260301").policy
    assert policy.kind is PolicyKind.TABNET
    assert read(home / "artifacts", policy.sha).encoder is not None
    counted = trials.listed(engine, STUDY)
    assert len(counted) == 3
    assert policy.metadata["trial"] in {trial.id for trial in counted}

    again = tuned(capsys, home, "--trials", "3")
    assert {**found, "registered": None, "done": []} == again
    assert len(trials.listed(engine, STUDY)) == 3
    assert tuned(capsys, home, "--trials", "3", "--dry-run")["would"] == []
    assert "other trials" in run(
        capsys, "tune", *OPTIONS, "--candles", str(home / "BTCUSD.csv"), "--trials", "4", code=1
    )

    said = run(capsys, "learn", "again", "tuned_20260301", "twin", code=1)
    assert "policy 'tuned_20260301' is this one already" in said, "the recipe is the whole plan"
    recipe = learner_jobs.recipe_of(engine, "tuned_20260301")
    assert recipe is not None
    assert len(recipe["options"]["tuned"]) == 21
    [told] = json.loads(run(capsys, "tune", "history", "--json"))
    assert told["parameters"] == found["parameters"]
    with engine.connect() as connection:
        statement = text("SELECT parameter, new_value FROM parameter_history WHERE study = :study")
        history = dict(connection.execute(statement, {"study": STUDY}).all())  # type: ignore[arg-type]
    assert history == found["parameters"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--date", "2999-01-01"), "--date: must be"),
        (("--backend", "spark"), "--backend: must be local or ray"),
        (("--fix", "max_daily_loss=0.2"), "must not be the capital or a limit of losses"),
        (("--fix", "stop_atr=9"), "must be a number from 1 to 4 (ATR)"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_begun(
    engine: Engine,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    assert said in run(capsys, "tune", *options, code=2)
    assert optimizing.newest(engine) == []
    assert run(capsys, "tune", "history") == "no sweep was begun\n"


def test_without_learners_it_is_said_what_is_missing(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learners.tuning.PACKAGES", ("no-such-package",))
    assert "no-such-package is not installed: make learners" in run(capsys, "tune", code=1)
    assert optimizing.newest(engine) == []


def test_without_ray_it_is_said_what_is_missing_and_the_sweep_can_go_on(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    candles = ("--candles", str(home / "BTCUSD.csv"))
    said = run(capsys, "tune", *OPTIONS, *candles, "--backend", "ray", code=1)
    assert "ray is not installed" in said
    [begun] = optimizing.newest(engine)
    assert (begun.state, begun.counts.ended) == (RunState.RUNNING, 0)


def test_ray_is_not_imported_where_nobody_asks_for_it() -> None:
    code = "import liveops.tuning, learners.backends, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
