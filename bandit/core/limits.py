"""Caps, floors and steps that hold after every change of an allocation (SPEC E4).

The database enforces the same limits by trigger under the same names; a property test shows that
the two verdicts agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bandit.core.errors import InvalidAllocation, InvalidInput
from bandit.core.model import (
    WHOLE_PPM,
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Rung,
    whole,
)

REDUCING = frozenset(
    {DecisionKind.THROTTLE, DecisionKind.HALT, DecisionKind.RETIRE, DecisionKind.ROLL_BACK}
)
"""Decisions that only ever take traffic from challengers; no limit may stand in their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one experiment; parts in ppm.

    `champion_floor_ppm` holds until a challenger has `proven_trades` trades, from then on
    `champion_floor_proven_ppm`; challengers with fewer trades never take more together than
    `champion_floor_ppm` leaves. `unproven_cap_ppm` binds each challenger without evidence (outside
    `seed_exact`), `arm_minimum_ppm` is what a live active challenger keeps, `step_up` the largest
    factor of one night, `start_ppm` what a new challenger gets, or one that held nothing.

    >>> Limits().champion_floor_ppm
    400000
    """

    champion_floor_ppm: int = 400_000
    champion_floor_proven_ppm: int = 100_000
    proven_trades: int = 500
    unproven_cap_ppm: int = 250_000
    arm_minimum_ppm: int = 20_000
    step_up: float = 1.5
    start_ppm: int = 100_000

    def __post_init__(self) -> None:
        """Refuse limits that no allocation could respect."""
        names = ("champion_floor_ppm", "champion_floor_proven_ppm", "unproven_cap_ppm")
        for name in (*names, "arm_minimum_ppm"):
            if not 0 <= getattr(self, name) <= WHOLE_PPM:
                rule = f"must lie in 0..{WHOLE_PPM} ppm"
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))
        if self.champion_floor_proven_ppm > self.champion_floor_ppm:
            rule = "must not exceed champion_floor_ppm"
            found = self.champion_floor_proven_ppm
            raise InvalidInput(field="champion_floor_proven_ppm", rule=rule, found=found)
        if not 1 <= self.step_up <= 10:
            raise InvalidInput(field="step_up", rule="must lie in 1..10", found=self.step_up)
        if not self.arm_minimum_ppm <= self.start_ppm <= self.unproven_cap_ppm:
            rule = "must lie between arm_minimum_ppm and unproven_cap_ppm"
            raise InvalidInput(field="start_ppm", rule=rule, found=self.start_ppm)
        if self.proven_trades < 1:
            raise InvalidInput(field="proven_trades", rule="must be >= 1", found=self.proven_trades)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlace:
    """What the limits need to know of an arm; `rung` is how much has been shown for it."""

    policy: PolicyName
    role: ArmRole
    status: ArmStatus
    mode: ArmMode
    ppm: Ppm
    trades: int
    rung: Rung = Rung.UNPROVEN

    @property
    def routable(self) -> bool:
        """Whether new units may be routed to the arm."""
        return self.status is ArmStatus.ACTIVE and self.mode is ArmMode.LIVE


def champion_floor_of(arms: Sequence[ArmPlace], limits: Limits) -> int:
    """Return the champion's floor: lower once a routable challenger has enough trades."""
    seasoned = any(is_seasoned(arm, limits) for arm in arms if arm.routable)
    return limits.champion_floor_proven_ppm if seasoned else limits.champion_floor_ppm


def arm_cap_of(arm: ArmPlace, *, limits: Limits, profile: Profile) -> int:
    """Return the most a challenger may grow to by itself.

    In `seed_exact` what the champion's floor leaves, which is lower for a seasoned arm. Else an
    unproven arm has its own cap, and only an eligible one ever gets what the lower floor leaves.

    >>> arm = ArmPlace(policy=PolicyName("a"), role=ArmRole.CHALLENGER, status=ArmStatus.ACTIVE,
    ...                mode=ArmMode.LIVE, ppm=Ppm(0), trades=500, rung=Rung.PROVEN)
    >>> arm_cap_of(arm, limits=Limits(), profile=Profile.GUARDED)
    600000
    """
    to_the_letter = profile is Profile.SEED_EXACT
    if arm.rung is Rung.UNPROVEN and not to_the_letter:
        return limits.unproven_cap_ppm
    seasoned = is_seasoned(arm, limits) and (to_the_letter or arm.rung is Rung.ELIGIBLE)
    floor = limits.champion_floor_proven_ppm if seasoned else limits.champion_floor_ppm
    return WHOLE_PPM - floor


