"""A night follows from its own row; the command says of each whether it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from ledger import (
    BEST,
    BETTER,
    CHALLENGER,
    EVEN,
    FALLEN,
    NIGHT,
    POOR,
    arms,
    assign_to,
    change,
    closed,
    feed,
    market,
    open_btc,
    promote,
    record_all,
    scale,
    wait_until_blocked,
)
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text

from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.fill_gap import FillGapRule
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import DecisionKind, Profile, Strategy
from bandit.core.reading import RampRule, Rules
from bandit.core.rederivation import Comparison, Difference, Rederived
from bandit.service import killing
from bandit.service.rederiving import rederive
from bandit.storage import locks
from bandit.storage.engine import transaction
from liveops.cli import main

SAME, DIFFERENT, CANNOT = Comparison.SAME, Comparison.DIFFERENT, Comparison.CANNOT
QUICK = Rules(ramp=RampRule(min_trades=10))


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["replay", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def forge(engine: Engine, statement: str) -> None:
    """Change what the ledger lets nobody change."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(statement)).rowcount == 1


def comparisons(engine: Engine) -> list[Comparison]:
    return [found.comparison for found in rederive(engine, "btc")]


def only(engine: Engine) -> Rederived:
    [found] = rederive(engine, "btc")
    return found


@pytest.mark.parametrize(
    ("profile", "strategy"),
    [*((profile, Strategy.RAMP) for profile in Profile), (Profile.GUARDED, Strategy.THOMPSON)],
)
def test_every_night_follows_from_its_own_row(
    engine: Engine, profile: Profile, strategy: Strategy
) -> None:
    open_btc(engine, challengers=arms(4), profile=profile, rules=QUICK, strategy=strategy)
    market(engine, BETTER, arm_00=BEST, arm_01=POOR, arm_02=FALLEN, arm_03=["0.0015", "-0.001"] * 8)
    for day in range(5):
        now = NIGHT + timedelta(days=day)
        scale(engine, now=now)
        if day == 1:
            change(engine, ArmVerb.RETIRE, "arm-03")
        if day == 2 and profile is not Profile.OBSERVE:
            change(engine, ArmVerb.RESUME, "arm-01", now=now)
        if day == 3:
            promote(engine, "arm-00")
        feed(engine, "prod", ["0.001", "-0.003"], now=now, prefix=f"night-{day}")
    found = rederive(engine, "btc")
    assert [(night.day, night.comparison, night.differences) for night in found] == [
        (NIGHT.date() + timedelta(days=day), SAME, ()) for day in range(5)
    ]


def test_a_night_that_weighed_paper_follows_from_its_own_row(engine: Engine) -> None:
    rules = Rules(ramp=RampRule(min_trades=10), fill_gap=FillGapRule(trades=2))
    open_btc(engine, challengers=arms(2), rules=rules, strategy=Strategy.THOMPSON)
    market(engine, BETTER, arm_01=BEST)
    mine = assign_to(engine, "arm-00", 4, prefix="mine")
    record_all(engine, [closed(a, "-0.001") for a in mine], now=NIGHT)
    others = assign_to(engine, "prod", 40, prefix="others")
    paper = [(a, "-0.001") for a in mine] + [(a, "0.0006") for a in others]
    tell(engine, [on_paper(a, "arm-00", earned) for a, earned in paper], now=NIGHT)
    decision = scale(engine).decision
    kinds = [row["moments"]["kind"] for row in decision.inputs["readings"]]
    assert kinds == ["live", "on paper", "live"]
    assert decision.inputs["proposed"] != decision.inputs["before"]
    assert only(engine).comparison is SAME


def test_outcomes_that_arrive_while_the_night_is_written_do_not_enter_it(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    record = open_btc(engine, rules=Rules(ramp=RampRule(min_trades=30)))
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST[:29], prefix="c")
    [thirtieth] = assign_to(engine, CHALLENGER, 1, prefix="thirtieth")
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id)
        night = worker.submit(scale, engine)
        wait_until_blocked(engine, night)
        record_all(engine, [closed(thirtieth, "0.002")], now=NIGHT)
    decision = night.result(timeout=60).decision
    assert decision.kind is DecisionKind.HOLD
    assert decision.inputs["readings"][1]["trades"] == 29
    assert decision.reasons[CHALLENGER][0]["verdict"] == "FAIL"
    assert only(engine).comparison is SAME


