"""A challenger becomes the champion, or an earlier champion takes over again (SPEC G3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bandit.core.errors import InvalidTransition
from bandit.core.limits import (
    ArmPlace,
    Limits,
    arm_cap_of,
    champion_floor_of,
    is_seasoned,
    with_champion,
)
from bandit.core.model import (
    WHOLE_PPM,
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    Experiment,
    PolicyName,
    Ppm,
    Profile,
)


def require_promotable(arm: ArmPlace) -> None:
    """Raise `InvalidTransition`, saying why, unless the arm is a challenger that takes traffic.

    Whoever was stopped is resumed first, in a decision of its own.
    """
    if arm.role is ArmRole.CHAMPION:
        raise InvalidTransition(f"cannot promote {arm.policy}: it is the champion")
    if arm.mode is not ArmMode.LIVE:
        raise InvalidTransition(f"cannot promote {arm.policy}: its mode is {arm.mode}, not live")
    if arm.status is not ArmStatus.ACTIVE:
        raise InvalidTransition(f"cannot promote {arm.policy}: it is {arm.status}, not active")


def promoted(
    arms: Sequence[ArmPlace], policy: PolicyName, *, limits: Limits, profile: Profile
) -> dict[PolicyName, Ppm]:
    """Return the allocation in which `policy` is the champion and the one before its hold-out.

    Other challengers keep their parts. Where that leaves the champion under its floor, they shrink
    towards an arm's minimum, in proportion to what they have above it, and then the hold-out does.

    >>> def arm(name, role, ppm):
    ...     return ArmPlace(policy=PolicyName(name), role=role, status=ArmStatus.ACTIVE,
    ...                     mode=ArmMode.LIVE, ppm=Ppm(ppm), trades=0)
    >>> arms = [arm("old", ArmRole.CHAMPION, 700_000), arm("new", ArmRole.CHALLENGER, 250_000),
    ...         arm("other", ArmRole.CHALLENGER, 50_000)]
    >>> promoted(arms, PolicyName("new"), limits=Limits(), profile=Profile.GUARDED)
    {'old': 100000, 'new': 850000, 'other': 50000}
    """
    old = next(arm.policy for arm in arms if arm.role is ArmRole.CHAMPION)
    after = with_champion(arms, policy, kind=DecisionKind.PROMOTE, limits=limits)
    takers = [arm for arm in after if arm.role is ArmRole.CHALLENGER and arm.routable]
    parts = {
        arm.policy: min(int(arm.ppm), arm_cap_of(arm, limits=limits, profile=profile))
        for arm in takers
    }
    young = {p.policy: parts[p.policy] for p in takers if not is_seasoned(p, limits)}
    most_of_young = WHOLE_PPM - limits.champion_floor_ppm
    parts |= _fitted(young, old, most_of_young, limits.arm_minimum_ppm)
    most = WHOLE_PPM - champion_floor_of(after, limits)
    parts = _fitted(parts, old, most, limits.arm_minimum_ppm)
    return _given({arm.policy: parts.get(arm.policy, 0) for arm in arms}, policy)


def rolled_back(arms: Sequence[ArmPlace], policy: PolicyName) -> dict[PolicyName, Ppm]:
    """Return the allocation in which `policy` is the champion and the one before has nothing.

    Other challengers keep their parts; a throttled or halted `policy` is active by then.

    >>> def arm(name, role, ppm):
    ...     return ArmPlace(policy=PolicyName(name), role=role, status=ArmStatus.ACTIVE,
    ...                     mode=ArmMode.LIVE, ppm=Ppm(ppm), trades=0)
    >>> arms = [arm("old", ArmRole.CHALLENGER, 100_000), arm("new", ArmRole.CHAMPION, 850_000),
    ...         arm("other", ArmRole.CHALLENGER, 50_000)]
    >>> rolled_back(arms, PolicyName("old"))
    {'old': 950000, 'new': 0, 'other': 50000}
    """
    kept = {arm.policy: 0 if arm.role is ArmRole.CHAMPION else int(arm.ppm) for arm in arms}
    return _given(kept, policy)


def champion_to_return(
    champions: Sequence[PolicyName], arms: Sequence[ArmPlace], *, named: PolicyName | None
) -> PolicyName:
    """Return who takes over again: the newest earlier champion that is still an arm, or `named`.

    `champions` are all there were, newest first, `arms` those that are not retired. A halted one
    must be named: whoever halted it may have known why it should not trade. A throttled one need
    not: a rule for challengers did that, and it binds no champion.

    >>> champion_to_return(["new", "old"], [], named=None)
    Traceback (most recent call last):
    bandit.core.errors.InvalidTransition: cannot roll back: no earlier champion is still an arm
    """
    places = {arm.policy: arm for arm in arms}
    earlier = [p for p in champions if p in places and places[p].role is ArmRole.CHALLENGER]
    if named is not None:
        if named not in earlier:
            known = ", ".join(earlier) or "none"
            message = f"cannot roll back to {named}: earlier champions still there: {known}"
            raise InvalidTransition(message)
        return named
    if not earlier:
        raise InvalidTransition("cannot roll back: no earlier champion is still an arm")
    if places[earlier[0]].status is ArmStatus.HALTED:
        message = f"cannot roll back to {earlier[0]}: it is halted; name it to take it all the same"
        raise InvalidTransition(message)
    return earlier[0]


def _fitted(
    parts: Mapping[PolicyName, int], hold_out: PolicyName, most: int, minimum: int
) -> dict[PolicyName, int]:
    """Shrink parts until they sum to `most`, the hold-out only once the others are at `minimum`."""
    if sum(parts.values()) <= most:
        return dict(parts)
    kept = parts.get(hold_out, 0)
    others = {policy: part for policy, part in parts.items() if policy != hold_out}
    above = {policy: max(0, part - minimum) for policy, part in others.items()}
    left = max(0, most - kept - sum(min(part, minimum) for part in others.values()))
    total = sum(above.values())
    fitted = {
        policy: min(part, minimum) + above[policy] * min(left, total) // max(1, total)
        for policy, part in others.items()
    }
    if hold_out in parts:
        fitted[hold_out] = min(kept, max(minimum, most - sum(fitted.values())))
    return fitted


def _given(parts: Mapping[PolicyName, int], champion: PolicyName) -> dict[PolicyName, Ppm]:
    rest = WHOLE_PPM - sum(part for policy, part in parts.items() if policy != champion)
    return {policy: Ppm(rest if policy == champion else part) for policy, part in parts.items()}


def rollback_advice(experiment: Experiment, hold_out: PolicyName) -> str:
    """Return what is said of a champion that decays beside an earlier one; a person decides."""
    return (
        f"{experiment.champion} earns less than it did beside its hold-out {hold_out}: "
        f"`liveops rollback {experiment.name} --to {hold_out}` is worth considering."
    )
