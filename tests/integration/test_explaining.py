"""`liveops explain`: what it says of an arm follows from what the ledger holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from evidence_history import MATURE, cohorts, leave, prove
from ledger import (
    BEST,
    BETTER,
    CHALLENGER,
    EVEN,
    NIGHT,
    POOR,
    arms,
    change,
    join,
    market,
    open_btc,
    promote,
    register,
    roll_back,
    scale,
    sizes,
)
from sqlalchemy import Engine

from bandit.core.errors import UnknownName
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmMode, Profile, Strategy
from bandit.core.outlook import Outlook, Path, Question, State, forecast
from bandit.service import explaining, killing
from liveops.cli import main
from liveops.explanation import explanation_lines

ARM = "arm-00"
STEADY = [0.01] * 30


def said(engine: Engine, policy: str = ARM) -> str:
    """The explanation as one line; no line of it is too long for a terminal."""
    lines = explanation_lines(explaining.explain(engine, "btc", policy))
    assert max(map(len, lines)) <= 80
    return " ".join(" ".join(lines).split())


def seen(engine: Engine, policy: str = ARM) -> Outlook:
    found = explaining.explain(engine, "btc", policy).outlook
    assert found is not None
    return found


def nights(engine: Engine, count: int) -> None:
    for day in range(count):
        scale(engine, now=NIGHT + timedelta(days=day))


def rising(engine: Engine, profile: Profile = Profile.GUARDED) -> None:
    """A challenger that the ramp favours, and one that the checklist throttled."""
    open_btc(engine, challengers=arms(2), profile=profile)
    market(engine, BETTER, arm_00=BEST, arm_01=POOR)


# Why


def test_an_arm_that_rose_is_told_which_night_raised_it_and_what_stops_it(engine: Engine) -> None:
    rising(engine)
    nights(engine, 4)
    told = said(engine)
    assert "arm-00 in btc: 25.00% of traffic" in told
    assert "A challenger beside the champion prod: active, live, unproven." in told
    moved = "The night of 2026-03-05 (RESCALE): from 22.50% to 25.00%. Decided by test:"
    assert f"{moved} arm-00 22.50% to 25.00%." in told
    assert "profit factor pf_150 beside the champion's pf_prod: 4, at least 2: yes" in told
    assert "The night of 2026-03-06 (HOLD) left it there: nothing to change." in told
    assert "Limits: unproven arms hold 25.00% at most, 2.00% at least" in told
    assert "It has the most that it may have on its rung." in told
    # What the ladder asks has a part of its own.
    assert "evidence of the mean" not in told


def test_a_strategy_of_shares_is_told_by_the_share_it_would_like(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1), strategy=Strategy.FIXED)
    market(engine, BETTER, arm_00=BEST)
    nights(engine, 1)
    told = said(engine)
    assert "trades of the champion: 30, at least 30: yes" in told
    assert "share that its strategy would like: 0.1, at least 0.1: yes (fixed" in told


def test_what_is_not_known_is_told_with_the_reason(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    nights(engine, 1)
    told = said(engine)
    unknown = "unknown, at least unknown: not known (arm no_trades (0 trades), champion no_trades"
    assert f"profit factor pf_150 beside the champion's pf_prod: {unknown}" in told
    assert "ENTER on 2026-03-01 12:00: it joined with 10.00%." in told


def test_a_throttled_arm_is_told_what_its_return_takes(engine: Engine) -> None:
    rising(engine)
    nights(engine, 2)
    told = said(engine, "arm-01")
    assert "once it has recovered; that of 2026-03-04 asked:" in told
    assert "evidence beside the champion: 0, at least 0: yes" in told
    assert "days since it was throttled: 2.5" in told
    assert "at least 3: no" in told
    scale(engine, now=NIGHT + timedelta(days=2))
    told = said(engine, "arm-01")
    assert "has recovered" not in told
    assert "RESUME" in told
    assert "days since it was throttled: 3.5" in told


def test_a_stopped_arm_is_told_by_whom_and_why(engine: Engine) -> None:
    rising(engine)
    nights(engine, 1)
    told = said(engine, "arm-01")
    assert "arm-01 in btc: 0.00% of traffic" in told
    assert "from 10.00% to 0.00%. Decided by rule:checklist: pf_challenger_30 1.5 breaks" in told
    assert "profit factor of the checklist: 1.5, at least 1.6: no" in told
    assert "`liveops resume` brings it back" in told
    change(engine, ArmVerb.HALT, "arm-01", reason="looks broken", now=NIGHT)
    told = said(engine, "arm-01")
    # It took nothing any more, but it is what holds the arm.
    assert "HALT on 2026-03-03 02:00. Decided by test: looks broken." in told
    assert "THROTTLE on" in told
    change(engine, ArmVerb.RETIRE, "arm-01", reason="done", now=NIGHT)
    told = said(engine, "arm-01")
    assert "RETIRE on 2026-03-03 02:00. Decided by test: done." in told
    assert "`liveops resume`" not in told
    assert "Until it is decided" not in told


def test_a_champion_that_was_rolled_back_is_told_so(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    told = said(engine, CHALLENGER)
    assert "It is the champion." in told
    assert "PROMOTE on 2026-03-01 14:00: from 10.00% to 90.00%." in told
    assert "A champion holds what the challengers leave, 40.00% at least." in told
    roll_back(engine)
    told = said(engine, CHALLENGER)
    assert "ROLL_BACK on 2026-03-01 14:00: from 90.00% to 0.00%. Decided by bob: losing" in told
    assert said(engine, "prod").count("ROLL_BACK") == 1


def test_what_would_have_moved_is_told_with_what_held_it(engine: Engine) -> None:
    rising(engine, Profile.OBSERVE)
    nights(engine, 1)
    would = "The night of 2026-03-03 (HOLD) left it there: it would have made it 15.00%"
    assert f"{would}, but its profile only observes." in said(engine)


def test_a_killed_account_is_named(engine: Engine) -> None:
    rising(engine)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NIGHT, actor="ann")
    nights(engine, 1)
    told = said(engine)
    assert "Its account is killed: nothing trades, and no night moves traffic." in told
    assert "it would have made it 15.00%, but the account is killed." in told


def test_an_arm_on_paper_and_one_that_no_night_has_seen(engine: Engine) -> None:
    open_btc(engine)
    join(engine, register(engine, "watcher", "bbbbbbbb"), ArmMode.SHADOW)
    told = said(engine, "watcher")
    assert "ENTER on 2026-03-01 12:00: it joined with 0.00%." in told
    assert "In mode shadow an arm gets no traffic: only results on paper count." in told
    assert "Until it is decided" not in told
    assert explaining.explain(engine, "btc", "watcher").to_json()["outlook"] is None


# When


def test_forecasts_are_made_of_what_had_matured_by_the_newest_night(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    known = cohorts(STEADY, last=NIGHT.date() - timedelta(days=4))
    leave(engine, ARM, known)
    leave(engine, ARM, cohorts([9.0], last=NIGHT.date() - timedelta(days=3)))
    nights(engine, 1)
    found = seen(engine)
    # Forty decisions of the two a day; it has a tenth of what both have, and they all.
    assert found.proof == forecast(
        known, Question.BETTER, path=Path.ROUTED, needed=found.proof.needed, a_day=4.0
    )
    assert (found.proof.decisions, found.proof.days) == (600, 30)
    assert found.proof.state is State.OPEN
    standing = scale(engine, now=NIGHT).decision.inputs["readings"][1]["standing"]
    assert (found.proof.evidence, found.harm.evidence) == (
        standing["mean_up"],
        standing["mean_down"],
    )
    told = said(engine)
    assert f"At this pace it is proven better in about {found.proof.expected} days" in told
    assert "Evidence comes from 600 decisions of its own on 30 days; 4.0 a day come now." in told
    assert "- trades: 0 of 500, 500 more" in told
    assert "- days with decisions: 30 of 30, enough" in told
    assert "worst of 6 parts of its life: 0.010, at least 0" in told


def test_an_arm_that_gains_nothing_may_never_be_decided(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    prove(engine, ARM, 0.0, last=NIGHT.date() - timedelta(days=4))
    nights(engine, 1)
    told = said(engine)
    assert "At this rate it may never be decided." in told
    assert "Proven better on those: evidence 0.00 of 3.69, may never be decided at this" in told


def test_a_worse_arm_is_decided_too(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    leave(engine, ARM, cohorts([-0.01] * 20, last=NIGHT.date() - timedelta(days=4)))
    nights(engine, 1)
    found = seen(engine)
    assert f"At this pace it is shown to be worse in about {found.harm.expected} days." in said(
        engine
    )
    prove(engine, ARM, -0.1, last=MATURE - timedelta(days=60))
    assert "It was shown to be worse than the champion." in said(engine)


def test_paper_may_be_the_faster_way_and_says_whether_it_counts(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    last = NIGHT.date() - timedelta(days=4)
    leave(engine, ARM, cohorts([0.002] * 30, last=last))
    leave(engine, ARM, cohorts(STEADY, last=last), table="paired_cohorts")
    nights(engine, 1)
    found = seen(engine)
    assert found.faster is Path.PAPER
    assert found.paper is not None
    told = said(engine)
    assert f"it is proven better in about {found.paper.expected} days, on paper." in told
    assert "Proven better on paper (1200 pairs on 30 days, 40.0 a day now): evidence" in told
    assert "That counts only while paper agrees with live: not known yet." in told


def test_a_throttled_arm_gets_no_decisions_and_a_silent_flow_none_for_anybody(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=arms(1))
    leave(engine, ARM, cohorts(STEADY, last=NIGHT.date() - timedelta(days=4)))
    change(engine, ArmVerb.THROTTLE, ARM)
    nights(engine, 1)
    assert seen(engine).proof.state is State.IDLE
    assert "but no decisions come: may never be decided at this rate" in said(engine)
    change(engine, ArmVerb.RESUME, ARM, now=NIGHT)
    # Two of a hundred decisions are its own: four of five days bring one.
    found = seen(engine).proof
    assert (found.a_day, found.state) == (pytest.approx(0.8), State.NEVER)
    scale(engine, now=NIGHT + timedelta(days=30))
    assert seen(engine).proof.state is State.IDLE


def test_a_proven_arm_is_told_what_it_takes_to_be_eligible(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    market(engine, EVEN, arm_00=BEST)
    prove(engine, ARM, 0.1)
    nights(engine, 1)
    told = said(engine)
    assert "It is proven better than the champion, and not eligible for promotion yet." in told
    assert "Limits: proven arms hold 60.00% at most" in told
    assert "Proven better on those: evidence" in told
    assert ", reached." in told
    assert "- trades: 30 of 500, 470 more" in told
    assert "- days with decisions: 20 of 30, 10 more" in told


def test_too_few_days_are_told_as_such(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    leave(engine, ARM, cohorts([0.01] * 6, last=NIGHT.date() - timedelta(days=4)))
    nights(engine, 1)
    assert "too early to say: it takes 7 days, and some decisions" in said(engine)


# The command


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["explain", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def test_the_command_explains_and_changes_nothing(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    rising(engine)
    prove(engine, ARM, 0.005)
    nights(engine, 2)
    before = sizes(engine)
    assert command("btc", "00000000") == 0
    assert capsys.readouterr().out.splitlines()[0] == "arm-00 in btc: 22.50% of traffic"
    assert command("btc", ARM, "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["traffic_allocation"] == 0.225
    assert (told["moved"]["before"], told["moved"]["after"]) == (0.15, 0.225)
    assert told["moved"]["night"] == told["night"]["night"] == "2026-03-04"
    assert told["moved"]["reasons"][1]["check"] == "pf_150 >= pf_prod"
    assert told["bounds"] == {"most": 0.25, "least": 0.02, "left": 0.375}
    assert told["stopped"] is None
    assert told["outlook"]["proof"]["days"] == 20
    assert told["outlook"]["paper"] is None
    assert command("btc", "arm-01", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stopped"]["actor"] == "rule:checklist"
    assert sizes(engine) == before


def test_what_is_not_there_is_refused_by_name(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    register(engine, "stranger", "dddddddd")
    for arguments, message in (
        (["eth", CHALLENGER], "no experiment is registered as 'eth'"),
        (["btc", "nobody"], "no policy is registered as 'nobody'"),
        (["btc", "stranger"], "no arm of experiment btc is registered as 'stranger'"),
    ):
        assert command(*arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UnknownName):
        explaining.explain(engine, "btc", "stranger")
