"""From the shares that a strategy would like to what a night may do about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandit.core.allocators.fitting import Proposal, fitted, is_asked, stepped_down
from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.strategy import Strategy
from bandit.core.limits import ArmPlace, Limits, arm_cap_of, step_up_limit
from bandit.core.model import WHOLE_PPM, ArmRole, PolicyName, Profile, Verdict
from bandit.core.reading import ArmReading, RampRule
from bandit.core.verdicts import Reason, at_least

NOTHING = Moments(n=0, total=0.0, squares=0.0)


def propose(
    readings: Sequence[ArmReading],
    *,
    strategy: Strategy,
    rule: RampRule,
    limits: Limits,
    profile: Profile,
    worse: frozenset[PolicyName],
    held: frozenset[PolicyName],
    seed: int,
) -> Proposal:
    """Return tonight's allocation: towards the strategy's shares, as far as one night may go.

    Downs are taken at once, ups are held to `step_up` and to the arm's cap. Outside `seed_exact`,
    `worse`, the arms that were shown to earn less than their champion, step down, and `held` ones
    do not rise. While the champion has fewer than `min_trades` trades there is nothing to measure
    by, and every arm keeps its part.
    """
    (champion,) = (r.place for r in readings if r.place.role is ArmRole.CHAMPION)
    asked = [r for r in readings if is_asked(r)]
    measured = at_least("champion trades", champion.trades, rule.min_trades)
    if measured.verdict is not Verdict.PASS:
        ppm = {r.place.policy: r.place.ppm for r in readings}
        return Proposal(ppm=ppm, reasons={r.place.policy: (measured,) for r in asked})
    moments = {champion.policy: _moments(readings, champion.policy)}
    moments |= {r.place.policy: r.moments or NOTHING for r in asked}
    shares = strategy.shares(moments, champion=champion.policy, rng=np.random.default_rng(seed))
    targets, reasons = {}, {}
    for reading in asked:
        place, share = reading.place, shares[reading.place.policy]
        part = place.ppm / WHOLE_PPM
        how = f"{strategy.name}, weighed {moments[place.policy].kind}"
        reasons[place.policy] = (measured, _wish(share, part, how))
        most = _most(place, limits, profile)
        if place.policy in held and profile is not Profile.SEED_EXACT:
            most = min(most, place.ppm)
        if place.policy in worse and profile is not Profile.SEED_EXACT:
            most = stepped_down(place, rule=rule, limits=limits)
        targets[place.policy] = max(min(int(share * WHOLE_PPM), most), limits.arm_minimum_ppm)
    places = [reading.place for reading in readings]
    return Proposal(ppm=fitted(places, targets, limits), reasons=reasons)


def _moments(readings: Sequence[ArmReading], policy: PolicyName) -> Moments:
    return next(r.moments or NOTHING for r in readings if r.place.policy == policy)


def _wish(share: float, held: float, how: str) -> Reason:
    return at_least("wanted share", share, held, note=f"{how}, beside the part it holds")


def _most(place: ArmPlace, limits: Limits, profile: Profile) -> int:
    cap = arm_cap_of(place, limits=limits, profile=profile)
    return min(step_up_limit(place.ppm, limits), max(cap, place.ppm))
