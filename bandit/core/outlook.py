"""How long until an arm is decided, at the pace of its evidence so far (SPEC E10).

The log-wealth of a bet is a sum over decisions. What it grew by so far, per decision, is what it
is expected to go on growing by; how unsteady it was from day to day says how far that may be off,
now and on the way. A forecast is no evidence: it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from functools import partial
from typing import Final

import numpy as np

from bandit.core.cohorts import Cohort
from bandit.core.evidence import BETS, Floats, Integers, Tally, log_e_values, total
from bandit.core.ladder import ArmEvidence, Bar, Family, LadderRule, Standing, climb
from bandit.core.model import Rung, Verdict
from bandit.core.verdicts import Reason

HORIZON_DAYS: Final = 730
"""What would take longer may never be decided: neither an arm nor its market stays so long."""

RATE_DAYS: Final = 14
"""The newest days whose decisions say how many come now."""

DAYS_MIN: Final = 7
"""Fewer days say nothing of how unsteady evidence is."""

DEVIATIONS: Final = 1.64
"""Half the width of the range, in standard deviations: nine times in ten it should hold."""


class Question(StrEnum):
    """What evidence is gathered for, in the order in which a tally keeps it."""

    BETTER = "better"
    WORSE = "worse"
    FACTOR = "better profit factor"


class Path(StrEnum):
    """Where evidence comes from."""

    ROUTED = "routed"
    PAPER = "on paper"


class State(StrEnum):
    """What can be said of a forecast."""

    REACHED = "reached"
    OPEN = "open"
    NEVER = "never"
    IDLE = "no decisions"
    EARLY = "too early"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When evidence would reach what it takes, if it went on as it has.

    `evidence` and `needed` are log e-values. It comes from so many `decisions` of the arm (on
    paper, of both arms) on so many `days`; `a_day` come now. The others are days from now, None
    beyond `HORIZON_DAYS`.
    """

    evidence: float
    needed: float
    decisions: int
    days: int
    a_day: float
    soonest: int | None = None
    expected: int | None = None
    latest: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything can be forecast: not of too few days, nor where no decisions come."""
        known = self.days >= DAYS_MIN and self.decisions > 0
        return known and self.a_day > 0.0 and self.evidence < self.needed

    @property
    def state(self) -> State:
        """What can be said."""
        if self.is_open:
            return State.NEVER if self.expected is None else State.OPEN
        if self.evidence >= self.needed:
            return State.REACHED
        return State.EARLY if self.a_day > 0.0 else State.IDLE

    def decisions_in(self, days: int | None) -> int | None:
        """Return how many decisions come in so many days."""
        return None if days is None else math.ceil(days * self.a_day)

    def to_json(self) -> dict[str, object]:
        """Return the forecast as `liveops explain --json` prints it."""
        ranges = {"soonest": self.soonest, "expected": self.expected, "latest": self.latest}
        return {
            "state": self.state.value.replace(" ", "_"),
            "evidence": self.evidence,
            "needed": self.needed,
            "decisions": self.decisions,
            "days": self.days,
            "decisions_a_day": self.a_day,
            "days_more": ranges,
            "decisions_more": {name: self.decisions_in(days) for name, days in ranges.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where a challenger stands, with the reasons for each rung, and when that may change.

    `proof` says when it would be proven better on decisions that were routed, `paper` when on
    paper, where results are told, which counts while `paper_agrees` with live; `harm` when it
    would be shown to be worse, and `factor` when its profit factor would let it be eligible.
    """

    rung: Rung
    reasons: tuple[Reason, ...]
    proof: Forecast
    paper: Forecast | None
    paper_agrees: Verdict
    harm: Forecast
    factor: Forecast

    @property
    def faster(self) -> Path | None:
        """The path on which it is expected to be proven first; None where on neither."""
        days = {Path.ROUTED: self.proof.expected}
        if self.paper is not None and self.paper_agrees is not Verdict.FAIL:
            days[Path.PAPER] = self.paper.expected
        known = {path: found for path, found in days.items() if found is not None}
        return min(known, key=lambda path: known[path]) if known else None

    def in_short(self, *, night_promotes: bool) -> str:
        """Say in a sentence when the arm is decided."""
        if self.rung is Rung.ELIGIBLE:
            if night_promotes:
                return "It is eligible: a night promotes it once all it asks holds."
            return "It is eligible: `liveops promote` may make it the champion."
        if self.rung is Rung.PROVEN:
            return "It is proven better than the champion, and not eligible for promotion yet."
        if self.harm.state is State.REACHED:
            return "It was shown to be worse than the champion."
        path, worse = self.faster, self.harm.expected
        if path is not None:
            better = self.paper if path is Path.PAPER else self.proof
            assert better is not None
            days = better.expected
            assert days is not None
            if worse is None or days <= worse:
                how = "on paper" if path is Path.PAPER else "on decisions of its own"
                return f"At this pace it is proven better in about {days} days, {how}."
        if worse is not None:
            return f"At this pace it is shown to be worse in about {worse} days."
        return "At this rate it may never be decided."


