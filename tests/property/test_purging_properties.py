"""What holds of every purge, over ten thousand populations of policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from purged_policies import NOW, names_of, population

from bandit.core.model import ArmRole, ArmStatus, Profile
from bandit.core.purging import Fate, KnownArm, KnownPolicy, PurgeRule, fates

POPULATIONS = 10_000


def after(known: list[KnownPolicy], told: Sequence[Fate]) -> list[KnownPolicy]:
    """Who is not archived, where whoever was purged is retired."""
    fate = {found.policy: found for found in told}
    return [_retired(p) if fate[p.name].purged else p for p in known if not fate[p.name].archived]


def _retired(known: KnownPolicy) -> KnownPolicy:
    return replace(known, arms=tuple(replace(arm, status=ArmStatus.RETIRED) for arm in known.arms))


def test_every_purge_is_safe_the_same_in_any_order_and_done_once() -> None:
    rng = np.random.default_rng(20261122)
    seen: Counter[str] = Counter()
    for _ in range(POPULATIONS):
        known = population(rng)
        rule = PurgeRule(active_min=int(rng.integers(1, 6)))
        told = fates(known, rule, now=NOW)
        assert [fate.policy for fate in told] == sorted(names_of(known))
        gone = {fate.policy for fate in told if fate.purged}
        archived = {fate.policy for fate in told if fate.archived}
        assert (gone, archived) == Oracle(known, rule).outcome()
        active = {found.name for found in known if found.is_active}
        assert not active & gone or len(active - gone) >= rule.active_min
        shuffled = [known[i] for i in rng.permutation(len(known))]
        assert fates(shuffled, rule, now=NOW) == told
        left = after(known, told)
        assert not any(fate.purged for fate in fates(left, rule, now=NOW))
        seen.update(gone=len(gone), kept=len(left), purges=bool(gone))
        seen.update(spared=sum("last" in fate.reason for fate in told))
        seen.update(parents=sum("was made from it" in fate.reason for fate in told))
        seen.update(retired=len(gone - archived))
    # Populations in which nothing happens would show nothing.
    assert min(seen.values()) > 500, seen


class Oracle:
    """Who goes, worked out once more from what docs/maintenance.md says; shares no code with it."""

    def __init__(self, known: Sequence[KnownPolicy], rule: PurgeRule) -> None:
        self.known, self.rule = known, rule

    def outcome(self) -> tuple[set[str], set[str]]:
        """Return who is purged, and who of them is archived."""
        leaving = [p for p in self.known if self.is_condemned(p) and not self.is_untouchable(p)]
        trading = [p for p in self.known if any(a.status is ArmStatus.ACTIVE for a in p.arms)]
        staying = sum(p not in leaving for p in trading)
        ranked = sorted((p for p in leaving if p in trading), key=self.merit, reverse=True)
        spared = ranked[: max(self.rule.active_min - staying, 0)]
        leaving = [p for p in leaving if p not in spared]
        wanted = {p.parent for p in self.known if p not in leaving and self.standing(p)}
        gone = {p.name for p in leaving if self.standing(p) or p.name not in wanted}
        return set(gone), {name for name in gone if name not in wanted}

    def is_untouchable(self, p: KnownPolicy) -> bool:
        if p.needed_for:
            return True
        for a in p.arms:
            hours = None if a.replaced_at is None else (NOW - a.replaced_at).total_seconds() / 3600
            if a.role is ArmRole.CHAMPION or a.returns or (hours is not None and hours < 24):
                return True
            if a.profile is Profile.OBSERVE and a in self.standing(p):
                return True
        return False

    def is_condemned(self, p: KnownPolicy) -> bool:
        too_old = (NOW - p.since).total_seconds() > self.rule.age_max.total_seconds()
        factors = self.factors(p)
        return too_old or (factors != [] and max(factors) < self.rule.profit_factor_min)

    def factors(self, p: KnownPolicy) -> list[float]:
        """What its arms are held to: of those that stand, else of all; none where unknown."""
        found = []
        for a in self.standing(p) or list(p.arms):
            earned = a.profit_factor
            if earned.n < a.trades_min or earned.n_losses == 0:
                continue
            exact = earned.gross_profit / earned.gross_loss
            found.append(exact if a.profile is Profile.SEED_EXACT else a.high)
        return [value for value in found if value is not None]

    def merit(self, p: KnownPolicy) -> tuple[bool, float, datetime, list[int]]:
        """Not poor before poor, the better, the younger, and the first by name."""
        best = max(self.factors(p) or [self.rule.profit_factor_min])
        backwards = [-ord(letter) for letter in p.name]
        return best >= self.rule.profit_factor_min, best, p.since, backwards

    @staticmethod
    def standing(p: KnownPolicy) -> list[KnownArm]:
        return [a for a in p.arms if a.status is not ArmStatus.RETIRED]


def test_whoever_gains_a_champion_is_never_purged() -> None:
    rng = np.random.default_rng(7)
    for _ in range(1_000):
        known = population(rng)
        crowned = int(rng.integers(len(known)))
        arms = known[crowned].arms
        if not arms:
            continue
        first = replace(arms[0], role=ArmRole.CHAMPION, status=ArmStatus.ACTIVE)
        known[crowned] = replace(known[crowned], arms=(first, *arms[1:]))
        told = {fate.policy: fate for fate in fates(known, PurgeRule(), now=NOW)}
        assert not told[known[crowned].name].purged
