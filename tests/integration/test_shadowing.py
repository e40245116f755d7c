"""What arms would have earned: recorded once, paired with the champion's, never mixed with live."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from uuid import UUID

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    change,
    closed,
    count,
    join,
    open_btc,
    record_all,
    register,
    together,
)
from rich.console import Console
from shadow_history import (
    FIXED,
    LATER,
    NEXT_DAY,
    expected_pairs,
    fix,
    gap,
    on_paper,
    pairs,
    tell,
)
from sqlalchemy import Engine, text

from bandit.core.errors import BanditError, Conflict, InvalidInput, UnknownName
from bandit.core.evidence import Terms
from bandit.core.fill_gap import FillGap, FillGapRule
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmMode, Assignment, PolicyName, UnitId
from bandit.core.outcomes import declined
from bandit.core.reading import Rules
from bandit.service import (
    auditing,
    experiments,
    reporting,
    revising,
    shadowing,
    standing,
)
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.service.shadowing import RecordedShadow
from bandit.storage.engine import snapshot
from liveops.report import render_report

WATCHER = "watcher"


@pytest.fixture
def btc(engine: Engine) -> Engine:
    """`btc` with a live challenger and one that only watches, and terms."""
    open_btc(engine)
    join(engine, register(engine, WATCHER, "bbbbbbbb"), ArmMode.SHADOW)
    fix(engine)
    return engine


def told(engine: Engine, *batch: shadowing.ShadowOutcome) -> list[RecordedShadow | BanditError]:
    return shadowing.record(engine, batch, now=NEXT_DAY)


def taken_by(engine: Engine, policy: str, n: int, prefix: str = "u") -> list[Assignment]:
    return assign_to(engine, policy, n, now=LATER, prefix=prefix)


# Recording


def test_a_result_is_recorded_once_and_told_again_changes_nothing(btc: Engine) -> None:
    [made] = assign(btc, ["a"], now=LATER)
    body = on_paper(made, WATCHER, "0.0010")
    [first] = told(btc, body)
    assert isinstance(first, RecordedShadow)
    assert first.created
    [again] = shadowing.record(
        btc, [on_paper(made, WATCHER, "0.001")], now=NEXT_DAY + timedelta(days=1)
    )
    assert isinstance(again, RecordedShadow)
    assert (again.created, again.recorded_at) == (False, first.recorded_at)
    [other] = told(btc, on_paper(made, WATCHER, "0.002"))
    assert isinstance(other, Conflict)
    assert count(btc, "shadow_outcomes") == 1


def test_every_arm_may_have_one_on_every_decision(btc: Engine) -> None:
    [made] = assign(btc, ["a"], now=LATER)
    tell(btc, [on_paper(made, policy, "0.001") for policy in ("prod", CHALLENGER, WATCHER)])
    assert count(btc, "shadow_outcomes") == 3


def test_a_policy_is_named_as_everywhere(btc: Engine) -> None:
    [made] = assign(btc, ["a"], now=LATER)
    first, again = told(btc, on_paper(made, "bbbb", "0.001"), on_paper(made, WATCHER, "0.001"))
    assert isinstance(first, RecordedShadow)
    assert isinstance(again, RecordedShadow)
    assert first.outcome.policy == WATCHER
    assert (first.created, again.created) == (True, False)


def test_of_two_bodies_in_a_batch_the_first_stands(btc: Engine) -> None:
    [made] = assign(btc, ["a"], now=LATER)
    first, other, again = told(
        btc,
        on_paper(made, WATCHER, "0.001"),
        on_paper(made, WATCHER, "0.002"),
        on_paper(made, WATCHER, "0.001"),
    )
    assert isinstance(first, RecordedShadow)
    assert isinstance(other, Conflict)
    assert isinstance(again, RecordedShadow)
    assert (first.created, again.created) == (True, False)


def test_a_bad_result_takes_nothing_of_the_rest_with_it(btc: Engine) -> None:
    register(btc, "stranger", "dddddddd")
    [made] = assign(btc, ["a"], now=LATER)
    nobody = replace(made, id=UUID(int=7))
    answers = told(
        btc,
        on_paper(nobody, WATCHER, "0.001"),
        on_paper(made, "nobody", "0.001"),
        on_paper(made, "stranger", "0.001"),
        on_paper(made, WATCHER, "0.001", minutes=10**5),
        on_paper(made, WATCHER, "0.001"),
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [UnknownName, UnknownName, UnknownName, InvalidInput, RecordedShadow]
    assert count(btc, "shadow_outcomes") == 1


def test_what_was_made_after_the_decision_cannot_have_decided_it(btc: Engine) -> None:
    [made] = assign(btc, ["a"], now=LATER)
    late = register(btc, "late", "cccccccc")
    experiments.add_arm(
        btc,
        name="btc",
        policy=PolicyName(late),
        mode=ArmMode.SHADOW,
        now=LATER + timedelta(microseconds=1),
        actor="test",
    )
    [refused] = told(btc, on_paper(made, "late", "0.5"))
    assert isinstance(refused, InvalidInput)
    assert refused.field == "policy"
    [following] = assign(btc, ["b"], now=LATER + timedelta(microseconds=1))
    [taken] = told(btc, on_paper(following, "late", "0.5"))
    assert isinstance(taken, RecordedShadow)


def test_a_positions_next_decision_has_none(btc: Engine) -> None:
    [opener] = assign(btc, ["a"], now=LATER)
    joined = Opportunity(unit_id=UnitId("b"), instrument="BTCUSD", position=opener.id)
    [following] = Router(btc).assign("btc", [joined], now=LATER)
    [refused] = told(btc, on_paper(following, WATCHER, "0.001"))
    assert isinstance(refused, InvalidInput)
    assert refused.field == "assignment_id"


def test_nothing_of_it_enters_a_number_of_live_trades(btc: Engine) -> None:
    made = assign(btc, [f"u-{i}" for i in range(20)], now=LATER)
    before = live_numbers(btc)
    tell(btc, [on_paper(a, p, "-0.9") for a in made for p in ("prod", CHALLENGER, WATCHER)])
    assert live_numbers(btc) == before


def live_numbers(engine: Engine) -> dict[str, object]:
    report = reporting.report(engine, "btc").to_json()
    arms = [{k: v for k, v in arm.items() if k != "on_paper"} for arm in report["arms"]]
    return report | {"arms": arms}


def test_the_report_shows_them_beside(btc: Engine) -> None:
    mine, others = taken_by(btc, "prod", 60), taken_by(btc, CHALLENGER, 2, prefix="v")
    record_all(btc, [closed(a, "0.0010") for a in mine], now=NEXT_DAY)
    tell(btc, [on_paper(a, p, "0.0020") for a in (*mine, *others) for p in ("prod", WATCHER)])
    arms = {arm["policy"]: arm for arm in reporting.report(btc, "btc").to_json()["arms"]}
    watcher, champion = arms[WATCHER]["on_paper"], arms["prod"]["on_paper"]
    assert (watcher["pairs"], watcher["pairs_with_live"]) == (62, 60)
    (tally,) = pairs(btc, WATCHER).values()
    assert watcher["evidence_log"] == tally.strength.mean_up > 0
    assert watcher["fill_gap"]["verdict"] == "INCONCLUSIVE"
    assert (champion["pairs"], champion["evidence_log"]) == (0, None)
    gap_found = champion["fill_gap"]
    assert (gap_found["trades"], gap_found["verdict"]) == (60, "FAIL")
    assert gap_found["value"] == pytest.approx(0.001)


def test_an_edited_result_is_found_by_the_audit_log(btc: Engine) -> None:
    made = assign(btc, [f"u-{i}" for i in range(5)], now=LATER)
    tell(btc, [on_paper(a, WATCHER, "0.001") for a in made])
    assert auditing.verify(btc, []).findings == ()
    with btc.begin() as connection:
        connection.execute(text("ALTER TABLE shadow_outcomes DISABLE TRIGGER ALL"))
        connection.execute(
            text("UPDATE shadow_outcomes SET return_ratio = 0.5 WHERE assignment_id = :id"),
            {"id": made[2].id},
        )
    (finding,) = auditing.verify(btc, []).findings
    assert "one of its 5 results on paper is not what was stored" in finding.message


# Pairing


def test_a_challenger_is_paired_with_the_live_result_of_the_champion(btc: Engine) -> None:
    made = taken_by(btc, "prod", 30)
    live = [f"{(i % 5 - 2) / 1000}" for i in range(30)]
    paper = [f"{(i % 7 - 3) / 1000}" for i in range(30)]
    record_all(btc, [closed(a, r) for a, r in zip(made, live, strict=True)], now=NEXT_DAY)
    tell(btc, [on_paper(a, WATCHER, r) for a, r in zip(made, paper, strict=True)])
    expected = expected_pairs(list(zip(paper, live, strict=True)), [True] * 30)
    assert (expected.n_champion, expected.n_challenger) == (30, 0)
    assert pairs(btc, WATCHER) == {"2026-03-01": expected}
    assert pairs(btc, CHALLENGER) == {}


def test_where_another_arm_decided_both_results_are_on_paper(btc: Engine) -> None:
    made = taken_by(btc, CHALLENGER, 10)
    record_all(btc, [closed(a, "-0.02") for a in made], now=NEXT_DAY)
    tell(btc, [on_paper(a, p, r) for a in made for p, r in ((WATCHER, "0.003"), ("prod", "0.001"))])
    expected = expected_pairs([("0.003", "0.001")] * 10, [False] * 10)
    assert (expected.n_champion, expected.n_challenger) == (0, 10)
    assert pairs(btc, WATCHER) == {"2026-03-01": expected}
    # The challenger's live result is no result on paper.
    assert pairs(btc, CHALLENGER) == {}


def test_what_the_champion_earned_counts_and_not_what_it_would_have(btc: Engine) -> None:
    made = taken_by(btc, "prod", 5)
    tell(btc, [on_paper(a, p, "0.004") for a in made for p in ("prod", WATCHER)])
    assert pairs(btc, WATCHER) == {}  # the live result is not told yet
    record_all(btc, [closed(a, "0.001") for a in made], now=NEXT_DAY)
    expected = expected_pairs([("0.004", "0.001")] * 5, [True] * 5)
    assert pairs(btc, WATCHER) == {"2026-03-01": expected}


def test_declined_decisions_pair_as_results_of_nothing(btc: Engine) -> None:
    made = taken_by(btc, "prod", 4)
    record_all(btc, [declined(made[0].id), *(closed(a, "0.001") for a in made[1:])], now=NEXT_DAY)
    tell(
        btc, [*(on_paper(a, WATCHER, "0.002") for a in made[:3]), on_paper(made[3], WATCHER, None)]
    )
    both = [("0.002", "0"), ("0.002", "0.001"), ("0.002", "0.001"), ("0", "0.001")]
    assert pairs(btc, WATCHER) == {"2026-03-01": expected_pairs(both, [True] * 4)}


def test_a_revision_of_the_live_outcome_takes_back_what_it_corrects(btc: Engine) -> None:
    made = taken_by(btc, "prod", 10)
    record_all(btc, [closed(a, "0.001") for a in made], now=NEXT_DAY)
    tell(btc, [on_paper(a, p, "0.002") for a in made for p in ("prod", WATCHER)])
    for body in (closed(made[3], "-0.005"), declined(made[7].id)):
        revising.revise(btc, body, reason="fill", now=NEXT_DAY, actor="test")
    live = ["0.001"] * 10
    live[3], live[7] = "-0.005", "0"
    expected = expected_pairs([("0.002", r) for r in live], [True] * 10)
    assert pairs(btc, WATCHER) == {"2026-03-01": expected}
    assert gap(btc, "prod") == FillGap.of((Decimal(r), Decimal("0.002")) for r in live)


def test_each_decision_is_judged_by_its_own_terms_and_day(btc: Engine) -> None:
    other = Terms(unit=0.001, baseline=0.0, profit_factor=2.0)
    first = taken_by(btc, "prod", 5, prefix="a")
    fix(btc, other, now=LATER + timedelta(hours=1))
    second = assign_to(btc, "prod", 5, now=LATER + timedelta(hours=2), prefix="b")
    third = assign_to(btc, "prod", 5, now=LATER + timedelta(days=1), prefix="c")
    made, now = [*first, *second, *third], NEXT_DAY + timedelta(days=1)
    record_all(btc, [closed(a, "0.001") for a in made], now=now)
    tell(btc, [on_paper(a, WATCHER, "0.003") for a in made], now=now)
    both, live = [("0.003", "0.001")] * 5, [True] * 5
    assert pairs(btc, WATCHER) == {
        "2026-03-01": expected_pairs(both, live) + expected_pairs(both, live, terms=other),
        "2026-03-02": expected_pairs(both, live, terms=other),
    }


def test_decisions_before_there_were_terms_pair_with_nobody(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 5, now=NOON)
    fix(engine)
    assert made[0].decided_at < FIXED
    record_all(engine, [closed(a, "0.001") for a in made], now=NEXT_DAY)
    tell(engine, [on_paper(a, CHALLENGER, "0.003") for a in made])
    assert pairs(engine, CHALLENGER) == {}


@pytest.mark.parametrize("verb", [ArmVerb.THROTTLE, ArmVerb.HALT, ArmVerb.RETIRE])
def test_an_arm_without_traffic_is_still_scored(btc: Engine, verb: ArmVerb) -> None:
    change(btc, verb)
    made = taken_by(btc, "prod", 5)
    record_all(btc, [closed(a, "0.001") for a in made], now=NEXT_DAY)
    tell(btc, [on_paper(a, CHALLENGER, "0.003") for a in made])
    expected = expected_pairs([("0.003", "0.001")] * 5, [True] * 5)
    assert pairs(btc, CHALLENGER) == {"2026-03-01": expected}


def test_results_of_both_kinds_that_come_at_once_are_paired_once(btc: Engine) -> None:
    made = taken_by(btc, "prod", 40)
    live = [closed(a, "0.001") for a in made]
    paper = [on_paper(a, p, "0.003") for a in made for p in ("prod", WATCHER, CHALLENGER)]

    def record(batch: list[object]) -> None:
        for start in range(0, len(batch), 7):
            some = batch[start : start + 7]
            if some[0] in live:
                record_all(btc, some, now=NEXT_DAY)  # type: ignore[arg-type]
            else:
                tell(btc, some)  # type: ignore[arg-type]

    found = together(
        lambda: record(list(live)),
        lambda: record(list(reversed(paper))),
        lambda: record(list(paper)),
        lambda: record(list(reversed(live))),
    )
    assert [answer for answer in found if isinstance(answer, BanditError)] == []
    expected = expected_pairs([("0.003", "0.001")] * 40, [True] * 40)
    for policy in (WATCHER, CHALLENGER):
        assert pairs(btc, policy) == {"2026-03-01": expected}
    assert gap(btc, "prod") == FillGap.of([(Decimal("0.001"), Decimal("0.003"))] * 40)


# The fill gap


def test_the_gap_is_of_an_arms_own_trades_with_both_results(btc: Engine) -> None:
    mine, others = taken_by(btc, CHALLENGER, 4), taken_by(btc, "prod", 4, prefix="v")
    record_all(
        btc,
        [
            *(closed(a, "0.0010") for a in mine[:2]),
            declined(mine[2].id),  # an order that filled on paper alone
            declined(mine[3].id),
            *(closed(a, "0.0010") for a in others),
        ],
        now=NEXT_DAY,
    )
    assert gap(btc, CHALLENGER) == FillGap()
    tell(
        btc,
        [
            on_paper(mine[0], CHALLENGER, "0.0013"),
            on_paper(mine[2], CHALLENGER, "0.0020"),
            on_paper(mine[3], CHALLENGER, None),  # both declined: no trade at all
            *(on_paper(a, CHALLENGER, "0.05") for a in others),
        ],
    )
    both = [("0.001", "0.0013"), ("0", "0.002")]
    assert gap(btc, CHALLENGER) == FillGap.of((Decimal(a), Decimal(b)) for a, b in both)
    assert gap(btc, "prod") == FillGap()


def test_terms_have_no_part_in_the_gap(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 3)
    record_all(engine, [closed(a, "0.001") for a in made], now=NEXT_DAY)
    tell(engine, [on_paper(a, "prod", "0.001") for a in made])
    assert gap(engine, "prod") == FillGap(n=3)


@pytest.mark.parametrize(("flattery_max", "verdict"), [(0.0002, "PASS"), (0.00005, "FAIL")])
def test_paper_is_believed_by_the_rule_that_the_experiment_was_opened_with(
    engine: Engine, flattery_max: float, verdict: str
) -> None:
    open_btc(engine, rules=Rules(fill_gap=FillGapRule(flattery_max=flattery_max, trades=2)))
    mine = taken_by(engine, CHALLENGER, 3)
    record_all(engine, [closed(a, "0.0010") for a in mine], now=NEXT_DAY)
    tell(engine, [on_paper(a, CHALLENGER, "0.0011") for a in mine])  # 0.0001 kinder, each
    arms = {a.arm.place.policy: a for a in reporting.report(engine, "btc").arms}
    shown = arms[PolicyName(CHALLENGER)].on_paper.to_json()["fill_gap"]
    assert (shown["verdict"], shown["limit"]) == (verdict, flattery_max)
    with snapshot(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
        found = standing.of_challengers(connection, record, now=NEXT_DAY)
    assert found[PolicyName(CHALLENGER)].fill_gap == verdict


def test_people_see_results_on_paper_apart_from_the_others(engine: Engine) -> None:
    open_btc(engine)
    mine = taken_by(engine, CHALLENGER, 3)
    record_all(engine, [closed(a, "0.0010") for a in mine], now=NEXT_DAY)
    assert "on paper" not in shown(engine)
    tell(engine, [on_paper(a, CHALLENGER, "0.0011") for a in mine])
    *_, head, row, _ = shown(engine).splitlines()
    assert " ".join(head.split()) == "policy pairs evidence gap trades paper - live agrees"
    assert row.split()[1:] == ["0", "-", "3", "0.0001", "INCONCLUSIVE"]


def shown(engine: Engine) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(render_report(reporting.report(engine, "btc")))
    return console.export_text()
