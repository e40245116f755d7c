"""`scheduled_retrain`: models that aged are made anew, judged, and given a place once."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger import CHALLENGER, NOON, join, open_btc
from made_up_candles import HOUR, part, random_walk
from sqlalchemy import Engine, text

from bandit.core.errors import LedgerUnavailable
from bandit.core.model import ArmRole, ArmStatus, PolicyName, Profile, Verdict
from bandit.core.purging import PurgeRule
from bandit.core.rotation import Placing
from bandit.service import experiments, policies, promoting, rotating, trials
from bandit.storage.locks import Lease, LockClass
from learners.market.candle_store import CandleStore, SeriesName
from learners.training_events import TrainingEvent
from liveops import cli, policy_archive
from liveops.commands.options import ledger_app
from liveops.policy_archive import Purged
from liveops.rotation import planned, rotate, rotated

pytest.importorskip("stable_baselines3", reason="the learners are not installed")

WALK = random_walk(2_000, seed=5)
SERIES = SeriesName(source="own", instrument="BTCUSD", interval=HOUR)
BARS = ("--instrument", "BTCUSD", "--train-bars", "800", "--test-bars", "250")
EASY = """
operations:
  model_rotation:
    enabled: {enabled}
    min_sharpe_ratio: -1000
    min_profit_factor: 0
    max_drawdown_threshold: 1.0
    min_trades: 1
    require_outperformance: false
"""
DAY = date(2026, 11, 22)


def append(home: Path, first: int, last: int) -> None:
    bars = part(WALK, first, last)
    CandleStore(home / "candles").append(SERIES, bars, now=datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with stored candles, an agent made of them, and newer bars."""
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    append(tmp_path, 0, 1_500)
    options = ("--steps", "512", "--confidence", "0.3", "--allow-ranging")
    assert cli.exit_code(cli.app, ["learn", "rl", "agent", *BARS, *options]) == 0
    append(tmp_path, 1_500, 1_800)
    return tmp_path


def settings(home: Path, text: str) -> tuple[str, str]:
    file = home / "settings.yaml"
    file.write_text(text)
    return "--config", str(file)


