"""Let old decisions leave for archives: keys stay taken, answers stay known, numbers stay the same.

First a file is written and registered, then what it holds leaves the ledger, a few hundred rows a
transaction, each compared with the file once more. After a crash the next run goes on from there.

An arm's trades leave in closing order, so that what stays of them, its base, is exact: the sums of
their set and the fold over all of them. Whatever is counted later starts from the base. The newest
trades stay, as many as two of the long windows of every arm that may still get traffic, and with
them all that closed since: windows and comparisons over them never miss a trade. While a challenger
has fewer, everything since it joined stays.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, islice, takewhile
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.fill_gap import FillGap
from bandit.core.model import CLOCK_TOLERANCE, ArmStatus, checked_instant
from bandit.core.outcomes import Flags, Outcome
from bandit.core.performance import ClosedTrade
from bandit.core.tally import by_day
from bandit.service import pairing, scoring
from bandit.storage import (
    archives,
    audit,
    bases,
    evidence,
    experiments,
    exploration,
    locks,
    outcomes,
    paper_days,
    shadows,
    statistics,
)
from bandit.storage.archives import Archive, ArchivedBodies
from bandit.storage.bases import ArmBase, Growth
from bandit.storage.engine import snapshot, taking_long, transaction
from bandit.storage.experiments import ExperimentRecord
from bandit.storage.statistics import CountedArm

AGE_MIN = timedelta(days=30)
"""Nothing younger leaves: late reports and corrections come within days."""

ROWS_MAX = 200_000
"""Decisions in one file."""

_ROWS_AT_ONCE = 200
"""So many leave in one transaction, and for so long nobody is assigned anything."""

_WINDOWS_KEPT = 2

Versions = Mapping[UUID, Mapping[str, Any]]
"""The newest version of each decision's outcome."""


