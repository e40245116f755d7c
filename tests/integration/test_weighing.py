"""What a strategy counts of an arm: live results, or more on paper that agree with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from ledger import (
    CHALLENGER,
    NIGHT,
    NOON,
    assign_to,
    closed,
    open_btc,
    record_all,
    scale,
    traffic,
)
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text

from bandit.core.allocators.posterior import Moments, ResultKind
from bandit.core.fill_gap import FillGapRule
from bandit.core.limits import Limits
from bandit.core.model import Assignment, PolicyName, Strategy
from bandit.core.reading import ChecklistRule, RampRule, Rules
from bandit.service import experiments, reporting, weighing
from bandit.storage.engine import snapshot
from config.settings import Settings
from liveops.wiring import rules_of

OLD, NEW = PolicyName("prod"), PolicyName(CHALLENGER)
AGREES = FillGapRule(trades=2)
TODAY = date(2026, 3, 5)
TOLD = NIGHT + timedelta(days=1)


def opened(
    engine: Engine,
    *,
    strategy: Strategy = Strategy.THOMPSON,
    rules: Rules | None = None,
    limits: Limits | None = None,
) -> None:
    rules = rules or Rules(fill_gap=AGREES, ramp=RampRule(min_trades=2))
    open_btc(engine, strategy=strategy, rules=rules, limits=limits)


def live(engine: Engine, policy: str, earned: Sequence[str]) -> list[Assignment]:
    """Trades of a policy that closed with these returns."""
    made = assign_to(engine, policy, len(earned), prefix=policy[0])
    batch = [closed(a, r) for a, r in zip(made, earned, strict=True)]
    record_all(engine, batch, now=NOON + timedelta(hours=2))
    return made


def told(engine: Engine, policy: str, made: Sequence[Assignment], earned: Sequence[str]) -> None:
    paper = [on_paper(a, policy, r) for a, r in zip(made, earned, strict=True)]
    tell(engine, paper, now=TOLD)


def weighed(engine: Engine, *, day: date = TODAY) -> dict[PolicyName, Moments]:
    record = experiments.load(engine, "btc")
    with snapshot(engine) as connection:
        return weighing.moments(connection, record, day=day)


def market(engine: Engine, paper: Sequence[str] = ("0.002", "-0.001", "0.003", "0.001")) -> None:
    """Four trades of the champion, and two of a challenger whose paper of these agrees."""
    others = live(engine, "prod", ["0.001", "-0.002", "0.002", "0.003"])  # a unit is 0.002
    mine = live(engine, CHALLENGER, ["-0.001", "-0.003"])
    told(engine, CHALLENGER, mine, ["-0.001", "-0.003"])
    told(engine, CHALLENGER, others[: len(paper)], paper)


def test_more_results_on_paper_that_agree_count_instead_of_the_live_ones(engine: Engine) -> None:
    opened(engine)
    market(engine)
    found = weighed(engine)
    # On paper -1 -3 +2 -1 +3 +1 thousandths, of which two are a unit; squares 1 9 4 1 9 1.
    assert found[NEW].kind is ResultKind.PAPER
    assert (found[NEW].n, found[NEW].total) == (6, pytest.approx(0.5))
    assert found[NEW].squares == pytest.approx(25 / 4)
    # Nothing is told of the champion.
    assert found[OLD].kind is ResultKind.LIVE
    assert (found[OLD].n, found[OLD].total) == (4, pytest.approx(2.0))
    assert found[OLD].squares == pytest.approx(18 / 4)


def test_the_champion_is_weighed_by_the_same_rule(engine: Engine) -> None:
    opened(engine)
    others = live(engine, CHALLENGER, ["0.001", "0.001"])
    mine = live(engine, "prod", ["0.002", "-0.002"])
    told(engine, "prod", mine, ["0.002", "-0.002"])
    assert weighed(engine)[OLD].kind is ResultKind.LIVE  # as many
    told(engine, "prod", others[:1], ["0.006"])
    found = weighed(engine)
    # A unit stays what it earns live.
    assert (found[OLD].kind, found[OLD].n) == (ResultKind.PAPER, 3)
    assert found[OLD].total == pytest.approx(3.0)
    assert found[NEW].kind is ResultKind.LIVE


def test_declined_decisions_on_paper_are_no_trades(engine: Engine) -> None:
    opened(engine)
    market(engine, paper=())
    others = assign_to(engine, "prod", 4, prefix="declined")
    tell(engine, [on_paper(a, CHALLENGER, None) for a in others], now=TOLD)
    assert weighed(engine)[NEW].kind is ResultKind.LIVE


@pytest.mark.parametrize(
    "rule",
    [
        FillGapRule(trades=3),  # two trades have both results
        FillGapRule(trades=2, flattery_max=0.0),
    ],
)
def test_paper_that_is_not_known_to_agree_counts_for_nothing(
    engine: Engine, rule: FillGapRule
) -> None:
    opened(engine, rules=Rules(fill_gap=rule))
    others = live(engine, "prod", ["0.001"] * 4)
    mine = live(engine, CHALLENGER, ["-0.001", "-0.003"])
    told(engine, CHALLENGER, mine, ["-0.001", "-0.002"])
    told(engine, CHALLENGER, others, ["0.05"] * 4)
    found = weighed(engine)[NEW]
    assert (found.kind, found.n, found.total) == (ResultKind.LIVE, 2, pytest.approx(-4.0))


def test_a_setting_lets_live_results_count_alone(engine: Engine) -> None:
    settings = Settings.model_validate(
        {"evidence": {"weigh_paper": False, "fill_gap_trades": 2}, "ramp": {"min_trades": 2}}
    )
    opened(engine, rules=rules_of(settings))
    market(engine)
    found = weighed(engine)[NEW]
    assert (found.kind, found.n, found.total) == (ResultKind.LIVE, 2, pytest.approx(-2.0))


def test_an_experiment_of_an_older_release_counts_paper_too(engine: Engine) -> None:
    opened(engine)
    market(engine)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE experiments SET rules = rules - 'weigh_paper'"))
    assert weighed(engine)[NEW].kind is ResultKind.PAPER


def test_results_on_paper_age_with_the_day_of_their_decision(engine: Engine) -> None:
    opened(engine, strategy=Strategy.SLIDING_WINDOW_THOMPSON)
    market(engine)
    later = assign_to(engine, "prod", 2, now=NOON + timedelta(days=2), prefix="later")
    told(engine, CHALLENGER, later, ["0.004", "0.002"])
    # Ninety days count: the 1st of March has left them on the 30th of May.
    for day, n in ((date(2026, 5, 29), 8), (date(2026, 5, 30), 2)):
        found = weighed(engine, day=day)[NEW]
        assert (found.kind, found.n) == (ResultKind.PAPER, n)


def test_the_night_the_reason_and_the_report_say_which_were_weighed(engine: Engine) -> None:
    opened(engine)
    assert report_says(engine) == {"prod": None, CHALLENGER: None}
    market(engine)
    decision = scale(engine, now=TOLD).decision
    kinds = {row["policy"]: row["moments"]["kind"] for row in decision.inputs["readings"]}
    assert kinds == report_says(engine) == {"prod": "live", CHALLENGER: "on paper"}
    [wanted] = [r for r in decision.reasons[CHALLENGER] if r["check"] == "wanted share"]
    assert wanted["note"] == "thompson, weighed on paper, beside the part it holds"


def test_the_ramp_weighs_nothing(engine: Engine) -> None:
    opened(engine, strategy=Strategy.RAMP)
    market(engine)
    scale(engine, now=TOLD)
    assert report_says(engine) == {"prod": None, CHALLENGER: None}


def report_says(engine: Engine) -> dict[str, str | None]:
    arms = reporting.report(engine, "btc").to_json()["arms"]
    return {arm["policy"]: arm["weighed"] for arm in arms}


@pytest.mark.parametrize(("weigh_paper", "part"), [(True, 150_000), (False, 20_000)])
def test_paper_moves_traffic_where_it_is_weighed(
    engine: Engine, weigh_paper: bool, part: int
) -> None:
    checklist = ChecklistRule(pf_throttle=0)
    opened(engine, rules=Rules(fill_gap=AGREES, checklist=checklist, weigh_paper=weigh_paper))
    others = live(engine, "prod", ["0.002", "-0.002"] * 200)
    unlucky = ["0.001", *["-0.002"] * 4] * 20
    mine = live(engine, CHALLENGER, unlucky)
    told(engine, CHALLENGER, mine, unlucky)
    told(engine, CHALLENGER, others, ["0.004", "-0.001"] * 200)
    scale(engine, now=TOLD)
    assert traffic(engine)[CHALLENGER] == part


def test_an_arm_that_lost_everything_comes_back_when_paper_speaks_for_it(engine: Engine) -> None:
    rules = Rules(fill_gap=AGREES, checklist=ChecklistRule(pf_throttle=0))
    opened(engine, rules=rules, limits=Limits(arm_minimum_ppm=0))
    others = live(engine, "prod", ["0.002", "-0.002"] * 200)
    unlucky = ["0.001", *["-0.002"] * 4] * 20
    mine = live(engine, CHALLENGER, unlucky)
    told(engine, CHALLENGER, mine, unlucky)
    scale(engine, now=TOLD)
    assert traffic(engine)[CHALLENGER] == 0
    told(engine, CHALLENGER, others, ["0.004", "-0.001"] * 200)
    scale(engine, now=TOLD + timedelta(days=1))
    assert traffic(engine)[CHALLENGER] == 100_000
