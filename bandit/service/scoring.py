"""Score outcomes as bets between arms, in the transaction that counts them.

What a decision was worth as evidence follows from its row, the allocation it was routed on and the
terms in force when it was made; so a corrected outcome takes back exactly what it had added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection

from bandit.core.evidence import Tally, Terms, rewards, routed_scores, terms_of, total
from bandit.core.model import ArmRole
from bandit.storage import evidence
from bandit.storage.assignments import AssignedUnit
from bandit.storage.evidence import CohortKey, Draw, FixedTerms, VersionShares
from bandit.storage.experiments import ExperimentRecord
from bandit.storage.outcomes import OutcomeRow

_AT_ONCE = 5000
_NOTICE = timedelta(minutes=1)


class Told(NamedTuple):
    """An outcome beside the decision it belongs to."""

    row: OutcomeRow
    unit: AssignedUnit


def score(connection: Connection, created: Iterable[Told], *, gone: Iterable[Told] = ()) -> None:
    """Count outcomes that were just stored, and take back those they correct."""
    changes: dict[CohortKey, Tally] = {}
    for told, sign in ((created, 1), (gone, -1)):
        for experiment_id, drawn in _drawn(told).items():
            for key, tally in scored(connection, experiment_id, drawn).items():
                before = changes.get(key, Tally())
                changes[key] = before + tally if sign > 0 else before - tally
    evidence.add(connection, {key: tally for key, tally in changes.items() if tally != Tally()})


def recounted(connection: Connection, experiment_id: int, arm_id: int) -> dict[CohortKey, Tally]:
    """Count every cohort anew in which an arm is the challenger, with what has left the ledger."""
    found = evidence.tallies(connection, arm_id, table="aged_cohorts")
    opponents = evidence.opponents(connection, arm_id)
    if not opponents:  # never a challenger: years of draws tell nothing
        return found
    drawn = evidence.draws(connection, [arm_id, *opponents])
    while some := list(islice(drawn, _AT_ONCE)):
        for key, tally in scored(connection, experiment_id, some).items():
            if key.arm_id == arm_id:
                found[key] = found.get(key, Tally()) + tally
    return found


def _drawn(told: Iterable[Told]) -> dict[int, list[Draw]]:
    """Return what chance decided, by experiment: a position's next decision had none."""
    found: dict[int, list[Draw]] = {}
    for row, unit in told:
        if unit.is_drawn and unit.moves_money:
            draw = Draw(
                arm_id=unit.arm_id,
                instrument=unit.instrument,
                decided_at=unit.decided_at,
                version=unit.allocation_version,
                result=float(row.outcome.return_ratio),
            )
            found.setdefault(unit.experiment_id, []).append(draw)
    return found


def fix_terms(connection: Connection, record: ExperimentRecord, *, now: datetime) -> Terms | None:
    """Judge decisions by what the champion has earned; None while that says little.

    In force a minute from now: by then this has committed, so that whoever scores a decision
    judges it by the terms by which it is counted again.
    """
    (champion,) = (arm for arm in record.arms if arm.place.role is ArmRole.CHAMPION)
    terms = terms_of(evidence.earned(connection, champion.id))
    if terms is not None:
        evidence.fix_terms(connection, record.id, terms, fixed_at=now + _NOTICE)
    return terms


class _Group(NamedTuple):
    """Decisions that were drawn on one allocation and are judged by the same terms."""

    version: int
    terms: int
    day: date


@dataclass(frozen=True, slots=True)
class _Members:
    arms: list[int]
    results: list[float]


def scored(
    connection: Connection, experiment_id: int, drawn: Sequence[Draw]
) -> dict[CohortKey, Tally]:
    """Return what draws of one experiment are worth to each of its cohorts."""
    if not drawn:
        return {}
    times = [draw.decided_at for draw in drawn]
    fixed = evidence.terms_between(connection, experiment_id, first=min(times), last=max(times))
    if not fixed:
        return {}
    groups = _grouped(drawn, fixed)
    shares = evidence.shares(connection, experiment_id, {group.version for group in groups})
    found: dict[CohortKey, list[Tally]] = {}
    for group, members in groups.items():
        terms = fixed[group.terms].terms
        for key, tally in _between(shares[group.version], terms, group.day, members):
            found.setdefault(key, []).append(tally)
    return {key: total(tallies) for key, tallies in found.items()}


def _grouped(drawn: Sequence[Draw], fixed: Sequence[FixedTerms]) -> dict[_Group, _Members]:
    groups: dict[_Group, _Members] = {}
    for draw in drawn:
        place = evidence.in_force(fixed, draw.decided_at)
        if place is None:
            continue  # decided before there were any terms
        group = _Group(draw.version, place, draw.decided_at.date())
        members = groups.setdefault(group, _Members([], []))
        members.arms.append(draw.arm_id)
        members.results.append(draw.result / fixed[place].terms.unit_of(draw.instrument))
    return groups


def _between(
    shares: VersionShares, terms: Terms, day: date, members: _Members
) -> Iterable[tuple[CohortKey, Tally]]:
    """Yield the tally of the champion beside each challenger that had a share."""
    arms = np.array(members.arms)
    rewarded = rewards(members.results, terms)
    champion, ppm = shares.champion_id, shares.ppm
    if not ppm[champion]:
        return
    for arm_id, part in ppm.items():
        if arm_id == champion or not part:
            continue
        concerned = (arms == arm_id) | (arms == champion)
        if not concerned.any():
            continue
        chosen = arms[concerned] == arm_id
        share = part / (part + ppm[champion])
        scores = routed_scores(rewarded[concerned], chosen, share)
        yield CohortKey(arm_id, champion, day), Tally.of(scores, chosen=chosen)