class ArchiveFiles(Protocol):
    """Where archives are kept."""

    def write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> tuple[bytes, int]:
        """Store `rows` under a new name for good; return SHA-256 and number of rows."""

    def body_hashes(self, archive: Archive) -> Iterator[tuple[UUID, ArchivedBodies]]:
        """Return each decision in the file with the hashes of its results as read from there.

        Raises `ArchiveDamaged` for a file that is not what was registered.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """What left an experiment: how many decisions, and the files they went to."""

    assignments: int
    archives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    """One archive whose rows are about to leave, and the hashes of what it holds of each."""

    engine: Engine
    archive: Archive
    hashes: dict[UUID, ArchivedBodies]
    now: datetime
    actor: str

    def held(
        self, connection: Connection, keys: Sequence[UUID], versions: Versions
    ) -> Iterator[UUID]:
        """Yield those of `keys` of which the file has just what the ledger has."""
        on_paper = shadows.told_bodies(connection, keys)
        for key in keys:
            version = versions.get(key)
            stored = ArchivedBodies(
                None if version is None else bytes(version["body_hash"]),
                on_paper.get(key, frozenset()),
            )
            if self.hashes.get(key) == stored:
                yield key


def age(
    engine: Engine,
    files: ArchiveFiles,
    experiment: str,
    *,
    before: datetime,
    now: datetime,
    actor: str,
) -> Aged:
    """Move decisions of an experiment that were settled before a moment into archives.

    A decision is settled by its outcome, or by that of the position it belongs to; one without
    either stays. First of all what an earlier run has begun is finished.

    Raises `UnknownName`, `InvalidInput` for a moment less than `AGE_MIN` ago, `LockHeldElsewhere`
    while somebody else ages or scales the experiment, `LedgerUnavailable` where that was lost, and
    what `files` raises.
    """
    now, before = checked_instant(now, field="now"), checked_instant(before, field="before")
    if before > now - AGE_MIN:
        rule = f"must be at least {AGE_MIN.days} days before now {now.isoformat()}"
        raise InvalidInput(field="before", rule=rule, found=before.isoformat())
    with snapshot(engine) as connection:
        record = experiments.load(connection, experiment)
    with locks.use_case(engine, record.id, doing=f"ageing {experiment}") as require:
        return _age(engine, files, record, require, before=before, now=now, actor=actor)


def would_age(engine: Engine, experiment: str, *, before: datetime) -> int:
    """Return how many decisions `age` would let leave; writes nothing. Raises `UnknownName`."""
    with snapshot(engine) as connection, taking_long(connection):
        record = experiments.load(connection, experiment)
        with closing(_old_rows(connection, record, before=before)) as old:
            return sum(1 for _ in old)


def abandon(engine: Engine, name: str, *, now: datetime, actor: str) -> None:
    """Let nothing more leave for an archive whose file is lost or damaged.

    What has not left stays in the ledger, and leaves for another file one day. Raises `UnknownName`
    for an archive that is not there, or that is finished.
    """
    now = checked_instant(now, field="now")
    with transaction(engine) as connection:
        unfinished = {a.name: a for a in archives.all_of(connection) if not a.finished}
        if name not in unfinished:
            raise UnknownName(kind="unfinished archive", name=name, known=sorted(unfinished))
        archives.finish(connection, unfinished[name].id, now=now)
        audit.append(
            connection,
            now=now,
            actor=actor,
            action="abandon",
            subject=name,
            details={"archive": unfinished[name].id},
        )


def _age(
    engine: Engine,
    files: ArchiveFiles,
    record: ExperimentRecord,
    require: locks.Require,
    *,
    before: datetime,
    now: datetime,
    actor: str,
) -> Aged:
    n_aged, names = 0, []
    with snapshot(engine) as connection:
        unfinished = [a for a in archives.all_of(connection, record.id) if not a.finished]
    while True:
        archive = unfinished.pop(0) if unfinished else None
        if archive is None:
            require()
            archive = _archived(engine, files, record, before=before, now=now, actor=actor)
        if archive is None:
            break
        hashes = dict(files.body_hashes(archive))
        require()
        leaving = _Leaving(engine=engine, archive=archive, hashes=hashes, now=now, actor=actor)
        left = _let_go(leaving, record)
        n_aged += left
        names.append(archive.name)
        if not left and not unfinished:
            break  # all of it changed meanwhile; the next run has another look
    return Aged(assignments=n_aged, archives=tuple(names))


def _archived(
    engine: Engine,
    files: ArchiveFiles,
    record: ExperimentRecord,
    *,
    before: datetime,
    now: datetime,
    actor: str,
) -> Archive | None:
    """Write the oldest settled decisions to a new archive; None where none are old enough."""
    with transaction(engine) as connection:
        archive_id = archives.next_id(connection)
    name = f"{record.experiment.name}-{archive_id:06d}.parquet"
    with (
        snapshot(engine) as connection,
        taking_long(connection),
        closing(_old_rows(connection, record, before=before)) as old,
    ):
        first = next(old, None)
        if first is None:
            return None
        sha256, n_rows = files.write(name, chain([first], islice(old, ROWS_MAX - 1)))
    archive = Archive(
        id=archive_id,
        experiment_id=record.id,
        name=name,
        sha256=sha256,
        n_rows=n_rows,
        finished=False,
    )
    with transaction(engine) as connection:
        archives.add(connection, archive, now=now)
        audit.append(
            connection,
            now=now,
            actor=actor,
            action="archive",
            subject=record.experiment.name,
            details={
                "archive": archive_id,
                "name": name,
                "sha256": sha256.hex(),
                "rows": n_rows,
            },
        )
    return archive


def _old_rows(
    connection: Connection, record: ExperimentRecord, *, before: datetime
) -> Generator[dict[str, Any]]:
    needed_from = _needed_from(connection, record)
    for arm in record.arms:
        until = min([before, *needed_from[arm.id]])
        yield from archives.old_rows(connection, arm.id, before=before, trades_before=until)


def _needed_from(connection: Connection, record: ExperimentRecord) -> dict[int, list[datetime]]:
    """Return, for each arm, the times from which its trades are needed."""
    rule = record.rules.checklist
    kept = _WINDOWS_KEPT * max(rule.window, rule.long_window)
    own: dict[int, list[datetime]] = {}
    # Challengers are compared with the champion over their own windows, which reach back to any
    # trade of theirs, however late it is told, until they are full. So does the champion's, since
    # it may be a challenger tomorrow.
    common: list[datetime] = []
    for arm in record.arms:
        newest = outcomes.newest_trades(connection, arm.id, kept)
        own[arm.id] = [newest[0].closed_at] if newest else []
        if arm.place.status is ArmStatus.RETIRED:
            continue
        if len(newest) == kept:
            common += own[arm.id]
        else:
            common.append(arm.joined_at - CLOCK_TOLERANCE)
    return {arm_id: [*moments, *common] for arm_id, moments in own.items()}


def _let_go(leaving: _Leaving, record: ExperimentRecord) -> int:
    """Let the rows of an archive leave; those that changed since stay. Return how many left."""
    left: set[UUID] = set()
    for arm in record.arms:
        while gone := _trades_leave(leaving, arm.id):
            left.update(gone)
    others = sorted(leaving.hashes.keys() - left)
    for start in range(0, len(others), _ROWS_AT_ONCE):
        left.update(_others_leave(leaving, others[start : start + _ROWS_AT_ONCE]))
    with transaction(leaving.engine) as connection:
        archives.finish(connection, leaving.archive.id, now=leaving.now)
    return len(left)


def _trades_leave(leaving: _Leaving, arm_id: int) -> list[UUID]:
    """Let an arm's oldest trades leave as far as the archive holds them as they are."""
    with transaction(leaving.engine) as connection:
        # Nobody asks whether a key is taken while it changes its place.
        locks.gate_exclusive(connection, leaving.archive.experiment_id, ends_holders=False)
        oldest = archives.oldest_trades(connection, arm_id, _ROWS_AT_ONCE)
        held = set(archives.lock_assignments(connection, leaving.hashes.keys() & set(oldest)))
        if not held:
            return []
        arm = statistics.locked(connection, [arm_id])[arm_id]
        # Read again behind the arm's lock, which whoever adds or corrects a trade takes.
        oldest = archives.oldest_trades(connection, arm_id, _ROWS_AT_ONCE)
        versions = archives.settled(connection, oldest)
        whole = {*leaving.held(connection, oldest, versions)} & held
        ready = list(takewhile(lambda key: key in whole, oldest))
        if ready:
            _take_up(connection, leaving, arm, [versions[key] for key in ready])
        return ready