def step_up_limit(ppm: int, limits: Limits) -> int:
    """Return the most one night may make of `ppm`, rounded half up to a part.

    No factor leads away from nothing: an arm that holds nothing may get what a new one starts with.

    >>> step_up_limit(33_333, Limits()), step_up_limit(0, Limits())
    (50000, 100000)
    """
    return int(ppm * limits.step_up + 0.5) if ppm else limits.start_ppm


def check(
    proposed: Mapping[PolicyName, Ppm],
    *,
    arms: Sequence[ArmPlace],
    limits: Limits,
    profile: Profile,
    kind: DecisionKind,
) -> None:
    """Raise `InvalidAllocation`, naming the limit, unless `proposed` is lawful after `arms`.

    Of a decision that changes the champion, `arms` are those `with_champion`.
    """
    whole(proposed)
    if set(proposed) != {arm.policy for arm in arms}:
        raise InvalidAllocation("every arm must have exactly one part", limit="arms")
    challengers = [arm for arm in arms if arm.role is ArmRole.CHALLENGER]
    for arm in challengers:
        part = proposed[arm.policy]
        if kind in REDUCING or kind is DecisionKind.PROMOTE:
            _require(part <= arm.ppm, "reduces_only", f"{arm.policy} would grow to {part} ppm")
        if kind in REDUCING:
            continue
        if not arm.routable:
            _require(part == 0, "inactive_zero", f"{arm.policy} is {arm.status} in {arm.mode}")
            continue
        _check_challenger(arm, part, limits=limits, profile=profile, kind=kind)
    if kind not in REDUCING:
        _check_totals(proposed, arms=arms, limits=limits)


def _check_challenger(
    arm: ArmPlace, part: Ppm, *, limits: Limits, profile: Profile, kind: DecisionKind
) -> None:
    # What it holds it may keep: a cap that falls must not stand in the way of anybody's change.
    cap = max(arm_cap_of(arm, limits=limits, profile=profile), arm.ppm)
    is_capped = arm.rung is Rung.UNPROVEN and profile is not Profile.SEED_EXACT
    name = "unproven_cap" if is_capped else "arm_cap"
    _require(part <= cap, name, f"{arm.policy} would hold {part} ppm, limit {cap}")
    minimum = limits.arm_minimum_ppm
    _require(part >= minimum, "arm_minimum", f"{arm.policy} would hold {part}, limit {minimum}")
    if kind is DecisionKind.RESCALE:
        most = step_up_limit(arm.ppm, limits)
        _require(part <= most, "step_up", f"{arm.policy} would hold {part} ppm, limit {most}")


def _check_totals(
    proposed: Mapping[PolicyName, Ppm], *, arms: Sequence[ArmPlace], limits: Limits
) -> None:
    champion = next(arm.policy for arm in arms if arm.role is ArmRole.CHAMPION)
    floor = champion_floor_of(arms, limits)
    held = proposed[champion]
    _require(held >= floor, "champion_floor", f"the champion would hold {held} ppm, limit {floor}")
    unseasoned = sum(
        proposed[arm.policy]
        for arm in arms
        if arm.role is ArmRole.CHALLENGER and not is_seasoned(arm, limits)
    )
    most = WHOLE_PPM - limits.champion_floor_ppm
    message = f"challengers under {limits.proven_trades} trades would hold {unseasoned} ppm"
    _require(unseasoned <= most, "challengers_cap", f"{message}, limit {most}")


def is_seasoned(arm: ArmPlace, limits: Limits) -> bool:
    """Say whether a challenger has the trades that lower the champion's floor."""
    return arm.role is ArmRole.CHALLENGER and arm.trades >= limits.proven_trades


