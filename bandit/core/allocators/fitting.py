"""What every strategy's wishes go through: downs first, then ups share what limits leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bandit.core.limits import ArmPlace, Limits, champion_floor_of
from bandit.core.model import WHOLE_PPM, ArmRole, PolicyName, Ppm
from bandit.core.reading import ArmReading, RampRule
from bandit.core.verdicts import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The allocation a strategy proposes, with the reasons for each arm's part."""

    ppm: Mapping[PolicyName, Ppm]
    reasons: Mapping[PolicyName, tuple[Reason, ...]]


def is_asked(reading: ArmReading) -> bool:
    """Say whether a night decides about an arm: a challenger that may be routed to."""
    return reading.place.role is ArmRole.CHALLENGER and reading.place.routable


def stepped_down(place: ArmPlace, *, rule: RampRule, limits: Limits) -> int:
    """Return what an arm holds after a step down; it stops at the minimum."""
    return max(int(place.ppm / rule.step_down), limits.arm_minimum_ppm)


def fitted(
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
