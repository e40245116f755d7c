"""Hold a log of operations against the ledger: what was acknowledged is there, once, unchanged.

Every key is looked at once: the time grows with the log, not with its square.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import dict_row

from benchmarks.operation_log import EVERY_ARM, Entry, Phase, Verb


class FaultKind(StrEnum):
    """What a service must never do."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    CHANGED = "changed"
    LEAKED = "leaked"
    MISCOUNTED = "miscounted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is not as it was acknowledged."""

    kind: FaultKind
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions had been committed at one moment, as `pg_current_snapshot()` tells it.

    >>> seen = Snapshot.of("10:13:11")
    >>> [seen.sees(number) for number in (9, 10, 11, 12, 13)]
    [True, True, False, True, False]
    """

    oldest: int
    next: int
    under_way: frozenset[int]

    @classmethod
    def of(cls, text: str) -> Snapshot:
        """Read PostgreSQL's text."""
        oldest, following, under_way = text.split(":")
        return cls(
            int(oldest), int(following), frozenset(int(x) for x in under_way.split(",") if x)
        )

    def sees(self, transaction: int) -> bool:
        """Say whether a transaction that did commit had done so by then."""
        return transaction < self.oldest or (
            transaction < self.next and transaction not in self.under_way
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A time in which an arm was to get nothing: from an acknowledgement to the next resume."""

    acknowledged: Entry
    resumed: Entry | None

    @property
    def end(self) -> float:
        """When the arm was asked back."""
        return float("inf") if self.resumed is None else self.resumed.at

    def is_over_for(self, transaction: int) -> bool:
        """Say whether a transaction had been committed when the arm was asked back."""
        return self.resumed is None or Snapshot.of(self.resumed.answer).sees(transaction)


_ASSIGNMENTS = """
SELECT s.id::text AS assignment_id, e.name AS experiment, s.unit_id::text AS unit_id,
       p.name::text AS policy, s.role, s.mode, s.propensity::float8 AS propensity,
       s.allocation_version, s.epoch, s.decided_at, s.expires_at, s.xmin::text AS xid,
       s.position_id IS NULL AND NOT s.is_fallback AS is_routed
FROM assignments s JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id JOIN policies p ON p.id = a.policy_id
"""
_CLAIMS = "SELECT assignment_id::text AS key, claimed_at::timestamptz AS claimed_at FROM claims"
_OUTCOMES = """
SELECT assignment_id::text AS key, recorded_at::timestamptz AS recorded_at, expired FROM outcomes
"""
_COUNTED = (
    "n_outcomes",
    "n_trades",
    "n_wins",
    "n_losses",
    "n_expired",
    "n_unclaimed",
    "gross_profit",
    "gross_loss",
    "fees",
    "return_gain",
    "return_loss",
    "return_squares",
)
_STATISTICS = f"SELECT arm_id, {', '.join(_COUNTED)} FROM arm_statistics"  # noqa: S608 - ours
_RECOUNT = """
SELECT s.arm_id, count(o.arm_id) AS n_outcomes,
       count(*) FILTER (WHERE NOT o.no_trade) AS n_trades,
       count(*) FILTER (WHERE o.return_ratio > 0) AS n_wins,
       count(*) FILTER (WHERE o.return_ratio < 0) AS n_losses,
       count(*) FILTER (WHERE o.expired) AS n_expired,
       count(*) FILTER (WHERE o.unclaimed) AS n_unclaimed,
       coalesce(sum(o.pnl) FILTER (WHERE o.pnl > 0), 0) AS gross_profit,
       coalesce(-sum(o.pnl) FILTER (WHERE o.pnl < 0), 0) AS gross_loss,
       coalesce(sum(o.fees), 0) AS fees,
       coalesce(sum(o.return_ratio) FILTER (WHERE o.return_ratio > 0), 0) AS return_gain,
       coalesce(-sum(o.return_ratio) FILTER (WHERE o.return_ratio < 0), 0) AS return_loss,
       coalesce(sum(o.return_ratio * o.return_ratio), 0) AS return_squares
FROM arm_statistics s LEFT JOIN outcomes o ON o.arm_id = s.arm_id GROUP BY s.arm_id
"""
_DAYS = "SELECT arm_id, sum(n_trades) AS trades, sum(pnl) AS pnl FROM arm_days GROUP BY arm_id"
_DAYS_RECOUNT = """
SELECT arm_id, count(*) AS trades, sum(pnl) AS pnl FROM outcomes WHERE NOT no_trade GROUP BY arm_id
"""


def faults(entries: Sequence[Entry], connection: psycopg.Connection[Any]) -> list[Fault]:
    """Return everything that the ledger has otherwise than the log says, in no order.

    The log is that of one experiment; rows and statistics are looked at in all.
    """
    connection.execute("SET timezone TO 'UTC'")
    assignments = _all(connection, _ASSIGNMENTS)
    claims, outcomes = _all(connection, _CLAIMS), _all(connection, _OUTCOMES)
    tables: dict[Verb, Sequence[Mapping[str, Any]]] = {
        Verb.ASSIGN: [{**row, "key": row["unit_id"]} for row in assignments],
        Verb.CLAIM: claims,
        Verb.OUTCOME: outcomes,
    }
    found: list[Fault] = []
    for verb, rows in tables.items():
        answered = [e for e in entries if e.verb is verb and e.phase is Phase.OK]
        found += _kept(answered, {row["key"]: row for row in rows})
        found += _once(answered, [(row.get("experiment"), row["key"]) for row in rows])
    stops = _stops(entries)
    found += _committed_after(stops, assignments)
    found += _answered_after(stops, entries)
    return found + list(_miscounted(connection))


def _all(connection: psycopg.Connection[Any], statement: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode()).fetchall()


def _kept(answered: Iterable[Entry], rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    """Whatever was acknowledged is in the ledger, as it was told, and was told once."""
    first: dict[str, str] = {}
    for entry in answered:
        before = first.setdefault(entry.key, entry.answer)
        if before != entry.answer:
            yield _fault(FaultKind.CHANGED, entry, f"answered {before} and then {entry.answer}")
        row = rows.get(entry.key)
        if row is None:
            yield _fault(FaultKind.LOST, entry, "acknowledged, and not in the ledger")
            continue
        told = json.loads(entry.answer)
        differing = [name for name in told if name in row and not _same(told[name], row[name])]
        if differing:
            yield _fault(FaultKind.CHANGED, entry, f"the ledger has another {differing}")


def _same(told: object, stored: object) -> bool:
    if isinstance(stored, datetime):
        return isinstance(told, str) and datetime.fromisoformat(told) == stored
    return told == stored


def _once(answered: Iterable[Entry], keys: Iterable[tuple[str | None, str]]) -> Iterator[Fault]:
    """No operation has had two effects; a unit is one in its experiment."""
    for (_, key), times in Counter(keys).items():
        if times > 1:
            yield Fault(kind=FaultKind.DUPLICATED, key=key, detail=f"{times} rows")
    for key, times in Counter(entry.key for entry in answered if entry.is_new).items():
        if times > 1:
            yield Fault(kind=FaultKind.DUPLICATED, key=key, detail=f"new {times} times")


def _stops(entries: Sequence[Entry]) -> dict[str, list[Stop]]:
    """Return the stops of every arm in order of time."""
    stops: dict[str, list[Stop]] = defaultdict(list)
    standing: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: e.at):
        if entry.verb is Verb.STOP and entry.phase is Phase.OK:
            standing.setdefault(entry.key, entry)
        elif entry.verb is Verb.RESUME and entry.phase is Phase.INVOKE and entry.key in standing:
            stop = Stop(acknowledged=standing.pop(entry.key), resumed=entry)
            stops[entry.key].append(stop)
    for key, entry in standing.items():
        stops[key].append(Stop(acknowledged=entry, resumed=None))
    return stops


def _committed_after(
    stops: Mapping[str, Sequence[Stop]], assignments: Iterable[Mapping[str, Any]]
) -> Iterator[Fault]:
    """By the ledger alone: no row was committed between an acknowledgement and the resume."""
    for row in assignments:
        if not row["is_routed"]:
            continue  # a position keeps its arm, and a fallback had happened
        xid = int(row["xid"])
        for key in (row["policy"], EVERY_ARM):
            of_arm = stops.get(key, ())
            # Snapshots only ever see more, so that the first stop that ended later is the one.
            place = bisect_left(of_arm, True, key=lambda stop: stop.is_over_for(xid))
            if place == len(of_arm):
                continue
            if not Snapshot.of(of_arm[place].acknowledged.answer).sees(xid):
                detail = f"committed to {row['policy']} after its stop was acknowledged"
                yield Fault(kind=FaultKind.LEAKED, key=row["unit_id"], detail=detail)


def _answered_after(
    stops: Mapping[str, Sequence[Stop]], entries: Iterable[Entry]
) -> Iterator[Fault]:
    """By the callers' logs alone: no unit first asked for during a stop got the stopped arm."""
    first: dict[str, float] = {}
    for entry in entries:
        if entry.verb is not Verb.ASSIGN:
            continue
        asked = first.setdefault(entry.key, entry.at)
        if entry.phase is not Phase.OK:
            continue
        policy = json.loads(entry.answer)["policy"]
        for key in (policy, EVERY_ARM):
            of_arm = stops.get(key, ())
            place = bisect_right(of_arm, asked, key=lambda stop: stop.acknowledged.at) - 1
            if place >= 0 and entry.at < of_arm[place].end:
                detail = f"asked for and routed to {policy} after its stop was acknowledged"
                yield _fault(FaultKind.LEAKED, entry, detail)


def _miscounted(connection: psycopg.Connection[Any]) -> Iterator[Fault]:
    """Statistics are those of the outcomes, counted again."""
    counted = {row["arm_id"]: row for row in _all(connection, _RECOUNT)}
    for row in _all(connection, _STATISTICS):
        again = counted[row["arm_id"]]
        differing = [name for name in _COUNTED if row[name] != again[name]]
        if differing:
            twice = row["n_outcomes"] > again["n_outcomes"]
            kind = FaultKind.DUPLICATED if twice else FaultKind.MISCOUNTED
            told = {name: (row[name], again[name]) for name in differing}
            yield Fault(kind=kind, key=f"arm {row['arm_id']}", detail=f"stored, counted: {told}")
    if sorted(_rows(connection, _DAYS)) != sorted(_rows(connection, _DAYS_RECOUNT)):
        detail = "the sums by day are not those of the outcomes"
        yield Fault(kind=FaultKind.MISCOUNTED, key="arm_days", detail=detail)


def _rows(connection: psycopg.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode()).fetchall()


def _fault(kind: FaultKind, entry: Entry, detail: str) -> Fault:
    return Fault(kind=kind, key=entry.key, detail=f"{entry.verb} {entry.operation}: {detail}")