def retrain(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    asked = ["retrain", "--date", DAY.isoformat(), *arguments, "--json"]
    found = cli.exit_code(cli.app, asked)
    out, err = capsys.readouterr()
    assert found == code, err
    told: dict[str, Any] = json.loads(out)
    return told


def test_an_aged_model_is_made_anew_once_a_day_and_judged(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    would = retrain(capsys, "--weekly", "--dry-run")
    assert would["models"][0]["why_not"] is None
    assert would["rotations"] == []
    assert len(policies.listed(engine)) == 3, "a dry run makes nothing"
    told = retrain(capsys, "--weekly")
    [made] = told["rotations"]
    assert made["new"] == "agent-20261122"
    new = policies.find(engine, "agent-20261122").policy
    assert new.parent == "agent"
    assert new.data_cutoff == WALK.closing(1_799)
    assert {gate["check"] for gate in made["gates"]} >= {"return beside the present model"}
    assert (home / "cards" / f"{new.sha}.json").exists()
    again = retrain(capsys, "--weekly")
    assert again["rotations"] == []
    assert "already" in again["models"][0]["why_not"]
    assert len(policies.listed(engine)) == 4
    [stored] = rotating.newest(engine)
    assert stored.to_json() == made
    with engine.connect() as connection:
        told_of = text("SELECT subject FROM audit_log WHERE action = 'model_rotated'")
        assert connection.execute(told_of).scalars().all() == ["agent"]


def test_one_process_makes_models_anew_at_a_time_and_its_word_stands(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    asked = ["retrain", "--date", DAY.isoformat(), "--weekly", "--json"]
    other = Lease(engine, LockClass.ROTATION, 0, seconds=600)
    assert other.hold()
    assert cli.exit_code(cli.app, asked) == 3
    assert "rotation: another process is at it now" in capsys.readouterr().err
    retrain(capsys, "--weekly", "--dry-run")  # asks for nothing that another could spoil
    assert len(policies.listed(engine)) == 3
    other.leave()
    [made] = retrain(capsys, "--weekly")["rotations"]
    # One who lost its lock and writes the same day down is told what stands there.
    late = rotating.record(
        engine,
        day=DAY,
        policy=PolicyName("agent"),
        new=PolicyName("prod"),
        verdict=Verdict.PASS,
        triggers=(),
        gates=(),
        placings={},
        now=NOON,
        actor="late",
    )
    assert late.to_json() == made
    with engine.connect() as connection:
        told_of = text("SELECT count(*) FROM audit_log WHERE action = 'model_rotated'")
        assert connection.execute(told_of).scalar_one() == 1


def test_of_models_of_one_recipe_one_is_made_anew_and_none_fails(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Made by hand of the bars of an earlier day, as `liveops learn again` would then.
    append(home, 1_800, 1_900)
    assert cli.exit_code(cli.app, ["learn", "again", "agent", "agent-20261101"]) == 0
    append(home, 1_900, 2_000)
    open_btc(engine)
    for name in ("agent", "agent-20261101"):
        join(engine, PolicyName(name))
    new = f"agent-{policies.find(engine, 'agent').policy.sha[:8]}-20261122"
    why = {"agent": None, "agent-20261101": f"made anew as {new}, of the same recipe"}
    would = retrain(capsys, "--weekly", "--dry-run")
    assert {model["policy"]: model["why_not"] for model in would["models"]} == why
    assert would["would"] == [f"make {new} of agent"]
    told = retrain(capsys, "--weekly")
    assert [made["new"] for made in told["rotations"]] == [new]
    assert told["failed"] == []
    again = retrain(capsys, "--weekly")
    why["agent"] = f"made anew on this day already, as {new}"
    assert {model["policy"]: model["why_not"] for model in again["models"]} == why
    assert len(policies.listed(engine)) == 5, "no other was made"


def test_what_a_person_made_of_the_newest_bars_is_not_made_again(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code(cli.app, ["learn", "again", "agent", "mine"]) == 0
    open_btc(engine)
    join(engine, PolicyName("agent"))
    told = retrain(capsys, "--weekly")
    assert told["models"][0]["why_not"] == "made anew as mine, of the same recipe"
    assert (told["rotations"], told["failed"]) == ([], [])


def test_a_process_that_lost_its_lock_trains_no_further(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    heard: list[TrainingEvent] = []

    def require_lease() -> None:
        if heard:
            raise LedgerUnavailable("the lock was lost")

    with ledger_app(config=None, demo=False) as app:
        [plan] = planned(app, day=DAY, symbols=())
        with pytest.raises(LedgerUnavailable, match="the lock was lost"):
            rotate(
                app,
                plan,
                day=DAY,
                require_lease=require_lease,
                report=heard.append,
                actor="test",
            )
    assert len(heard) == 1, "what came after was not waited for"
    assert len(policies.listed(engine)) == 3
    assert [trial.failure for trial in trials.listed(engine, "agent")] == [None], "nor counted"
    assert [made["new"] for made in retrain(capsys, "--weekly")["rotations"]] == ["agent-20261122"]


def test_a_purge_within_a_rotation_leaves_the_model_and_its_files_where_they_are(
    engine: Engine, home: Path
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    told: list[Purged] = []

    with ledger_app(config=None, demo=False) as app:
        as_of = app.clock.now() + timedelta(days=61)

        def purge(_: TrainingEvent) -> None:
            rule = PurgeRule(active_min=1)
            told.append(policy_archive.purge(app, rule, dry_run=False, as_of=as_of, actor="test"))

        _, [made], failed = rotated(app, day=DAY, symbols=(), report=purge, actor="test")
    fates = {fate.policy: fate for fate in told[0].fates}
    assert fates["agent"].reason == "models are being made anew"
    assert [name for name, fate in fates.items() if fate.purged] == [CHALLENGER]
    [contest] = [gate for gate in made.gates if gate["check"] == "return beside the present model"]
    assert contest["limit"] is not None, contest["note"]
    assert failed == []


def test_nothing_is_done_where_rotation_is_off(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    told = retrain(capsys)
    assert (told["enabled"], told["models"], told["rotations"]) == (False, [], [])
    assert told["done"] == [
        "nothing: rotation is off: operations.model_rotation.enabled, or --weekly"
    ]


def test_in_guarded_what_passes_joins_and_its_parent_is_left_alone(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    config = settings(home, EASY.format(enabled="true"))
    [made] = retrain(capsys, *config)["rotations"]
    assert (made["verdict"], made["placings"]) == ("PASS", {"btc": "joined"})
    record = experiments.load(engine, "btc")
    arm = record.arm_of(PolicyName("agent-20261122"))
    assert arm.place.ppm > 0
    assert record.arm_of(PolicyName("agent")).place.status is ArmStatus.ACTIVE
    [left, *_] = rotating.models(engine, day=date(2026, 12, 20))
    assert left.left_alone == "its successor agent-20261122 is on trial"


def test_in_seed_exact_it_takes_the_champions_place_and_a_rollback_leads_back(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine, profile=Profile.SEED_EXACT)
    join(engine, PolicyName("agent"))
    promoting.promote(
        engine, name="btc", policy=PolicyName("agent"), reason="drill", now=NOON, actor="test"
    )
    config = settings(home, EASY.format(enabled="true"))
    [made] = retrain(capsys, *config)["rotations"]
    assert made["placings"] == {"btc": "replaced"}
    record = experiments.load(engine, "btc")
    assert record.experiment.champion == "agent-20261122"
    before = record.arm_of(PolicyName("agent")).place
    assert (before.role, before.status) == (ArmRole.CHALLENGER, ArmStatus.ACTIVE)
    back, moved = promoting.roll_back(
        engine, name="btc", to=None, reason="drill", now=NOON, actor="test"
    )
    assert (back.place.policy, moved) == ("agent", True)


def test_killed_after_the_place_was_taken_it_goes_on_to_the_same_end(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run that died between its steps left is met again by the next one."""
    open_btc(engine, profile=Profile.SEED_EXACT)
    join(engine, PolicyName("agent"))
    promoting.promote(
        engine, name="btc", policy=PolicyName("agent"), reason="drill", now=NOON, actor="test"
    )
    config = settings(home, EASY.format(enabled="true"))
    retrain(capsys, *config)
    again = [
        rotating.place(
            engine,
            name="btc",
            present=PolicyName("agent"),
            new=PolicyName("agent-20261122"),
            verdict=Verdict.PASS,
            replaces=True,
            now=NOON,
            actor="test",
        )
        for _ in range(2)
    ]
    assert {placed for placed, _ in again} == {Placing.REPLACED}
    record = experiments.load(engine, "btc")
    assert record.experiment.champion == "agent-20261122"
    assert record.arm_of(PolicyName("agent")).place.status is not ArmStatus.RETIRED


def test_symbols_choose_models_and_an_unknown_one_is_refused(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    told = retrain(capsys, "--weekly", "--dry-run", "--symbols", "BTCUSD")
    assert [model["policy"] for model in told["models"]] == ["agent"]
    asked = ["retrain", "--weekly", "--dry-run", "--symbols", "BTCUSD", "SOLUSD"]
    assert cli.exit_code(cli.app, asked) == 2
    assert "--symbols: must be traded by a model: BTCUSD, found SOLUSD" in capsys.readouterr().err


def test_a_model_that_knows_all_bars_there_are_is_not_made_anew(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    retrain(capsys, "--weekly")
    join(engine, PolicyName("agent-20261122"))
    found = {model["policy"]: model["why_not"] for model in retrain(capsys, "--weekly")["models"]}
    assert found["agent-20261122"] == "there are no newer bars than it knows"
