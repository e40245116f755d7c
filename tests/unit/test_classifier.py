"""Classifiers from candles: labelled honestly, taught on the past alone, stored and served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_candles import part, random_walk
from made_up_classifier_plan import SMALL_CLASSIFIER
from made_up_policy import ENVIRONMENT, FEATURES
from numpy.typing import NDArray

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from bandit.core.paper_fills import Side
from learners.artifact import Artifact, read
from learners.challenger import ChallengerPlan
from learners.classifier import ClassRows, class_rows
from learners.decider import Decider
from learners.ensemble import Ensemble
from learners.environment_spec import Target
from learners.holding import Holding
from learners.market.candles import Candles
from learners.market.features import features_of
from learners.market.labels import forward_returns
from learners.opportunities import OpportunityTaker
from learners.sealed_files import ArtifactRefused
from learners.serving import ServedPolicy
from learners.sight import sight_of
from learners.workshop import Workshop
from liveops.clock import monotonic

PLAN = ChallengerPlan(
    features=FEATURES,
    environment=ENVIRONMENT,
    training=SMALL_CLASSIFIER,
    acting=ActingRules(confidence_min=0.0, allow_ranging=True),
    train_bars=500,
    test_bars=100,
)
CANDLES = random_walk(800, seed=3)


def workshop(folder: Path, plan: ChallengerPlan = PLAN, candles: Candles = CANDLES) -> Workshop:
    return Workshop(plan, [candles], folder=folder, clock=monotonic, report=lambda _: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    root = tmp_path_factory.mktemp("artifacts")
    return root, workshop(tmp_path_factory.mktemp("training")).newest(root)


def test_a_class_is_the_side_that_would_have_earned_more() -> None:
    bars = range(100, 300)
    features = features_of(CANDLES, FEATURES)
    found = class_rows(
        CANDLES, features.values, features.complete, bars=bars, spec=ENVIRONMENT, horizon_bars=3
    )
    earned = {
        side: forward_returns(
            CANDLES, horizon_bars=3, side=side, fee_ratio=0.0005, slippage_ratio=0.0002
        ).returns
        for side in Side
    }
    expected = []
    for bar in bars:
        long, short = earned[Side.LONG][bar], earned[Side.SHORT][bar]
        if bar + 4 >= bars.stop:  # a trade that ends after the last bar is not known in them
            expected.append(-1)
        elif max(long, short) <= 0:
            expected.append(int(Target.FLAT))
        else:
            expected.append(int(Target.LONG if long > short else Target.SHORT))
    assert found.labels.tolist() == expected
    assert set(expected) == {-1, 0, 1, 2}


def test_nothing_after_the_bars_moves_a_label() -> None:
    bars = range(100, 300)

    def labelled(candles: Candles) -> ClassRows:
        features = features_of(candles, FEATURES)
        return class_rows(
            candles,
            features.values,
            features.complete,
            bars=bars,
            spec=ENVIRONMENT,
            horizon_bars=3,
        )

    whole, cut = labelled(CANDLES), labelled(part(CANDLES, 0, 300))
    assert np.array_equal(whole.labels, cut.labels)
    assert np.array_equal(whole.rows, cut.rows, equal_nan=True)


def test_a_classifier_is_stored_with_its_encoder(made: tuple[Path, Artifact]) -> None:
    root, artifact = made
    assert isinstance(artifact.spec.network, Ensemble)
    assert artifact.encoder is not None
    assert artifact.spec.encoder == artifact.encoder.sha
    assert artifact.spec.network.inputs == len(FEATURES.names) + 3 + 3
    assert read(root, artifact.sha).graph == artifact.graph
    ServedPolicy(artifact)


def test_made_again_it_is_the_same(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    _, artifact = made
    assert workshop(tmp_path / "runs").newest(tmp_path / "artifacts").sha == artifact.sha


def test_a_bar_alone_is_seen_as_in_its_series(made: tuple[Path, Artifact]) -> None:
    """The service is told one bar and those before it, a backtest has the whole series."""
    _, artifact = made
    features = features_of(CANDLES, FEATURES)
    rows, known = sight_of(artifact).of(features)
    decider = Decider(artifact)
    for bar in range(known.warm_up, known.warm_up + 200, 20):
        row = dict(zip(FEATURES.names, features.values[bar].tolist(), strict=True))
        history = before(features.values[bar - 30 : bar])  # more than it needs
        found = decider.observation(row, Holding(), history=history)
        assert found[:-3] == pytest.approx(rows[bar], abs=1e-5)
    assert not known.complete[features.warm_up + 6]
    assert known.complete[features.warm_up + 7]


def before(rows: NDArray[np.float64]) -> dict[str, list[float]]:
    return dict(zip(FEATURES.names, rows.T.tolist(), strict=True))


def test_an_encoder_needs_the_bars_before(made: tuple[Path, Artifact]) -> None:
    _, artifact = made
    decider = Decider(artifact)
    assert decider.history_bars == 7
    row = dict.fromkeys(FEATURES.names, 0.0)
    with pytest.raises(InvalidInput, match=r"^history: is required: the 7 bars before"):
        decider.observation(row, Holding())
    short = before(np.zeros((6, len(FEATURES.names))))
    with pytest.raises(InvalidInput, match=r"^history: must have the 7 bars before"):
        decider.observation(row, Holding(), history=short)
    broken = before(np.full((7, len(FEATURES.names)), np.nan))
    with pytest.raises(InvalidInput, match=r"^history: must be finite"):
        decider.observation(row, Holding(), history=broken)


def test_an_embedding_is_worked_out_once_a_bar(
    made: tuple[Path, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, artifact = made
    decider, asked = Decider(artifact), []
    encoder = decider._sight.encoder
    assert encoder is not None
    embed = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda window: asked.append(1) or embed(window))
    history = before(np.zeros((7, len(FEATURES.names))))
    for value in (0.0, 0.0, 1.0, 0.0):
        decider.observation(dict.fromkeys(FEATURES.names, value), Holding(), history=history)
    assert len(asked) == 2


def test_it_takes_opportunities_and_walks_forward(
    made: tuple[Path, Artifact], tmp_path: Path
) -> None:
    _, artifact = made
    taker = OpportunityTaker(artifact, CANDLES, rules=PLAN.acting)
    assert any(taker.intention(bar) is not None for bar in range(600, 640))
    trades = workshop(tmp_path).walked().trades
    assert trades


def test_a_missing_or_another_encoder_is_refused(
    made: tuple[Path, Artifact], tmp_path: Path
) -> None:
    root, artifact = made
    assert artifact.encoder is not None
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / artifact.sha).symlink_to(root / artifact.sha)
    with pytest.raises(ArtifactRefused):
        read(lonely, artifact.sha)
    other = replace(
        artifact.encoder, spec=replace(artifact.encoder.spec, scaler=artifact.spec.features)
    )
    with pytest.raises(ArtifactRefused, match="scaler must be those of its encoder"):
        sight_of(replace(artifact, encoder=other))


def test_a_refresh_goes_on_from_a_stored_encoder(
    made: tuple[Path, Artifact], tmp_path: Path
) -> None:
    root, artifact = made
    assert artifact.encoder is not None
    training = replace(SMALL_CLASSIFIER, refreshed=artifact.encoder.sha)
    plan = replace(PLAN, training=training)
    later = workshop(tmp_path, plan, random_walk(800, seed=4)).newest(root)
    assert later.encoder is not None
    assert later.encoder.sha != artifact.encoder.sha
    assert later.encoder.spec.form == artifact.encoder.spec.form
    assert later.encoder.spec.scaler == artifact.encoder.spec.scaler
    unknown = replace(plan, training=replace(training, refreshed=PolicySha("0" * 64)))
    with pytest.raises(ArtifactRefused):
        workshop(tmp_path, unknown).newest(root)


def test_too_few_bars_are_refused(tmp_path: Path) -> None:
    few = replace(PLAN, train_bars=150)
    with pytest.raises(InvalidInput, match=r"^train_bars: must hold 100 known bars or more to"):
        workshop(tmp_path, few).newest(tmp_path)


def test_alone_tabnet_sees_the_features(tmp_path: Path) -> None:
    bare = replace(SMALL_CLASSIFIER, encoder=None, forest=None)
    artifact = workshop(tmp_path, replace(PLAN, training=bare)).newest(tmp_path / "artifacts")
    assert artifact.encoder is None
    assert artifact.spec.network.inputs == len(FEATURES.names) + 3
    assert Decider(artifact).history_bars == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"horizon_bars": 0}, "horizon_bars"),
        ({"validation_share": 0.9}, "validation_share"),
        ({"encoder": None, "refreshed": PolicySha("0" * 64)}, "refreshed"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_plan_is_checked(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        replace(SMALL_CLASSIFIER, **changes)  # type: ignore[arg-type]  # fields by name


def test_the_digest_names_the_classifier() -> None:
    others = [
        replace(PLAN, training=replace(SMALL_CLASSIFIER, seed=2)),
        replace(PLAN, training=replace(SMALL_CLASSIFIER, encoder=None)),
        replace(PLAN, training=replace(SMALL_CLASSIFIER, forest=None)),
        replace(PLAN, training=replace(SMALL_CLASSIFIER, refreshed=PolicySha("1" * 64))),
    ]
    assert len({PLAN.digest, *(other.digest for other in others)}) == 1 + len(others)
    slower = replace(SMALL_CLASSIFIER, deadline_seconds=1.0)
    assert replace(PLAN, training=slower).digest == PLAN.digest