def _others_leave(leaving: _Leaving, keys: Sequence[UUID]) -> list[UUID]:
    """Let decisions leave that are no trades: their order does not matter."""
    with transaction(leaving.engine) as connection:
        locks.gate_exclusive(connection, leaving.archive.experiment_id, ends_holders=False)
        held = archives.lock_assignments(connection, keys)
        before = archives.settled(connection, held)
        arms = statistics.locked(connection, {row["arm_id"] for row in before.values()})
        versions = archives.settled(connection, held)
        ready = [
            key
            for key in leaving.held(connection, held, versions)
            if key not in versions or versions[key]["no_trade"]
        ]
        by_arm: dict[int, list[dict[str, Any]]] = {}
        for key in ready:
            if key in versions:
                by_arm.setdefault(versions[key]["arm_id"], []).append(versions[key])
        for arm_id, declined in sorted(by_arm.items()):
            _take_up(connection, leaving, arms[arm_id], declined)
        marked = archives.marked(connection, held)
        followers = [key for key in ready if key not in versions and key not in marked]
        if followers:
            _leave(connection, leaving, followers, {})
        return [key for key in ready if key in versions or key not in marked]


def _take_up(
    connection: Connection,
    leaving: _Leaving,
    arm: CountedArm,
    versions: Sequence[Mapping[str, Any]],
) -> None:
    """Count outcomes of a locked arm into its base, and let them leave with their decisions."""
    arm_id = arm.terms.arm_id
    told = [
        (outcomes.outcome_of(version), Flags(version["expired"], version["unclaimed"]))
        for version in versions
    ]
    base = _extended(bases.of_arm(connection, arm_id), arm, versions, told)
    bases.write(connection, arm_id, base)
    trades = [
        (outcome, version["instrument"])
        for (outcome, _), version in zip(told, versions, strict=True)
        if not outcome.no_trade
    ]
    days = by_day(trades)
    if trades:
        statistics.add_days(connection, arm_id, days, table="aged_days")
        bases.drop_checkpoints(connection, arm_id, base)
    keys = [version["assignment_id"] for version in versions]
    drawn = evidence.draws_of(connection, keys)
    cohorts = scoring.scored(connection, leaving.archive.experiment_id, drawn)
    evidence.add(connection, cohorts, table="aged_cohorts")
    paired = pairing.leaving(connection, keys)
    evidence.add(connection, paired.pairs, table="aged_paired_cohorts")
    shadows.add_gaps(connection, paired.gaps, table="aged_fill_gaps")
    paper_days.add(connection, paired.days, table="aged_paper_days")
    grew = Growth(
        days=days,
        cohorts=cohorts,
        pairs=paired.pairs,
        gap=paired.gaps.get(arm_id, FillGap()),
        paper=paired.days,
        explored=exploration.let_go(connection, arm_id, keys),
    )
    _leave(connection, leaving, keys, bases.seal(connection, arm_id, grew))


def _extended(
    base: ArmBase,
    arm: CountedArm,
    versions: Sequence[Mapping[str, Any]],
    told: Sequence[tuple[Outcome, Flags]],
) -> ArmBase:
    trades = [
        ClosedTrade(
            closed_at=version["closed_at"],
            unit=version["unit_id"],
            result=float(version["return_ratio"]),
        )
        for version in versions
        if not version["no_trade"]
    ]
    fold = base.fold.after(*trades, equity_fraction=arm.terms.equity_fraction)
    moments = [version["recorded_at"] for version in versions]
    if base.recorded_to is not None:
        moments.append(base.recorded_to)
    return ArmBase(
        sums=base.sums.plus_all(told), fold=replace(fold, last=None), recorded_to=max(moments)
    )


def _leave(
    connection: Connection, leaving: _Leaving, keys: Sequence[UUID], base: Mapping[str, Any]
) -> None:
    archive = leaving.archive
    n_aged = archives.age(
        connection, archive, keys, now=leaving.now, actor=leaving.actor, details=base
    )
    assert n_aged == len(keys)
