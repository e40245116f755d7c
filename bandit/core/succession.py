"""Which eligible challenger a night makes the champion, where the rules let it (SPEC E3, G3).

The ladder says that an arm is better than its champion. A night asks beside that what a person
would look at: the ramp's conditions and the gates, on the arm's own live trades.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bandit.core.allocators import ramp
from bandit.core.errors import InvalidAllocation, InvalidTransition
from bandit.core.gates import STANDARD, Gate, judge
from bandit.core.ladder import Bar
from bandit.core.limits import ArmPlace, Limits, check, with_champion
from bandit.core.model import ArmRole, DecisionKind, PolicyName, Ppm, Profile, Rung, Verdict
from bandit.core.promotion import promoted, require_promotable
from bandit.core.reading import ArmReading, Rules
from bandit.core.verdicts import Reason

TRADES_JUDGED: Final = 5_000
"""An arm's newest trades, which the gates judge: a night costs the same after ten years."""

_NOT_ASKED: Final = frozenset({Gate.OUTPERFORMANCE.value})
# A ceiling for growing, which a champion has not.
_CEILING: Final = "traffic_allocation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An eligible challenger, with what a promotion asks of it beside its rung.

    `over_bar` is its evidence of the mean over what proves it, a log e-value, and `ppm` what
    everybody has once it is the champion: lawful where it passes.
    """

    policy: PolicyName
    demoted: PolicyName
    generation: int
    over_bar: float
    reasons: tuple[Reason, ...]
    ppm: Mapping[PolicyName, Ppm]

    @property
    def passes(self) -> bool:
        """Whether all that is asked is known and holds."""
        return all(reason.verdict is Verdict.PASS for reason in self.reasons)


def asked(reading: ArmReading, *, rules: Rules) -> tuple[Reason, ...]:
    """Return what a promotion asks of a challenger beside its rung; a person may overrule it.

    The ramp's conditions but for its ceiling, then the gates of profile `standard`. Outperformance
    is not among them: two arms with different parts of the traffic have no totals to compare, and
    the ladder has compared their decisions.
    """
    conditions = ramp.conditions(reading, rule=rules.ramp)
    return (*(c for c in conditions if c.check != _CEILING), *gates(reading))


def gates(reading: ArmReading) -> tuple[Reason, ...]:
    """Hold what an arm has shown against the gates; one that nobody measured passes none."""
    if reading.shown is None:
        unknown = Verdict.INCONCLUSIVE
        return (
            Reason(check="gates", value=None, limit=None, verdict=unknown, note="not measured"),
        )
    judged = judge(reading.shown, STANDARD, None).reasons
    return tuple(
        replace(reason, check=f"gate {reason.check}")
        for reason in judged
        if reason.check not in _NOT_ASKED
    )


def candidates(
    arms: Sequence[ArmReading], *, among: frozenset[PolicyName], rules: Rules, limits: Limits
) -> tuple[Candidate, ...]:
    """Return the eligible challengers `among` the arms of an experiment, each on its rung.

    Stopped ones and those without live traffic are none.
    """
    places = [arm.place for arm in arms]
    found = (_candidate(arm, places, rules, limits) for arm in arms if arm.place.policy in among)
    return tuple(candidate for candidate in found if candidate is not None)


def strongest(found: Sequence[Candidate]) -> Candidate | None:
    """Return whom a night promotes: one at most, of those that pass.

    Who has the most evidence over its bar; of equals who joined first, then by name.
    """
    passing = [candidate for candidate in found if candidate.passes]
    if not passing:
        return None
    return min(passing, key=lambda one: (-one.over_bar, one.generation, one.policy))


def _candidate(
    arm: ArmReading, places: Sequence[ArmPlace], rules: Rules, limits: Limits
) -> Candidate | None:
    place, standing = arm.place, arm.standing
    if place.rung is not Rung.ELIGIBLE or standing is None:
        return None
    try:
        require_promotable(place)
    except InvalidTransition:
        return None
    ppm, room = _room(places, place.policy, limits)
    return Candidate(
        policy=place.policy,
        demoted=next(other.policy for other in places if other.role is ArmRole.CHAMPION),
        generation=standing.family.generation,
        over_bar=standing.mean_up - Bar.of(standing, rule=rules.ladder).mean,
        reasons=(*asked(arm, rules=rules), room),
        ppm=ppm,
    )


def _room(
    places: Sequence[ArmPlace], policy: PolicyName, limits: Limits
) -> tuple[Mapping[PolicyName, Ppm], Reason]:
    """Return what everybody would have, and whether that is lawful."""
    kind, profile = DecisionKind.PROMOTE, Profile.GUARDED
    ppm = promoted(places, policy, limits=limits, profile=profile)
    verdict, note = Verdict.PASS, ""
    after = with_champion(places, policy, kind=kind, limits=limits)
    try:
        check(ppm, arms=after, limits=limits, profile=profile, kind=kind)
    except InvalidAllocation as refused:
        verdict, note = Verdict.FAIL, str(refused)
    room = Reason(check="room to promote", value=None, limit=None, verdict=verdict, note=note)
    return ppm, room
