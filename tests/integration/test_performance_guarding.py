"""Performance guards act in the commit of the outcome that speaks, and decisions follow them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from guarded_ledger import (
    LATER,
    begin_anew,
    changes,
    count_of,
    earn,
    earned,
    guard_reports,
    open_wide,
    pause,
    refused,
    states,
    stored,
)
from ledger import (
    CHALLENGER,
    NOON,
    UNGUARDED,
    assign,
    assign_to,
    closed,
    count,
    open_btc,
    open_eth,
    promote,
    record_all,
    set_budget,
)
from sqlalchemy import Engine, text

from bandit.core.errors import Conflict, InvalidInput, Paused, Revoked
from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.marks import Mark
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import declined
from bandit.core.performance_guard import Guard, GuardTrade, folded
from bandit.core.reading import Rules
from bandit.service import (
    accounts,
    exploring,
    marking,
    recording,
    revising,
)
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity

NORMAL, REDUCED, PAUSED = GuardState


def position(opened: Assignment, unit: str) -> Opportunity:
    return Opportunity(unit_id=UnitId(unit), instrument="BTCUSD", position=opened.id)


# What states do to decisions


def test_reduced_guard_halves_sizes_and_asks_for_more_confidence(engine: Engine) -> None:
    open_wide(engine)
    [before] = assign(engine, ["before"])
    earn(engine, "-501")
    assert states(engine) == {"usd": REDUCED, "btc": REDUCED}
    [made] = assign(engine, ["after"])
    assert (made.mode, made.size_multiplier, made.confidence_bump) == ("live", 0.5, 0.1)
    assert stored(engine, ["after"]) == [("live", 0.5, 0.1)]
    # What was decided stays as it was decided, and again gives the same answer.
    assert assign(engine, ["before", "after"]) == [before, made]
    assert (before.size_multiplier, before.confidence_bump) == (1.0, 0.0)


def test_paused_guard_stores_and_refuses_what_is_new_for_good(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    first = refused(engine, "new")
    assert (first.experiment, first.scope, first.since, first.policy) == (
        "btc",
        "account",
        LATER,
        "prod",
    )
    assert first.reason == "win_rate_percent 0 under 30"
    assert stored(engine, ["new"]) == [("paper", 0.0, 0.1)]
    rows = count(engine, "assignments")
    again = refused(engine, "new")
    assert vars(again) == vars(first)
    begin_anew(engine, account="usd")
    begin_anew(engine, experiment="btc")
    # Also after the pause, and on a replica that never heard of it.
    assert vars(refused(engine, "new")) == vars(first)
    assert count(engine, "assignments") == rows
    [made] = assign(engine, ["next"])
    assert (made.mode, made.size_multiplier) == ("live", 1.0)


def test_refused_opportunity_is_neither_claimed_nor_has_an_outcome(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    paused = refused(engine, "new")
    for _ in range(2):
        with pytest.raises(Paused) as caught:
            Router(engine).claim(paused.assignment_id, now=NOON)
        assert vars(caught.value) == vars(paused)
        begin_anew(engine, account="usd")
        begin_anew(engine, experiment="btc")
    [answer] = recording.record(engine, [declined(paused.assignment_id)], now=LATER)
    assert isinstance(answer, Conflict)
    stands = Mark(assignment_id=paused.assignment_id, unrealised_pnl=Decimal(-5), marked_at=LATER)
    assert isinstance(marking.mark(engine, [stands], now=LATER)[0], Conflict)
    with pytest.raises(InvalidInput, match="without an outcome"):
        Router(engine).assign(
            "btc",
            [
                Opportunity(
                    unit_id=UnitId("more"), instrument="BTCUSD", position=paused.assignment_id
                )
            ],
            now=NOON,
        )


def test_decision_that_was_not_claimed_before_the_pause_is_not_after_it(engine: Engine) -> None:
    open_wide(engine)
    [opened, waiting] = assign(engine, ["opened", "waiting"])
    claimed = Router(engine).claim(opened.id, now=NOON)
    [follower] = Router(engine).assign("btc", [position(opened, "follower")], now=NOON)
    pause(engine)
    with pytest.raises(Paused) as caught:
        Router(engine).claim(waiting.id, now=NOON)
    assert (caught.value.assignment_id, caught.value.scope) == (waiting.id, "account")
    # A position's own arm may always act on it.
    assert Router(engine).claim(follower.id, now=NOON) == claimed
    begin_anew(engine, account="usd")
    begin_anew(engine, experiment="btc")
    assert Router(engine).claim(waiting.id, now=NOON) == NOON


def test_only_what_is_new_fails_in_a_batch_and_positions_get_no_size(engine: Engine) -> None:
    open_wide(engine)
    [held, old] = assign(engine, ["held", "old"])
    pause(engine)
    batch = [
        Opportunity(unit_id=UnitId("a"), instrument="BTCUSD"),
        position(held, "b"),
        Opportunity(unit_id=UnitId("old"), instrument="BTCUSD"),
    ]
    answers = Router(engine).assign_behind_gate("btc", batch, now=NOON)
    assert isinstance(answers[0], Paused)
    assert isinstance(answers[1], Assignment)
    assert (answers[1].mode, answers[1].size_multiplier) == ("live", 0.0)
    assert answers[2] == old
    assert stored(engine, ["a", "b"]) == [("paper", 0.0, 0.1), ("live", 0.0, 0.1)]


def test_stricter_of_both_guards_holds_and_other_accounts_go_on(engine: Engine) -> None:
    open_wide(engine)
    open_eth(engine, account="apart")
    pause(engine)
    begin_anew(engine, account="usd")
    # The account began anew; its experiment is still PAUSED.
    assert states(engine) == {"usd": NORMAL, "btc": PAUSED, "apart": NORMAL, "eth": NORMAL}
    assert refused(engine, "a").scope == "experiment"
    eth = Opportunity(unit_id=UnitId("a"), instrument="ETHUSD")
    assert Router(engine).assign("eth", [eth], now=NOON)[0].size_multiplier == 1.0


def test_account_pauses_every_experiment_of_it(engine: Engine) -> None:
    open_wide(engine)
    open_eth(engine)
    pause(engine)
    eth = Opportunity(unit_id=UnitId("a"), instrument="ETHUSD")
    with pytest.raises(Paused) as caught:
        Router(engine).assign("eth", [eth], now=NOON)
    assert (caught.value.experiment, caught.value.scope) == ("eth", "account")
    assert states(engine)["eth"] is NORMAL


def test_what_a_bot_decided_alone_happened(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    alone = Opportunity(unit_id=UnitId("alone"), instrument="BTCUSD", fallback_at=NOON)
    [made] = Router(engine).assign("btc", [alone], now=NOON)
    assert (made.mode, made.size_multiplier, made.confidence_bump) == ("live", 1.0, 0.0)
    record_all(engine, [closed(made, "-0.001", pnl="-1")], now=LATER)
    assert accounts.named(engine, "usd", now=LATER).equity.realised == -6
    refused(engine, "new")
    # A unit that was refused is not decided alone afterwards.
    alone = Opportunity(unit_id=UnitId("new"), instrument="BTCUSD", fallback_at=NOON)
    with pytest.raises(Conflict, match="refused by a pause"):
        Router(engine).assign("btc", [alone], now=NOON)


def test_refused_opportunities_take_nothing_of_an_exploration_budget(engine: Engine) -> None:
    open_btc(engine)
    set_budget(engine, "20")
    pause(engine)
    for i in range(40):
        refused(engine, f"new-{i}")
    arms = text(
        "SELECT count(DISTINCT arm_id) FROM assignments s JOIN refusals r ON r.assignment_id = s.id"
    )
    with engine.connect() as connection:
        assert connection.execute(arms).scalar_one() == 2, "challengers are refused as others are"
    assert (
        count_of(
            engine,
            "reservations r",
            "EXISTS (SELECT FROM refusals x WHERE x.assignment_id = r.assignment_id)",
        )
        == 0
    )
    assert exploring.report(engine, "btc").explored.reserved <= 20


# What guards read


def test_states_are_the_fold_of_the_trades_in_the_order_of_arrival(engine: Engine) -> None:
    open_wide(engine)
    results = ["5", "-501", "-1", "-2", "3", "4", "5", "6", "7", "8", "9", "0", "-700"]
    earn(engine, *results)
    equity, trades = Decimal(10_000), []
    for result in results:
        trades.append(GuardTrade(Decimal(result), equity))
        equity += Decimal(result)
    expected, found = folded(Guard(rule=GuardRule()), trades)
    for name in ("usd", "btc"):
        guard = guard_reports(engine)[name].record.guard
        assert (guard.state, guard.trades, guard.losing_streak, guard.trades_since) == (
            expected.state,
            expected.trades,
            expected.losing_streak,
            expected.trades_since,
        )
        assert [to for to, _, _ in changes(engine, name)] == [c.after for c in found]
    assert [c.after for c in found] == [REDUCED, NORMAL, REDUCED]


@pytest.mark.parametrize("size", [1, 2, 5, 13])
def test_batches_make_no_difference(engine: Engine, size: int) -> None:
    open_wide(engine)
    results = ["5", "-501", "-1", "-2", "3", "4", "5", "6", "7", "8", "9", "0", "-700"]
    made = assign(engine, [f"u-{i}" for i in range(13)])
    batch = [earned(each, result) for each, result in zip(made, results, strict=True)]
    for start in range(0, 13, size):
        record_all(engine, batch[start : start + size], now=LATER)
    record_all(engine, batch, now=LATER)  # again: told before
    assert [to for to, _, _ in changes(engine, "btc")] == ["REDUCED", "NORMAL", "REDUCED"]
    report = guard_reports(engine)["usd"].to_json()
    assert (report["trades"], report["losing_streak"], report["trades_since"]) == (10, 1, 0)


def test_declined_opportunities_are_no_trades(engine: Engine) -> None:
    open_wide(engine)
    made = assign(engine, [f"u-{i}" for i in range(12)])
    for answer in recording.record(engine, [declined(each.id) for each in made], now=LATER):
        assert isinstance(answer, recording.Recorded)
    assert guard_reports(engine)["btc"].to_json()["trades"] == 0


def test_revised_outcome_moves_money_and_rewrites_no_guard(engine: Engine) -> None:
    open_wide(engine)
    [made] = assign(engine, ["u"])
    record_all(engine, [earned(made, "-501")], now=LATER)
    revising.revise(engine, earned(made, "501"), reason="typo", now=LATER, actor="ann")
    assert states(engine)["btc"] is REDUCED
    assert accounts.named(engine, "usd", now=LATER).equity.realised == 501
    # The next trade is held against the equity that the revision left.
    earn(engine, "-1")
    trades = guard_reports(engine)["btc"].record.guard.trades
    assert trades == (
        GuardTrade(Decimal(-501), Decimal(10_000)),
        GuardTrade(Decimal(-1), Decimal(10_501)),
    )


def test_guard_that_is_off_says_so_and_does_nothing(engine: Engine) -> None:
    open_wide(engine, rules=UNGUARDED)
    pause(engine)
    report = guard_reports(engine)["btc"].to_json()
    assert (report["enabled"], report["state"], report["trades"]) == (False, "NORMAL", 0)
    assert assign(engine, ["new"])[0].size_multiplier == 1.0


def test_account_keeps_the_rule_of_its_first_experiment(engine: Engine) -> None:
    rule = GuardRule(window=20, size_multiplier=0.25)
    open_wide(engine, rules=Rules(guard=rule))
    open_eth(engine)
    rules = {name: report.record.guard.rule for name, report in guard_reports(engine).items()}
    assert rules == {"usd": rule, "btc": rule, "eth": GuardRule()}


def test_halted_arm_is_told_apart_from_a_pause(engine: Engine) -> None:
    open_btc(engine)
    [waiting] = assign_to(engine, "prod", 1, prefix="w")
    promote(engine)
    pause_with = assign_to(engine, CHALLENGER, 5, prefix="lost")
    record_all(engine, [earned(each, "-1") for each in pause_with], now=LATER)
    # Void since the promotion, whatever the guard says: no later claim will do.
    with pytest.raises(Revoked):
        Router(engine).claim(waiting.id, now=NOON)
