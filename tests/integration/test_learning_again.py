"""`liveops learn again`: a policy made anew as it was made, by a person or by the learner."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_service import application
from drift_runs import a_run, an_encoder_check
from ledger import NOON, register
from made_up_candles import HOUR, part, random_walk
from sqlalchemy import Engine

from bandit.core.learner_jobs import JobState, tonight
from bandit.core.upkeep import UpkeepAction
from bandit.service import drift, learner_jobs, policies, trials
from learners.artifact import read
from learners.market.candle_store import CandleStore, SeriesName
from liveops import cli
from liveops.clock import VirtualClock
from liveops.learner import again_command, supervised

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")

WALK = random_walk(1_800, seed=5)
SERIES = SeriesName(source="own", instrument="BTCUSD", interval=HOUR)
BARS = ("--instrument", "BTCUSD", "--train-bars", "800", "--test-bars", "250")


@pytest.fixture
def home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with stored candles, for this process and those that it starts."""
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    store = CandleStore(tmp_path / "candles")
    store.append(SERIES, part(WALK, 0, 1_500), now=datetime(2030, 1, 1, tzinfo=UTC))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    code = cli.exit_code(cli.app, ["learn", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.exit_code(cli.app, ["learn", "again", *arguments]) == 2
    return capsys.readouterr().err


def test_an_agent_is_made_anew_on_the_candles_there_are_now(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = told(capsys, "rl", "agent", *BARS, "--steps", "512", "--confidence", "0.3")
    CandleStore(home / "candles").append(
        SERIES, part(WALK, 1_500, 1_800), now=datetime(2030, 1, 1, tzinfo=UTC)
    )
    newer = told(capsys, "again", "agent", "agent_3")
    assert newer["sha"] != first["sha"]
    stored = policies.find(engine, "agent_3").policy
    assert stored.data_cutoff == WALK.closing(1_799)
    assert len(trials.listed(engine, "agent")) == 2, "it belongs to the same search"
    assert learner_jobs.recipe_of(engine, "agent_3") == learner_jobs.recipe_of(engine, "agent")
    assert "an agent has no encoder" in refused(capsys, "agent", "agent_4", "--refresh")


def test_on_the_same_candles_there_is_nothing_to_make_and_nothing_is_trained(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "rl", "agent", *BARS, "--steps", "512", "--confidence", "0.3")
    trained = sorted((home / "training").rglob("*"))
    capsys.readouterr()
    assert cli.exit_code(cli.app, ["learn", "again", "agent", "twin"]) == 1
    assert "policy 'agent' is this one already" in capsys.readouterr().err
    assert sorted((home / "training").rglob("*")) == trained
    assert [record.policy.name for record in policies.listed(engine)] == ["agent"]


def test_what_was_not_made_here_cannot_be_made_anew(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(engine, "bought", "abcdef01")
    assert "must be a policy that `liveops learn` made" in refused(capsys, "bought", "mine")


def test_the_learner_refreshes_an_encoder_at_night(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it as it runs: made by the command, asked for, and done by a process of its own."""
    old = told(
        capsys, "tabnet", "trees", *BARS, "--epochs", "1", "--horizon", "6", "--confidence", "0.3"
    )
    CandleStore(home / "candles").append(
        SERIES, part(WALK, 1_500, 1_800), now=datetime(2030, 1, 1, tzinfo=UTC)
    )
    sha = policies.find(engine, "trees").policy.sha
    run = a_run(an_encoder_check(0.41), sha=sha)
    drift.record(engine, run, now=NOON, actor="test")
    job = learner_jobs.request(
        engine,
        "trees",
        UpkeepAction.REFRESH_ENCODER,
        cause=run.run_id,
        reason="it drifted",
        now=NOON,
        actor="test",
    )
    assert job is not None
    clock = VirtualClock(tonight(NOON) + timedelta(minutes=1))
    app = application(engine, clock=clock)
    app = replace(app, settings=app.settings.model_copy(update={"home": home}))
    waiting = threading.Event()
    with supervised(app, command=again_command(config=None, demo=False)):
        for _ in range(3_000):
            [found] = learner_jobs.newest(engine)
            if found.state in (JobState.DONE, JobState.FAILED) or found.attempts > 1:
                break
            waiting.wait(0.1)
    assert (found.state, found.result, found.attempts) == (JobState.DONE, f"trees-r{job.id}", 1), (
        home / "learner" / f"{job.id}.log"
    ).read_text()
    made = read(home / "artifacts", policies.find(engine, f"trees-r{job.id}").policy.sha)
    before = read(home / "artifacts", old["sha"])
    assert made.encoder is not None
    assert before.encoder is not None
    assert made.encoder.sha != before.encoder.sha
    assert made.encoder.spec.form == before.encoder.spec.form, "it goes on from the stored one"
    assert made.encoder.spec.scaler == before.encoder.spec.scaler
    assert made.spec.training.data_to == WALK.closing(1_799)
    said = (home / "learner" / f"{job.id}.log").read_text()
    assert "training 1: begins" in said
