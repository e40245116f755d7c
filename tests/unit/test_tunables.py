"""What a sweep may choose: bounds, names, and the limits of risk that are in no search space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.optimization import growth_bound
from bandit.core.tunables import (
    TUNABLES,
    UNTUNABLE,
    Scale,
    Tunable,
    checked_parameters,
    defaults,
    parsed_parameters,
    require_tunable,
)
from config.bot import Risk
from config.settings import Settings
from learners.challenger import ChallengerPlan
from learners.classifier_plan import ClassifierPlan
from learners.market.candles import shipped_candles
from learners.market.features import FeatureSpec
from learners.tuned_plan import risk_per_trade, tuned_plan, typical_range
from liveops.learning import ENVIRONMENT
from liveops.wiring import acting_rules_of

CANDLES = shipped_candles()
PLAN = ChallengerPlan(
    features=FeatureSpec(),
    environment=ENVIRONMENT,
    training=ClassifierPlan(seed=1, forest=None, forest_weight=0.0),
    acting=acting_rules_of(Settings()),
    train_bars=8_000,
    test_bars=2_000,
)


def test_bounds_are_those_of_the_documents() -> None:
    bounds = {each.name: (each.lower, each.upper) for each in TUNABLES}
    assert bounds["risk_per_trade"] == (0.005, 0.02)
    assert bounds["stop_atr"] == (1.0, 4.0)
    assert bounds["take_profit_r"] == (1.5, 4.0)
    assert bounds["rsi_bars"] == (5, 30)


@pytest.mark.parametrize("name", sorted(UNTUNABLE))
def test_neither_capital_nor_a_limit_of_losses_can_be_in_a_search_space(name: str) -> None:
    refused = "must not be the capital or a limit of losses"
    for attempt in (
        lambda: Tunable(
            name=name,
            scale=Scale.LINEAR,
            lower=0.01,
            upper=0.5,
            default=0.03,
            unit="fraction",
            meaning="More.",
        ),
        lambda: checked_parameters({name: 0.03}),
        lambda: parsed_parameters([f"{name.upper()}=0.03"]),
        lambda: tuned_plan(PLAN, {name: 0.03}, [CANDLES]),
    ):
        with pytest.raises(InvalidInput, match=refused):
            attempt()


def test_the_settings_that_limit_losses_are_among_the_names_that_are_refused() -> None:
    for name in ("max_daily_loss", "max_drawdown"):
        assert name in Risk.model_fields
        with pytest.raises(InvalidInput):
            require_tunable(name)
    assert UNTUNABLE.isdisjoint(each.name for each in TUNABLES)


@pytest.mark.parametrize("each", TUNABLES, ids=lambda each: each.name)
def test_every_tunable_changes_the_plan_and_nothing_else_than_its_own(each: Tunable) -> None:
    """No dead one: from anywhere it moves what is made, and so the digest that names it."""
    before = {**defaults(), "risk_per_trade": 0.005}
    found = {
        tuned_plan(PLAN, {**before, each.name: each.checked(value)}, [CANDLES]).digest
        for value in (each.lower, each.upper)
    }
    assert len(found) == 2
    alone = tuned_plan(PLAN, {each.name: each.checked(each.lower)}, [CANDLES])
    assert alone.acting == PLAN.acting
    assert (alone.train_bars, alone.test_bars) == (PLAN.train_bars, PLAN.test_bars)


def test_the_page_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    for t in TUNABLES:
        bounds = f"{t.lower:g} | {t.upper:g} | {t.default:g}"
        assert f"| `{t.name}` | {bounds} | {t.unit} | {t.meaning} |\n" in page


def test_nothing_chosen_is_the_plan_as_it_was() -> None:
    assert tuned_plan(PLAN, {}, [CANDLES]) is PLAN


def test_stop_take_profit_and_position_follow_from_atr_and_risk() -> None:
    atr = typical_range([CANDLES], bars=8_000)
    chosen = {"stop_atr": 2.0, "take_profit_r": 3.0, "risk_per_trade": 0.01}
    found = tuned_plan(PLAN, chosen, [CANDLES]).environment
    assert found.stop_ratio == pytest.approx(2 * atr, abs=1e-6)
    assert found.take_profit_ratio == pytest.approx(6 * atr, abs=3e-6)
    assert risk_per_trade(found) == pytest.approx(0.01, abs=1e-6)
    tight = {"stop_atr": 1.0, "risk_per_trade": 0.02}
    capped = tuned_plan(PLAN, tight, [CANDLES]).environment
    assert capped.position_ratio == 1.0, "more than all there is cannot be put in"
    assert risk_per_trade(capped) == capped.stop_ratio


def test_the_stop_is_measured_on_bars_before_any_that_is_tested() -> None:
    """Bars after the first training bars may do what they like: the stop does not know them."""
    tuned = tuned_plan(PLAN, {"stop_atr": 2.0}, [CANDLES.until(9_000)])
    assert tuned == tuned_plan(PLAN, {"stop_atr": 2.0}, [CANDLES])


def test_what_has_no_place_in_a_plan_is_refused() -> None:
    bare = replace(PLAN, training=replace(PLAN.training, encoder=None))
    with pytest.raises(InvalidInput, match="must go with an encoder"):
        tuned_plan(bare, {"encoder_bars": 24}, [CANDLES])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rsi_bars=31", "whole number from 5 to 30"),
        ("rsi_bars=9.5", "whole number from 5 to 30"),
        ("stop_atr=nan", "number from 1 to 4"),
        ("stop_atr", "must be NAME=NUMBER"),
        ("stop_atr=much", "must be NAME=NUMBER"),
        ("colour=1", "must be one of risk_per_trade"),
    ],
)
def test_what_is_typed_is_held_against_the_bounds(text: str, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        parsed_parameters([text])


def test_bounds_have_to_say_something() -> None:
    sound = TUNABLES[0]
    with pytest.raises(InvalidInput, match="rising bounds"):
        replace(sound, upper=sound.lower)
    with pytest.raises(InvalidInput, match="number from"):
        replace(sound, default=0.5)
    with pytest.raises(InvalidInput, match="above 0 to be spread"):
        replace(sound, scale=Scale.LOGARITHMIC, lower=0.0)


def test_a_trial_is_worth_the_growth_that_can_be_relied_on() -> None:
    """By hand: two trades of +10 % at half the equity, beside two that lost 1 %."""
    # log(1.05) = 0.04879016, log(0.99) = -0.01005034: mean 0.01936991; deviation 0.03397157
    # (ddof 1), its error 0.01698579, 1.64485363 of which are 0.02793913.
    found = growth_bound([0.1, 0.1], position_ratio=0.5, risk_per_trade=0.01)
    assert found == pytest.approx(0.01936991 - 0.02793913, abs=1e-7)


def test_more_risk_is_worth_more_only_where_the_edge_is_larger() -> None:
    strong, weak = [0.03, -0.01] * 200, [0.0101, -0.01] * 200

    def worth(returns: list[float], risk: float) -> float:
        return growth_bound(returns, position_ratio=risk / 0.01, risk_per_trade=risk)

    assert worth(strong, 0.02) > worth(strong, 0.005)
    assert worth(weak, 0.02) < worth(weak, 0.005)


def test_ruin_is_worth_least_and_is_a_number() -> None:
    ruined = growth_bound([-1.0], position_ratio=1.0, risk_per_trade=0.01)
    assert -100 < ruined < growth_bound([-0.5], position_ratio=1.0, risk_per_trade=0.01)
