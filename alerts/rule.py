"""What an alert rule is: what it reads, when it fires, what it says, and how it is tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from bandit.core.lifecycle import ArmVerb

BRIDGE: Final = timedelta(minutes=2)
"""For how long a reading stands in for those of scrapes that failed."""

STEP: Final = timedelta(seconds=30)
"""Time between two scrapes, and two evaluations, in the tests of the rules."""

VALUE: Final = '{{ printf "%.4g" $value }}'
PERCENT: Final = "{{ $value | humanizePercentage }}"


class Severity(StrEnum):
    """Who is told: critical a person at once, warning a channel, info the mail."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Component(StrEnum):
    """What an alert is about; a critical one mutes warnings about the same thing only."""

    SERVICE = "service"
    LEDGER = "ledger"
    AUDIT = "audit"
    HEALTH = "health"
    BOT = "bot"
    ACCOUNT = "account"
    GUARD = "guard"
    ARM = "arm"
    DRIFT = "drift"
    LEARNER = "learner"
    DATA = "data"
    SCHEDULE = "schedule"
    ALERTING = "alerting"

    @property
    def dashboard(self) -> str:
        """The dashboard that shows it."""
        match self:
            case Component.ACCOUNT | Component.GUARD | Component.ARM:
                return "trading"
            case Component.DRIFT | Component.LEARNER:
                return "model"
            case Component.DATA | Component.SCHEDULE:
                return "pipeline"
            case _:
                return "system"

    @property
    def group(self) -> str:
        """The group of the rule file that it stands in; a group is evaluated in order."""
        match self:
            case Component.LEDGER | Component.AUDIT | Component.HEALTH | Component.SERVICE:
                return "service"
            case _:
                return self.value


class Take(StrEnum):
    """Which reading of the last minutes, of every replica, a rule goes by."""

    LOWEST = "lowest"
    HIGHEST = "highest"
    NEWEST_LOWEST = "newest_lowest"
    NEWEST_HIGHEST = "newest_highest"

    @property
    def over_time(self) -> str:
        """What is taken of one replica's readings: `min`, `max` or `last`."""
        return {Take.LOWEST: "min", Take.HIGHEST: "max"}.get(self, "last")

    @property
    def across(self) -> str:
        """What is taken of the replicas, which read one ledger: `min` or `max`."""
        return "min" if self in (Take.LOWEST, Take.NEWEST_LOWEST) else "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording rule: one reading of all replicas, kept through scrapes that failed.

    >>> Recording(of="liveops_account_equity", by=("account",), take=Take.LOWEST).name
    'account:liveops_account_equity:min_min2m'
    """

    of: str
    by: tuple[str, ...] = ()
    take: Take
    window: timedelta = BRIDGE
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`level:metric:operations`."""
        level = "_".join(self.by) or "service"
        metric = "_".join([self.of, *self.where.values()])
        span = duration(self.window)
        return f"{level}:{metric}:{self.take.across}_{self.take.over_time}{span}"

    def expression(self, job: str) -> str:
        """Return what is recorded, of the targets of Prometheus' `job`."""
        chosen = {"job": job, **self.where}
        labels = ", ".join(f'{name}="{value}"' for name, value in chosen.items())
        taken = f"{self.take.over_time}_over_time({self.of}{{{labels}}}[{duration(self.window)}])"
        by = f" by ({', '.join(self.by)})" if self.by else ""
        return f"{self.take.across}{by} ({taken})"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A recording rule: within which value so many of a hundred observations of all replicas lie.

    `of` are the buckets of a histogram. Held against one of its edges, the answer is exact: it is
    above it just when more than the rest of the hundred were.

    >>> Quantile(of="took_seconds_bucket", by=("route",), percent=99, window=BRIDGE).name
    'route:took_seconds:p99_rate2m'
    """

    of: str
    by: tuple[str, ...]
    percent: int
    window: timedelta

    @property
    def name(self) -> str:
        """`level:metric:operations`."""
        metric = self.of.removesuffix("_bucket")
        return f"{'_'.join(self.by)}:{metric}:p{self.percent}_rate{duration(self.window)}"

    def expression(self, job: str) -> str:
        """Return what is recorded, of the targets of Prometheus' `job`."""
        # What is none is not counted: of buckets that are NaN Prometheus makes a number.
        rate = f'rate({self.of}{{job="{job}"}}[{duration(self.window)}]) >= 0'
        part = number(self.percent / 100)
        return f"histogram_quantile({part}, sum by ({', '.join((*self.by, 'le'))}) ({rate}))"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a document says of an alert, in its words; `document` is the number of its file."""

    document: str
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Readings in time, as promtool writes them, and whether the rule fires at these moments.

    Where `labels` are given, they and `description` stand in for those of the drill. Where it
    `only_waits`, the rule holds for a while, and not for as long as it takes to fire.
    """

    name: str
    series: Mapping[str, str]
    fires: Mapping[timedelta, bool]
    labels: Mapping[str, str] | None = None
    description: str = ""
    only_waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """Readings that promtool feeds a rule with, by series, and what it has to answer.

    `wrong` fires, `right` is the nearest that does not; `beside` is needed for both. Each of
    `silent` is put over `wrong` and `beside`, and keeps the rule silent. `labels` and `description`
    are what the alert carries. Where `is_absence`, the rule fires without any of `wrong` too. Where
    it `holds`, a reading that is right, or none, ends the alert only when the last wrong one is
    older than `BRIDGE`. `cases` are what else there is to show.
    """

    wrong: Mapping[str, str] = field(default_factory=dict)
    right: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    silent: tuple[Mapping[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str
    is_absence: bool = False
    holds: bool = True
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """One alert: when it fires, for how long that has to hold, and what it tells whom.

    `stops` is what the service does to the arm that it is about, docs/alertmanager.md.
    `at_once` says why there is no `wait`; `pair` names the alert that tells of readings that are
    gone, or says why their absence is right. `choice` says which of differing documents is the
    default. The playbook has the alert's name.
    """

    name: str
    component: Component
    severity: Severity
    stops: ArmVerb | None = None
    reads: tuple[Recording | Quantile, ...]
    expression: str
    threshold: str
    wait: timedelta = timedelta(0)
    at_once: str = ""
    summary: str
    description: str
    sources: tuple[Source, ...] = ()
    choice: str = ""
    setting: str = ""
    pair: str
    drill: Drill

    def labels(self) -> dict[str, str]:
        """Return what every alert of the rule carries besides the labels of its readings."""
        told = {"severity": self.severity.value, "component": self.component.value}
        return told if self.stops is None else {**told, "action": self.stops.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """An alert of the documents that has nothing to read yet, and what it comes with."""

    name: str
    severity: Severity
    sources: tuple[Source, ...]
    comes_with: str


def duration(span: timedelta) -> str:
    """Return a span as Prometheus writes it.

    >>> duration(timedelta(minutes=90)), duration(timedelta(days=7)), duration(timedelta(0))
    ('90m', '7d', '0s')
    """
    seconds = round(span.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def number(value: float) -> str:
    """Return a number as PromQL and promtool read it, without loss.

    >>> number(10.0), number(0.3), number(604800)
    ('10', '0.3', '604800')
    """
    return repr(int(value)) if value == int(value) else repr(float(value))
