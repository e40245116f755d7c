"""What a simulation says of its runs, and of what nobody could simulate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from bandit.core.ladder import LadderRule
from bandit.core.model import PolicyName, Profile
from bandit.core.reading import ChecklistRule, Rules
from bandit.core.simulation import IID, HypotheticalArm
from bandit.core.trial_plan import TrialPlan
from liveops.cli import main
from liveops.plots import checked_plot
from liveops.simulating import Estimate, challenger_of, simulate

RULES = Rules(
    checklist=ChecklistRule().silenced,
    ladder=LadderRule(alpha=0.2, attribution_hours=0, trades=30, days=5, blocks=2),
)


def plan(profile: Profile = Profile.GUARDED) -> TrialPlan:
    """A great and a dreadful challenger, so unlike the champion that weeks tell."""
    return TrialPlan(
        setting=IID,
        champion=HypotheticalArm(profit_factor=1.1),
        challengers={
            PolicyName("great"): (HypotheticalArm(profit_factor=12.0),),
            PolicyName("dreadful"): (HypotheticalArm(profit_factor=0.1),),
        },
        profile=profile,
        rules=RULES,
        days=20,
        per_day=40,
    )


def test_the_great_is_proven_and_the_dreadful_is_not() -> None:
    found = simulate(plan(), runs=6, seed=1, processes=1)
    great, dreadful = found.arms
    assert (great.proven.value, dreadful.proven.value) == (1.0, 0.0)
    assert great.proven.low < 1.0 < great.proven.high + 1e-9
    assert great.days_to_proven is not None
    assert dreadful.days_to_proven is None
    assert found.best == "great"
    assert found.gain.low > 0
    assert found.regret.low > 0
    assert found.dip <= 0
    assert great.traffic.shape == (21, 3)
    assert np.all(np.diff(great.traffic, axis=1) >= 0)


def test_seeds_decide_everything_however_many_processes_there_are() -> None:
    alone, together = (simulate(plan(), runs=3, seed=5, processes=n) for n in (1, 2))
    assert alone.to_json() == together.to_json()
    assert simulate(plan(), runs=3, seed=6, processes=1).to_json() != alone.to_json()


def test_observing_earns_exactly_what_nobody_moved() -> None:
    calls: list[None] = []
    found = simulate(
        plan(Profile.OBSERVE), runs=2, seed=1, processes=1, advanced=lambda: calls.append(None)
    )
    assert len(calls) == 2
    assert [arm.traffic[-1].tolist() for arm in found.arms] == [[0.1] * 3] * 2
    json.dumps(found.to_json(), allow_nan=False)


def test_one_run_has_no_interval() -> None:
    assert math.isinf(Estimate.mean_of(np.array([2.0])).high)
    found = simulate(plan(), runs=1, seed=1, processes=1).to_json()
    assert found["gain_per_1000"]["low"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "1.3"], "arm: must be NAME=PROFIT_FACTOR"),
        (["--arm", "a=good"], "arm: must be PROFIT_FACTOR or PROFIT_FACTOR:WIN_RATE"),
        (["--arm", "a=-1"], "profit_factor: must be positive"),
        (["--arm", "a=1:1"], "win_rate: must lie between 0 and 1"),
        (["--arm", "champion=1.3"], "challengers: must be"),
        (["--arm", "a=1", "--setting", "mars"], "setting: must be one of iid4, real, hard"),
        (["--arm", "a=1", "--plot", "a.txt"], "plot: must end in .png or .svg"),
        (["--arm", "a=1", "--runs", "100001"], "runs: must lie in 1..100000"),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_arm_may_take_turns() -> None:
    name, turns = challenger_of("fickle=1.7:0.6/1.0")
    assert (name, [(arm.profit_factor, arm.win_rate) for arm in turns]) == (
        "fickle",
        [(1.7, 0.6), (1.0, 0.5)],
    )


def test_a_picture_needs_its_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="directory"):
        checked_plot(tmp_path / "nowhere" / "a.png", field="plot")


def test_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "traffic.png"
    arguments = ["--arm", "new=2", "--days", "3", "--runs", "1", "--plot", str(picture)]
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 0
    assert "1 runs of 3 days" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        main(["simulate", *arguments[:-2], "--json"])
    assert json.loads(capsys.readouterr().out)["runs"] == 1


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("days", 0, "0"),
        ("per_day", 0, "0"),
        ("delay_days", -1, "-1"),
        ("dwell", 0, "0"),
        ("equity_fraction", 0.0, "0.0"),
        ("equity_fraction", 1.1, "1.1"),
        ("challengers", {PolicyName("nobody"): ()}, "['nobody']"),
    ],
)
def test_plan_nothing_could_follow_is_refused(field: str, value: object, found: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(plan(), **{field: value})  # type: ignore[arg-type]
    assert (refused.value.field, refused.value.found) == (field, found)
