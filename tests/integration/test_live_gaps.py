"""Live trades beside the backtest of their policy: planted, and worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from api_service import service
from backtest_trials import SLIPPAGE, a_failure, a_trial, without_promise
from ledger import CHALLENGER, NOON, assign_to, closed, open_btc, record_all
from rich.console import Console
from sqlalchemy import Engine
from test_api_metrics import scraped

from bandit.core.backtest import BacktestTrial
from bandit.core.model import Assignment
from bandit.core.outcomes import Outcome, declined
from bandit.service import live_gaps, reporting, revising, trials
from bandit.storage import experiments, outcomes
from bandit.storage.engine import snapshot
from liveops.clock import VirtualClock
from liveops.report import render_report

LATER = NOON + timedelta(days=2)
# A hundred trades: 60 gain 1 %, 40 lose 1 %; mean 0.002, variance 100 · 0.000096 / 99.
PAST = [0.01, 0.01, 0.01, -0.01, -0.01] * 20
METRICS = {"liveops_arm_backtest_gap_ratio", "liveops_arm_backtest_worse"}


def begin(engine: Engine, trial: BacktestTrial | None) -> None:
    """Open `btc` with a challenger whose policy names this trial."""
    named = {}
    if trial is not None:
        trials.record(engine, trial, now=NOON, actor="test")
        named = {CHALLENGER: trial.id}
    open_btc(engine, trials=named)


def play(
    engine: Engine, results: Sequence[tuple[str, str | None]], *, prefix: str = "u"
) -> list[Assignment]:
    """Let the challenger close trades of 1,000 put in, one a minute: return and money slipped."""
    made = assign_to(engine, CHALLENGER, len(results), prefix=prefix)
    told = [
        closed(a, earned, minutes=minute, slippage=lost)
        for minute, (a, (earned, lost)) in enumerate(zip(made, results, strict=True), start=1)
    ]
    record_all(engine, told, now=LATER)
    return made


def arm_json(engine: Engine, policy: str = CHALLENGER) -> dict[str, Any] | None:
    made = reporting.report(engine, "btc").to_json()
    json.dumps(made, allow_nan=False)
    (found,) = (arm["backtest_gap"] for arm in made["arms"] if arm["policy"] == policy)
    return found


def text_of(engine: Engine) -> str:
    out = StringIO()
    Console(file=out, width=120).print(render_report(reporting.report(engine, "btc")))
    return out.getvalue()


def seen(engine: Engine) -> dict[tuple[str, str], float]:
    with service(engine, clock=VirtualClock(LATER)) as client:
        found = [s for s in scraped(client) if s.name in METRICS]
    assert {s.labels["policy"] for s in found} <= {CHALLENGER}
    return {(s.name, s.labels["what"]): s.value for s in found}


def test_gaps_of_planted_trades_by_hand(engine: Engine) -> None:
    trial = a_trial(PAST)
    begin(engine, trial)
    # 20 gain 1 %, 40 lose 1 %; 20 tell that they slipped by 0.6 of 1,000 and 20 by 1.0.
    play(engine, [("0.01", "0.6"), ("-0.01", "1.0"), ("-0.01", None)] * 20)
    found = arm_json(engine)
    assert found is not None
    counted = (found["trial"], found["trades"], found["trades_with_slippage"])
    assert counted == (trial.id, 60, 40)
    assert found["trades_backtest"] == 100

    # Variances of ± 1 % with a mean m: n / (n - 1) · (0.0001 - m²).
    live, past = -0.01 / 3, 0.002
    ours, theirs = (0.0001 - live**2) / 59, (0.0001 - past**2) / 99
    freedom = (ours + theirs) ** 2 / (ours**2 / 59 + theirs**2 / 99)
    assert freedom == pytest.approx(127.8311, abs=1e-4)
    half = 1.978694 * math.sqrt(ours + theirs)  # t(127.8311, 0.975)
    told = found["return_mean"]
    assert (told["live"], told["backtest"]) == pytest.approx((live, past), rel=1e-12)
    assert told["difference"] == pytest.approx(live - past, rel=1e-12)
    assert told["low"] == pytest.approx(live - past - half, rel=1e-5)
    assert told["high"] == pytest.approx(live - past + half, rel=1e-5)
    assert told["is_worse"] is True

    told = found["win_rate"]
    assert (told["live"], told["backtest"]) == pytest.approx((1 / 3, 0.6))
    assert told["is_worse"] is True

    # 20 of 6 and 20 of 10 basis points: mean 8, deviation 2 · √(40/39), over √40; t(39, 0.975).
    told = found["slippage"]
    half = 2.022691 * 2e-4 / math.sqrt(39)
    assert (told["live"], told["backtest"]) == pytest.approx((8e-4, SLIPPAGE), rel=1e-12)
    assert told["low"] == pytest.approx(4e-4 - half, rel=1e-6)
    assert told["high"] == pytest.approx(4e-4 + half, rel=1e-6)
    assert told["is_worse"] is True
    assert arm_json(engine, "prod") is None


def test_text_and_metrics_say_what_the_report_says(engine: Engine) -> None:
    begin(engine, a_trial(PAST))
    play(engine, [("0.01", "0.3"), ("0.01", "0.5"), ("-0.01", "0.4")] * 20)
    found = arm_json(engine)
    assert found is not None
    page = " ".join(text_of(engine).split())
    assert "newest live trades less the backtest" in page
    metrics = seen(engine)
    assert {name for name, _ in metrics} == METRICS
    for what in ("return_mean", "win_rate", "slippage"):
        told = found[what]
        assert told["is_worse"] is False
        numbers = (told[key] for key in ("live", "backtest", "difference", "low", "high"))
        assert f"{what} " + " ".join(f"{n:.4g}" for n in numbers) + " not shown" in page
        assert metrics["liveops_arm_backtest_gap_ratio", what] == told["difference"]
        assert metrics["liveops_arm_backtest_worse", what] == 0
    with service(engine) as client:
        answer = client.get("/v1/experiments/btc/report").json()
    assert [arm["backtest_gap"] for arm in answer["arms"] if arm["policy"] == CHALLENGER] == [found]


def test_policy_without_a_trial_has_no_gap(engine: Engine) -> None:
    begin(engine, None)
    play(engine, [("-0.01", "0.4")] * 40)
    assert arm_json(engine) is None
    assert "backtest" not in text_of(engine)
    assert seen(engine) == {}


def test_policy_that_names_what_is_no_trial_has_no_gap(engine: Engine) -> None:
    open_btc(engine, trials={CHALLENGER: "f" * 64})
    assert arm_json(engine) is None


@pytest.mark.parametrize("trial", [without_promise(a_trial(PAST)), a_failure()])
def test_trial_that_kept_no_promise_leaves_the_gap_unknown(
    engine: Engine, trial: BacktestTrial
) -> None:
    begin(engine, trial)
    play(engine, [("-0.01", "0.4"), ("0.02", "0.4")] * 20)
    found = arm_json(engine)
    assert found is not None
    assert (found["trades"], found["trades_backtest"]) == (40, None)
    for what, live in (("return_mean", 0.005), ("win_rate", 0.5), ("slippage", 4e-4)):
        nothing = dict.fromkeys(("backtest", "difference", "low", "high", "is_worse"))
        assert found[what] == {"live": pytest.approx(live), **nothing}
    assert text_of(engine).count("not known") == 3
    assert seen(engine) == {}


@pytest.mark.parametrize("n", [1, 29])
def test_too_few_trades_have_a_gap_and_no_verdict(engine: Engine, n: int) -> None:
    begin(engine, a_trial(PAST))
    play(engine, [("-0.01", "0.9")] * n)
    found = arm_json(engine)
    assert found is not None
    for what, gap in (("return_mean", -0.012), ("win_rate", -0.6), ("slippage", 5e-4)):
        assert found[what]["difference"] == pytest.approx(gap)
        assert found[what]["low"] is found[what]["high"] is found[what]["is_worse"] is None
    assert text_of(engine).count("too few") == 3
    assert {name for name, _ in seen(engine)} == {"liveops_arm_backtest_gap_ratio"}


def test_arm_that_declined_everything_has_nothing_to_compare(engine: Engine) -> None:
    begin(engine, a_trial(PAST))
    record_all(engine, [declined(a.id) for a in assign_to(engine, CHALLENGER, 40)], now=NOON)
    found = arm_json(engine)
    assert found is not None
    assert found["trades"] == 0
    assert found["return_mean"]["backtest"] == pytest.approx(0.002)
    for what in ("return_mean", "win_rate", "slippage"):
        assert found[what]["live"] is found[what]["difference"] is None
    assert seen(engine) == {}


def test_correction_counts_instead_of_what_was_told(engine: Engine) -> None:
    begin(engine, a_trial(PAST))
    gain, loss, wrong = play(engine, [("0.01", "0.4"), ("-0.01", None), ("0.05", "9")])
    revised = [
        closed(gain, "0.03", minutes=1, slippage="0.2"),
        closed(loss, "-0.02", minutes=2, slippage="0.6"),
        declined(wrong.id),
    ]
    for outcome in revised:
        revise(engine, outcome)
    found = arm_json(engine)
    assert found is not None
    assert (found["trades"], found["trades_with_slippage"]) == (2, 2)
    assert found["return_mean"]["live"] == pytest.approx(0.005)
    assert found["slippage"]["live"] == pytest.approx(4e-4)


def revise(engine: Engine, outcome: Outcome) -> None:
    revising.revise(engine, outcome, reason="statement", now=LATER, actor="test")


def test_value_at_entry_is_that_of_each_trade(engine: Engine) -> None:
    begin(engine, a_trial(PAST))
    small, large, even = assign_to(engine, CHALLENGER, 3)
    told = [
        closed(small, "0.01", minutes=1, pnl="1", slippage="0.05"),  # of 100: 5 basis points
        closed(large, "-0.01", minutes=2, pnl="-50", slippage="1.5"),  # of 5,000: 3
        closed(even, "0", minutes=3, pnl="0", slippage="1"),  # of nobody knows how much
    ]
    record_all(engine, told, now=LATER)
    found = arm_json(engine)
    assert found is not None
    assert (found["trades"], found["trades_with_slippage"]) == (3, 2)
    assert found["slippage"]["live"] == pytest.approx(4e-4, rel=1e-12)


def test_newest_trades_alone_are_compared(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(engine, a_trial(PAST))
    made = play(engine, [("-0.5", "9")] * 3 + [("0.01", "0.4"), ("0.03", None)])
    revise(engine, closed(made[0], "-0.4", minutes=0, slippage="9"))
    record = experiments_record(engine)
    (arm_id,) = (arm.id for arm in record.arms if arm.place.policy == CHALLENGER)
    with snapshot(engine) as connection:
        samples = outcomes.newest_samples(connection, [arm_id], 2)
        everything = outcomes.newest_samples(connection, [arm_id], 10)
        assert outcomes.newest_samples(connection, [], 2) == {}
    assert (samples[arm_id].n, samples[arm_id].wins, samples[arm_id].n_slippage) == (2, 2, 1)
    assert samples[arm_id].mean == pytest.approx(0.02)
    assert everything[arm_id].mean == pytest.approx((-0.4 - 0.5 - 0.5 + 0.04) / 5)
    monkeypatch.setattr(live_gaps, "LIVE_TRADES", 2)
    found = arm_json(engine)
    assert found is not None
    assert (found["trades"], found["return_mean"]["live"]) == (2, pytest.approx(0.02))


def experiments_record(engine: Engine) -> experiments.ExperimentRecord:
    with snapshot(engine) as connection:
        return experiments.load(connection, "btc")


def test_policies_that_share_a_trial_are_compared_each_with_its_own_trades(engine: Engine) -> None:
    trial = a_trial(PAST)
    trials.record(engine, trial, now=NOON, actor="test")
    open_btc(engine, trials={CHALLENGER: trial.id, "prod": trial.id})
    play(engine, [("0.02", "0.4")])
    [mine] = assign_to(engine, "prod", 1, prefix="p")
    record_all(engine, [closed(mine, "-0.02", slippage="0.8")], now=LATER)
    for policy, mean, slipped in ((CHALLENGER, 0.02, 4e-4), ("prod", -0.02, 8e-4)):
        found = arm_json(engine, policy)
        assert found is not None
        assert found["return_mean"]["live"] == pytest.approx(mean)
        assert found["slippage"]["live"] == pytest.approx(slipped)
