"""Which policies the weekly purge takes away, and what it says of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from purged_policies import NOW, arm, factor, policy

from bandit.core.errors import InvalidInput
from bandit.core.model import ArmRole, ArmStatus, Profile
from bandit.core.purging import Fate, KnownPolicy, PurgeRule, fates

CHAMPION = policy("prod", arm(role=ArmRole.CHAMPION), days=400)
ONE = PurgeRule(active_min=1)
RETIRED = ArmStatus.RETIRED


def of(known: KnownPolicy, *others: KnownPolicy, rule: PurgeRule = ONE) -> Fate:
    told = fates([CHAMPION, known, *others], rule, now=NOW)
    return next(fate for fate in told if fate.policy == known.name)


@pytest.mark.parametrize(
    ("known", "purged", "reason"),
    [
        (policy("a", arm(2.0), days=60), False, "nothing against it"),
        (policy("a", arm(2.0), days=61), True, "61 days old, limit 60"),
        (policy("a", days=61), True, "61 days old, limit 60"),
        # An interval that reaches the limit may have been bad luck.
        (policy("a", arm(0.9, high=1.2)), False, "nothing against it"),
        (
            policy("a", arm(0.9, high=1.15)),
            True,
            "profit factor at most 1.15 of 60 trades in btc, limit 1.2",
        ),
        (
            policy("a", arm(1.19, high=9.0, profile=Profile.SEED_EXACT)),
            True,
            "profit factor 1.19 of 60 trades in btc, limit 1.2",
        ),
        (policy("a", arm(1.2, profile=Profile.SEED_EXACT)), False, "nothing against it"),
        (policy("a", arm(0.1, high=0.2, n=29)), False, "nothing against it"),
        (
            policy("a", arm(0.5, high=0.8), days=100),
            True,
            "100 days old, limit 60; profit factor at most 0.8 of 60 trades in btc, limit 1.2",
        ),
        # Good in one experiment is good enough; what it did where it is retired counts no more.
        (
            policy("a", arm(0.5, high=0.8), arm(3.0, experiment="eth")),
            False,
            "nothing against it",
        ),
        (
            policy("a", arm(0.5, high=0.8), arm(3.0, experiment="eth", status=RETIRED)),
            True,
            "profit factor at most 0.8 of 60 trades in btc, limit 1.2",
        ),
        (
            policy("a", arm(0.5, high=0.8, status=RETIRED)),
            True,
            "profit factor at most 0.8 of 60 trades in btc, limit 1.2",
        ),
        (policy("a", arm(0.5, high=0.8, role=ArmRole.CHAMPION)), False, "champion of btc"),
        (
            policy("a", arm(replaced_hours_ago=23.9), days=99),
            False,
            "champion of btc a day ago",
        ),
        (policy("a", arm(replaced_hours_ago=24), days=99), True, "99 days old, limit 60"),
        (policy("a", arm(returns=True), days=99), False, "a rollback of btc returns to it"),
        (policy("a", arm(profile=Profile.OBSERVE), days=99), False, "btc is only observed"),
        (policy("a", days=99, needed_for=("a job runs",)), False, "a job runs"),
    ],
)
def test_what_becomes_of_a_policy(known: KnownPolicy, purged: bool, reason: str) -> None:
    assert of(known) == Fate(policy=known.name, purged=purged, archived=purged, reason=reason)


def test_a_profit_factor_without_a_loss_says_nothing() -> None:
    lucky = replace(arm(), profit_factor=factor(0.0, n_losses=0), high=None)
    assert not of(policy("a", lucky)).purged
    # Without an upper bound nothing is known to be poor, however poor it looks.
    assert not of(policy("a", replace(arm(0.1), high=None))).purged


def test_the_best_of_the_last_active_policies_stay() -> None:
    poor = policy("poor", arm(0.5, high=0.8))
    old = [policy(f"old{i}", arm(1.5 + i), days=70 + i) for i in range(3)]
    told = fates([CHAMPION, poor, *old], PurgeRule(active_min=3), now=NOW)
    assert {fate.policy: fate.purged for fate in told} == {
        "prod": False,
        "poor": True,
        "old0": True,
        "old1": False,
        "old2": False,
    }
    assert told[1].reason == "one of the last 3 active policies"
    # A halted one is not active: it spares nobody, and goes.
    halted = policy("halted", arm(9.0, status=ArmStatus.HALTED), days=70)
    assert of(halted, *old, rule=PurgeRule(active_min=3)).purged


def test_parents_of_what_stays_stay_and_parents_of_what_goes_go() -> None:
    grandparent = policy("grandparent", days=200)
    parent = policy("parent", days=100, parent="grandparent")
    child = policy("child", arm(), parent="parent")
    assert of(parent, child, grandparent).reason == "child was made from it"
    # A parent without an arm that stands needs its own parent no more.
    assert of(grandparent, parent, child).purged
    old = replace(child, since=parent.since)
    assert of(parent, old, grandparent).archived


def test_being_a_parent_keeps_what_is_stored_but_not_the_arms() -> None:
    poor = arm(0.1, high=0.2)
    first = policy("m-1", poor, days=50)
    second = policy("m-2", poor, days=30, parent="m-1")
    third = policy("m-3", arm(n=0), days=3, parent="m-2")
    why = "profit factor at most 0.2 of 60 trades in btc, limit 1.2"
    assert of(first, second, third) == Fate(
        policy=first.name, purged=True, archived=True, reason=why
    )
    assert of(second, first, third) == Fate(
        policy=second.name,
        purged=True,
        archived=False,
        reason=f"{why}; not archived: m-3 was made from it",
    )
    retired = replace(second, arms=(replace(poor, status=RETIRED),))
    assert of(retired, third).reason == "m-3 was made from it"
    assert of(retired, replace(third, arms=(poor,))).archived


@pytest.mark.parametrize(
    "wrong", [{"active_min": 0}, {"profit_factor_min": -0.1}, {"profit_factor_min": float("nan")}]
)
def test_a_rule_that_says_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        PurgeRule(**wrong)  # type: ignore[arg-type]
