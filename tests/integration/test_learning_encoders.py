"""`liveops learn timesnet`: an encoder made, refreshed and handed on to a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from api_service import application
from ledger import NOON, count, register
from made_up_candles import HOUR, random_walk
from made_up_encoder_policy import embedding_policy
from sqlalchemy import Engine

from bandit.core.errors import AmbiguousName, UnknownName
from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from bandit.service import policies
from learners import fitting
from learners.artifact import Artifact, read
from learners.encoder_artifact import read_encoder
from learners.market.candle_store import CandleStore, SeriesName
from learners.sealed_files import ArtifactRefused
from liveops import cli
from liveops.clock import VirtualClock
from liveops.encoding import encoder_of
from liveops.wiring import App

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")

WALK = random_walk(1_600, seed=5)
CANDLES = ("--instrument", "BTCUSD", "--interval", "1h", "--train-bars", "900")
SMALL = (*CANDLES, "--bars", "8", "--embedding", "3", "--epochs", "1")

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with stored candles, and no ledger."""
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    name = SeriesName(source="own", instrument="BTCUSD", interval=HOUR)
    CandleStore(tmp_path / "candles").append(name, WALK, now=datetime(2030, 1, 1, tzinfo=UTC))
    return tmp_path


@pytest.fixture
def timesnet(home: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    def told(*options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.exit_code(cli.app, ["learn", "timesnet", *options])
        return code, *capsys.readouterr()

    return told


@pytest.fixture
def app(engine: Engine, home: Path) -> App:
    served = application(engine, clock=VirtualClock(NOON))
    return replace(served, settings=served.settings.model_copy(update={"home": home}))


def registered(app: App, name: str, artifact: Artifact) -> None:
    policy = Policy(name=PolicyName(name), kind=PolicyKind.ENSEMBLE, sha=artifact.sha, metadata={})
    policies.register(app.engine, policy, now=NOON, actor="test")


def made(timesnet: Told, *options: str) -> dict[str, Any]:
    code, out, err = timesnet(*options, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_an_encoder_is_made_without_a_ledger_and_only_once(timesnet: Told, home: Path) -> None:
    code, out, err = timesnet(*SMALL)
    assert code == 0, err
    told = made(timesnet, *SMALL)
    assert [path.name for path in (home / "artifacts").iterdir()] == [told["sha"]]
    assert not (home / "cards").exists()
    stored = read_encoder(home / "artifacts", told["sha"])
    form = stored.spec.form
    assert (form.bars, form.embedding, stored.spec.training.steps) == (8, 3, 1)
    assert (told["frequencies"], told["periods"]) == (list(form.frequencies), list(form.periods))
    assert told["refreshed"] is None
    score = told["held_out"]
    assert score["windows"] == 900 - 765 - 13, "trades of 12 bars, opened one bar later, end"
    assert score["gain"]["low"] < score["class_frequencies"] - score["cross_entropy"]

    assert f"encoder    {told['sha']}\nartefact   {home}/artifacts/{told['sha']}\n" in out
    assert f"learned    from {told['windows']:,} windows of 8 bars\n" in out
    periods = ", ".join(map(str, form.periods))
    assert f"folds      along periods of {periods} bars" in out
    assert (
        f"cross-entropy {score['cross_entropy']:.4f} nats; "
        f"of the class frequencies alone {score['class_frequencies']:.4f}\n" in out
    )
    words = {"FAIL": "it has learned nothing", "INCONCLUSIVE": "this may be chance"}
    assert words[score["verdict"]] in out, "a random walk teaches nothing"
    assert "refreshed" not in out


def test_another_seed_makes_another_encoder(timesnet: Told) -> None:
    found = {made(timesnet, *SMALL, "--seed", seed)["sha"] for seed in ("1", "2")}
    assert len(found) == 2


def test_an_encoder_is_refreshed_by_its_sha_and_by_a_policy(
    timesnet: Told, app: App, database_url: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    first = made(timesnet, *SMALL)

    code, out, err = timesnet(*CANDLES, "--refresh", first["sha"][:8])
    assert code == 0, err
    by_prefix = made(timesnet, *CANDLES, "--refresh", first["sha"][:8])
    again = by_prefix["refreshed"]
    assert again["sha"] == first["sha"]
    assert again["before"] == first["held_out"]
    assert again["windows_known"] == first["held_out"]["windows"]
    assert by_prefix["periods"] == first["periods"]
    assert by_prefix["bars"] == 8
    assert f"refreshed  from {first['sha']}\n" in out
    assert f"moved      {again['moved']:.3f} times as far as " in out
    assert f"{again['windows_known']:,} of these windows end in bars that the old one" in out

    # A policy learned by way of the encoder's sha hands the encoder of its own on.
    tabnet = ["learn", "tabnet", "handed", *CANDLES, "--test-bars", "200", "--epochs", "1"]
    monkeypatch.setenv("LIVEOPS_MODEL__USE_ENSEMBLE", "false")
    assert cli.exit_code(cli.app, [*tabnet, "--refresh", first["sha"]]) == 0
    policy = policies.find(app.engine, "handed").policy
    own = read(home / "artifacts", policy.sha).spec.encoder
    assert own == by_prefix["sha"], "of the same bars, the same refresh"
    assert made(timesnet, *CANDLES, "--refresh", "handed")["refreshed"]["sha"] == own


def test_making_encoders_registers_nothing_and_counts_no_trial(
    timesnet: Told, app: App, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    first = made(timesnet, *SMALL)
    made(timesnet, *CANDLES, "--refresh", first["sha"])
    for table in ("policies", "backtest_trials", "audit_log"):
        assert count(app.engine, table) == 0


@pytest.mark.parametrize("option", ["--bars", "--embedding", "--epochs"])
def test_what_a_refresh_keeps_cannot_be_said_beside_it(timesnet: Told, option: str) -> None:
    code, out, err = timesnet(*CANDLES, "--refresh", "anything", option, "8")
    assert (code, out) == (2, "")
    assert err == (
        f"invalid_input: {option}: must be left out beside --refresh, "
        "which goes on with what is stored, found 8\n"
    )


def test_sizes_that_no_encoder_can_have_are_refused(timesnet: Told, home: Path) -> None:
    for option, value, field in (
        ("--bars", "3", "encoder.bars"),
        ("--embedding", "257", "embedding"),
        ("--epochs", "1001", "epochs"),
        ("--train-bars", "1601", "train_bars"),
    ):
        code, _, err = timesnet(*CANDLES, option, value)
        assert code == 2
        assert err.strip().startswith(f"invalid_input: {field}: ")
    assert not (home / "artifacts").exists()


def test_without_what_trains_nothing_is_stored(
    timesnet: Told, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "PACKAGES", ("numpy", "no-such-package"))
    code, _, err = timesnet(*SMALL)
    assert (code, err.strip()) == (
        1,
        "extra_missing: no-such-package is not installed: make learners",
    )
    assert not (home / "artifacts").exists()


def test_one_encoder_is_meant_or_none_is_taken(app: App, home: Path) -> None:
    policy = embedding_policy(home / "artifacts")
    assert policy.encoder is not None
    encoder = policy.encoder.sha
    with pytest.raises(UnknownName) as unknown:
        encoder_of(app, "nobody")
    assert str(unknown.value) == (
        f"no policy or encoder is registered as 'nobody'; known: encoder {encoder[:12]}"
    )
    for reference in (encoder, encoder[:5]):
        assert encoder_of(app, reference) == encoder

    registered(app, "embeds", policy)
    for reference in ("embeds", policy.sha, policy.sha[:12]):
        assert encoder_of(app, reference) == encoder
    with pytest.raises(UnknownName, match=rf"known: embeds, encoder {encoder[:12]}$"):
        encoder_of(app, "nobody")

    # What begins like a policy and like an encoder means neither; a full name or sha is its own.
    register(app.engine, "twin", encoder[:8])
    with pytest.raises(AmbiguousName) as two:
        encoder_of(app, encoder[:6])
    assert str(two.value) == (
        f"'{encoder[:6]}' fits 2 policies or encoders: twin, encoder {encoder[:12]}"
    )
    register(app.engine, "second", encoder[:9])
    with pytest.raises(AmbiguousName) as three:
        encoder_of(app, encoder[:6])
    assert three.value.candidates == ("twin", "second", f"encoder {encoder[:12]}")
    assert encoder_of(app, encoder) == encoder

    like = PolicySha(encoder[:12] + "0" * 52)
    (home / "artifacts" / like).symlink_to(home / "artifacts" / encoder)
    with pytest.raises(AmbiguousName, match="fits 2 policies or encoders: encoder "):
        encoder_of(app, encoder[:10])
    with pytest.raises(ArtifactRefused):
        read_encoder(home / "artifacts", encoder_of(app, like))
