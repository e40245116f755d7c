"""Pair results on paper with the champion's, measure the fill gap, and sum what paper says by day.

What a decision is worth follows from its row, its allocation, the terms in force when it was made
and the results known of it. So a change is what it is worth after, less what it was worth before:
whichever result comes last, and in which version, the same is counted.

Everything here runs behind the lock on the statistics of the arm that took the decision: of two
transactions that tell results of one decision the second sees what the first has told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import numpy as np
from sqlalchemy import Connection

from bandit.core.evidence import Tally, paired_scores, rewards, total
from bandit.core.fill_gap import FillGap, FillGapRule, paper_agrees
from bandit.core.paper_days import PaperSums, newest_factor
from bandit.core.profit_factor import ProfitFactor
from bandit.core.verdicts import Reason
from bandit.storage import evidence, paper_days, shadows
from bandit.storage.evidence import CohortKey, FixedTerms
from bandit.storage.outcomes import OutcomeRow
from bandit.storage.paper_days import DayKey
from bandit.storage.shadows import Decided, Result, ShadowKey

_AT_ONCE = 5000

_Key = TypeVar("_Key")
_Counted = TypeVar("_Counted", Tally, FillGap, PaperSums)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What decisions are worth to the cohorts of pairs, and to the gaps and paper days of arms."""

    pairs: Mapping[CohortKey, Tally] = field(default_factory=dict)
    gaps: Mapping[int, FillGap] = field(default_factory=dict)
    days: Mapping[DayKey, PaperSums] = field(default_factory=dict)

    def __add__(self, other: Worth) -> Worth:
        """Count the decisions of both."""
        return self._with(other, 1)

    def __sub__(self, other: Worth) -> Worth:
        """Take back what decisions were worth."""
        return self._with(other, -1)

    def _with(self, other: Worth, sign: int) -> Worth:
        return Worth(
            pairs=_joined(self.pairs, other.pairs, sign, nothing=Tally()),
            gaps=_joined(self.gaps, other.gaps, sign, nothing=FillGap()),
            days=_joined(self.days, other.days, sign, nothing=PaperSums()),
        )


def _joined(
    ours: Mapping[_Key, _Counted],
    theirs: Mapping[_Key, _Counted],
    sign: int,
    *,
    nothing: _Counted,
) -> dict[_Key, _Counted]:
    found = dict(ours)
    for key, counted in theirs.items():
        before = found.get(key, nothing)
        found[key] = before + counted if sign > 0 else before - counted
    return {key: counted for key, counted in found.items() if counted != nothing}


def pair_outcomes(
    connection: Connection,
    created: Iterable[OutcomeRow],
    *,
    gone: Iterable[OutcomeRow] = (),
) -> None:
    """Count live outcomes that were just stored, and take back those they correct."""
    before = {row.outcome.assignment_id: _result_of(row) for row in gone}
    known = shadows.decided(connection, [row.outcome.assignment_id for row in created])
    _count(
        connection,
        after=known,
        # Not live where this outcome is not, whatever it corrects.
        before=[replace(d, live=d.live and before.get(d.id)) for d in known],
    )


def pair_shadows(connection: Connection, created: Iterable[ShadowKey]) -> None:
    """Count results on paper that were just stored."""
    new = frozenset(created)
    known = shadows.decided(connection, {key.assignment_id for key in new})
    _count(connection, after=known, before=[_without(d, new) for d in known])


def _without(known: Decided, new: frozenset[ShadowKey]) -> Decided:
    paper = {arm: told for arm, told in known.paper.items() if ShadowKey(known.id, arm) not in new}
    return replace(known, paper=paper)


def _count(connection: Connection, *, after: Sequence[Decided], before: Sequence[Decided]) -> None:
    if not after:
        return
    change = worth(connection, after) - worth(connection, before)
    evidence.add(connection, change.pairs, table="paired_cohorts")
    shadows.add_gaps(connection, change.gaps)
    paper_days.add(connection, change.days)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmWorth:
    """The pairs in which an arm is the challenger, its fill gap, and its days on paper."""

    pairs: Mapping[CohortKey, Tally]
    gap: FillGap
    days: Mapping[DayKey, PaperSums]


