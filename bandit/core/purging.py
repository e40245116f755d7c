"""Which policies the weekly purge takes away: what is old or loses, and nobody needs (SPEC J2).

A policy is purged when it is older than a limit, or when its profit factor is under one; unless it
is protected, and unless too few active policies would be left. The parent of a policy that stays
stays stored with it, but trades no more: being a parent is no merit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bandit.core.errors import InvalidInput
from bandit.core.model import ArmRole, ArmStatus, PolicyName, Profile
from bandit.core.profit_factor import ProfitFactor

WARM: Final = timedelta(hours=24)
"""For how long a champion that was replaced stays ready to take over again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeRule:
    """From which age and under which profit factor a policy goes, and how many always stay."""

    age_max: timedelta = timedelta(days=60)
    profit_factor_min: float = 1.2
    active_min: int = 3

    def __post_init__(self) -> None:
        if self.age_max <= timedelta(0):
            raise InvalidInput(field="age_max", rule="must be positive", found=self.age_max)
        if not self.profit_factor_min >= 0.0:
            found = self.profit_factor_min
            raise InvalidInput(field="profit_factor_min", rule="must be >= 0", found=found)
        if self.active_min < 1:
            raise InvalidInput(field="active_min", rule="must be >= 1", found=self.active_min)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownArm:
    """A policy's place in one experiment, with what its newest trades amount to.

    `high` is the upper bound of the profit factor's interval, None where there is none;
    `trades_min` how many trades are needed to judge. `replaced_at` is when the policy was last
    replaced as the champion, `returns` says that a rollback would return to it.
    """

    experiment: str
    role: ArmRole
    status: ArmStatus
    profile: Profile
    profit_factor: ProfitFactor
    high: float | None
    trades_min: int
    replaced_at: datetime | None = None
    returns: bool = False

    @property
    def stands(self) -> bool:
        """Whether the arm is not retired."""
        return self.status is not ArmStatus.RETIRED

    @property
    def judged(self) -> float | None:
        """What is held against the limit; None where that would say nothing.

        To the letter the profit factor itself, else the most it may be: a policy goes when it is
        known to be too poor, and not while it may have been unlucky.
        """
        if self.profit_factor.n < self.trades_min or self.profit_factor.value is None:
            return None
        to_the_letter = self.profile is Profile.SEED_EXACT
        return self.profit_factor.value if to_the_letter else self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPolicy:
    """A policy that is not archived; `since` is when it was registered or last restored.

    `needed_for` says who needs it besides policies made from it, in words for an operator.
    """

    name: PolicyName
    since: datetime
    parent: PolicyName | None
    arms: tuple[KnownArm, ...]
    needed_for: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether the policy may decide anywhere."""
        return any(arm.status is ArmStatus.ACTIVE for arm in self.arms)

    @property
    def stands(self) -> bool:
        """Whether the policy has an arm that is not retired."""
        return any(arm.stands for arm in self.arms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a policy, and why.

    Who is purged is retired wherever it is a challenger, and put away if it is `archived` too.
    """

    policy: PolicyName
    purged: bool
    archived: bool
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return it as `liveops policy purge --json` prints it."""
        return {
            "policy": self.policy,
            "purged": self.purged,
            "archived": self.archived,
            "reason": self.reason,
        }


def fates(policies: Iterable[KnownPolicy], rule: PurgeRule, *, now: datetime) -> tuple[Fate, ...]:
    """Decide about every policy, by name; whoever is asked again afterwards purges nothing more.

    >>> from datetime import UTC
    >>> old = KnownPolicy(name=PolicyName("old"), since=datetime(2026, 1, 1, tzinfo=UTC),
    ...                   parent=None, arms=())
    >>> [fate.reason for fate in fates([old], PurgeRule(), now=datetime(2026, 3, 3, tzinfo=UTC))]
    ['61 days old, limit 60']
    """
    known = {policy.name: policy for policy in policies}
    causes = {name: _causes(policy, rule, now=now) for name, policy in known.items()}
    kept = {name: why for name, policy in known.items() if (why := _protected(policy, now=now))}
    going = {name for name in known if causes[name] and name not in kept}
    active = {name for name, policy in known.items() if policy.is_active}
    for name in sorted(going & active, key=lambda name: _worth(known[name], rule)):
        if len(active - going) >= rule.active_min:
            break
        going.remove(name)
        kept[name] = f"one of the last {rule.active_min} active policies"
    # By name, so that the reason is the same whatever order the policies came in.
    children = {
        known[name].parent: name
        for name in sorted(known, reverse=True)
        if name not in going and known[name].stands
    }
    return tuple(
        _going(known[name], causes[name], child=children.get(name))
        if name in going
        else _staying(name, kept.get(name, "nothing against it"))
        for name in sorted(known)
    )


def _staying(policy: PolicyName, why: str) -> Fate:
    return Fate(policy=policy, purged=False, archived=False, reason=why)


def _going(policy: KnownPolicy, causes: list[str], *, child: PolicyName | None) -> Fate:
    """What becomes of a policy that goes; `child` was made from it, and stands and stays."""
    if child is None:
        return Fate(policy=policy.name, purged=True, archived=True, reason="; ".join(causes))
    needed = f"{child} was made from it"
    if not policy.stands:
        return _staying(policy.name, needed)
    reason = "; ".join([*causes, f"not archived: {needed}"])
    return Fate(policy=policy.name, purged=True, archived=False, reason=reason)


def _protected(policy: KnownPolicy, *, now: datetime) -> str | None:
    """Why a policy stays whatever is known against it; None where nothing protects it."""
    for arm in sorted(policy.arms, key=lambda arm: arm.experiment):
        if arm.role is ArmRole.CHAMPION:
            return f"champion of {arm.experiment}"
        if arm.replaced_at is not None and now - arm.replaced_at < WARM:
            return f"champion of {arm.experiment} a day ago"
        if arm.returns:
            return f"a rollback of {arm.experiment} returns to it"
        if arm.stands and arm.profile is Profile.OBSERVE:
            return f"{arm.experiment} is only observed"
    return policy.needed_for[0] if policy.needed_for else None


def _causes(policy: KnownPolicy, rule: PurgeRule, *, now: datetime) -> list[str]:
    """What is held against a policy."""
    causes, age = [], now - policy.since
    if age > rule.age_max:
        causes.append(f"{age.days} days old, limit {rule.age_max.days}")
    judged = _judged(policy)
    if judged and max(judged)[0] < rule.profit_factor_min:
        value, experiment, arm = min(judged)
        at_most = "" if arm.profile is Profile.SEED_EXACT else "at most "
        causes.append(
            f"profit factor {at_most}{value:.3g} of {arm.profit_factor.n} trades in {experiment}, "
            f"limit {rule.profit_factor_min:g}"
        )
    return causes


def _judged(policy: KnownPolicy) -> list[tuple[float, str, KnownArm]]:
    """What speaks for or against a policy: of its arms that stand, of a retired one of all."""
    arms = [arm for arm in policy.arms if arm.stands] or policy.arms
    return [(arm.judged, arm.experiment, arm) for arm in arms if arm.judged is not None]


def _worth(policy: KnownPolicy, rule: PurgeRule) -> tuple[bool, float, float, PolicyName]:
    """Order policies by who is spared first: no poor one, the better, the younger, by name."""
    # One that nobody can judge yet stands at the limit.
    best = max(_judged(policy), default=(rule.profit_factor_min,))[0]
    return best < rule.profit_factor_min, -best, -policy.since.timestamp(), policy.name
