"""Encoders made alone: the same as a classifier's, and judged on bars that taught them nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from made_up_candles import part, random_walk
from made_up_classifier_plan import SMALL_CLASSIFIER
from made_up_policy import ENVIRONMENT, FEATURES

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha, Verdict
from bandit.core.profit_factor import Interval
from learners.challenger import ChallengerPlan
from learners.classifier import Bench, class_rows
from learners.classifier_plan import REFRESH_EPOCHS, ClassifierPlan
from learners.encoder_artifact import read_encoder
from learners.encoding import EncodingPlan, HeadScore, MadeEncoder, distance, newest_encoder
from learners.market.candles import Candles
from learners.market.features import features_of
from learners.market.paper_market import Costs
from learners.market.scaler import Scaler
from learners.sealed_files import ArtifactRefused
from learners.timesnet import evaluate
from learners.workshop import Workshop
from liveops.clock import monotonic

TRAIN_BARS, HELD_OUT = 500, 150  # 0.3 of them
CANDLES = random_walk(800, seed=3)
PLAN = EncodingPlan(
    features=FEATURES, environment=ENVIRONMENT, training=SMALL_CLASSIFIER, train_bars=TRAIN_BARS
)


def bench(folder: Path) -> Bench:
    return Bench(folder=folder, clock=monotonic, report=lambda _: None)


def refreshing(sha: PolicySha) -> EncodingPlan:
    return replace(PLAN, training=replace(SMALL_CLASSIFIER, refreshed=sha))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MadeEncoder]:
    root = tmp_path_factory.mktemp("artifacts")
    runs = bench(tmp_path_factory.mktemp("runs"))
    return root, newest_encoder(PLAN, [CANDLES], root=root, bench=runs)


def test_alone_it_is_the_encoder_of_a_classifier_of_the_same_bars(
    made: tuple[Path, MadeEncoder], tmp_path: Path
) -> None:
    plan = ChallengerPlan(
        features=FEATURES,
        environment=ENVIRONMENT,
        training=SMALL_CLASSIFIER,
        acting=ActingRules(confidence_min=0.0, allow_ranging=True),
        train_bars=TRAIN_BARS,
        test_bars=100,
    )
    workshop = Workshop(
        plan, [CANDLES], folder=tmp_path / "runs", clock=monotonic, report=lambda _: None
    )
    root, alone = made
    assert workshop.newest(tmp_path / "artifacts").spec.encoder == alone.artifact.sha
    stored = read_encoder(root, alone.artifact.sha)
    assert stored.spec.training.steps == SMALL_CLASSIFIER.encoder.epochs == 1
    assert alone.refresh is None


def test_held_out_figures_are_worked_out_from_what_is_stored(
    made: tuple[Path, MadeEncoder],
) -> None:
    """The same in other words: numpy for the runtime, and the split by hand."""
    _, found = made
    bars = range(len(CANDLES) - TRAIN_BARS, len(CANDLES))
    features = features_of(CANDLES, FEATURES)
    scaler = Scaler.fit(features.values[bars.start : bars.stop])
    labels = class_rows(
        CANDLES, features.values, features.complete, bars=bars, spec=ENVIRONMENT, horizon_bars=3
    ).labels
    cut = TRAIN_BARS - HELD_OUT
    # A trade of 3 bars opens at the next bar: those of the last four are not known, and those that
    # end in the held-out bars teach nothing.
    taught, ends = labels[7 : cut - 4], np.arange(cut, TRAIN_BARS - 4)
    assert (labels[TRAIN_BARS - 4 :] == -1).all()
    assert found.windows == len(taught)
    rows = scaler.apply(features.values)
    windows = np.stack([rows[bars.start + end - 7 : bars.start + end + 1] for end in ends])
    tensors = found.artifact.tensors
    embeddings = evaluate(found.artifact.spec.form, tensors, windows)
    scores = embeddings @ tensors["head.weight"].T + tensors["head.bias"]
    likelihoods = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    shares = np.bincount(taught) / len(taught)
    entropy = -np.log(likelihoods[np.arange(len(ends)), labels[ends]]).mean()
    assert found.score.windows == len(ends)
    assert found.score.cross_entropy == pytest.approx(entropy, abs=1e-5)
    assert found.score.yardstick == pytest.approx(-np.log(shares[labels[ends]]).mean())
    middle = (found.score.gain.low + found.score.gain.high) / 2
    assert middle == pytest.approx(found.score.yardstick - found.score.cross_entropy)


def in_turns(bars: int) -> Candles:
    """Eight bars up, eight still, eight down: what comes next is told by what came before."""
    rng = np.random.default_rng(11)
    turns = np.array([0.01, 0.0, -0.01])[np.arange(bars) // 8 % 3]
    close = 100.0 * np.exp(np.cumsum(turns + 1e-4 * rng.standard_normal(bars)))
    opened = np.concatenate(([100.0], close[:-1]))
    return Candles(
        instrument="TURNS",
        opened_at=CANDLES.opened_at[0] + np.arange(bars) * np.timedelta64(1, "h"),
        open=opened,
        high=np.maximum(opened, close) * 1.0005,
        low=np.minimum(opened, close) * 0.9995,
        close=close,
        volume=rng.uniform(1.0, 10.0, bars),
    )


def test_it_beats_the_class_frequencies_where_the_bars_before_tell_the_class(
    made: tuple[Path, MadeEncoder], tmp_path: Path
) -> None:
    encoder = replace(SMALL_CLASSIFIER.encoder, bars=12, epochs=15, batch=32, learning_rate=0.01)
    plan = replace(PLAN, training=replace(SMALL_CLASSIFIER, encoder=encoder))
    told = newest_encoder(plan, [in_turns(800)], root=tmp_path, bench=bench(tmp_path / "runs"))
    assert told.score.verdict is Verdict.PASS
    assert told.score.cross_entropy < 0.5 * told.score.yardstick
    _, walked = made
    assert walked.score.verdict is not Verdict.PASS, "a random walk tells nothing"


def test_a_refresh_says_what_it_changed(made: tuple[Path, MadeEncoder], tmp_path: Path) -> None:
    root, first = made
    again = newest_encoder(
        refreshing(first.artifact.sha), [CANDLES], root=root, bench=bench(tmp_path)
    )
    spec, old = again.artifact.spec, first.artifact.spec
    assert (spec.form, spec.scaler) == (old.form, old.scaler)
    assert spec.training.steps == REFRESH_EPOCHS
    assert again.artifact.sha != first.artifact.sha
    assert again.refresh is not None
    assert again.refresh.before == first.score, "the same windows, held out both times"
    assert again.refresh.windows_known == first.score.windows
    assert 0.0 < again.refresh.moved < 10.0


def test_held_out_bars_that_the_old_one_was_made_from_are_counted(tmp_path: Path) -> None:
    other = random_walk(800, seed=9)
    both = [CANDLES, replace_name(other, "ETHUSD")]
    early = [part(each, 0, 700) for each in both]
    old = newest_encoder(PLAN, early, root=tmp_path, bench=bench(tmp_path / "runs"))
    plan = refreshing(old.artifact.sha)
    later = newest_encoder(plan, both, root=tmp_path, bench=bench(tmp_path / "runs"))
    assert later.refresh is not None
    # Held out are bars 650 to 795 of two instruments; the old one was made from those before 700.
    assert later.score.windows == 2 * 146
    assert later.refresh.windows_known == 2 * 50


def replace_name(candles: Candles, name: str) -> Candles:
    return Candles(
        instrument=name,
        opened_at=candles.opened_at,
        bar_interval=timedelta(hours=1),
        **candles.numbers(),
    )


def test_distance_is_in_units_of_how_far_windows_differ() -> None:
    before = np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
    assert distance(before, before) == 0.0
    assert distance(-before, before) == 2.0
    one = before + np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert distance(one, before) == pytest.approx(math.sqrt(1 / 4))
    with pytest.raises(InvalidInput, match=r"^embeddings: must not be the same for all windows"):
        distance(before, np.ones((4, 2)))


@pytest.mark.parametrize(
    ("entropy", "low", "verdict"),
    [
        (0.9, 0.05, Verdict.PASS),
        (0.9, -0.01, Verdict.INCONCLUSIVE),
        (1.0, -0.1, Verdict.FAIL),
        (1.1, -0.2, Verdict.FAIL),
    ],
)
def test_what_does_not_beat_the_frequencies_has_learned_nothing(
    entropy: float, low: float, verdict: Verdict
) -> None:
    gain = Interval(low=low, high=2 * (1.0 - entropy) - low, confidence=0.95)
    score = HeadScore(windows=100, cross_entropy=entropy, yardstick=1.0, gain=gain)
    assert score.verdict is verdict


def training(**changes: object) -> ClassifierPlan:
    return replace(SMALL_CLASSIFIER, **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(PLAN, train_bars=801), r"^train_bars: must be 1 to 800, as many as the candles"),
        (replace(PLAN, train_bars=150), r"^train_bars: must hold 100 known bars or more to"),
        (
            replace(
                PLAN,
                environment=replace(ENVIRONMENT, costs=Costs(fee_ratio=0.09, slippage_ratio=0.0)),
            ),
            r"^train_bars: must hold each of the 3 classes to learn from, found only \[0\]",
        ),
    ],
)
def test_bars_that_cannot_teach_are_refused(
    plan: EncodingPlan, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=message):
        newest_encoder(plan, [CANDLES], root=tmp_path, bench=bench(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_refresh_needs_an_encoder_of_the_same_features(
    made: tuple[Path, MadeEncoder], tmp_path: Path
) -> None:
    root, first = made
    plan = refreshing(first.artifact.sha)
    other = replace(plan, features=replace(FEATURES, rsi_bars=6))
    with pytest.raises(InvalidInput, match=r"^features: of the encoder must be those of the plan"):
        newest_encoder(other, [CANDLES], root=root, bench=bench(tmp_path))
    with pytest.raises(ArtifactRefused, match=r"^directory: "):
        newest_encoder(plan, [CANDLES], root=tmp_path, bench=bench(tmp_path))
