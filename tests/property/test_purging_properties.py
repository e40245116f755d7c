"""What holds of every purge, over ten thousand populations of policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from purged_policies import NOW, names_of, population

from bandit.core.model import ArmRole, ArmStatus
from bandit.core.purging import (
    WARM,
    Fate,
    KnownPolicy,
    PurgeRule,
    _causes,
    _protected,
    fates,
)

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
        assert archived <= gone
        _check_safe(known, gone, archived, rule)
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


def _check_safe(
    known: list[KnownPolicy], gone: set[str], archived: set[str], rule: PurgeRule
) -> None:
    active = {found.name for found in known if found.is_active}
    if active & gone:
        assert len(active - gone) >= rule.active_min
    needed = {found.parent for found in known if found.name not in gone and found.stands}
    assert not needed & archived
    # Only what a parent is kept for is not archived with its arms.
    assert gone - archived <= needed
    for found in known:
        if found.name in gone - archived:
            assert found.stands
        held = _protected(found, now=NOW) or not _causes(found, rule, now=NOW)
        spared = len(active - gone) <= rule.active_min and found.is_active
        if found.stands and not held and not spared:
            assert found.name in gone, "nobody trades on for being a parent"
        if found.name not in gone:
            continue
        assert found.needed_for == ()
        for arm in found.arms:
            assert arm.role is not ArmRole.CHAMPION
            assert not arm.returns
            assert arm.replaced_at is None or NOW - arm.replaced_at >= WARM
        is_old = NOW - found.since > rule.age_max
        poor = [
            arm.judged
            for arm in found.arms
            if arm.judged is not None and arm.judged < rule.profit_factor_min
        ]
        assert is_old or poor


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
