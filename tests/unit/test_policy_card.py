"""The policy card: its first line, its numbers by hand, and what is refused as one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from backtest_trials import SUBJECT
from ledger import NOON
from test_backtest import market, trade

from bandit.core.backtest import BacktestRule, BacktestTrial
from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from bandit.core.multiplicity import Search
from learners.backtest import Backtest, BacktestTrade, UnseenBars, measure
from learners.card_numbers import numbers_of
from learners.card_page import page_of
from learners.policy_card import CardEntries, PolicyCard, card_of, read_card

GOLDEN = Path(__file__).resolve().parents[1] / "data"
# Bars of a day that rise from 100 to 104, and back to 99.
CLOSES = [102.0, 104.0, 103.0, 101.0, 99.0]
RULE = BacktestRule(trades_min=2, periods_min=3)


def backtest(trades: list[BacktestTrade], closes: list[float] = CLOSES) -> Backtest:
    bars = UnseenBars(market(closes, hours=24), [range(len(closes))])
    rng = np.random.default_rng(7)
    return measure([bars], trades, fee_ratio=0.0, slippage_ratio=0.0, rng=rng)


def trial_of(found: Backtest) -> BacktestTrial:
    return BacktestTrial(
        subject=SUBJECT,
        started_at=NOON - timedelta(minutes=1),
        finished_at=NOON,
        metrics=found.metrics,
        verdict=Verdict.INCONCLUSIVE,
    )


def card(found: Backtest, search: Search | None = None, rule: BacktestRule = RULE) -> PolicyCard:
    trial = trial_of(found)
    return card_of(
        "drill_1",
        trial,
        found,
        search=search or Search.of([trial.annual_sharpe]),
        rule=rule,
        markets=[UnseenBars(market(CLOSES, hours=24), [range(5)])],
        feature_names=["trend", "rsi"],
        folds=2,
        not_modelled=["Funding."],
        now=NOON,
    )


def day(first: int, last: int, earned: float) -> BacktestTrade:
    return trade(first, last, earned, hours=24)


# Days of +10 %, -5 %, 0, +10 % and 0, with prices that end 1 % lower.
TINY = [day(0, 0, 0.1), day(1, 1, -0.05), day(3, 3, 0.1)]


def test_card_is_the_golden_one() -> None:
    made = card(backtest(TINY), Search.of([15.0, -15.0, None]))
    golden = (GOLDEN / "policy_card.json").read_bytes()
    assert near(json.loads(made.to_json()), json.loads(golden))
    assert read_card(golden).to_json() == golden
    assert page_of(made) == (GOLDEN / "policy_card.md").read_text()


def near(made: object, golden: object) -> bool:
    """Equal but for the last digits of floats, which belong to the processor."""
    if isinstance(made, dict) and isinstance(golden, dict):
        return list(made) == list(golden) and all(near(made[key], golden[key]) for key in made)
    if isinstance(made, list) and isinstance(golden, list):
        return len(made) == len(golden) and all(map(near, made, golden))
    return made == (pytest.approx(golden, rel=1e-9) if isinstance(golden, float) else golden)


def test_numbers_by_hand() -> None:
    numbers = numbers_of(backtest(TINY), deflated=None)
    days = [0.1, -0.05, 0.0, 0.1, 0.0]
    sharpe = np.mean(days) / np.std(days, ddof=1)
    assert numbers["annual_sharpe"].value == pytest.approx(sharpe * math.sqrt(365), rel=1e-12)
    assert numbers["total_return"].value == pytest.approx(1.1 * 0.95 * 1.1 - 1, rel=1e-12)
    assert numbers["drawdown_max_percent"].value == pytest.approx(5.0, rel=1e-12)
    assert numbers["profit_factor"].value == pytest.approx(4.0, rel=1e-12)
    # Two of three; Wilson 1927 with z = 1.96: 0.2077 to 0.9385.
    rate = numbers["win_rate"]
    assert (rate.low, rate.high) == (
        pytest.approx(0.2077, abs=1e-4),
        pytest.approx(0.9385, abs=1e-4),
    )
    # Mean 0.05, deviation 0.15 / √3; t(2, 0.975) = 4.3027: ± 4.3027 · 0.15 / 3.
    mean = numbers["return_mean"]
    assert mean.value == pytest.approx(0.05, rel=1e-12)
    assert mean.high == pytest.approx(0.05 + 4.302653 * 0.0866025404 / math.sqrt(3), rel=1e-6)


GOOD = [day(0, 0, 0.1), day(1, 1, 0.1), day(2, 2, -0.01), day(3, 3, 0.1), day(4, 4, 0.09)]


@pytest.mark.parametrize(
    ("trades", "search", "rule", "begins", "verdict"),
    [
        ([], None, RULE, "Makes no trade: nothing to judge (+0.00 % against -1.00 %)", "FAIL"),
        ([day(0, 1, -0.02)], None, RULE, "Does not beat buy-and-hold after fees (-2.00 %", "FAIL"),
        ([day(0, 1, -0.005)], None, RULE, "Loses money, if less than buy-and-hold", "FAIL"),
        (GOOD, None, BacktestRule(), "Beats buy-and-hold after fees (+43.63 % against -1.00 %), "
         "with too little to judge it by: 5 trades on 5 days.", "FAIL"),
        (GOOD, Search.of([1.0, None]), RULE,
         "Beats buy-and-hold after fees (+43.63 % against -1.00 %); how much of it is luck is not",
         "INCONCLUSIVE"),
        (GOOD, Search.of([-30.0, 30.0] * 99), RULE,
         "Beats buy-and-hold after fees (+43.63 % against -1.00 %), which luck may explain",
         "FAIL"),
        (GOOD, None, replace(RULE, deflated_min=0.9),
         "Beats buy-and-hold after fees (+43.63 % against -1.00 %); deflated Sharpe ratio 0.93. A",
         "PASS"),
    ],
)  # fmt: skip
def test_first_line_is_that_of_the_first_check_that_does_not_pass(
    trades: list[BacktestTrade],
    search: Search | None,
    rule: BacktestRule,
    begins: str,
    verdict: str,
) -> None:
    made = card(backtest(trades), search, rule)
    assert made.headline.startswith(begins), made.headline
    assert made.verdict.value == verdict
    assert page_of(made).splitlines()[2] == f"**{made.headline}**"
    assert read_card(made.to_json()) == made


def test_card_of_another_backtest_is_refused() -> None:
    with pytest.raises(InvalidInput, match="trial: must have the metrics of the backtest"):
        card_of(
            "drill_1",
            trial_of(backtest(GOOD)),
            backtest(TINY),
            search=Search.of([1.0]),
            rule=RULE,
            markets=[],
            feature_names=[],
            folds=1,
            not_modelled=[],
            now=NOON,
        )


def changed(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


@pytest.mark.parametrize(
    "spoil",
    [
        changed(headline="Beats everything."),
        changed(verdict="PASS"),
        changed(schema=2),
        changed(another=1),
        changed(policy="no slug"),
        changed(made_at="2026-03-01T12:00:00"),
        lambda d: d["checks"][2].update(verdict="PASS"),
        lambda d: d["checks"][4].update(value=0.99),
        lambda d: d["checks"].pop(),
        lambda d: d["numbers"]["trades"].update(value="many"),
        lambda d: d["subject"].update(trial="short"),
        lambda d: d.pop("search"),
        lambda d: d["costs"].update(fee_ratio=-0.1),
    ],
)
def test_card_that_was_edited_is_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    made = card(backtest([day(0, 1, -0.02)]))
    document = json.loads(made.to_json())
    assert read_card(json.dumps(document).encode()) == made
    spoil(document)
    with pytest.raises(InvalidInput):
        read_card(json.dumps(document).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 10_000, b" " * (2 << 20)])
def test_what_is_no_card_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^card: "):
        read_card(body)


def test_rule_that_anything_would_satisfy_is_refused() -> None:
    for wrong in ({"trades_min": 1}, {"periods_min": 1}, {"deflated_min": 0.4}):
        with pytest.raises(InvalidInput):
            replace(RULE, **wrong)


def test_a_card_says_what_kept_its_policy_out() -> None:
    told = CardEntries(
        confidence_min=0.65, asked=1_400, wanted=1_200, unsure=1_180, off_regime=300, entered=4
    )
    quiet = msgspec.structs.replace(card(backtest(TINY)), entries=told)
    assert read_card(quiet.to_json()) == quiet
    assert (
        "**Wanted in** at 1,200 of the 1,400 closes at which it held nothing, and entered 4 times: "
        "1,180 times it was less sure than 65 %, 300 times the market's regime forbade it"
    ) in page_of(quiet)
    assert "Wanted in" not in page_of(card(backtest(TINY)))
