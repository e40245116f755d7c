"""`learn` makes a challenger whole: trial, card, artefact and policy say the same of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_service import application
from ledger import NOON, count
from made_up_candles import random_walk
from made_up_classifier_plan import SMALL_CLASSIFIER
from sqlalchemy import Engine

from bandit.core.acting import ActingRules
from bandit.core.backtest import BacktestRule
from bandit.core.errors import Conflict, ExtraMissing, InvalidInput
from bandit.core.model import PolicyKind, PolicyName, Verdict
from bandit.service import policies, trials
from learners import reinforcement
from learners.artifact import read
from learners.challenger import ChallengerPlan, data_digest
from learners.market.candle_store import CandleStore, SeriesName
from learners.market.features import FeatureSpec
from learners.network import Algorithm
from learners.policy_card import read_card
from learners.serving import ServedPolicy
from learners.training_events import DeadlinePassed
from learners.training_plan import Profile, TrainingPlan
from liveops import cli
from liveops.clock import VirtualClock
from liveops.encoding import encoder_of
from liveops.learning import ENVIRONMENT, Learned, learn
from liveops.wiring import App

pytest.importorskip("stable_baselines3", reason="the learners are not installed")

PLAN = ChallengerPlan(
    features=FeatureSpec(
        return_bars=(1,),
        volatility_bars_short=2,
        volatility_bars_long=24,
        trend_bars=(24,),
        adx_bars=5,
        rsi_bars=5,
        volume_bars=5,
    ),
    environment=replace(ENVIRONMENT, episode_bars=50),
    training=TrainingPlan(
        algorithm=Algorithm.PPO,
        profile=Profile.TEXTBOOK,
        seed=3,
        total_steps=2_048,
        environments=32,
        layers=(8,),
        deadline_seconds=400.0,
    ),
    acting=ActingRules(confidence_min=0.3, allow_ranging=True),
    train_bars=300,
    test_bars=150,
)


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    served = application(engine, clock=VirtualClock(NOON))
    return replace(served, settings=served.settings.model_copy(update={"home": tmp_path}))


def made(app: App, name: str = "first", plan: ChallengerPlan = PLAN) -> Learned:
    return learn(
        app,
        name=PolicyName(name),
        family="drill",
        plan=plan,
        series=[random_walk(900, seed=5)],
        rule=BacktestRule(),
        report=lambda _: None,
        actor="test",
    )


def test_a_challenger_is_made_whole_and_only_once(app: App, tmp_path: Path) -> None:
    learned = made(app)

    stored = policies.find(app.engine, "first").policy
    assert stored == learned.policy
    assert stored.kind is PolicyKind.REINFORCEMENT
    artifact = read(tmp_path / "artifacts", stored.sha)
    assert ServedPolicy(artifact).sha == stored.sha
    assert artifact.spec.features.digest == PLAN.features.digest
    assert stored.data_cutoff == artifact.spec.training.data_to

    # Of folds only checkpoints stay, and of the policy itself what was registered.
    assert {path.name for path in (tmp_path / "training").iterdir()} == {"runs"}
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [stored.sha]

    [trial] = trials.listed(app.engine, "drill")
    assert stored.metadata["trial"] == trial.id
    assert trial.metrics is not None
    promise = trial.metrics.promise
    assert promise is not None
    assert (promise.n, promise.slippage) == (trial.metrics.profit_factor.n, 0.0004)
    card = read_card((tmp_path / "cards" / f"{stored.sha}.json").read_bytes())
    assert card == learned.card
    assert (card.subject.trial, card.verdict) == (trial.id, trial.verdict)
    assert card.search.n_trials == 1
    assert card.headline in learned.page.read_text()
    assert card.numbers["trades"].value == trial.metrics.profit_factor.n > 0
    assert card.entries is not None
    # Every entry ends in a trade; so does every turn, which is no entry from flat.
    assert 0 < card.entries.entered <= trial.metrics.profit_factor.n
    assert card.entries.entered <= card.entries.wanted <= card.entries.asked
    assert card.entries.confidence_min == PLAN.acting.confidence_min

    again = made(app)
    assert (again.is_new, learned.is_new) == (False, True)
    assert again.policy == learned.policy
    assert trials.listed(app.engine, "drill") == [trial]

    other = replace(PLAN, training=replace(PLAN.training, seed=4))
    with pytest.raises(Conflict, match="is another one"):
        made(app, plan=other)
    assert count(app.engine, "backtest_trials") == 1


def test_a_classifier_is_made_of_encoder_tabnet_and_trees(app: App, tmp_path: Path) -> None:
    training = replace(SMALL_CLASSIFIER, validation_share=0.4)
    plan = replace(PLAN, training=training, train_bars=400)
    learned = made(app, "trees", plan)
    assert learned.policy.kind is PolicyKind.ENSEMBLE
    stored = read(tmp_path / "artifacts", learned.policy.sha)
    assert encoder_of(app, "trees") == stored.spec.encoder
    assert learned.card.subject.steps == training.steps == 3
    looks = learned.card.looks
    embedding = {f"embedding_{i}" for i in range(3)}
    assert {look.column for look in looks} == {*PLAN.features.names, *embedding}
    assert sum(look.share for look in looks) == pytest.approx(1.0)
    assert f"{looks[0].column} {100 * looks[0].share:.1f} %" in learned.page.read_text()
    assert not made(app, "trees", plan).is_new

    bare = replace(plan, training=replace(training, encoder=None, forest=None))
    alone = made(app, "alone", bare)
    assert alone.policy.kind is PolicyKind.TABNET
    with pytest.raises(InvalidInput, match=r"^refresh: must be a policy with an encoder"):
        encoder_of(app, "alone")

    newer = replace(plan, training=replace(training, refreshed=encoder_of(app, "trees")))
    assert made(app, "newer", newer).policy.sha not in (learned.policy.sha, alone.policy.sha)


def test_what_a_killed_run_left_is_gone_after_a_day(app: App, tmp_path: Path) -> None:
    hasty = replace(PLAN, training=replace(PLAN.training, deadline_seconds=0.001))
    parts = {
        tmp_path / folder / f".part-{age}": NOON - timedelta(hours=age)
        for folder in ("training", "artifacts", "training/runs/one/000000001024")
        for age in (23, 25)
    }
    for part, moved_at in parts.items():
        part.mkdir(parents=True)
        os.utime(part, (0, moved_at.timestamp()))
    with pytest.raises(DeadlinePassed):
        made(app, plan=hasty)
    assert {part.name for part in parts if part.exists()} == {".part-23"}


def test_stored_candles_make_the_challenger_that_their_file_makes(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    walk = random_walk(1_500, seed=5)
    name = SeriesName(source="own", instrument="BTCUSD", interval=walk.interval)
    CandleStore(tmp_path / "candles").append(name, walk, now=datetime(2030, 1, 1, tzinfo=UTC))
    asked = ("learn", "rl", "walk", "--instrument", "BTCUSD", "--interval", "1h", "--json")
    limits = ("--steps", "1024", "--train-bars", "500", "--test-bars", "200")

    code = cli.exit_code(cli.app, [*asked, *limits])

    said = capsys.readouterr()
    assert code == 0, said.err
    [trial] = trials.listed(engine, "walk")
    assert json.loads(said.out)["trial"] == trial.id
    assert trial.subject.data == data_digest([walk])


def test_a_training_that_fails_counts_as_a_trial(app: App) -> None:
    hasty = replace(PLAN, training=replace(PLAN.training, deadline_seconds=0.001))
    with pytest.raises(DeadlinePassed):
        made(app, plan=hasty)
    [trial] = trials.listed(app.engine, "drill")
    assert (trial.metrics, trial.verdict) == (None, Verdict.FAIL)
    assert trial.failure is not None
    assert "0.001" in trial.failure
    assert policies.listed(app.engine) == []


def test_without_what_trains_nothing_begins(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reinforcement, "PACKAGES", ("numpy", "no-such-package"))
    with pytest.raises(ExtraMissing, match="no-such-package is not installed: make learners"):
        made(app)
    assert trials.listed(app.engine, "drill") == []
