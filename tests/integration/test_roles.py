"""A running service can append and read, and can change neither the schema nor a fact."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from backtest_trials import a_trial, rotated
from data_facts import finished
from data_facts import record as record_night
from drift_runs import a_run
from guarded_ledger import followed, pause
from guarded_ledger import refused as refused_unit
from kept_snapshots import was_stored
from ledger import (
    BEST,
    CHALLENGER,
    NIGHT,
    NOON,
    assign,
    assign_to,
    change,
    closed,
    feed,
    join,
    open_btc,
    promote,
    record_all,
    register,
    roll_back,
    scale,
    set_budget,
)
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError
from vitals import beat

from bandit.core.alert_actions import AlertResult, AlertStatus, Notice
from bandit.core.backups import BackupKind, BackupRecord, RestoreDrill
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.notices import Recipient
from bandit.core.purging import PurgeRule
from bandit.service import (
    alerting,
    auditing,
    backups,
    closing,
    data_runs,
    drift,
    exploring,
    health,
    job_runs,
    killing,
    noticing,
    performance_guarding,
    purging,
    reconciling,
    reporting,
    trials,
    watching,
)
from bandit.service.assigning import Router
from bandit.storage.engine import connect
from bandit.storage.roles import APPLICATION_ROLE, as_application

# What a service never writes.
READ_ONLY = {
    "alembic_version",
    "decision_protocol",
    "ledger_identity",
    # The archivist's.
    "archives",
    "aged_assignments",
    "arm_bases",
    "aged_days",
    "aged_cohorts",
    "aged_shadow_outcomes",
    "aged_paired_cohorts",
    "aged_fill_gaps",
    "aged_paper_days",
    "aged_explored",
}


@pytest.fixture
def service(database_url: str) -> Iterator[Engine]:
    """An engine with the rights that a running service has."""
    url = as_application(database_url)
    assert url is not None
    engine = connect(url)
    yield engine
    engine.dispose()


def refused(
    engine: Engine, statement: str, message: str = "permission denied|must be owner"
) -> None:
    with pytest.raises(ProgrammingError, match=message), engine.begin() as connection:
        connection.execute(text(statement))


def test_every_use_case_needs_no_more_than_the_role_has(service: Engine) -> None:
    open_btc(service)
    join(service, register(service, "later", "bbbbbbbb"))
    moment = feed(service, CHALLENGER, BEST)
    feed(service, "prod", BEST, prefix="p", now=moment)
    set_budget(service, "100000", now=moment)
    # A late trade takes the fold up again from an earlier place.
    [late] = assign_to(service, CHALLENGER, 1, prefix="late")
    record_all(service, [closed(late, "0.001", minutes=1)], now=NIGHT)
    [watched] = assign_to(service, "prod", 1, prefix="watched")
    tell(service, [on_paper(watched, p, "0.001") for p in ("prod", CHALLENGER)], now=NIGHT)
    record_all(service, [closed(watched, "0.001")], now=NIGHT)
    scale(service, now=NIGHT)
    for act in (promote, roll_back):
        act(service)
    for verb in (ArmVerb.RESUME, ArmVerb.THROTTLE, ArmVerb.HALT, ArmVerb.RETIRE):
        change(service, verb)
    firing = Notice(
        fingerprint="f",
        status=AlertStatus.FIRING,
        starts_at=NIGHT,
        experiment="btc",
        policy="later",
        action="halt",
    )
    for _ in range(2):
        sent = alerting.AlertPayload(notices=(firing,), truncated=1, receiver="")
        alerting.hear(service, sent, now=NIGHT, key="test")
    assert alerting.counts(service)[AlertResult.HALTED] == 1
    [made] = assign(service, ["claimed"])
    Router(service).claim(made.id, now=NOON)
    order = closing.close_all(service, "btc", reason="drill", now=NOON, actor="test")
    closing.failed(service, order.id, made.id, reason="no bid", now=NOON, actor="test")
    assert closing.waiting(service, "btc")
    killing.kill(service, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    killing.release(service, None, reason="over", now=NOON, actor="test")
    exploring.clear_budget(service, "btc", reason="over", now=NOON, actor="test")
    trials.record(service, a_trial(), now=NOON, actor="test")
    drift.record(service, a_run(), now=NOON, actor="test")
    rotated(service, of="prod", to=CHALLENGER)
    record_night(service, finished(NOON))
    with data_runs.alone(service, doing="drill"):
        assert data_runs.standing(service) is not None
    assert data_runs.newest_nights(service, limit=1)
    was_stored(service, at=NOON)
    for minute in range(2):
        told = beat(sent_at=NOON + timedelta(minutes=minute))
        health.hear(service, told, now=NIGHT, window=timedelta(minutes=10))
    assert health.read(service, now=NIGHT).vitals.bots
    stray = beat("beta", account="usd", positions=(UUID(int=9),), open_positions=1)
    health.hear(service, stray, now=NIGHT, window=timedelta(minutes=10))
    reconciling.accept(service, "usd", reason="over", now=NIGHT, actor="test")
    health.forget(service, "alpha", reason="over", now=NIGHT, actor="test")
    seen = {"who": "prod", "interval_seconds": 300, "now": NIGHT, "actor": "test"}
    for first in (True, False):
        watching.pulse(service, ["btc"], is_first=first, **seen)
    assert watching.end(service, who="prod", now=NIGHT, actor="test") == ["btc"]
    for scope in ({"account": "usd"}, {"experiment": "btc"}):
        performance_guarding.reset(service, **scope, reason="over", now=NOON, actor="test")
    pause(service)
    paused = refused_unit(service, "refused")
    tell(service, [followed(paused, "0.001", policy=paused.policy)], now=NIGHT)
    noticing.follow(service, [Recipient(name="log")], now=NOON)
    killing.kill(service, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    assert auditing.seal(service, now=NOON) is not None
    noticing.follow(service, [Recipient(name="log")], now=NOON)
    told, *_ = noticing.due(service, "log", now=NOON)
    assert noticing.claim(service, told, now=NOON)
    noticing.sent(service, told, now=NOON)
    run = job_runs.claim(service, "data", NIGHT, now=NIGHT, actor="test")
    assert run is not None
    job_runs.finish(service, run, succeeded=True, result="ok", now=NIGHT, actor="test")
    old = NIGHT + timedelta(days=99)
    told = purging.purge(service, PurgeRule(active_min=1), as_of=old, now=NIGHT, actor="test")
    assert any(fate.purged for fate in told)
    assert purging.restore(service, "later", reason="over", now=NIGHT, actor="test")
    assert reporting.report(service, "btc").to_json()
    with backups.moment(service) as moment:
        assert moment.state()["arms"]
        assert moment.row_counts()
    with backups.only_one(service, doing="drill"):
        taken = BackupRecord(
            kind=BackupKind.STATE, name="state_backup_20260301_120000", taken_at=NOON, size_bytes=1
        )
        backups.record(service, taken)
    drill = RestoreDrill(
        began_at=NOON, backup=taken.name, rows=1, rpo_seconds=0, rto_seconds=1, failure=None
    )
    backups.record_drill(service, drill)
    known = backups.Known(newest={BackupKind.STATE: taken}, drill=drill, unarchived=None)
    assert backups.known(service) == known
    with service.begin() as connection:
        assert connection.execute(text("SELECT end_holders(3, 1)")).scalar_one() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (x integer)",
        "DROP TABLE claims",
        "ALTER TABLE assignments DISABLE TRIGGER ALL",
        "ALTER TABLE outcomes ADD COLUMN x integer",
        "DROP FUNCTION require_alive(experiments)",
        "CREATE ROLE another",
        "TRUNCATE marks",
        "UPDATE assignments SET propensity = 1",
        "UPDATE shadow_outcomes SET return_ratio = 1",
        "DELETE FROM shadow_outcomes",
        "DELETE FROM audit_log",
        "DELETE FROM backtest_trials",
        "UPDATE drift_checks SET verdict = 'PASS'",
        "DELETE FROM rotations",
        "DELETE FROM data_runs",
        "DELETE FROM arm_statistics",
        "DELETE FROM guard_states",
        "UPDATE guard_changes SET reason = 'x'",
        "DELETE FROM refusals",
        "DELETE FROM reconciliations",
        "UPDATE reconciliation_changes SET reason = 'x'",
        "DELETE FROM close_targets",
        "UPDATE alert_notices SET result = 'no_action'",
        "DELETE FROM alert_counts",
        "DELETE FROM job_runs",
        "UPDATE notices SET title = 'x'",
        "DELETE FROM notice_deliveries",
        "DELETE FROM backups",
        "UPDATE restore_drills SET failure = NULL",
        "DELETE FROM snapshots",
        "UPDATE decision_protocol SET version = 3",
        "SET session_replication_role = replica",
    ],
)
def test_service_cannot_change_the_schema_or_a_fact(service: Engine, statement: str) -> None:
    open_btc(service)
    refused(service, statement)


def test_owner_can(engine: Engine) -> None:
    # The control: the same statement is lawful for who owns the ledger.
    open_btc(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x integer)"))


def test_every_table_says_what_a_service_may_do_with_it(engine: Engine) -> None:
    statement = text(
        "SELECT c.relname, has_table_privilege(:role, c.oid, 'INSERT'),"
        " has_table_privilege(:role, c.oid, 'SELECT') FROM pg_class c"
        " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    )
    with engine.connect() as connection:
        found = connection.execute(statement, {"role": APPLICATION_ROLE}).all()
    assert {name for name, inserts, _ in found if not inserts} == READ_ONLY
    assert [name for name, _, selects in found if not selects] == []


def test_server_without_the_role_is_used_with_the_rights_of_its_user(database_url: str) -> None:
    owner = connect(database_url)
    with owner.begin() as connection:
        connection.execute(text("REVOKE ALL ON assignments FROM liveops_app"))
    owner.dispose()
    assert as_application(database_url) is None
