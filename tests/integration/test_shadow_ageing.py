"""Results on paper leave with their decisions: told again they are known, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from aged_history import GAPS, NOW, PAIRS, PAPER_DAYS, History, mismatches, read
from ledger import CHALLENGER, count
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text

from bandit.core.errors import Conflict
from bandit.core.shadow import ShadowOutcome
from bandit.service import rebuilding, shadowing
from bandit.service.shadowing import RecordedShadow
from bandit.storage.archives import Archive, ArchivedBodies
from bandit.storage.shadows import shadow_of
from snapshots.archive_files import ParquetArchives

ON_PAPER = """
  SELECT h.assignment_id, p.name AS policy, h.no_trade, h.return_ratio::numeric, h.source,
         h.opened_at::timestamptz, h.closed_at::timestamptz
  FROM shadow_outcomes h JOIN arms a ON a.id = h.arm_id JOIN policies p ON p.id = a.policy_id
"""


def on_record(engine: Engine) -> list[ShadowOutcome]:
    with engine.connect() as connection:
        return [shadow_of(dict(row)) for row in connection.execute(text(ON_PAPER)).mappings()]


def test_what_was_told_is_known_and_nothing_else_is_taken(history: History) -> None:
    engine = history.engine
    told = on_record(engine)
    history.age()
    gone = history.keys("aged_assignments")
    old = [body for body in told if body.assignment_id in gone]
    assert len(old) == count(engine, "aged_shadow_outcomes") > 50
    for answer in shadowing.record(engine, old[:500], now=NOW):
        assert isinstance(answer, RecordedShadow)
        assert not answer.created
    spoken_of = {(body.assignment_id, body.policy) for body in old}
    silent = next(key for key in sorted(gone) if (key, CHALLENGER) not in spoken_of)
    changed = on_paper(history.made[old[0].assignment_id], old[0].policy, "0.9")
    for body in (changed, on_paper(history.made[silent], CHALLENGER, "0.001")):
        [refused] = shadowing.record(engine, [body], now=NOW)
        assert isinstance(refused, Conflict)
    assert mismatches(engine) == ()


def held_in(path: Path) -> list[ShadowOutcome]:
    """What a file tells of results on paper."""
    return [
        shadow_of(
            one
            | {name: datetime.fromisoformat(one[name]) for name in ("opened_at", "closed_at")}
            | {"assignment_id": UUID(row["assignment_id"])}
            | {"return_ratio": Decimal(one["return_ratio"])}
        )
        for row in pq.read_table(path).to_pylist()
        for one in json.loads(row["shadows"] or "[]")
    ]


def test_files_hold_them_as_the_ledger_had_them(history: History, tmp_path: Path) -> None:
    told = on_record(history.engine)
    history.age()
    [path] = (tmp_path / "archives").iterdir()
    gone = history.keys("aged_assignments")
    left = {body.body_hash() for body in told if body.assignment_id in gone}
    assert {body.body_hash() for body in held_in(path)} == left


def test_decision_that_is_told_of_while_its_file_is_written_leaves_for_another(
    history: History, tmp_path: Path
) -> None:
    engine = history.engine
    known = {body.assignment_id for body in on_record(engine)}
    declined = [row[0] for row in read(engine, "SELECT assignment_id FROM outcomes WHERE no_trade")]
    key = next(key for key in declined if key not in known)
    body = on_paper(history.made[key], CHALLENGER, "0.0001")

    class Telling(ParquetArchives):
        def body_hashes(self, archive: Archive) -> Iterator[tuple[UUID, ArchivedBodies]]:
            tell(engine, [body], now=NOW)
            return super().body_hashes(archive)

    history.age(files=Telling(tmp_path / "archives"))
    assert key in history.keys("aged_assignments")
    [(name,)] = read(
        engine,
        "SELECT r.name FROM aged_assignments g JOIN archives r ON r.id = g.archive_id "
        f"WHERE g.id = '{key}'",
    )
    first, second = sorted((tmp_path / "archives").iterdir())
    assert second.name == name
    assert body not in held_in(first)
    assert body in held_in(second)
    assert mismatches(engine) == ()


@pytest.mark.parametrize(
    ("table", "statement"),
    [("paired_cohorts", PAIRS), ("fill_gaps", GAPS), ("paper_days", PAPER_DAYS)],
)
def test_repair_starts_from_what_left(history: History, table: str, statement: str) -> None:
    engine = history.engine
    before = read(engine, statement)
    history.age()
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {table}"))
    found = rebuilding.repair(engine, now=NOW, actor="test").mismatches
    assert {m.table for m in found} == {table}
    assert read(engine, statement) == before
    # Control: without what left an arm is counted short.
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"DELETE FROM aged_{table}"))
    assert {m.table for m in rebuilding.compare(engine, now=NOW).mismatches} == {table}
