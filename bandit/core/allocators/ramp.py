"""`ramp`: the nightly rule of the source documents (SPEC E2).

    UPDATE bandit_arms SET traffic_allocation = traffic_allocation * 1.5
    WHERE pf_150 >= pf_prod AND dd_150 <= 3 AND traffic_allocation < 0.6

In `seed_exact` the rule is kept to the letter: an arm it does not fit stays where it is. By itself
that is a ratchet on a noisy comparison. In `guarded` the same conditions are necessary, a failed
one steps the arm down, and unproven arms stop at their cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bandit.core.limits import (
    ArmPlace,
    Limits,
    arm_cap_of,
    champion_floor_of,
    step_up_limit,
)
from bandit.core.model import WHOLE_PPM, ArmRole, PolicyName, Ppm, Profile, Rung, Verdict
from bandit.core.reading import ArmReading, RampRule
from bandit.core.verdicts import Reason, at_least, at_most, below


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The allocation a strategy proposes, with the reasons for each arm's part."""

    ppm: Mapping[PolicyName, Ppm]
    reasons: Mapping[PolicyName, tuple[Reason, ...]]


def propose(
    readings: Sequence[ArmReading],
    *,
    rule: RampRule,
    limits: Limits,
    profile: Profile,
    worse: frozenset[PolicyName] = frozenset(),
) -> Proposal:
    """Return tonight's allocation: downs first, then ups share what is left in proportion.

    `worse` are the arms that were shown to earn less than their champion.
    """
    reasons = {
        r.place.policy: conditions(r, rule=_raised(rule, r.place, limits, profile))
        for r in readings
        if _is_asked(r)
    }
    targets = {
        r.place.policy: _target(
            r.place,
            reasons[r.place.policy],
            rule,
            limits,
            profile,
            is_worse=r.place.policy in worse,
        )
        for r in readings
        if _is_asked(r)
    }
    places = [reading.place for reading in readings]
    return Proposal(ppm=_fitted(places, targets, limits), reasons=reasons)


def conditions(reading: ArmReading, *, rule: RampRule) -> tuple[Reason, ...]:
    """Hold an arm against the four conditions of the rule.

    A profit factor without losses is not a number and so is never the better one; too few
    champion trades in the arm's window leave nothing to compare with. Both are INCONCLUSIVE.
    """
    place, long, prod = reading.place, reading.pf_long, reading.pf_prod
    note = f"arm {long.state} ({long.n} trades), champion {prod.state} ({prod.n} trades)"
    prod_value = prod.value if prod.n >= rule.min_trades else None
    return (
        at_least("trades", place.trades, rule.min_trades),
        at_least("pf_150 >= pf_prod", long.value, prod_value, note=note),
        at_most("dd_150 percent", reading.dd_long_percent, rule.drawdown_limit_percent),
        below("traffic_allocation", place.ppm / WHOLE_PPM, rule.ceiling_ppm / WHOLE_PPM),
    )


def _raised(rule: RampRule, place: ArmPlace, limits: Limits, profile: Profile) -> RampRule:
    """Lift the rule's ceiling for an arm that evidence lets rise further."""
    if profile is Profile.SEED_EXACT or place.rung is not Rung.ELIGIBLE:
        return rule
    cap = arm_cap_of(place, limits=limits, profile=profile)
    return replace(rule, ceiling_ppm=max(rule.ceiling_ppm, cap))


def _is_asked(reading: ArmReading) -> bool:
    return reading.place.role is ArmRole.CHALLENGER and reading.place.routable


def _target(
    place: ArmPlace,
    reasons: tuple[Reason, ...],
    rule: RampRule,
    limits: Limits,
    profile: Profile,
    *,
    is_worse: bool,
) -> int:
    trades, factor, drawdown, traffic = (reason.verdict for reason in reasons)
    grows = all(v is Verdict.PASS for v in (trades, factor, drawdown, traffic))
    to_the_letter = profile is Profile.SEED_EXACT
    if grows and (to_the_letter or not is_worse):
        most = arm_cap_of(place, limits=limits, profile=profile)
        return min(step_up_limit(place.ppm, limits.step_up), max(most, place.ppm))
    shrinks = is_worse or (trades is Verdict.PASS and Verdict.FAIL in (factor, drawdown))
    if shrinks and not to_the_letter:
        return max(int(place.ppm / rule.step_down), limits.arm_minimum_ppm)
    return place.ppm


def _fitted(
    places: Sequence[ArmPlace], targets: Mapping[PolicyName, int], limits: Limits
) -> dict[PolicyName, Ppm]:
    """Give every down in full and every up its share of what downs and limits leave."""
    challengers = [place for place in places if place.role is ArmRole.CHALLENGER]
    held = {p.policy: min(p.ppm, targets.get(p.policy, p.ppm)) for p in challengers}
    ups = {p.policy: targets.get(p.policy, p.ppm) - p.ppm for p in challengers}
    ups = {policy: up for policy, up in ups.items() if up > 0}
    young = {p.policy for p in challengers if p.trades < limits.proven_trades}
    held_by_young = sum(part for policy, part in held.items() if policy in young)
    left_of_cap = WHOLE_PPM - limits.champion_floor_ppm - held_by_young
    ups |= _shared({p: up for p, up in ups.items() if p in young}, left_of_cap)
    left_of_floor = WHOLE_PPM - champion_floor_of(places, limits) - sum(held.values())
    ups = _shared(ups, left_of_floor)
    parts = {policy: Ppm(part + ups.get(policy, 0)) for policy, part in held.items()}
    champion = next(place.policy for place in places if place.role is ArmRole.CHAMPION)
    return parts | {champion: Ppm(WHOLE_PPM - sum(parts.values()))}


def _shared(wanted: Mapping[PolicyName, int], left: int) -> dict[PolicyName, int]:
    total, left = sum(wanted.values()), max(0, left)
    if total <= left:
        return dict(wanted)
    return {policy: up * left // total for policy, up in wanted.items()}
