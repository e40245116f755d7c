"""A superuser changes the audit log behind the triggers; the verifier says what, and where.

Every kind of tampering is tried at `ROUNDS` random places, each on a sealed log of its own that is
verified untouched first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
from audit_log import append, note, order, seal_and_anchor, seen
from ledger import NOON
from postgres_server import PostgresServer
from sqlalchemy import Connection, Engine, make_url, text

from bandit.core.audit_chain import Anchor, AuditRow, sealed
from bandit.service import auditing
from bandit.storage import audit
from bandit.storage.engine import connect

ROUNDS = 6
ROWS = 24

Findings = list[tuple[str, int | None, int | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A log about to be tampered with: its seals in order, its anchors, and a random generator."""

    connection: Connection
    seals: list[tuple[int, int]]
    anchors: list[Anchor]
    rng: np.random.Generator

    def one(self) -> tuple[int, int]:
        """Sequence and audit id of one random seal."""
        return self.seals[int(self.rng.integers(len(self.seals)))]

    def two(self) -> list[tuple[int, int]]:
        """Two different ones, in order of sequence."""
        chosen = self.rng.choice(len(self.seals), size=2, replace=False)
        return [self.seals[int(i)] for i in sorted(chosen)]

    def run(self, statement: str, **values: object) -> None:
        self.connection.execute(text(statement), values)

    def first_anchor_from(self, sequence: int) -> int:
        return min(a.sequence for a in self.anchors if a.sequence >= sequence)

    def rehash(self) -> None:
        """Make every hash anew, as if the rows had always been what they are now."""
        rows: list[AuditRow] = []
        for link in audit.links(self.connection):
            assert link.row is not None
            rows.append(link.row)
        self.run("DELETE FROM audit_seals")
        audit.append_seals(self.connection, list(sealed(rows, after=None, now=NOON)))


def edit(case: Case) -> Findings:
    sequence, row = case.one()
    change = [
        "details = details || '{\"n\": -1}'",
        "actor = 'somebody else'",
        "action = 'nothing'",
        "subject = subject || ' '",
        "at = at - interval '1 microsecond'",
    ][int(case.rng.integers(5))]
    case.run(f"UPDATE audit_log SET {change} WHERE id = :row", row=row)
    return [("edited", row, sequence)]


def edit_scale_of_a_number(case: Case) -> Findings:
    # 1.5 and 1.50 are equal to Postgres, and are not the same text.
    sequence, row = case.one()
    change = "details = jsonb_set(details, '{ratio}', '1.50')"
    case.run(f"UPDATE audit_log SET {change} WHERE id = :row", row=row)
    return [("edited", row, sequence)]


def delete(case: Case) -> Findings:
    sequence, row = case.one()
    case.run("DELETE FROM audit_log WHERE id = :row", row=row)
    return [("deleted", row, sequence)]


def delete_with_seal(case: Case) -> Findings:
    sequence, row = case.seals[int(case.rng.integers(len(case.seals) - 1))]
    case.run("DELETE FROM audit_log WHERE id = :row", row=row)
    case.run("DELETE FROM audit_seals WHERE audit_id = :row", row=row)
    return [("deleted", None, sequence)]


def swap(case: Case) -> Findings:
    (first, one), (second, other) = case.two()
    case.run(
        """
        UPDATE audit_log l SET details = o.details FROM audit_log o
        WHERE (l.id, o.id) IN ((:one, :other), (:other, :one))
        """,
        one=one,
        other=other,
    )
    return [("swapped", one, first), ("swapped", other, second)]


