"""What a picture of an experiment's life shows: traffic, money and evidence, in one snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate, pairwise

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidInput
from bandit.core.ladder import Bar
from bandit.core.model import WHOLE_PPM, ArmStatus, PolicyName, Rung
from bandit.core.reading import ArmReading
from bandit.service import accounts, reporting
from bandit.service.reporting import ExperimentReport
from bandit.storage import account_equity, decisions, experiments, statistics
from bandit.storage.engine import snapshot
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.statistics import DayReturns


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An allocation as a picture shows it: who held which fraction from when on."""

    since: datetime
    champion: PolicyName
    parts: Mapping[PolicyName, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSeen:
    """Where a night found a challenger beside the champion of that night.

    `live` and `paper` are log e-values that it earns more, on decisions of its own and on paper;
    `proof` is what either has to reach for the arm to be proven. `rung` is what the night gave it.
    """

    at: datetime
    live: float
    paper: float | None
    proof: float
    rung: Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A curve of money at the end of a UTC day, as a fraction of the capital."""

    at: datetime
    earned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLife:
    """What became of an arm; `earned` is the sum of its closed results at nominal size."""

    policy: PolicyName
    status: ArmStatus
    joined_at: datetime
    earned: tuple[Point, ...]
    nights: tuple[NightSeen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """An experiment from its opening to the newest thing that is known of it.

    `arms` are all that ever joined, in the order of their policies. `earned` is what the account
    realised since then, by all its experiments, as a fraction of its capital.
    """

    experiment: str
    account: str
    opened_at: datetime
    until: datetime
    versions: tuple[Version, ...]
    arms: tuple[ArmLife, ...]
    earned: tuple[Point, ...]

    @property
    def nights(self) -> int:
        """The number of nights that looked at a challenger."""
        return len({seen.at for arm in self.arms for seen in arm.nights})

    @property
    def successions(self) -> tuple[Version, ...]:
        """The versions with which another arm became the champion."""
        found = pairwise(self.versions)
        return tuple(new for old, new in found if new.champion != old.champion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustrated:
    """A report and the life behind it, of one moment."""

    report: ExperimentReport
    life: Life


def life(engine: Engine, name: str) -> Life:
    """Read the life of an experiment; it costs more the longer the experiment has run."""
    with snapshot(engine) as connection:
        return read_life(connection, experiments.load(connection, name))


def illustrated(engine: Engine, name: str, *, newest_decisions: int = 10) -> Illustrated:
    """Read an experiment's report and its life in one snapshot."""
    with snapshot(engine) as connection:
        record = experiments.load(connection, name)
        report = reporting.read(connection, record, decisions_max=newest_decisions)
        return Illustrated(report=report, life=read_life(connection, record))


def read_life(connection: Connection, record: ExperimentRecord) -> Life:
    """Read the life of an experiment as a snapshot has it."""
    experiment, opened = record.experiment, record.opened_at
    versions = tuple(
        Version(
            since=at,
            champion=made.champion,
            parts={policy: part / WHOLE_PPM for policy, part in made.ppm.items()},
        )
        for made, at in decisions.allocations(connection, experiment.name)
    )
    seen = _seen(connection, record)
    arms = tuple(
        ArmLife(
            policy=arm.place.policy,
            status=arm.place.status,
            joined_at=arm.joined_at,
            earned=_earned_by(connection, arm, record),
            nights=tuple(seen[arm.place.policy]),
        )
        for arm in record.arms
    )
    (account,) = accounts.read(connection, [experiment.account_name], day=None)
    realised = account_equity.realised_by_day(
        connection, experiment.account_name, since=opened.astimezone(UTC).date()
    )
    capital = float(account.equity.capital)
    earned = _curve(((day, float(pnl) / capital) for day, pnl in realised.items()), since=opened)
    ends = [
        *(version.since for version in versions),
        *(point.at for curve in (earned, *(arm.earned for arm in arms)) for point in curve),
        *(night.at for arm in arms for night in arm.nights),
    ]
    return Life(
        experiment=experiment.name,
        account=experiment.account_name,
        opened_at=opened,
        until=max(ends),
        versions=versions,
        arms=arms,
        earned=earned,
    )


def _seen(connection: Connection, record: ExperimentRecord) -> Mapping[PolicyName, list[NightSeen]]:
    """Return what nights found, by arm; those of releases that wrote other numbers are left out."""
    found: dict[PolicyName, list[NightSeen]] = defaultdict(list)
    for night in decisions.nights(connection, record.id, name=record.experiment.name, day=None):
        if night.trading_day is None:
            continue
        rungs = night.inputs.get("rungs", {})
        # A night that a person wrote by hand has read nothing.
        for stored in night.inputs.get("readings", ()):
            try:
                reading = ArmReading.from_json(stored)
            except InvalidInput:
                continue
            policy, standing = reading.place.policy, reading.standing
            if standing is not None and policy in rungs:
                found[policy].append(
                    NightSeen(
                        at=night.decided_at,
                        live=standing.mean_up,
                        paper=standing.paper_up,
                        proof=Bar.of(standing, rule=record.rules.ladder).mean,
                        rung=Rung(rungs[policy]),
                    )
                )
    return found


def _earned_by(
    connection: Connection, arm: ArmRecord, record: ExperimentRecord
) -> tuple[Point, ...]:
    fraction = record.experiment.equity_fraction
    found = statistics.returns_by_day(connection, [arm.id]).get(arm.id, DayReturns())
    by_day = zip(map(date.fromordinal, found.days), found.totals, strict=True)
    return _curve(((day, fraction * total) for day, total in by_day), since=arm.joined_at)


def _curve(steps: Iterable[tuple[date, float]], *, since: datetime) -> tuple[Point, ...]:
    """Return the sums of steps at the end of their days, beginning with nothing."""
    return tuple(_points(steps, since))


def _points(steps: Iterable[tuple[date, float]], since: datetime) -> Iterator[Point]:
    yield Point(at=since, earned=0.0)
    known = list(steps)
    for (day, _), earned in zip(known, accumulate(step for _, step in known), strict=True):
        ended = datetime.combine(day + timedelta(days=1), time(), UTC)
        yield Point(at=ended, earned=earned)
