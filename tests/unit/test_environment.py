"""The training environment by hand, on real candles, and what it refuses.

By hand: an episode begins at the close of bar 0; its first action fills at the open of bar 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from environments import (
    actions_of,
    assert_like_paper,
    assert_like_plain,
    candles_of,
    features_of,
    spec_of,
)

from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.environment import EpisodeTrade, MarketEnvironment, Step
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import load_candles
from learners.market.paper_market import PERPETUAL_TAKER, Costs, ExitReason

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "candles"

FLAT, LONG, SHORT = 0, 1, 2
BEFORE = (100.0, 100.0, 100.0, 100.0)
QUIET = (100.0, 101.0, 99.0, 100.0)


def played(
    rows: list[tuple[float, float, float, float]],
    actions: list[int],
    *,
    hours: int = 1,
    **changes: object,
) -> tuple[list[Step], list[list[EpisodeTrade]]]:
    candles = candles_of([BEFORE, *rows], hours=hours)
    spec = spec_of(**({"episode_bars": len(rows)} | changes))
    environment = MarketEnvironment(
        candles, features_of(candles), spec, count=1, bars=range(len(candles)), seed=0
    )
    steps, trades = [], []
    for action in actions:
        steps.append(environment.step(np.array([action])))
        trades.append(environment.closed_trades())
    return steps, trades


def rewards_of(steps: list[Step]) -> list[float]:
    return [float(step.rewards[0]) for step in steps]


def test_a_long_is_marked_with_all_its_costs_and_reversed_at_one_open() -> None:
    costs = Costs(fee_ratio=0.001, slippage_ratio=0.002)
    rows = [(100, 101, 99, 101), (102, 102.5, 100, 101), QUIET]

    steps, trades = played(rows, [LONG, SHORT], costs=costs)

    # in at 100.2; marked at 101, which slips to 100.798, and two fees
    marked = (100.798 - 100.2) / 100.2 - 0.001 - 0.001 * 100.798 / 100.2
    # out at 102, which slips to 101.796; short from there, marked at 101, which slips to 101.202
    left = (101.796 - 100.2) / 100.2 - 0.001 - 0.001 * 101.796 / 100.2
    short = (101.796 - 101.202) / 101.796 - 0.001 - 0.001 * 101.202 / 101.796
    assert rewards_of(steps) == pytest.approx([marked, left - marked + short], abs=1e-15)
    assert steps[0].observations[0, -3:] == pytest.approx([1, marked, 1 / 3])
    assert steps[1].observations[0, -3:] == pytest.approx([-1, short, 1 / 3])
    assert trades[0] == []
    assert trades[1] == [
        EpisodeTrade(
            episode=0,
            side=Side.LONG,
            entry_bar=1,
            exit_bar=2,
            exit_reason=ExitReason.DECISION,
            return_ratio=pytest.approx(left),
        )
    ]


def test_a_bar_that_touches_both_levels_stops_and_the_action_may_enter_again() -> None:
    rows = [(100, 104, 97, 100), (100, 104, 99, 100), QUIET]

    steps, trades = played(rows, [LONG, LONG])

    assert rewards_of(steps) == pytest.approx([-0.02, 0.03])
    reasons = [trade.exit_reason for closed in trades for trade in closed]
    assert reasons == [ExitReason.STOP, ExitReason.TAKE_PROFIT]
    assert steps[0].observations[0, -3:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("low", "earned"), [(98.049, -0.02), (98.05, 0.0)])
def test_a_bar_that_meets_the_stop_to_the_digit_touches_it(low: float, earned: float) -> None:
    # 2 % below 100.05 is 98.049; in binary 100.05 * (1 - 0.02) is a little less
    assert 100.05 * (1 - 0.02) < 98.049

    steps, _ = played([(100.05, 101, low, 100.05), QUIET], [LONG])

    assert rewards_of(steps) == pytest.approx([earned], abs=1e-12)


def test_a_gap_through_the_stop_is_a_stop_even_where_the_other_side_is_asked_for() -> None:
    rows = [QUIET, (95, 96, 94, 95), QUIET]

    steps, trades = played(rows, [LONG, SHORT])

    # -5 % at the open, then a short from 95 to 95
    assert rewards_of(steps) == pytest.approx([0, -0.05])
    assert [trade.exit_reason for trade in trades[1]] == [ExitReason.STOP]
    assert steps[1].observations[0, -3] == -1


def test_a_position_out_of_time_is_not_renewed_by_holding_on() -> None:
    rows = [QUIET, QUIET, (101, 102, 100, 101), (101, 102, 100, 101), QUIET]

    steps, trades = played(rows, [LONG] * 4, holding_bars_max=2)

    assert rewards_of(steps) == pytest.approx([0, 0, 0.01, 0])
    shares = [float(step.observations[0, -1]) for step in steps]
    assert shares == [0.5, 1.0, 0.0, 0.5]
    assert [len(closed) for closed in trades] == [0, 0, 1, 0]
    assert trades[2][0].exit_reason is ExitReason.TIME


def test_an_entry_and_a_stop_in_the_bar_of_a_reversal_are_two_trades() -> None:
    rows = [QUIET, (100, 103, 99, 100), QUIET]

    steps, trades = played(rows, [LONG, SHORT], position_ratio=0.5)

    assert rewards_of(steps) == pytest.approx([0, -0.01])
    closed = [(trade.side, trade.exit_reason) for trade in trades[1]]
    assert closed == [(Side.LONG, ExitReason.DECISION), (Side.SHORT, ExitReason.STOP)]


def test_funding_is_paid_by_what_was_held_into_the_open() -> None:
    rows = [QUIET, QUIET, (101, 102, 100, 101), QUIET]

    long, _ = played(rows, [LONG, LONG, FLAT], hours=8, funding_ratio=0.001)
    short, _ = played(rows, [SHORT, SHORT, FLAT], hours=8, funding_ratio=0.001)

    # nothing at the entry, 0.001 at 100, 0.001 at 101 of a value of 100 at entry
    assert rewards_of(long) == pytest.approx([0, -0.001, 0.01 - 0.00101])
    assert rewards_of(short) == pytest.approx([0, 0.001, -0.01 + 0.00101])


def test_an_episode_is_over_when_its_window_is_or_when_its_capital_is_gone() -> None:
    fall = (100, 101, 60, 61)
    whole, _ = played([QUIET, QUIET], [FLAT, LONG])
    ruined, _ = played([fall, QUIET], [LONG, FLAT], stop_ratio=0.5, equity_ratio_min=0.7)
    last, _ = played([QUIET, fall], [FLAT, LONG], stop_ratio=0.5, equity_ratio_min=0.7)

    ends = [
        [(bool(step.terminated[0]), bool(step.truncated[0])) for step in steps]
        for steps in (whole, ruined, last)
    ]
    assert ends[0] == [(False, False), (False, True)]
    assert ends[1][0] == (True, False)
    assert ends[2] == [(False, False), (True, False)]
    # what it saw last is its position; what it sees next has none
    assert ruined[0].final_observations[0, -3:] == pytest.approx([1, -0.39, 1 / 3])
    assert ruined[0].observations[0, -3:].tolist() == [0, 0, 0]


def test_one_seed_is_one_run_and_windows_reach_every_bar() -> None:
    candles = candles_of([QUIET] * 30)
    made = [
        MarketEnvironment(
            candles, features_of(candles), spec_of(), count=400, bars=range(4, 20), seed=seed
        )
        for seed in (1, 1, 2)
    ]

    starts = [environment.start_bars for environment in made]
    actions = actions_of(made[0], steps=12, seed=3, change=0.5)
    one, two, _ = [[environment.step(action) for action in actions] for environment in made]

    for mine, other in zip(one, two, strict=True):
        for ours, theirs in zip(mine, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(starts[0], starts[2])
    # the last window of 5 steps in bars 4 to 19 begins at 14
    assert set(starts[0].tolist()) == set(range(4, 15))


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the development data (../shared/data) is not beside this checkout"
)
@pytest.mark.parametrize("instrument", ["BTC", "ETH", "SOL"])
def test_on_real_candles_it_is_the_plain_environment_and_the_paper_market(instrument: str) -> None:
    candles = load_candles(REAL / f"{instrument}_USDT-5m.csv.gz")
    spec = spec_of(
        costs=PERPETUAL_TAKER,
        stop_ratio=0.004,
        take_profit_ratio=0.006,
        holding_bars_max=48,
        funding_ratio=0.0001,
        episode_bars=200,
        position_ratio=0.5,
    )
    features = features_of(candles)
    environment = MarketEnvironment(
        candles, features, spec, count=8, bars=range(1000, 9000), seed=12
    )
    actions = actions_of(environment, steps=450, seed=4, change=0.05)

    assert_like_plain(environment, candles, features, actions)
    assert assert_like_paper(environment, candles, actions) > 300


def test_what_does_not_fit_is_refused() -> None:
    candles = candles_of([QUIET] * 10)
    good = features_of(candles)
    holed = good.copy()
    holed[6, 1] = np.nan
    huge = np.where(np.arange(10)[:, None] == 7, 1e300, good)

    def make(
        features: np.ndarray = good,
        *,
        bars: range = range(10),
        count: int = 2,
        funding: np.ndarray | None = None,
    ) -> MarketEnvironment:
        return MarketEnvironment(
            candles, features, spec_of(), count=count, bars=bars, seed=0, funding=funding
        )

    refused = {
        r"features: must have a row of floats for each of 10 bars, found float64 \(9, 2\)": {
            "features": good[1:]
        },
        r"features: must have a row of floats for each of 10 bars, found int64": {
            "features": np.ones((10, 2), dtype=np.int64)
        },
        "features: must be finite float32, found bar 6": {"features": holed},
        "features: must be finite float32, found bar 7": {"features": huge},
        "bars: must be more than the 5 of an episode, found 5": {"bars": range(3, 8)},
        r"bars: must be consecutive and within the 10 candles, found range\(4, 11\)": {
            "bars": range(4, 11)
        },
        "bars: must be consecutive": {"bars": range(0, 10, 2)},
        "count: must be 1 or more, found 0": {"count": 0},
        "funding: must be one for all or one for each of 10 bars": {"funding": np.zeros(3)},
    }
    for message, values in refused.items():
        with pytest.raises(InvalidInput, match=message):
            make(**values)  # type: ignore[arg-type]  # by name
    assert make(holed, bars=range(6)).count == 2


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 2]), r"actions: must be in \[0, 2\), found 2"),
        (np.array([0, -1]), r"actions: must be in \[0, 2\), found -1"),
        (np.array([0]), r"actions: must be 2 integers, found int64 \(1,\)"),
        (np.array([0.0, 1.0]), r"actions: must be 2 integers, found float64 \(2,\)"),
    ],
)
def test_actions_that_nothing_means_are_refused(actions: np.ndarray, message: str) -> None:
    candles = candles_of([QUIET] * 10)
    environment = MarketEnvironment(
        candles,
        features_of(candles),
        spec_of(shorts_allowed=False),
        count=2,
        bars=range(10),
        seed=0,
    )

    with pytest.raises(InvalidInput, match=message):
        environment.step(actions)


def test_a_spec_survives_json() -> None:
    spec = spec_of(costs=PERPETUAL_TAKER, shorts_allowed=False)

    assert EnvironmentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stop_ratio", 0, r"stop_ratio: must be in \(0, 1\), found 0"),
        ("take_profit_ratio", 1.0, r"take_profit_ratio: must be in \(0, 1\), found 1.0"),
        ("funding_ratio", float("nan"), "funding_ratio: must be a finite number, found nan"),
        ("funding_ratio", 0.1, r"funding_ratio: must be in \(-0.1, 0.1\), found 0.1"),
        ("equity_ratio_min", "0.5", "equity_ratio_min: must be a finite number, found 0.5"),
        ("position_ratio", 1.5, r"position_ratio: must be in \(0, 1\], found 1.5"),
        ("holding_bars_max", 0, "holding_bars_max: must be an integer, 1 or more, found 0"),
        ("episode_bars", 2.0, "episode_bars: must be an integer, 1 or more, found 2.0"),
        ("shorts_allowed", 1, "shorts_allowed: must be true or false, found 1"),
    ],
)
def test_a_senseless_spec_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(spec_of(), **{name: value})
    with pytest.raises(InvalidInput, match=message):
        EnvironmentSpec.from_json(spec_of().to_json() | {name: value})


def test_a_stored_spec_has_its_fields_and_no_others() -> None:
    stored = spec_of().to_json()

    with pytest.raises(InvalidInput, match="environment: must have exactly"):
        EnvironmentSpec.from_json(stored | {"leverage": 3})
    with pytest.raises(InvalidInput, match=r"environment\.costs: must have exactly"):
        EnvironmentSpec.from_json(stored | {"costs": {"fee_ratio": 0.1}})
    with pytest.raises(InvalidInput, match="fee_ratio: must be a finite number, found None"):
        EnvironmentSpec.from_json(stored | {"costs": {"fee_ratio": None, "slippage_ratio": 0.0}})


def test_the_environment_is_read_without_torch() -> None:
    script = "import sys, learners.environment; print({'torch', 'gymnasium'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ran.returncode, ran.stdout) == (0, "set()\n"), ran.stderr