def swap_seals(case: Case) -> Findings:
    (first, one), (second, other) = case.two()
    for old, new in ((first, -1), (second, first), (-1, second)):
        # Beyond the keys: the check that a sequence is positive is the tamperer's to drop.
        case.run("ALTER TABLE audit_seals DROP CONSTRAINT IF EXISTS audit_seals_sequence_check")
        case.run("UPDATE audit_seals SET sequence = :new WHERE sequence = :old", old=old, new=new)
    broken = dict(case.seals) | {first: other, second: one}
    places = {first, first + 1, second, second + 1} & set(broken)
    anchored = {first, second} & {anchor.sequence for anchor in case.anchors}
    return [
        *(("broken", broken[place], place) for place in sorted(places)),
        *(("rehashed", None, place) for place in sorted(anchored)[:1]),
    ]


def truncate_tail(case: Case) -> Findings:
    kept = int(case.rng.integers(len(case.seals)))
    case.run("DELETE FROM audit_seals WHERE sequence > :kept", kept=kept)
    gone = [row for _, row in case.seals[kept:]]
    case.run("DELETE FROM audit_log WHERE id = ANY(:gone)", gone=gone)
    return [("truncated", None, len(case.seals))]


def backdate(case: Case) -> Findings:
    at = NOON - timedelta(days=int(case.rng.integers(1, 100)))
    row = 1000 + int(case.rng.integers(100))
    case.run(
        "INSERT INTO audit_log (id, at, actor, action, subject, details) OVERRIDING SYSTEM VALUE "
        "VALUES (:row, :at, 'test', 'drill', 'btc', '{}')",
        row=row,
        at=at,
    )
    return [("forged", row, None)]


def unseal(case: Case) -> Findings:
    sequence, row = case.seals[int(case.rng.integers(len(case.seals) - 1))]
    case.run("DELETE FROM audit_seals WHERE audit_id = :row", row=row)
    return [("deleted", None, sequence), ("forged", row, None)]


def fork(case: Case) -> Findings:
    sequence, row = case.seals[int(case.rng.integers(1, len(case.seals)))]
    case.run("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_pkey")
    case.run("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_audit_id_key")
    case.run("INSERT INTO audit_seals SELECT * FROM audit_seals WHERE audit_id = :row", row=row)
    return [("forged", row, sequence)]


def edit_and_rehash(case: Case) -> Findings:
    sequence, row = case.one()
    case.run("UPDATE audit_log SET subject = 'eth' WHERE id = :row", row=row)
    case.rehash()
    return [("rehashed", None, case.first_anchor_from(sequence))]


def delete_and_rehash(case: Case) -> Findings:
    sequence, row = case.seals[int(case.rng.integers(len(case.seals) - 1))]
    case.run("DELETE FROM audit_log WHERE id = :row", row=row)
    case.run("DELETE FROM audit_seals WHERE audit_id = :row", row=row)
    case.rehash()
    disagreeing = case.first_anchor_from(sequence)
    end = len(case.seals)
    # Only the last anchor comes after the gap: the chain, one shorter, does not reach it.
    rehashed: Findings = [("rehashed", None, disagreeing)] if disagreeing < end else []
    return [*rehashed, ("truncated", None, end)]


def backdate_and_rehash(case: Case) -> Findings:
    backdate(case)
    (row,) = case.connection.execute(text("SELECT max(id) FROM audit_log")).scalars()
    place = int(case.rng.integers(1, len(case.seals)))
    case.run("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_pkey")
    case.run("UPDATE audit_seals SET sequence = sequence + 1 WHERE sequence >= :at", at=place)
    case.run(
        "INSERT INTO audit_seals SELECT :at, :row, row_hash, chain_hash, sealed_at "
        "FROM audit_seals LIMIT 1",
        at=place,
        row=row,
    )
    case.rehash()
    return [("rehashed", None, case.first_anchor_from(place))]


LOCAL = [
    edit,
    edit_scale_of_a_number,
    delete,
    delete_with_seal,
    swap,
    swap_seals,
    backdate,
    unseal,
    fork,
]
"""What the chain itself shows, without an anchor."""

ONLY_ANCHORED = [truncate_tail, edit_and_rehash, delete_and_rehash, backdate_and_rehash]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedLog:
    """A sealed log to be copied: the database that holds it, and its anchors."""

    database: str
    anchors: list[Anchor]


