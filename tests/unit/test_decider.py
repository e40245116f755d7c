"""A decider sees what the policy saw in training, and acts by the rules of `acted`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_candles import random_walk
from made_up_policy import FEATURES, RISING, deciding, deciding_spec, part_of

from bandit.core.acting import ActingRules, Move
from bandit.core.errors import InvalidInput
from bandit.core.verdicts import Verdict
from learners.artifact import read
from learners.artifact_spec import DescribedPart, PolicyArtifactSpec
from learners.decider import Decider
from learners.environment import MarketEnvironment
from learners.environment_spec import EnvironmentSpec
from learners.holding import Holding
from learners.market.features import features_of
from learners.market.paper_market import Costs
from learners.market.scaler import Scaler
from learners.sealed_files import ArtifactRefused

COLUMNS = len(FEATURES.names)
ENVIRONMENT = EnvironmentSpec(
    costs=Costs(fee_ratio=0.0005, slippage_ratio=0.0002),
    stop_ratio=0.2,
    take_profit_ratio=0.3,
    holding_bars_max=8,
    shorts_allowed=True,
    position_ratio=1.0,
    funding_ratio=0.0001,
    episode_bars=80,
    equity_ratio_min=0.01,
)
NO_RULES = ActingRules(confidence_min=0.0, adx_min=0.0, volatility_max=1e9, allow_ranging=True)


def test_it_sees_to_the_bit_what_the_environment_shows(tmp_path: Path) -> None:
    candles = random_walk(200, seed=3)
    features = features_of(candles, FEATURES)
    scaler = Scaler.fit(features.values[:100])
    decider = Decider(deciding(tmp_path, spec=deciding_spec(scaler=scaler)))
    scaled = np.nan_to_num(scaler.apply(features.values))
    market = MarketEnvironment(candles, scaled, ENVIRONMENT, count=1, bars=range(100, 181), seed=0)
    seen, first = market.reset()[0], int(market.start_bars[0])
    wanted = np.random.default_rng(5).integers(3, size=80).repeat(3)[:80]
    shares = set()
    for step, action in enumerate(wanted[:-1]):
        seen = market.step(np.array([action])).observations[0]
        side, unrealised, share = seen[-3:].tolist()
        shares.add((side != 0, share))
        # Of half the size: what is observed is the side.
        holding = Holding(held=side / 2, unrealised_return=unrealised, holding_share=share)
        row = features.values[first + step + 1].tolist()
        again = decider.observation(dict(zip(features.names, row, strict=True)), holding)
        assert again.tobytes() == seen.tobytes()
    # At the close of the bar that a position was opened in, that bar is counted.
    assert {share for is_held, share in shares if not is_held} == {0.0}
    assert min(share for is_held, share in shares if is_held) == 1 / 8


def test_whole_numbers_survive_the_way_through_canonical_json(tmp_path: Path) -> None:
    scaler = Scaler(mean=(2.0,) * COLUMNS, scale=(0.5,) * COLUMNS, clip=5.0)
    stored = deciding(tmp_path, spec=deciding_spec(scaler=scaler))
    decider = Decider(read(tmp_path, stored.sha))
    seen = decider.observation(dict.fromkeys(FEATURES.names, 3.0), Holding())
    assert seen.tolist() == [2.0] * COLUMNS + [0.0] * 3
    assert (decider.names, decider.features_digest) == (FEATURES.names, FEATURES.digest)


@pytest.mark.parametrize(
    ("row", "guards", "position"),
    [
        ({}, {}, 1.0),
        ({"volatility_ratio": 2.5}, {}, 0.5),
        ({}, {"size_multiplier": 0.5}, 0.5),
        ({"volatility_ratio": 2.5}, {"size_multiplier": 0.5}, 0.25),
        ({"adx": 20.0}, {}, 0.0),  # ranging
        ({"direction": -0.4}, {}, 0.0),  # against the trend
        ({"return_1": 0.08}, {}, 1.0),  # sure by 1 / (1 + exp(-0.8)) = 0.69
        ({"return_1": 0.08}, {"confidence_bump": 0.1}, 0.0),
        ({"return_1": 0.06}, {}, 0.0),  # 0.6457 is under 0.65
        ({"return_1": -1.0, "direction": -0.4}, {}, -1.0),
    ],
)
def test_regime_confidence_and_guards_stand_between_wish_and_action(
    tmp_path: Path, row: dict[str, float], guards: dict[str, float], position: float
) -> None:
    decider = Decider(deciding(tmp_path))
    action = decider.act(RISING | row, Holding(), rules=ActingRules(), **guards)
    assert action.position == position
    assert action.move is (Move.OPEN if position else Move.STAY)
    assert {reason.check for reason in action.reasons} >= {"confidence", "adx", "volatility"}
    assert action.choice.name == ("long" if (RISING | row)["return_1"] > 0 else "short")


def test_it_may_always_leave(tmp_path: Path) -> None:
    decider = Decider(deciding(tmp_path))
    falling = RISING | {"return_1": -0.01, "adx": 3.0, "volatility_ratio": 9.0}
    held = Holding(held=0.5, unrealised_return=-0.02, holding_share=0.25)
    action = decider.act(falling, held, rules=ActingRules())
    assert (action.move, action.position, action.size) == (Move.CLOSE, 0.0, 0.5)
    assert Verdict.FAIL in {reason.verdict for reason in action.reasons}


def test_a_feature_must_be_finite_and_may_be_as_large_as_a_double(tmp_path: Path) -> None:
    decider = Decider(deciding(tmp_path))
    for number in (math.nan, math.inf, -math.inf):
        with pytest.raises(InvalidInput, match=r"^features\.rsi: must be finite"):
            decider.act(RISING | {"rsi": number}, Holding(), rules=NO_RULES)
    scaler = Scaler(mean=(-1e308,) * COLUMNS, scale=(1e-300,) * COLUMNS, clip=5.0)
    decider = Decider(deciding(tmp_path, spec=deciding_spec(scaler=scaler)))
    seen = decider.observation(dict.fromkeys(FEATURES.names, 1.7e308), Holding())
    assert seen.tolist() == [5.0] * COLUMNS + [0.0] * 3


def test_a_network_whose_numbers_overflow_is_sure_of_nothing(tmp_path: Path) -> None:
    # It gives its golden answer, which is that to zeros.
    decider = Decider(deciding(tmp_path, slope=2e38))
    with pytest.raises(InvalidInput, match=r"^confidence: must be in \[0, 1\], found nan"):
        decider.act(RISING | {"return_1": 5.0}, Holding(), rules=NO_RULES)


def contradicting(name: str, spec: PolicyArtifactSpec) -> PolicyArtifactSpec:
    scaler = dict(spec.scaler.body)
    match name:
        case "features":
            return replace(spec, features=DescribedPart(digest="a" * 64, body=spec.features.body))
        case "no features":
            return replace(spec, features=part_of({"windows": [5, 20]}))
        case "scaler":
            return replace(spec, scaler=DescribedPart(digest="b" * 64, body=spec.scaler.body))
        case "no scaler":
            return replace(spec, scaler=part_of({"mean": [0.0]}))
        case "clip":
            return replace(spec, scaler=part_of(scaler | {"clip": 1e39}))
        case "columns":
            columns = {"mean": [0.5] * 3, "scale": [1.5] * 3}
            return replace(spec, scaler=part_of(scaler | columns))
    return replace(spec, network=replace(spec.network, inputs=COLUMNS))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("features", r"spec\.json: features\.digest must be that of its body"),
        ("no features", r"spec\.json: feature spec must have"),
        ("scaler", r"spec\.json: scaler\.digest must be that of its body"),
        ("no scaler", r"spec\.json: scaler must have the lists"),
        ("clip", r"spec\.json: scaler\.clip must be at most 1e\+06, found 1e\+39"),
        ("columns", r"spec\.json: scaler must have the 15 columns of features, found 3"),
        ("inputs", r"spec\.json: network\.inputs must be 15 columns and what is held, found 15"),
    ],
)
def test_parts_that_contradict_one_another_are_refused(
    tmp_path: Path, name: str, said: str
) -> None:
    stored = deciding(tmp_path, spec=contradicting(name, deciding_spec()))
    with pytest.raises(ArtifactRefused, match=said):
        Decider(read(tmp_path, stored.sha))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"held": 1.5}, r"^held: must be in \[-1, 1\]"),
        ({"held": math.nan}, "^held: must be in"),
        ({"held": 1.0, "unrealised_return": math.inf}, "^unrealised_return: must be in"),
        ({"held": 1.0, "unrealised_return": 1001.0}, "^unrealised_return: must be in"),
        ({"held": 1.0, "holding_share": -0.1}, r"^holding_share: must be in \[0, 1000\]"),
        ({"unrealised_return": 0.1}, "^unrealised_return: must be 0 where held is 0"),
        ({"holding_share": 0.1}, "^holding_share: must be 0 where held is 0"),
    ],
)
def test_what_no_position_is_is_refused(told: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Holding(**told)


def test_who_holds_for_longer_than_the_longest_counts_as_at_its_end() -> None:
    assert Holding(held=1.0, holding_share=3.0).columns == (1.0, 0.0, 1.0)
