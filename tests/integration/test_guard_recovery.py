"""What ends a pause, and what guards outlive."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from guarded_ledger import (
    LATER,
    WIDE,
    begin_anew,
    changes,
    earn,
    followed,
    guard_reports,
    open_wide,
    pause,
    refused,
    states,
)
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    count,
    open_btc,
    promote,
    roll_back,
)
from shadow_history import tell
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.audit_chain import FindingKind
from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.performance_guard import GuardTrade
from bandit.core.reading import Rules
from bandit.service import (
    accounts,
    auditing,
    killing,
    performance_guarding,
    shadowing,
)
from bandit.storage.engine import connect

NORMAL, REDUCED, PAUSED = GuardState


def follow(engine: Engine, results: Sequence[str | None], *, prefix: str) -> None:
    """Let refused units be followed on paper, each told by itself."""
    for i, result in enumerate(results):
        tell(engine, [followed(refused(engine, f"{prefix}-{i}"), result)], now=LATER)


# How a pause ends


def test_results_on_paper_of_what_was_refused_end_the_pause(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    open_wide(engine)
    pause(engine)
    follow(engine, ["0.001"] * 4, prefix="paper")
    # What would have been declined is no trade, here as live.
    follow(engine, [None], prefix="none")
    assert states(engine) == {"usd": PAUSED, "btc": PAUSED}
    guard = guard_reports(engine)["usd"].record.guard
    # A tenth of the capital is a trade's nominal size; the equity is the account's own.
    assert guard.trades[-1] == GuardTrade(Decimal(1), Decimal(9_995))
    caplog.clear()
    follow(engine, ["0.001"], prefix="last")
    assert states(engine) == {"usd": NORMAL, "btc": NORMAL}
    told = [(r.levelno, r.message, getattr(r, "experiment", None)) for r in caplog.records]
    assert ((logging.WARNING, "[ALERT] performance guard NORMAL", "btc")) in told
    assert changes(engine, "btc")[-1][:2] == ("NORMAL", "rule:performance_guard")
    assert assign(engine, ["new"])[0].size_multiplier == 1.0
    # No money moved, and no number of trades.
    assert accounts.named(engine, "usd", now=LATER).equity.realised == -5
    assert count(engine, "outcomes") == 5


def test_one_batch_of_paper_counts_until_the_pause_ends(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    told = [followed(refused(engine, f"n-{i}"), "0.001") for i in range(5)]
    late = [followed(refused(engine, f"late-{i}"), "-0.5") for i in range(5)]
    tell(engine, told + late, now=LATER)
    # The sixth came when nothing was paused any more.
    assert states(engine) == {"usd": NORMAL, "btc": NORMAL}
    assert guard_reports(engine)["btc"].to_json()["trades_since"] == 0


def test_only_the_routed_arm_of_what_this_very_pause_refused_counts(engine: Engine) -> None:
    open_btc(engine)
    live = assign_to(engine, "prod", 1, prefix="live")
    pause(engine)
    before = guard_reports(engine)["btc"].record.guard
    stale = [refused(engine, f"stale-{i}") for i in range(20)]
    other = {"prod": CHALLENGER, CHALLENGER: "prod"}
    # Not what another arm would have earned, nor what was not refused.
    tell(engine, [followed(stale[0], "0.001", policy=other[stale[0].policy])], now=LATER)
    tell(
        engine,
        [
            shadowing.ShadowOutcome(
                **{
                    name: getattr(followed(stale[0], "0.001"), name)
                    for name in (
                        "no_trade",
                        "return_ratio",
                        "source",
                        "opened_at",
                        "closed_at",
                        "policy",
                    )
                }
                | {"assignment_id": live[0].id}
            )
        ],
        now=LATER,
    )
    assert guard_reports(engine)["btc"].record.guard == before
    begin_anew(engine, experiment="btc")
    begin_anew(engine, account="usd")
    # Another pause: what the first one refused says nothing of it.
    pause(engine, prefix="again")
    trades = guard_reports(engine)["btc"].record.guard.trades
    tell(engine, [followed(stale[1], "0.001", policy=stale[1].policy)], now=LATER)
    assert guard_reports(engine)["btc"].record.guard.trades == trades


def test_paper_counts_for_every_guard_whose_pause_refused_it_and_no_other(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    begin_anew(engine, account="usd")
    for i in range(5):
        tell(engine, [followed(refused(engine, f"n-{i}"), "0.001")], now=LATER)
    assert states(engine) == {"usd": NORMAL, "btc": NORMAL}
    assert guard_reports(engine)["usd"].to_json()["trades"] == 0
    assert [to for to, _, _ in changes(engine, "btc")] == ["PAUSED", "NORMAL"]


def test_person_begins_a_guard_anew_and_the_log_says_who(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    begin_anew(engine, experiment="btc")
    assert changes(engine, "btc")[-1] == ("NORMAL", "ann", "looked into it")
    report = guard_reports(engine)["btc"].to_json()
    assert (report["state"], report["trades"], report["losing_streak"]) == ("NORMAL", 0, 0)
    audited = text(
        "SELECT actor, subject, details ->> 'after' FROM audit_log"
        " WHERE action = 'performance_guard' ORDER BY id"
    )
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(audited)] == [
            ("rule:performance_guard", "account usd", "PAUSED"),
            ("rule:performance_guard", "experiment btc", "PAUSED"),
            ("ann", "experiment btc", "NORMAL"),
        ]
    with pytest.raises(UnknownName):
        begin_anew(engine, experiment="none")
    with pytest.raises(UnknownName):
        begin_anew(engine, account="none")
    with pytest.raises(InvalidInput):
        performance_guarding.reset(engine, account="usd", reason=" ", now=LATER, actor="ann")


# What guards outlive


def test_guard_outlives_restart_promotion_and_rollback(engine: Engine, database_url: str) -> None:
    open_btc(engine, loss_limits=WIDE)
    earn(engine, "-501")
    before = {name: report.record.guard for name, report in guard_reports(engine).items()}
    for act in (promote, roll_back):
        act(engine)
        [made] = assign(engine, [f"after-{act.__name__}"], now=NOON + timedelta(hours=3))
        assert made.size_multiplier == 0.5
    restarted = connect(database_url)
    assert {n: r.record.guard for n, r in guard_reports(restarted).items()} == before
    restarted.dispose()


def test_kill_and_pause_come_with_the_same_outcome(engine: Engine) -> None:
    open_btc(engine, challengers=())
    earn(engine, "-1001")
    assert states(engine) == {"usd": PAUSED, "btc": PAUSED}
    assert accounts.named(engine, "usd", now=LATER).record.is_killed
    killing.release(engine, None, reason="over", now=LATER, actor="ann")
    refused(engine, "new")


def test_audit_log_still_answers_for_refused_batches(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    for i in range(3):
        refused(engine, f"n-{i}")
    auditing.seal(engine, now=LATER)
    kinds = {finding.kind for finding in auditing.verify(engine, []).findings}
    assert kinds == {FindingKind.UNANCHORED}


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE guard_states SET state = 'NORMAL', size_multiplier = 1, confidence_bump = 0",
            "follows guard_changes",
        ),
        ("UPDATE guard_states SET change_id = NULL", "follows guard_changes"),
        ("UPDATE guard_states SET rule = '{}'", "keeps its scope and its rule"),
        ("DELETE FROM guard_states", "append-only"),
        (
            "INSERT INTO guard_changes (guard_id, from_state, to_state, at, actor, reason, reasons)"
            " SELECT id, 'NORMAL', 'REDUCED', '2026-03-01Z', 'x', 'x', '[]' FROM guard_states",
            "begins where the one before it ended",
        ),
        ("UPDATE guard_states SET size_multiplier = 1", "paused_is_nothing"),
    ],
)
def test_database_keeps_guards_to_their_changes(
    engine: Engine, statement: str, message: str
) -> None:
    open_wide(engine, rules=Rules(guard=GuardRule(confidence_bump=0.2)))
    pause(engine)
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        connection.execute(text(statement))