def stricter(engine: Engine) -> None:
    """Let the checklist find an arm that no outcome has shown yet: the rule became stricter."""
    forge(
        engine,
        "UPDATE experiments SET rules = jsonb_set(rules, '{checklist,pf_throttle}', '5.0')",
    )


def test_the_stops_of_a_nights_checklist_are_derived_with_it(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    market(engine, EVEN, arm_00=BEST, arm_01=BETTER)
    stricter(engine)
    made = scale(engine)
    assert [stop.kind for stop in made.actions] == [DecisionKind.THROTTLE] * 2
    assert only(engine).comparison is SAME
    # An operator's stop in the same moment is none of the night's.
    change(engine, ArmVerb.HALT, "arm-01", now=NIGHT)
    assert only(engine).comparison is SAME
    forge(
        engine,
        f"UPDATE decisions SET kind = 'HALT' WHERE id = {made.actions[0].id}",
    )
    assert only(engine).differences == (
        Difference(what="actions: arm-00: decision", stored="HALT", derived="THROTTLE"),
    )


def test_a_night_goes_by_the_rules_it_was_decided_by(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    scale(engine)
    stricter(engine)
    assert only(engine).comparison is SAME
    # One that did not store its rules goes by the experiment's, under which it is another.
    forge(engine, "UPDATE decisions SET inputs = inputs - 'rules' WHERE trading_day IS NOT NULL")
    assert only(engine).comparison is DIFFERENT


def test_a_killed_night_follows_from_its_row(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NIGHT, actor="test")
    assert scale(engine).decision.inputs["killed"] is True
    assert only(engine).comparison is SAME


def test_nights_by_hand_and_of_older_releases_are_named_and_do_not_fail(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    for day in range(2):
        scale(engine, now=NIGHT + timedelta(days=day))
    statement = "UPDATE bandit_arms SET traffic_allocation = 0.12 WHERE policy_id = 2"
    with engine.begin() as connection:
        connection.execute(text(statement))
    forge(
        engine,
        "UPDATE decisions SET inputs = inputs #- '{readings,0,moments}', code_version = '0.0.9'"
        f" WHERE trading_day = '{NIGHT.date()}'",
    )
    assert comparisons(engine) == [CANNOT, SAME, CANNOT]
    assert command("btc") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "2026-03-03 cannot be replayed: reading: must have moments, found nothing",
        "  (decided by 0.0.9, replayed by 0.1.0)",
        "2026-03-04 same",
    ]
    assert "cannot be replayed: it was set by hand: nothing was read" in said[3]
    assert said[-1] == "btc: 3 nights: 1 same, 0 different, 2 cannot be replayed"


def test_a_night_that_was_changed_is_told_and_fails(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST, prefix="c")
    for day in range(2):
        scale(engine, now=NIGHT + timedelta(days=day))
    assert command("btc") == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-03-03 same",
        "2026-03-04 same",
        "btc: 2 nights: 2 same, 0 different, 0 cannot be replayed",
    ]
    forge(
        engine,
        "UPDATE decisions SET reasons = jsonb_set(reasons,"
        f" '{{{CHALLENGER},0,value}}', '31') WHERE trading_day = '{NIGHT.date()}'",
    )
    assert command("btc") == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "2026-03-03 different",
        f"  reasons: {CHALLENGER}: trades: stored 31/30 PASS,",
        "    derived 30/30 PASS",
        "2026-03-04 same",
        "btc: 2 nights: 1 same, 1 different, 0 cannot be replayed",
    ]
    assert max(map(len, said)) <= 80
    assert command("btc", "--night", "2026-03-04", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["experiment"], told["same"], told["different"]) == ("btc", 1, 0)
    assert [night["night"] for night in told["nights"]] == ["2026-03-04"]
    assert command("btc", "--night", "2026-03-03", "--json") == 1
    [night] = json.loads(capsys.readouterr().out)["nights"]
    assert night["differences"][0]["what"] == f"reasons: {CHALLENGER}: trades"


def test_what_cannot_be_asked_for_is_refused_by_name(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    assert command("btc") == 0
    assert capsys.readouterr().out == ("btc: 0 nights: 0 same, 0 different, 0 cannot be replayed\n")
    for arguments, message in (
        (["eth"], "no experiment is registered as 'eth'"),
        (["btc", "--night", "2026-03-03"], "night: must be a night that btc has decided"),
        (["btc", "--night", "soon"], "does not match the formats"),
    ):
        assert command(*arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UnknownName):
        rederive(engine, "eth")
    with pytest.raises(InvalidInput):
        rederive(engine, "btc", day=date(2026, 3, 3))
