"""What was written stays: no fact can be changed, deleted or truncated, and no version forged."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from backtest_trials import a_trial, rotated
from data_facts import finished
from data_facts import record as record_night
from drift_runs import a_run
from guarded_ledger import pause
from guarded_ledger import refused as refused_unit
from kept_snapshots import was_stored
from ledger import CHALLENGER, NOON, assign, closed, feed, open_btc, record_all, register
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from vitals import beat

from bandit.core.alert_actions import AlertStatus, Notice
from bandit.core.backups import BackupKind, BackupRecord, RestoreDrill
from bandit.core.evidence import Terms
from bandit.core.kill_switch import KillCause
from bandit.core.notices import Recipient
from bandit.core.outcomes import declined
from bandit.core.selection import Selection
from bandit.service import (
    ageing,
    alerting,
    auditing,
    backups,
    closing,
    drift,
    health,
    killing,
    learner_jobs,
    noticing,
    policies,
    rebuilding,
    recording,
    revising,
    trials,
)
from bandit.service.assigning import Router
from bandit.storage import evidence, policy_archivals, selections
from snapshots.archive_files import ParquetArchives

# Each with a column that an UPDATE might be tempted to correct.
FACTS = {
    "policies": "metadata",
    "decisions": "reason",
    "allocations": "ppm",
    "assignments": "propensity",
    "outcomes": "pnl",
    "outcome_revisions": "pnl",
    "audit_log": "details",
    "claims": "claimed_at",
    "kill_events": "reason",
    "audit_seals": "chain_hash",
    "ledger_identity": "id",
    "parameter_history": "new_value",
    "statistics_comparisons": "mismatches",
    "aged_assignments": "outcome_body_hash",
    "evidence_terms": "baseline",
    "shadow_outcomes": "return_ratio",
    "aged_shadow_outcomes": "body_hash",
    "backtest_trials": "sharpe",
    "drift_checks": "verdict",
    "policy_recipes": "recipe",
    "rotations": "verdict",
    "policy_archivals": "reason",
    "selections": "chosen",
    "guard_changes": "reason",
    "refusals": "account_change",
    "reconciliation_changes": "reason",
    "close_orders": "reason",
    "close_targets": "order_id",
    "close_failures": "reason",
    "alert_notices": "result",
    "notices": "title",
    "snapshots": "size_bytes",
    "data_runs": "report",
    "backups": "taken_at",
    "restore_drills": "failure",
}


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> Engine:
    record = open_btc(engine)
    feed(engine, CHALLENGER, ["0.001", "-0.001"])
    [made, corrected] = assign(engine, ["claimed", "corrected"])
    Router(engine).claim(made.id, now=NOON)
    order = closing.close_all(engine, "btc", reason="drill", now=NOON, actor="test")
    closing.failed(engine, order.id, made.id, reason="no bid", now=NOON, actor="test")
    record_all(engine, [closed(corrected, "0.001", minutes=1)], now=NOON)
    lost = closed(corrected, "-0.001", minutes=1)
    revising.revise(engine, lost, reason="drill", now=NOON, actor="test")
    rebuilding.compare(engine, now=NOON)
    [gone] = assign(engine, ["aged"])
    assert recording.record(engine, [declined(gone.id)], now=NOON)
    tell(engine, [on_paper(a, CHALLENGER, None) for a in (gone, made)], now=NOON)
    before, later = NOON + timedelta(days=1), NOON + timedelta(days=99)
    files = ParquetArchives(tmp_path)
    ageing.age(engine, files, "btc", before=before, now=later, actor="test")
    register(engine, "unused", "dddddddd")
    unused = policies.find(engine, "unused").id
    terms = Terms(unit=0.001, baseline=0.0, profit_factor=1.0)
    with engine.begin() as connection:
        evidence.fix_terms(connection, record.id, terms, fixed_at=NOON)
        selection = Selection(at=NOON, chosen=("BTCUSD",), scores={"BTCUSD": 0.1})
        selections.insert(connection, record.id, selection, actor="test", reason="drill")
        put_away = {"archived": True, "now": NOON, "actor": "test", "reason": "drill"}
        policy_archivals.insert(connection, unused, **put_away)
    trials.record(engine, a_trial(), now=NOON, actor="test")
    drift.record(engine, a_run(), now=NOON, actor="test")
    record_night(engine, finished(NOON))
    was_stored(engine, at=NOON)
    learner_jobs.keep_recipe(engine, "prod", {"learner": "rl"}, now=NOON)
    rotated(engine, of="prod", to=CHALLENGER)
    notice = Notice(fingerprint="f", status=AlertStatus.RESOLVED, starts_at=NOON)
    sent = alerting.AlertPayload(notices=(notice,), truncated=0, receiver="")
    alerting.hear(engine, sent, now=NOON, key="test")
    pause(engine)
    refused_unit(engine, "refused")
    stray = beat(account="usd", positions=(UUID(int=9),), open_positions=1)
    health.hear(engine, stray, now=NOON, window=timedelta(minutes=10))
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    noticing.follow(engine, [Recipient(name="log")], now=NOON)
    auditing.seal(engine, now=NOON)
    noticing.follow(engine, [Recipient(name="log")], now=NOON)
    name = "state_backup_20260301_120000"
    taken = BackupRecord(kind=BackupKind.STATE, name=name, taken_at=NOON, size_bytes=1)
    backups.record(engine, taken)
    drill = RestoreDrill(
        began_at=NOON, backup=name, rows=1, rpo_seconds=0, rto_seconds=None, failure="full"
    )
    backups.record_drill(engine, drill)
    return engine


def refused(engine: Engine, statement: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("table", FACTS)
def test_facts_are_neither_changed_nor_deleted_nor_truncated(filled: Engine, table: str) -> None:
    with filled.connect() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() > 0
    # Even a change to the same value: who may not write, may not write.
    column = FACTS[table]
    refused(filled, f"UPDATE {table} SET {column} = {column}", f"{table} is append-only: UPDATE")
    refused(filled, f"DELETE FROM {table}", f"{table} is append-only: DELETE")
    refused(filled, f"TRUNCATE {table} CASCADE", "is append-only: TRUNCATE")


@pytest.mark.parametrize("table", ["experiments", "arms", "accounts"])
def test_what_facts_hang_on_cannot_be_truncated_away(filled: Engine, table: str) -> None:
    refused(filled, f"TRUNCATE {table} CASCADE", "is append-only: TRUNCATE")
    refused(filled, f"DELETE FROM {table}", "is append-only: DELETE")


def test_views_of_the_documents_do_not_let_facts_be_changed(filled: Engine) -> None:
    with pytest.raises(Exception, match="cannot update view"), filled.begin() as connection:
        connection.execute(text("UPDATE trades SET pnl = 0"))
    refused(filled, "DELETE FROM bandit_arms", "arms is append-only")


def test_every_append_only_table_is_named_here(engine: Engine) -> None:
    statement = text(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'append_only' ORDER BY 1"
    )
    with engine.connect() as connection:
        assert list(connection.execute(statement).scalars()) == sorted(FACTS)


# A version copied from the newest one; each test forges one column of it.
FORGED = """
WITH decision AS (
  INSERT INTO decisions (experiment_id, kind, trading_day, decided_at, actor, reason, profile,
                         strategy, code_version, inputs, inputs_digest, reasons)
  SELECT experiment_id, 'ENTER', NULL, decided_at, actor, reason, profile, strategy, code_version,
         inputs, inputs_digest, reasons FROM decisions LIMIT 1 RETURNING id)
