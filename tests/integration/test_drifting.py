"""`liveops drift`: bars after a classifier's training, held against what was frozen of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from api_service import application
from ledger import NOON, count, join, open_btc
from made_up_candles import part, random_walk
from made_up_classifier_plan import SMALL_CLASSIFIER
from made_up_policy import FEATURES, deciding
from sqlalchemy import Engine

from bandit.core.acting import ActingRules
from bandit.core.backtest import BacktestRule
from bandit.core.drift import DriftMetric
from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.model import Policy, PolicyKind, PolicyName, Verdict
from bandit.service import drift, learner_jobs, policies
from learners.challenger import ChallengerPlan
from learners.market.candle_store import SeriesName
from learners.market.candles import Candles
from learners.network import Algorithm
from learners.training_plan import Profile, TrainingPlan
from liveops import cli
from liveops.candle_import import candle_store
from liveops.clock import VirtualClock
from liveops.drifting import check_drift
from liveops.learning import ENVIRONMENT, learn
from liveops.wiring import App

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")

PLAN = ChallengerPlan(
    features=FEATURES,
    environment=ENVIRONMENT,
    training=SMALL_CLASSIFIER,
    acting=ActingRules(confidence_min=0.3, allow_ranging=True),
    train_bars=900,
    test_bars=200,
)
SHORT_EPISODES = replace(ENVIRONMENT, episode_bars=50)
WHOLE = random_walk(1_900, seed=5)
TRAINED = 1_200


def wild(candles: Candles) -> Candles:
    """The same bars, whose prices after the training move five times as far."""
    moves = np.diff(np.log(candles.close), prepend=np.log(candles.close[0]))
    moves[TRAINED:] *= 5.0
    stretch = candles.close[0] * np.exp(np.cumsum(moves)) / candles.close
    numbers = {
        name: values if name == "volume" else values * stretch
        for name, values in candles.numbers().items()
    }
    opened = np.concatenate(([numbers["open"][0]], numbers["close"][:-1]))
    numbers |= {
        "open": opened,
        "high": np.maximum(numbers["high"], opened),
        "low": np.minimum(numbers["low"], opened),
    }
    return Candles(instrument=candles.instrument, opened_at=candles.opened_at, **numbers)


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    after = WHOLE.closing(len(WHOLE) - 1) + timedelta(days=1)
    served = application(engine, clock=VirtualClock(max(NOON, after)))
    found = replace(served, settings=served.settings.model_copy(update={"home": tmp_path}))
    made(found, "trees", PLAN)
    return found


def made(app: App, name: str, plan: ChallengerPlan) -> None:
    learn(
        app,
        name=PolicyName(name),
        family="drill",
        plan=plan,
        series=[part(WHOLE, 0, TRAINED)],
        rule=BacktestRule(),
        report=lambda _: None,
        actor="test",
    )


def test_later_bars_of_the_same_market_do_not_drift_and_wilder_ones_do(app: App) -> None:
    run, is_new = check_drift(app, "trees", WHOLE, bars_max=2_000, actor="test")
    assert is_new
    assert run.window_from == WHOLE.opening(TRAINED), "nothing that it was made from"
    assert run.window_to == WHOLE.closing(len(WHOLE) - 1)
    checks = {(check.metric, check.subject): check for check in run.checks}
    metrics = {metric for metric, _ in checks}
    assert metrics == set(DriftMetric)
    assert [check.subject for check in run.checks if check.drifted] == []
    assert check_drift(app, "trees", WHOLE, bars_max=2_000, actor="test") == (run, False)
    assert [found.sha for found in drift.latest(app.engine)] == [run.sha]
    assert count(app.engine, "drift_checks") == len(run.checks)

    few, _ = check_drift(app, "trees", WHOLE, bars_max=100, actor="test")
    assert few.window_from == WHOLE.opening(len(WHOLE) - 100)


def test_bars_that_move_further_drift(app: App) -> None:
    run, _ = check_drift(app, "trees", wild(WHOLE), bars_max=2_000, actor="test")
    drifted = {check.subject for check in run.checks if check.verdict is Verdict.FAIL}
    assert "volatility_2" in drifted


def test_of_an_agent_the_features_are_frozen(app: App) -> None:
    training = TrainingPlan(
        algorithm=Algorithm.PPO,
        profile=Profile.TEXTBOOK,
        seed=3,
        total_steps=1_024,
        environments=32,
        layers=(8,),
        deadline_seconds=400.0,
    )
    made(app, "agent", replace(PLAN, environment=SHORT_EPISODES, training=training))
    run, _ = check_drift(app, "agent", WHOLE, bars_max=2_000, actor="test")
    assert {check.subject for check in run.checks} == {*FEATURES.names, "every pair of features"}
    assert [check.subject for check in run.checks if check.drifted] == []
    worse, _ = check_drift(app, "agent", wild(WHOLE), bars_max=600, actor="test")
    assert "volatility_2" in {check.subject for check in worse.checks if check.drifted}


def test_what_cannot_be_checked_is_refused(app: App, tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        check_drift(app, "nobody", WHOLE, bars_max=10, actor="test")
    with pytest.raises(InvalidInput, match=r"^candles: must have bars after 20"):
        check_drift(app, "trees", part(WHOLE, 0, TRAINED), bars_max=10, actor="test")
    bare = deciding(tmp_path / "artifacts")
    policies.register(
        app.engine,
        Policy(name=PolicyName("bare"), kind=PolicyKind.REINFORCEMENT, sha=bare.sha, metadata={}),
        now=app.clock.now(),
        actor="test",
    )
    with pytest.raises(InvalidInput, match=r"^policy: must be one of which something"):
        check_drift(app, "bare", WHOLE, bars_max=10, actor="test")


def test_every_policy_in_use_is_checked_on_the_candles_of_its_recipe(
    app: App, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that drifted, one that was not made here, one whose series is gone, one not in use."""
    engine, url = app.engine, app.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", url)
    monkeypatch.setenv("LIVEOPS_HOME", str(app.settings.home))
    made(app, "idle", replace(PLAN, training=replace(SMALL_CLASSIFIER, seed=9)))
    open_btc(engine, challengers=[("gone", "9" * 64)], now=app.clock.now())
    join(engine, "trees")
    store = candle_store(app.settings)
    name = SeriesName(source="test", instrument="BTCUSD", interval=WHOLE.interval)
    store.append(name, wild(WHOLE), now=app.clock.now())
    for policy, instrument in (("trees", WHOLE.instrument), ("gone", "ETHUSD"), ("idle", "X")):
        options = {"candles": None, "instruments": [instrument], "source": None, "interval": None}
        recipe = {"learner": "tabnet", "options": options}
        learner_jobs.keep_recipe(engine, policy, recipe, now=app.clock.now())
    cli.exit_code(cli.app, ["drift", "--all", "--json"])
    told = {row["policy"]: row for row in json.loads(capsys.readouterr().out)}
    assert sorted(told) == ["gone", "prod", "trees"]
    assert told["trees"]["drifted"]
    assert (told["trees"]["skipped"], told["trees"]["error"]) == (None, None)
    assert told["prod"]["skipped"] == "it was not made here"
    assert told["gone"]["skipped"].startswith("no series of candles is registered as 'ETHUSD'")
    assert cli.exit_code(cli.app, ["drift", "--all"]) == 0
    assert cli.exit_code(cli.app, ["drift", "trees", "--all"]) == 2
    assert cli.exit_code(cli.app, ["drift"]) == 2


def test_the_command_says_what_drifted(
    app: App,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    file = tmp_path / "wild.csv"
    found = wild(WHOLE)
    times = found.opened_at.astype("datetime64[s]").astype(str)
    rows = zip(times, *found.numbers().values(), strict=True)
    header = ",".join(["time", *found.numbers()])
    body = "\n".join(",".join(str(cell) for cell in row) for row in rows)
    file.write_text(f"{header}\n{body}\n")
    codes = []
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["drift", "trees", "--candles", str(file), *options])
        codes.append(ended.value.code)
    text, _, document = capsys.readouterr().out.partition("checks drifted\n")
    assert codes == [1, 1]
    assert "FAIL" in text
    assert "volatility_2" in text
    told = json.loads(document)
    assert any(check["verdict"] == "FAIL" for check in told["checks"])