def _require(held: bool, limit: str, message: str) -> None:
    if not held:
        raise InvalidAllocation(f"limit {limit}: {message}", limit=limit)


def opening(
    champion: PolicyName, challengers: Sequence[PolicyName], *, limits: Limits
) -> dict[PolicyName, Ppm]:
    """Return the first allocation: challengers at `start_ppm`, or at equal shares of what is left.

    >>> opening(PolicyName("old"), [PolicyName("a"), PolicyName("b")], limits=Limits())
    {'a': 100000, 'b': 100000, 'old': 800000}

    Raises `InvalidAllocation` when the equal share falls under `arm_minimum_ppm`.
    """
    ppm: dict[PolicyName, Ppm] = {}
    if challengers:
        share = min(limits.start_ppm, (WHOLE_PPM - limits.champion_floor_ppm) // len(challengers))
        message = f"{len(challengers)} challengers would start at {share} ppm"
        _require(share >= limits.arm_minimum_ppm, "arm_minimum", message)
        ppm = {policy: Ppm(share) for policy in challengers}
    ppm[champion] = Ppm(WHOLE_PPM - sum(ppm.values()))
    return ppm


def hold_out_of(limits: Limits) -> int:
    """Return the part that a champion keeps, in ppm, once a challenger has replaced it.

    What it was promised while it was one (SPEC E2: at least 10 % as hold-out), so that the new
    champion is measured against it; at least what keeps an arm alive.

    >>> hold_out_of(Limits())
    100000
    """
    return max(limits.champion_floor_proven_ppm, limits.arm_minimum_ppm)


def with_champion(
    arms: Sequence[ArmPlace], policy: PolicyName, *, kind: DecisionKind, limits: Limits
) -> list[ArmPlace]:
    """Return the arms as a decision leaves them that makes `policy` the champion.

    What the one before held counts for nothing once it is a challenger: it may have its hold-out,
    or nothing when it is rolled back.
    """
    kept = hold_out_of(limits) if kind is DecisionKind.PROMOTE else 0
    return [
        replace(arm, role=ArmRole.CHAMPION)
        if arm.policy == policy
        else replace(arm, role=ArmRole.CHALLENGER, ppm=Ppm(kept))
        if arm.role is ArmRole.CHAMPION
        else arm
        for arm in arms
    ]


def headroom(arms: Sequence[ArmPlace], limits: Limits) -> int:
    """Return how many ppm the champion can still give up to challengers under `proven_trades`."""
    challengers = [arm for arm in arms if arm.role is ArmRole.CHALLENGER]
    unseasoned = sum(arm.ppm for arm in challengers if not is_seasoned(arm, limits))
    left_of_cap = WHOLE_PPM - limits.champion_floor_ppm - unseasoned
    champion = WHOLE_PPM - sum(arm.ppm for arm in challengers)
    return max(0, min(left_of_cap, champion - champion_floor_of(arms, limits)))


def with_part(arms: Sequence[ArmPlace], policy: PolicyName, part: int) -> dict[PolicyName, Ppm]:
    """Return the allocation in which `policy` holds `part` and the champion takes the difference.

    >>> old = ArmPlace(policy=PolicyName("old"), role=ArmRole.CHAMPION, status=ArmStatus.ACTIVE,
    ...                mode=ArmMode.LIVE, ppm=Ppm(900_000), trades=0)
    >>> new = ArmPlace(policy=PolicyName("new"), role=ArmRole.CHALLENGER,
    ...                status=ArmStatus.ACTIVE, mode=ArmMode.LIVE, ppm=Ppm(100_000), trades=0)
    >>> with_part([new, old], PolicyName("new"), 0)
    {'new': 0, 'old': 1000000}
    """
    ppm = {arm.policy: arm.ppm for arm in arms}
    champion = next(arm.policy for arm in arms if arm.role is ArmRole.CHAMPION)
    ppm[policy] = Ppm(part)
    ppm[champion] = Ppm(WHOLE_PPM - sum(v for k, v in ppm.items() if k != champion))
    return ppm
