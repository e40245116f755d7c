"""`ramp`: the nightly rule of the source documents (SPEC E2).

    UPDATE bandit_arms SET traffic_allocation = traffic_allocation * 1.5
    WHERE pf_150 >= pf_prod AND dd_150 <= 3 AND traffic_allocation < 0.6

In `seed_exact` the rule is kept to the letter: an arm it does not fit stays where it is. By itself
that is a ratchet on a noisy comparison. In `guarded` the same conditions are necessary, a failed
one steps the arm down, and unproven arms stop at their cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bandit.core.allocators.fitting import Proposal, fitted, is_asked, stepped_down
from bandit.core.limits import ArmPlace, Limits, arm_cap_of, step_up_limit
from bandit.core.model import WHOLE_PPM, PolicyName, Profile, Rung, Verdict
from bandit.core.reading import ArmReading, RampRule
from bandit.core.verdicts import Reason, at_least, at_most, below


def propose(
    readings: Sequence[ArmReading],
    *,
    rule: RampRule,
    limits: Limits,
    profile: Profile,
    worse: frozenset[PolicyName] = frozenset(),
    held: frozenset[PolicyName] = frozenset(),
) -> Proposal:
    """Return tonight's allocation: downs first, then ups share what is left in proportion.

    `worse` are the arms that were shown to earn less than their champion, `held` those that may
    not rise.
    """
    reasons = {
        r.place.policy: conditions(r, rule=_raised(rule, r.place, limits, profile))
        for r in readings
        if is_asked(r)
    }
    targets = {
        r.place.policy: _target(
            r.place,
            reasons[r.place.policy],
            rule,
            limits,
            profile,
            is_worse=r.place.policy in worse,
            is_held=r.place.policy in held,
        )
        for r in readings
        if is_asked(r)
    }
    places = [reading.place for reading in readings]
    return Proposal(ppm=fitted(places, targets, limits), reasons=reasons)


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


def _target(
    place: ArmPlace,
    reasons: tuple[Reason, ...],
    rule: RampRule,
    limits: Limits,
    profile: Profile,
    *,
    is_worse: bool,
    is_held: bool,
) -> int:
    trades, factor, drawdown, traffic = (reason.verdict for reason in reasons)
    grows = all(v is Verdict.PASS for v in (trades, factor, drawdown, traffic))
    to_the_letter = profile is Profile.SEED_EXACT
    if grows and (to_the_letter or not (is_worse or is_held)):
        most = arm_cap_of(place, limits=limits, profile=profile)
        return min(step_up_limit(place.ppm, limits), max(most, place.ppm))
    shrinks = is_worse or (trades is Verdict.PASS and Verdict.FAIL in (factor, drawdown))
    if shrinks and not to_the_letter:
        return stepped_down(place, rule=rule, limits=limits)
    return place.ppm
