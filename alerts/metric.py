"""What a metric is: its kind, its unit, its labels, and when there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ARM: Final = ("experiment", "policy", "role")
"""Labels of an arm's gauges, and of an alias that says no others."""

ARTIFACT: Final = ("artifact",)
"""The label of what is known of a stored artefact: its content hash."""

GPU: Final = ("gpu", "model")
"""Labels of a GPU of the machine that serves: its number there, and its model."""

BOT: Final = ("bot",)
"""The label of what a bot says of itself: its name."""

GUARD: Final = ("scope", "name")
"""Labels of a performance guard: whether of an account or an experiment, and of which."""


class MetricKind(StrEnum):
    """How a metric moves."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name of the source documents for one reading of a metric; `unit` may be another."""

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ARM


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: what it says, in which unit, under which labels, and when it is absent.

    What is a process' own (`is_own`) is told of without a ledger too, by each replica for itself.
    `each` is how many series one arm has of it at most.
    """

    name: str
    kind: MetricKind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    absent: str = "while the ledger does not answer"
    aliases: tuple[Alias, ...] = ()
    is_own: bool = False
    each: int = 1

    @property
    def series(self) -> Mapping[str, tuple[str, ...]]:
        """The names under which `/metrics` has it, each with its labels.

        >>> Metric(name="took_seconds", kind=MetricKind.HISTOGRAM, unit="seconds", help="").series
        {'took_seconds_bucket': ('le',), 'took_seconds_sum': (), 'took_seconds_count': ()}
        """
        own: dict[str, tuple[str, ...]] = {self.name: self.labels}
        if self.kind is MetricKind.HISTOGRAM:
            own = {
                f"{self.name}_bucket": (*self.labels, "le"),
                f"{self.name}_sum": self.labels,
                f"{self.name}_count": self.labels,
            }
        return own | {alias.name: alias.labels for alias in self.aliases}
