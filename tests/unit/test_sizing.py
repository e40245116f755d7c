"""Sizing limits as values: what they refuse, what bots are told, what caps an action."""

from __future__ import annotations

import json
from dataclasses import asdict
from uuid import UUID

import pytest

from bandit.core.acting import ActingRules, Choice, Regime, acted
from bandit.core.errors import InvalidInput, PositionLimit, SizeLimit
from bandit.core.model import Verdict
from bandit.core.reading import Rules
from bandit.core.sizing import Claim, Sizing, SizingRule
from config.settings import Settings
from liveops.wiring import rules_of, sizing_rule_of

RISING = Regime(adx=31.0, trend=1, volatility=1.0)


def test_the_documents_limits_are_the_defaults() -> None:
    assert SizingRule().sizing(0.01) == Sizing(
        base_position_size=0.01,
        max_position_size=0.05,
        max_leverage=2.0,
        max_open_positions=2,
        stop_loss_pct=0.02,
        take_profit_pct=0.03,
    )
    assert rules_of(Settings()).sizing == SizingRule()


def test_every_setting_reaches_its_limit() -> None:
    risk = {
        "max_leverage": 3.0,
        "max_position_size": 0.2,
        "max_open_positions": None,
        "stop_loss_pct": 0.05,
        "take_profit_pct": 0.5,
    }
    chosen = sizing_rule_of(Settings.model_validate({"risk": risk}))
    assert chosen == SizingRule(
        max_leverage=3.0,
        max_position_size=0.2,
        max_open_positions=None,
        stop_loss=0.05,
        take_profit=0.5,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_leverage", 100.5),
        ("max_leverage", float("nan")),
        ("max_position_size", 0.0),
        ("max_position_size", 1.01),
        ("max_open_positions", 0),
        ("stop_loss", 1.0),
        ("stop_loss", 0.0),
        ("take_profit", 11.0),
        ("symbol_share_max", 0.0),
        ("symbol_share_max", float("inf")),
    ],
)
def test_a_limit_that_limits_nothing_or_everything_is_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        SizingRule(**{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("rule", [SizingRule(), SizingRule(symbol_share_max=0.1), None])
def test_a_rule_comes_back_from_the_ledger_as_it_went(rule: SizingRule | None) -> None:
    stored = json.loads(json.dumps(asdict(Rules(sizing=rule))))
    assert Rules.from_json(stored).sizing == rule


def test_an_experiment_of_an_older_release_has_no_limits() -> None:
    stored = asdict(Rules())
    del stored["sizing"]
    assert Rules.from_json(stored).sizing is None


@pytest.mark.parametrize("field", ["position_size", "leverage"])
@pytest.mark.parametrize("value", [0.0, -0.01, 1000.5, float("nan"), float("inf")])
def test_a_claim_tells_sizes_that_can_be(field: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: must be above 0"):
        Claim(assignment=UUID(int=1), **{field: value})


def test_refusals_say_the_limit_and_what_was_found() -> None:
    named = {
        "assignment_id": "a",
        "experiment": "btc",
        "instrument": "BTCUSD",
        "claimed_at": "2026-03-01T12:00:00+00:00",
    }
    assert str(PositionLimit(limit=1, found=1, open=[named])) == (
        "1 positions are open in the account, and 1 may be: "
        "BTCUSD of btc since 2026-03-01T12:00:00+00:00 (a)"
    )
    assert str(SizeLimit(field="position_size", limit=0.05, found=0.2)) == (
        "position_size is 0.2, at most 0.05 is allowed"
    )


# What a stored policy does, capped


def opened(*, base: float, held: float = 0.0, share: float = 1.0) -> tuple[float, str, Verdict]:
    action = acted(
        Choice(name="long", position=1.0, confidence=0.9),
        held=held,
        regime=RISING,
        rules=ActingRules(),
        size_multiplier=share,
        sizing=SizingRule(max_position_size=0.05).sizing(base),
    )
    checked = action.reasons[-1]
    assert checked.check == "position_size"
    return action.position, checked.note, checked.verdict


def test_an_action_opens_no_more_than_the_largest_position() -> None:
    # A nominal trade of a tenth of equity, and at most a twentieth in one position: half of it.
    assert opened(base=0.1) == (0.5, "capped at 0.05 of equity", Verdict.FAIL)
    assert opened(base=0.05) == (1.0, "", Verdict.PASS)
    assert opened(base=0.1, share=0.25) == (0.25, "", Verdict.PASS)


def test_a_cap_sells_nothing_of_what_is_held() -> None:
    assert opened(base=0.1, held=0.75) == (0.75, "capped at 0.05 of equity", Verdict.FAIL)


def test_closing_is_never_checked() -> None:
    action = acted(
        Choice(name="flat", position=0.0, confidence=0.9),
        held=1.0,
        regime=RISING,
        rules=ActingRules(),
        sizing=SizingRule(max_position_size=0.01).sizing(0.1),
    )
    assert (action.position, action.reasons) == (0.0, ())