def recounted(connection: Connection, arm_id: int) -> ArmWorth:
    """Count anew all that results on paper say of an arm, with what has left the ledger."""
    found = Worth(
        pairs=evidence.tallies(connection, arm_id, table="aged_paired_cohorts"),
        gaps={arm_id: shadows.gap_of(connection, arm_id, table="aged_fill_gaps")},
        days=paper_days.by_key(connection, arm_id, table="aged_paper_days"),
    )
    left = shadows.decided_about(connection, arm_id)
    while some := list(islice(left, _AT_ONCE)):
        found += worth(connection, some)
    return ArmWorth(
        pairs={key: tally for key, tally in found.pairs.items() if key.arm_id == arm_id},
        gap=found.gaps.get(arm_id, FillGap()),
        days={key: sums for key, sums in found.days.items() if key.arm_id == arm_id},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPaper:
    """What an arm's results on paper say: its pairs beside a champion, and its fill gap."""

    pairs: Tally
    gap: FillGap
    agrees: Reason

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as the report shows them, apart from every number of live trades."""
        return {
            "pairs": self.pairs.n,
            "pairs_with_live": self.pairs.n_champion,
            "evidence_log": self.pairs.strength.mean_up if self.pairs.n else None,
            "fill_gap": self.agrees.to_json() | {"trades": self.gap.n},
        }


def on_paper(
    connection: Connection, *, arm_id: int, champion_id: int, rule: FillGapRule
) -> OnPaper:
    """Read what is counted of an arm's results on paper."""
    cohorts = evidence.cohorts(
        connection, arm_id=arm_id, champion_id=champion_id, table="paired_cohorts"
    )
    gap = shadows.gap_of(connection, arm_id)
    return OnPaper(
        pairs=total(cohort.tally for cohort in cohorts), gap=gap, agrees=paper_agrees(gap, rule)
    )


def paper_factor(
    connection: Connection, arm_id: int, *, window: int, reaching: date
) -> ProfitFactor | None:
    """Return the profit factor of an arm's newest trades on paper, as `newest_factor` does."""
    return newest_factor(paper_days.of_arm(connection, arm_id), window=window, reaching=reaching)


def leaving(connection: Connection, ids: Iterable[UUID]) -> Worth:
    """Return what decisions that are about to leave are worth."""
    return worth(connection, shadows.decided(connection, ids))


def worth(connection: Connection, known: Iterable[Decided]) -> Worth:
    """Return what decisions of any experiments are worth, as they are known."""
    by_experiment: dict[int, list[Decided]] = {}
    for decision in known:
        by_experiment.setdefault(decision.experiment_id, []).append(decision)
    found = Worth()
    for experiment_id, decisions in by_experiment.items():
        pairs = _pairs(connection, experiment_id, decisions)
        found += Worth(pairs=pairs, gaps=_gaps(decisions), days=_days(decisions))
    return found


def _days(decisions: Iterable[Decided]) -> dict[DayKey, PaperSums]:
    """Return what arms would have earned by the day of the decision, whoever took it."""
    returns: dict[DayKey, list[Decimal]] = {}
    for decision in decisions:
        for arm_id, result in decision.paper.items():
            if not result.no_trade:
                key = DayKey(arm_id, decision.decided_at.date())
                returns.setdefault(key, []).append(result.return_ratio)
    return {key: PaperSums.of(found) for key, found in returns.items()}


def _gaps(decisions: Iterable[Decided]) -> dict[int, FillGap]:
    """Return the gaps of arms on decisions that they took, and on which either result traded.

    An order that filled on paper alone is a gap too.
    """
    both: dict[int, list[tuple[Decimal, Decimal]]] = {}
    for decision in decisions:
        live, paper = decision.live, decision.paper.get(decision.arm_id)
        if live is None or paper is None or (live.no_trade and paper.no_trade):
            continue
        both.setdefault(decision.arm_id, []).append((live.return_ratio, paper.return_ratio))
    return {arm_id: FillGap.of(results) for arm_id, results in both.items()}


class _Group(NamedTuple):
    """Pairs that are counted in one cohort and judged by the same terms."""

    key: CohortKey
    terms: int


@dataclass(frozen=True, slots=True)
class _Members:
    """The results of pairs in units of their terms, and whether the champion's is live."""

    challenger: list[float]
    champion: list[float]
    is_live: list[bool]


def _pairs(
    connection: Connection, experiment_id: int, decisions: Sequence[Decided]
) -> dict[CohortKey, Tally]:
    times = [decision.decided_at for decision in decisions]
    fixed = evidence.terms_between(connection, experiment_id, first=min(times), last=max(times))
    if not fixed:
        return {}
    versions = {decision.version for decision in decisions}
    champions = {
        version: shares.champion_id
        for version, shares in evidence.shares(connection, experiment_id, versions).items()
    }
    groups: dict[_Group, _Members] = {}
    for decision in decisions:
        place = evidence.in_force(fixed, decision.decided_at)
        if place is None:
            continue  # decided before there were any terms
        unit = fixed[place].terms.unit_of(decision.instrument)
        for key, challenger, champion in _paired(decision, champions[decision.version]):
            members = groups.setdefault(_Group(key, place), _Members([], [], []))
            members.challenger.append(float(challenger.return_ratio) / unit)
            members.champion.append(float(champion.return_ratio) / unit)
            members.is_live.append(decision.arm_id == key.champion_id)
    return _tallied(groups, fixed)


def _paired(decision: Decided, champion_id: int) -> Iterator[tuple[CohortKey, Result, Result]]:
    """Yield each challenger's result on paper beside the champion's.

    Who took the decision settles which of the champion's results counts: its live one where it did
    so itself, else that on paper.
    """
    took_it = decision.arm_id == champion_id
    champion = decision.live if took_it else decision.paper.get(champion_id)
    if champion is None:
        return
    day: date = decision.decided_at.date()
    for arm_id, result in decision.paper.items():
        if arm_id != champion_id:
            yield CohortKey(arm_id, champion_id, day), result, champion


def _tallied(
    groups: Mapping[_Group, _Members], fixed: Sequence[FixedTerms]
) -> dict[CohortKey, Tally]:
    found: dict[CohortKey, list[Tally]] = {}
    for group, members in groups.items():
        judged = fixed[group.terms].terms
        scores = paired_scores(
            rewards(members.challenger, judged), rewards(members.champion, judged)
        )
        # Who decided: the champion, or somebody else, so that both results are on paper.
        tally = Tally.of(scores, chosen=~np.array(members.is_live))
        found.setdefault(group.key, []).append(tally)
    return {key: total(tallies) for key, tallies in found.items()}


def _result_of(row: OutcomeRow) -> Result:
    return Result(row.outcome.return_ratio, row.outcome.no_trade)