SELECT id FROM decision
"""
COLUMNS = {
    "experiment_id": "experiment_id",
    "version": "version + 1",
    "epoch": "epoch + 1",
    "decision_id": ":decision",
    "policy_ids": "policy_ids",
    "ppm": "ppm",
    "champion_index": "champion_index",
    "floor_ppm": "floor_ppm",
    "created_at": "created_at",
}


def forge(engine: Engine, **changes: str) -> None:
    chosen = COLUMNS | changes
    statement = (
        f"INSERT INTO allocations ({', '.join(chosen)})"
        f" SELECT {', '.join(chosen.values())} FROM allocations LIMIT 1"
    )
    with engine.begin() as connection:
        decision = connection.execute(text(FORGED)).scalar_one()
        connection.execute(text(statement), {"decision": decision})


def test_a_faithful_copy_is_a_lawful_version(engine: Engine) -> None:
    open_btc(engine)
    forge(engine)
    # What the writer says of champion and floor is of no matter: the database finds them out.
    forge(engine, version="version + 2", epoch="epoch + 2", champion_index="2", floor_ppm="0")
    with engine.connect() as connection:
        statement = text("SELECT champion_index, floor_ppm FROM allocations ORDER BY version")
        assert [tuple(row) for row in connection.execute(statement)] == [(1, 400_000)] * 3


@pytest.mark.parametrize(
    ("column", "value", "limit"),
    [
        ("version", "version", "limit version"),
        ("version", "version + 2", "limit version"),
        ("epoch", "epoch", "limit epoch"),
        ("epoch", "epoch + 2", "limit epoch"),
        ("policy_ids", "policy_ids[1:1]", "limit sum"),
        ("policy_ids", "ARRAY[policy_ids[2], policy_ids[1]]", "limit arms"),
        ("policy_ids", "ARRAY[policy_ids[1], policy_ids[1]]", "limit arms"),
        ("ppm", "ARRAY[ppm[1] + 1, ppm[2]]", "limit sum"),
        ("ppm", "ARRAY[ppm[1], NULL]", "limit sum"),
        ("ppm", "ARRAY[ppm[1] + ppm[2]]", "limit sum"),
        ("ppm", "'{}'", "limit sum"),
        ("ppm", "ARRAY[ARRAY[ppm[1], ppm[2]]]", "limit sum"),
        # The same parts under indexes that begin at 0 would shift the champion's floor.
        ("ppm", "'[0:1]={900000,100000}'::integer[]", "limit sum"),
        ("created_at", "'infinity'", "instant_check"),
    ],
)
def test_forged_version_is_refused_by_name(
    engine: Engine, column: str, value: str, limit: str
) -> None:
    open_btc(engine)
    with pytest.raises(IntegrityError, match=limit):
        forge(engine, **{column: value})


def test_decision_makes_one_version_at_most(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(IntegrityError, match="allocations_decision_id_key"):
        forge(engine, decision_id="decision_id + 0 * :decision")


def test_a_night_has_one_scaling_decision_at_most(engine: Engine) -> None:
    open_btc(engine)
    statement = FORGED.replace("'ENTER', NULL", "'HOLD', date '2026-03-01'")
    with engine.begin() as connection:
        connection.execute(text(statement))
    refused(engine, statement, "once_a_night")
    refused(engine, FORGED.replace("NULL", "date '2026-03-02'"), "night_decisions_have_a_day")


def test_assignment_needs_a_version_of_its_own_experiment(filled: Engine) -> None:
    with filled.connect() as connection:
        columns = connection.execute(text("SELECT * FROM assignments LIMIT 0")).keys()
    own = {name: name for name in columns} | {"id": "gen_random_uuid()", "unit_id": "'forged'"}
    for forged in (
        own | {"allocation_version": "99"},
        own | {"propensity": "0"},
        own | {"expires_at": "decided_at"},
        own | {"id": "id"},
        own | {"unit_id": "unit_id"},
        own | {"position_id": "gen_random_uuid()"},
    ):
        refused(
            filled,
            f"INSERT INTO assignments SELECT {', '.join(forged.values())} FROM assignments LIMIT 1",
            "assignments_",
        )
