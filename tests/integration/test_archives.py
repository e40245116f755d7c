"""Archives hold what left as it was, and nobody but the archivist lets it leave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from aged_history import (
    NOW,
    SPOKEN,
    History,
    mismatches,
    numbers,
    read,
)
from ledger import NOON, assign, closed, count, open_btc, record_all
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from bandit.core.errors import UnknownName
from bandit.core.model import UnitId
from bandit.core.outcomes import declined, trade
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import (
    ageing,
    auditing,
    ledger,
    revising,
)
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.archives import Archive, ArchivedBodies
from bandit.storage.engine import connect
from bandit.storage.migrate import upgrade
from bandit.storage.roles import as_application, as_archivist
from liveops import cli
from snapshots.archive_files import ArchiveDamaged, ArchiveNotWritten, ParquetArchives


class Breaking(ParquetArchives):
    """Files that call somebody, who may raise, once an archive is complete."""

    def __init__(self, directory: Path, then: Callable[[], None]) -> None:
        super().__init__(directory)
        self.then = then

    def body_hashes(self, archive: Archive) -> Iterator[tuple[UUID, ArchivedBodies]]:
        self.then()
        return super().body_hashes(archive)


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


def test_crash_after_the_file_is_written_is_made_good_by_the_next_run(
    history: History, tmp_path: Path
) -> None:
    engine = history.engine
    before = numbers(engine)
    with pytest.raises(Crash):
        history.age(files=Breaking(tmp_path / "archives", crash))
    assert count(engine, "aged_assignments") == 0
    assert count(engine, "archives") == 1
    aged = history.age()
    assert aged.archives == tuple(name for (name,) in read(engine, "SELECT name FROM archives"))
    assert aged.assignments == count(engine, "aged_assignments") > 0
    assert numbers(engine) == before
    assert read(engine, "SELECT count(*) FROM archives WHERE finished_at IS NULL") == [(0,)]


def test_what_is_corrected_while_its_archive_is_written_stays(
    history: History, tmp_path: Path
) -> None:
    engine = history.engine
    [key] = read(
        engine,
        "SELECT o.assignment_id FROM current_outcomes o JOIN arms a ON a.id = o.arm_id "
        "WHERE NOT o.no_trade ORDER BY o.closed_at, o.unit_id OFFSET 30 LIMIT 1",
    )[0]
    told = history.told[key]
    assert told.opened_at is not None
    assert told.closed_at is not None
    corrected = trade(
        key,
        pnl=Decimal(7),
        return_ratio=Decimal("0.007"),
        opened_at=told.opened_at,
        closed_at=told.closed_at,
    )

    def correct() -> None:
        revising.revise(engine, corrected, reason="drill", now=NOW, actor="test")

    history.age(files=Breaking(tmp_path / "archives", correct))
    history.told[key] = corrected
    # It and what closed after it on its arm: the file has it as it was.
    assert key in history.keys("assignments")
    assert mismatches(engine) == ()
    policy = history.made[key].policy
    assert history.stored(policy)[0] == history.expected(policy)[0]


def test_file_that_is_not_what_was_registered_lets_nothing_leave(
    history: History, tmp_path: Path
) -> None:
    def spoil() -> None:
        [path] = (tmp_path / "archives").iterdir()
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(ArchiveDamaged, match="not the registered one"):
        history.age(files=Breaking(tmp_path / "archives", spoil))
    assert count(history.engine, "aged_assignments") == 0


def findings(history: History) -> list[tuple[str, str]]:
    auditing.seal(history.engine, now=NOW)
    report = auditing.verify(history.engine, [], archive_sha256=history.files.sha256)
    return [(f.kind.value, f.message) for f in report.findings if f.kind != "unanchored"]


FORGERIES = {
    "answer": "UPDATE aged_assignments SET propensity = propensity / 2",
    "arm": "UPDATE aged_assignments SET arm_id = 3 - arm_id",
    "context": "UPDATE aged_assignments SET context_sha256 = sha256('')",
    "outcome": "UPDATE aged_assignments SET outcome_body_hash = sha256('')",
    "freed": "DELETE FROM aged_assignments WHERE id = (SELECT min(id::text)::uuid FROM "
    "aged_assignments)",
    "moved": "UPDATE aged_assignments SET audit_id = 99999, outcome_audit_id = 99998",
    "base": "UPDATE arm_bases SET gross_profit = gross_profit + 0.00000001",
    "base equity": "UPDATE arm_bases SET equity = equity + 1e-12",
    "base gone": "DELETE FROM arm_bases",
    "claimed": "UPDATE aged_assignments SET claimed_at = decided_at",
    "recorded": "UPDATE aged_assignments SET outcome_recorded_at = decided_at",
    "expired": "UPDATE aged_assignments SET outcome_expired = NOT outcome_expired",
    "put in": "INSERT INTO aged_assignments SELECT gen_random_uuid(), experiment_id, 'forged', "
    "instrument, arm_id, mode, role, allocation_version, epoch, propensity, position_id, "
    "is_fallback, size_multiplier, confidence_bump, NULL, NULL, decided_at, expires_at, NULL, "
    "NULL, NULL, NULL, NULL, NULL, NULL, archive_id, aged_by FROM aged_assignments LIMIT 1",
    "day": "UPDATE aged_days SET pnl = pnl + 0.00000001",
    "day gone": "DELETE FROM aged_days",
    "cohort": "UPDATE aged_cohorts SET wealth[3] = wealth[3] + 1",
    "cohort gone": "DELETE FROM aged_cohorts",
    "pair": "UPDATE aged_paired_cohorts SET wealth[3] = wealth[3] + 1",
    "pair gone": "DELETE FROM aged_paired_cohorts",
    "gap": "UPDATE aged_fill_gaps SET squares = squares + 1 WHERE arm_id = 1",
    "gap gone": "DELETE FROM aged_fill_gaps",
    "paper day": "UPDATE aged_paper_days SET n_trades = n_trades + 1 WHERE arm_id = 2",
    "paper day gone": "DELETE FROM aged_paper_days",
    "explored": "UPDATE aged_explored SET spent = spent + 0.00000001",
    "explored gone": "DELETE FROM aged_explored",
    "on paper": "UPDATE aged_shadow_outcomes SET body_hash = sha256('')",
    "on paper gone": "DELETE FROM aged_shadow_outcomes",
    "registered": "UPDATE archives SET sha256 = sha256('')",
    "forgotten": "ALTER TABLE aged_assignments DROP CONSTRAINT aged_assignments_archive_id_fkey; "
    "DELETE FROM archives",
}


def test_audit_log_vouches_for_what_left(history: History) -> None:
    assert findings(history) == []
    history.age()
    assert findings(history) == []


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_forgery_of_what_left_shows(history: History, forgery: str) -> None:
    history.age()
    with history.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(forgery))
    kinds = {kind for kind, _ in findings(history)}
    assert kinds & {"batch_changed", "base_changed", "archive_changed"}, kinds


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_archive_that_is_gone_or_edited_shows(
    history: History, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    history.age()
    [path] = (tmp_path / "archives").iterdir()
    spoil(path)
    [(kind, message)] = findings(history)
    assert kind == "archive_changed"
    assert path.name in message


def test_file_holds_every_decision_as_the_ledger_had_it(history: History, tmp_path: Path) -> None:
    trades = {
        row[0]: row
        for row in read(
            history.engine,
            "SELECT assignment_id, pnl::text, return_ratio::text, fees::text, closed_at, unit_id "
            "FROM current_outcomes WHERE NOT no_trade",
        )
    }
    corrected = {
        row[0] for row in read(history.engine, "SELECT assignment_id FROM outcome_revisions")
    }
    history.age()
    [path] = (tmp_path / "archives").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    held: dict[UUID, Mapping[str, Any]] = {
        UUID(row["assignment_id"]): row for row in pq.read_table(path).to_pylist()
    }
    assert held.keys() == history.keys("aged_assignments")
    for key, row in held.items():
        assert row["policy"] == history.made[key].policy
        assert row["propensity"] == history.made[key].propensity
        assert (row["superseded"] is not None) == (key in corrected)
        if key in trades:
            columns = ("pnl", "return_ratio", "fees", "closed_at", "unit_id")
            assert tuple(row[name] for name in columns) == tuple(trades[key][1:])
    [first] = [row for row in held.values() if row["superseded"] is not None][:1]
    assert json.loads(first["superseded"])[0]["revision"] == 0
    assert first["revision_reason"] == "drill"


def test_only_the_archivist_lets_rows_leave(history: History, database_url: str) -> None:
    service_url = as_application(database_url)
    assert service_url is not None
    service, archivist = connect(service_url), connect(as_archivist(service_url))
    for engine, statement in (
        (service, "DELETE FROM outcomes"),
        (service, "INSERT INTO aged_assignments SELECT * FROM aged_assignments"),
        (service, "UPDATE arm_bases SET equity = 1"),
        # Without its key staying behind no row goes, and none changes.
        (archivist, "DELETE FROM outcomes"),
        (archivist, "DELETE FROM assignments"),
        (archivist, "UPDATE assignments SET propensity = 1"),
        (archivist, "DELETE FROM aged_assignments"),
        (archivist, "UPDATE arm_statistics SET n_wins = 0"),
        (archivist, "DROP TABLE outcomes"),
    ):
        with pytest.raises(DBAPIError, match=r"denied|append-only|owner"), engine.begin() as begun:
            begun.execute(text(statement))
    before = numbers(history.engine)
    with pytest.raises(DBAPIError, match="permission denied"):
        history.age(service)
    assert history.age(archivist).assignments > 0
    assert numbers(history.engine) == before
    with archivist.begin() as begun, suppress(DBAPIError):
        begun.execute(text("UPDATE archives SET finished_at = NULL"))
    assert read(history.engine, "SELECT count(*) FROM archives WHERE finished_at IS NULL") == [(0,)]
    service.dispose()
    archivist.dispose()


def test_command_ages_every_experiment_and_says_where_to(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    config = tmp_path / "liveops.yaml"
    config.write_text(f"ageing: {{archive_dir: {tmp_path / 'kept'}}}\n")
    rules = Rules(checklist=ChecklistRule(window=1, long_window=1))
    open_btc(engine, rules=rules)
    made = assign(engine, [f"u-{i}" for i in range(200)])
    record_all(
        engine,
        [closed(a, "0.001", minutes=i + 1) for i, a in enumerate(made)],
        now=NOON + timedelta(days=1),
    )

    def age(*arguments: str) -> int:
        command = ["ledger", "age", "--config", str(config), "--after-days", "30", *arguments]
        return cli.exit_code(cli.app, command)

    assert age() == 0
    [folder] = (tmp_path / "kept").iterdir()
    [path] = folder.iterdir()
    n_aged = count(engine, "aged_assignments")
    assert n_aged > 100
    assert capsys.readouterr().out == f"btc: {n_aged} decisions left to {path.name}\n"
    assert age("btc", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"btc": {"assignments": 0, "archives": []}}
    assert age("nothing", "btc") == 2
    assert capsys.readouterr().out == "btc: 0 decisions left\n"
    assert cli.exit_code(cli.app, ["audit", "verify", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "changed" not in shown
    path.unlink()
    cli.exit_code(cli.app, ["audit", "verify", "--config", str(config)])
    assert f"the file {path.name} is gone" in capsys.readouterr().out


def test_archive_whose_file_is_lost_is_given_up_by_hand(history: History, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        history.age(files=Breaking(tmp_path / "archives", crash))
    [path] = (tmp_path / "archives").iterdir()
    path.unlink()
    with pytest.raises(ArchiveDamaged, match="gone; put it back, or give it up"):
        history.age()
    ageing.abandon(history.engine, path.name, now=NOW, actor="test")
    assert history.age().assignments > 0
    assert [kind for kind, _ in findings(history)] == ["archive_changed"]
    with pytest.raises(UnknownName, match="no unfinished archive"):
        ageing.abandon(history.engine, path.name, now=NOW, actor="test")


def test_documents_are_archived_as_they_were_digested(history: History, tmp_path: Path) -> None:
    context = {"aa": 0.1, "b": 1e300, "c": "é"}
    offered = [
        Opportunity(unit_id=UnitId(f"c-{i}"), instrument="X0USD", context=context)
        for i in range(20)
    ]
    made = Router(history.engine).assign("btc", offered, now=NOON)
    history.tell([declined(a.id) for a in made], now=NOON + SPOKEN)
    history.age()
    statement = "SELECT id, context_sha256 FROM aged_assignments WHERE context_sha256 IS NOT NULL"
    hashes = {str(key): bytes(found) for key, found in read(history.engine, statement)}
    [path] = (tmp_path / "archives").iterdir()
    held = {
        row["assignment_id"]: hashlib.sha256(row["context"].encode()).digest()
        for row in pq.read_table(path).to_pylist()
        if row["context"] is not None
    }
    assert held == hashes
    assert len(held) == 20


@pytest.mark.parametrize(
    "details",
    [
        {"archive": "x"},
        {"archive": 1, "name": "a", "sha256": "zz", "rows": "many"},
        {"arm": "x", "base": "y", "days": [["a", "b", "c"]], "rows": []},
        {"arm": 1, "base": 2, "days": {"x": 1}},
    ],
)
@pytest.mark.parametrize("action", ["archive", "age", "assignments", "outcomes", "restored"])
def test_row_of_nonsense_is_a_finding_and_no_fault(
    history: History, action: str, details: dict[str, object]
) -> None:
    ledger.note(
        history.engine, now=NOW, actor="test", action=action, subject="btc", details=details
    )
    found = findings(history)
    assert (found != []) == (action != "restored")
    assert auditing.lost(history.engine, []) is None


def test_full_or_missing_directory_is_an_error_that_names_it(
    history: History, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveNotWritten, match="file/btc-"):
        history.age(files=ParquetArchives(tmp_path / "file"))
    assert history.age().assignments > 0


def test_ledgers_tables_cannot_be_shadowed(empty_url: str) -> None:
    upgrade(empty_url)  # the right is the database's own: a copy of a migrated one lacks it
    service_url = as_application(empty_url)
    assert service_url is not None
    for url in (service_url, as_archivist(service_url)):
        engine = connect(url)
        with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as begun:
            begun.execute(text("CREATE TEMP TABLE aged_assignments AS SELECT id FROM assignments"))
        engine.dispose()


def test_row_without_a_batch_cannot_be_put_in(history: History) -> None:
    history.age()
    columns = "experiment_id, unit_id, instrument, arm_id, mode, role, allocation_version, epoch"
    more = "propensity, is_fallback, size_multiplier, confidence_bump, decided_at, expires_at"
    statement = (
        f"INSERT INTO assignments (id, {columns}, {more}) SELECT id, {columns}, {more} "
        "FROM aged_assignments LIMIT 1"
    )
    with pytest.raises(DBAPIError, match="of_a_batch"), history.engine.begin() as begun:
        begun.execute(text(statement))