def outlook(
    known: ArmEvidence, *, family: Family, rule: LadderRule, share: float, until: date
) -> Outlook:
    """Return where a challenger stands and when that may change.

    `share` is its part of the traffic that it and its champion have now, `until` the newest UTC
    day whose decisions have matured.
    """
    standing = Standing.of(known.sums, family=family, rule=rule)
    bar = Bar.of(standing, rule=rule)
    rung, reasons = climb(standing, rule=rule)
    routed = partial(
        forecast,
        known.routed,
        path=Path.ROUTED,
        a_day=share * both_a_day(known.routed, until=until),
    )
    on_paper = None
    if known.paired is not None:
        on_paper = forecast(
            known.paired,
            Question.BETTER,
            path=Path.PAPER,
            needed=bar.mean,
            a_day=both_a_day(known.paired, until=until),
        )
    return Outlook(
        rung=rung,
        reasons=reasons,
        proof=routed(Question.BETTER, needed=bar.mean),
        paper=on_paper,
        paper_agrees=known.fill_gap,
        harm=routed(Question.WORSE, needed=bar.harm),
        factor=routed(Question.FACTOR, needed=bar.factor),
    )


def both_a_day(cohorts: Sequence[Cohort], *, until: date) -> float:
    """Return how many decisions of either arm come a day, by the newest `RATE_DAYS` up to `until`.

    Days before the first of them do not count: an arm may have joined, or come back, only then.
    """
    newest = [c for c in cohorts if until - c.day < timedelta(days=RATE_DAYS)]
    if not newest:
        return 0.0
    days = (until - min(c.day for c in newest)).days + 1
    return sum(c.tally.n for c in newest) / days


def forecast(
    cohorts: Sequence[Cohort], question: Question, *, path: Path, needed: float, a_day: float
) -> Forecast:
    """Say when evidence for an answer would reach `needed`, a log e-value.

    Counted are the arm's own decisions where they are routed: evidence grows with these,
    whatever part of the traffic they are; on paper every pair counts. `a_day` of them come now.
    """
    tallies = [cohort.tally for cohort in cohorts]
    own = path is Path.ROUTED
    counted = np.array([tally.n_challenger if own else tally.n for tally in tallies], dtype=int)
    place = list(Question).index(question)
    found = Forecast(
        evidence=float(log_e_values(_wealth([total(tallies)])[0])[place]),
        needed=needed,
        decisions=int(counted.sum()),
        days=len(tallies),
        a_day=a_day,
    )
    if not found.is_open:
        return found
    soonest, expected, latest = (
        _first_day(wealth, needed=needed)
        for wealth in _ahead(_wealth(tallies)[:, place], counted, a_day)
    )
    return replace(found, soonest=soonest, expected=expected, latest=latest)


def _wealth(tallies: Sequence[Tally]) -> Floats:
    """Return the log-wealth of every bet, in steps: shape (tallies, questions, bets)."""
    flat = np.array([tally.wealth for tally in tallies], dtype=np.float64)
    return flat.reshape(len(tallies), -1, len(BETS))


def _ahead(grown: Floats, counted: Integers, a_day: float) -> tuple[Floats, Floats, Floats]:
    """Return the log-wealth of every bet on every day to come: at best, as expected, at worst.

    `grown` has the shape (days, bets). Days are taken as independent of each other.
    """
    days, n = len(counted), counted.sum()
    pace = grown.sum(axis=0) / n
    apart = grown - counted[:, None] * pace
    # The variance of one decision's growth, from that of whole days.
    spread = (apart**2).sum(axis=0) / n * days / (days - 1)
    more = a_day * np.arange(1, HORIZON_DAYS + 1)[:, None]
    # What the decisions to come will bring, and what is not known of the pace.
    off = DEVIATIONS * np.sqrt(spread * (more + more**2 / n))
    expected = grown.sum(axis=0) + pace * more
    return expected + off, expected, expected - off


def _first_day(wealth: Floats, *, needed: float) -> int | None:
    reached = np.flatnonzero(log_e_values(wealth) >= needed)
    return int(reached[0]) + 1 if reached.size else None