@pytest.fixture(scope="module")
def log(postgres_server: PostgresServer) -> Iterator[SealedLog]:
    """A log with a gap in its ids and a row that was committed late, sealed in seven goes."""
    with postgres_server.database() as url:
        engine = connect(url)
        anchors = []
        with engine.connect() as late:
            append(late, -1)
            note(engine, *range(5))
            anchors.append(seal_and_anchor(engine))
            with engine.connect() as lost:
                append(lost, -2)
            late.commit()
        for start in range(5, ROWS - 1, 3):
            note(engine, *range(start, min(start + 3, ROWS - 1)))
            anchors.append(seal_and_anchor(engine))
        assert len(order(engine)) == ROWS
        engine.dispose()
        database = make_url(url).database
        assert database is not None
        yield SealedLog(database=database, anchors=anchors)


@contextmanager
def copies(server: PostgresServer, log: SealedLog) -> Iterator[Engine]:
    with server.database(template=log.database) as url:
        engine = connect(url)
        yield engine
        engine.dispose()


@pytest.mark.parametrize("tamper", [*LOCAL, *ONLY_ANCHORED])
def test_tampering_is_found_where_it_was_done(
    postgres_server: PostgresServer, log: SealedLog, tamper: Callable[[Case], Findings]
) -> None:
    for seed in range(ROUNDS):
        with copies(postgres_server, log) as engine:
            assert seen(engine, log.anchors) == [], "the control"
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL session_replication_role = replica"))
                expected = tamper(
                    Case(
                        connection=connection,
                        seals=[(sequence, int(row)) for sequence, row in order(engine)],
                        anchors=log.anchors,
                        rng=np.random.default_rng(seed),
                    )
                )
            found = seen(engine, log.anchors)
            assert found == expected, f"seed {seed}"
            # And what is left when the anchors are lost as well.
            if tamper in ONLY_ANCHORED:
                assert {kind for kind, _, _ in seen(engine, [])} <= {"unanchored"}
            else:
                local = [finding for finding in expected if finding[0] != "rehashed"]
                assert set(local) <= set(seen(engine, []))


def test_the_chain_is_whole_in_spite_of_gaps_and_late_rows(
    postgres_server: PostgresServer, log: SealedLog
) -> None:
    with copies(postgres_server, log) as engine:
        seals = order(engine)
        report = auditing.verify(engine, log.anchors)
    assert [sequence for sequence, _ in seals] == list(range(1, ROWS + 1))
    # Row 1 was committed after the first five were sealed, and row 7 was rolled back.
    assert [row for _, row in seals] == [2, 3, 4, 5, 6, 1, *range(8, ROWS + 2)]
    assert (report.rows, report.waiting, report.torn_lines) == (ROWS, 0, 0)
    assert report.anchored == log.anchors[-1]


def test_a_row_deleted_before_it_was_sealed_is_missed(
    postgres_server: PostgresServer, log: SealedLog
) -> None:
    with copies(postgres_server, log) as engine:
        note(engine, 100)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            row = connection.execute(
                text(
                    "DELETE FROM audit_log WHERE id = (SELECT max(id) FROM audit_log) RETURNING id"
                )
            ).scalar_one()
        assert seen(engine, log.anchors) == [("deleted", row, None)]


def test_a_log_torn_to_pieces_is_told_in_a_thousand_findings(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_log (at, actor, action, subject, details) SELECT :now, 'test', "
                "'drill', 'btc', jsonb_build_object('n', n) FROM generate_series(1, 1200) n"
            ),
            {"now": NOON},
        )
    anchor = seal_and_anchor(engine)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE audit_log SET actor = 'nobody'"))
    report = auditing.verify(engine, [anchor])
    assert len(report.findings) == auditing.FINDINGS_MAX
    # The anchors are judged all the same: the chain itself was left alone.
    assert (report.rows, report.anchored) == (1200, anchor)
