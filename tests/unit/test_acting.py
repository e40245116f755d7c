"""What is done of a policy's choice: confidence, regime and guards bind new exposure only."""

from __future__ import annotations

import itertools
import math

import pytest

from bandit.core.acting import ActingRules, Action, Choice, Move, Regime, acted
from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict

RULES = ActingRules()
UP = Regime(adx=30.0, trend=1, volatility=1.0)
RANGING = Regime(adx=20.0, trend=1, volatility=1.0)
UNKNOWN = Regime(adx=None, trend=0, volatility=None)


def asked(
    position: float,
    *,
    held: float = 0.0,
    confidence: float = 0.8,
    regime: Regime = UP,
    rules: ActingRules = RULES,
    size_multiplier: float = 1.0,
    confidence_bump: float = 0.0,
) -> Action:
    choice = Choice(name="wanted", position=position, confidence=confidence)
    return acted(
        choice,
        held=held,
        regime=regime,
        rules=rules,
        size_multiplier=size_multiplier,
        confidence_bump=confidence_bump,
    )


def failed(action: Action) -> list[str]:
    return [reason.check for reason in action.reasons if reason.verdict is not Verdict.PASS]


def test_a_sure_choice_with_the_trend_is_opened_whole() -> None:
    action = asked(1.0)
    assert (action.move, action.position, action.size) == (Move.OPEN, 1.0, 1.0)
    assert [reason.check for reason in action.reasons] == [
        "confidence",
        "adx",
        "trend",
        "volatility",
    ]
    assert failed(action) == []


@pytest.mark.parametrize(
    ("confidence", "bump", "move"),
    [
        (0.65, 0.0, Move.OPEN),
        (0.6499, 0.0, Move.STAY),
        (0.70, 0.1, Move.STAY),
        (0.76, 0.1, Move.OPEN),
        (1.0, 0.5, Move.STAY),
    ],
)
def test_it_acts_from_its_confidence_and_the_bump_on(
    confidence: float, bump: float, move: Move
) -> None:
    action = asked(1.0, confidence=confidence, confidence_bump=bump)
    assert action.move is move
    assert action.reasons[0].limit == 0.65 + bump
    assert failed(action) == ([] if move is Move.OPEN else ["confidence"])


def test_without_the_regime_filter_only_confidence_and_guards_speak() -> None:
    rules = ActingRules(filters_regime=False)
    for regime in (RANGING, UNKNOWN, Regime(adx=40.0, trend=-1, volatility=9.0)):
        action = asked(1.0, regime=regime, rules=rules, size_multiplier=0.5)
        assert (action.move, action.position) == (Move.OPEN, 0.5)
        assert [reason.check for reason in action.reasons] == ["confidence"]
        assert asked(1.0, regime=regime, rules=rules, confidence=0.5).move is Move.STAY
        assert asked(1.0, regime=regime, rules=ActingRules(), size_multiplier=0.5).position == 0.0


def test_the_threshold_is_a_rule() -> None:
    assert asked(1.0, confidence=0.5, rules=ActingRules(confidence_min=0.5)).move is Move.OPEN


@pytest.mark.parametrize("adx", [20.0, 24.999])
def test_a_ranging_market_blocks_new_positions(adx: float) -> None:
    action = asked(1.0, regime=Regime(adx=adx, trend=1, volatility=1.0))
    assert (action.move, failed(action)) == (Move.STAY, ["adx"])


def test_a_ranging_market_is_open_in_both_directions_where_it_is_allowed() -> None:
    rules = ActingRules(allow_ranging=True)
    assert asked(1.0, regime=RANGING, rules=rules).position == 1.0
    assert asked(-1.0, regime=RANGING, rules=rules).position == -1.0
    # A trend that is there still has to be followed.
    assert asked(-1.0, regime=UP, rules=rules).move is Move.STAY


@pytest.mark.parametrize(
    ("trend", "wanted", "position"),
    [(1, 1.0, 1.0), (1, -1.0, 0.0), (-1, -1.0, -1.0), (-1, 1.0, 0.0), (0, 1.0, 0.0)],
)
def test_a_trend_is_followed(trend: int, wanted: float, position: float) -> None:
    action = asked(wanted, regime=Regime(adx=40.0, trend=trend, volatility=1.0))
    assert action.position == position
    assert failed(action) == ([] if position else ["trend"])


@pytest.mark.parametrize(
    ("volatility", "multiplier", "position"),
    [(2.0, 1.0, 1.0), (2.01, 1.0, 0.5), (1.0, 0.5, 0.5), (3.0, 0.5, 0.25), (1.0, 0.0, 0.0)],
)
def test_high_volatility_halves_and_the_guards_multiply(
    volatility: float, multiplier: float, position: float
) -> None:
    regime = Regime(adx=30.0, trend=1, volatility=volatility)
    action = asked(1.0, regime=regime, size_multiplier=multiplier)
    assert (action.position, action.size) == (position, position)
    assert action.move is (Move.OPEN if position else Move.STAY)


@pytest.mark.parametrize(
    "regime",
    [
        UNKNOWN,
        Regime(adx=math.nan, trend=1, volatility=1.0),
        Regime(adx=30.0, trend=1, volatility=math.nan),
        Regime(adx=30.0, trend=1, volatility=None),
    ],
)
def test_an_unknown_market_is_not_entered(regime: Regime) -> None:
    action = asked(1.0, regime=regime)
    assert action.move is Move.STAY
    assert Verdict.INCONCLUSIVE in {reason.verdict for reason in action.reasons}


@pytest.mark.parametrize(
    ("held", "wanted", "move", "position"),
    [
        (1.0, 0.0, Move.CLOSE, 0.0),
        (-1.0, 0.0, Move.CLOSE, 0.0),
        (1.0, 0.25, Move.REDUCE, 0.25),
        (-0.5, -0.5, Move.STAY, -0.5),
        # The way out goes through, the way into the other side does not.
        (1.0, -1.0, Move.CLOSE, 0.0),
        (-1.0, 1.0, Move.CLOSE, 0.0),
        (0.5, 1.0, Move.STAY, 0.5),
        (0.0, -1.0, Move.STAY, 0.0),
    ],
)
def test_leaving_is_never_blocked(held: float, wanted: float, move: Move, position: float) -> None:
    action = asked(
        wanted, held=held, confidence=0.0, regime=UNKNOWN, size_multiplier=0.0, confidence_bump=1.0
    )
    assert (action.move, action.position, action.size) == (move, position, abs(position - held))


def test_turning_and_adding_are_new_exposure() -> None:
    turned = asked(1.0, held=-1.0, size_multiplier=0.5)
    assert (turned.move, turned.position, turned.size) == (Move.TURN, 0.5, 1.5)
    added = asked(1.0, held=0.25, size_multiplier=0.5)
    assert (added.move, added.position, added.size) == (Move.ADD, 0.5, 0.25)
    # A smaller share than what is held does not sell it.
    kept = asked(1.0, held=0.75, size_multiplier=0.5)
    assert (kept.move, kept.position) == (Move.STAY, 0.75)


def test_no_rule_ever_adds_risk() -> None:
    """Everywhere: between where it stands and where it wants to go, never more than wanted."""
    steps = (-1.0, -0.5, 0.0, 0.5, 1.0)
    regimes = (UP, RANGING, UNKNOWN, Regime(adx=50.0, trend=-1, volatility=9.0))
    for held, wanted, regime, confidence, share in itertools.product(
        steps, steps, regimes, (0.3, 0.9), (0.0, 0.4, 1.0)
    ):
        action = asked(
            wanted, held=held, regime=regime, confidence=confidence, size_multiplier=share
        )
        assert min(held, wanted) <= action.position <= max(held, wanted)
        if wanted * held <= 0:
            assert abs(action.position) <= abs(wanted)
            assert action.position * held <= 0 or held == action.position == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.01, 1.01])
def test_what_is_no_share_is_refused(value: float) -> None:
    for field in ("confidence", "size_multiplier", "confidence_bump"):
        with pytest.raises(InvalidInput, match=field):
            asked(1.0, **{field: value})
    with pytest.raises(InvalidInput, match="confidence_min"):
        ActingRules(confidence_min=value)


@pytest.mark.parametrize("value", [math.nan, -1.5, 2.0])
def test_what_is_no_position_is_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="position"):
        asked(value)
    with pytest.raises(InvalidInput, match="held"):
        asked(1.0, held=value)
    with pytest.raises(InvalidInput, match="trend"):
        Regime(adx=30.0, trend=2, volatility=1.0)
    with pytest.raises(InvalidInput, match="adx_min"):
        ActingRules(adx_min=-value if value == 2.0 else value)
    with pytest.raises(InvalidInput, match="volatility_max"):
        ActingRules(volatility_max=-abs(value))
