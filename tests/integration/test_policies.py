"""Policies are registered once and found by name, sha or unique prefix."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from ledger import NOON, count, register
from sqlalchemy import Engine

from bandit.core.errors import (
    AmbiguousName,
    Conflict,
    InvalidInput,
    UnknownName,
)
from bandit.core.model import (
    Policy,
    PolicyKind,
    PolicyName,
    PolicySha,
)
from bandit.service import experiments, policies

NEW = PolicyName("reinforcement_20250707_154526_eee02a74")
PROD = PolicyName("prod")


def test_policy_is_registered_once(engine: Engine) -> None:
    policy = Policy(
        name=NEW,
        kind=PolicyKind.REINFORCEMENT,
        sha=PolicySha("eee02a74"),
        data_cutoff=NOON,
        metadata={"sharpe": 1.25, "pairs": ["BTC", "ETH"]},
    )
    first, created = policies.register(engine, policy, now=NOON, actor="test")
    later = NOON + timedelta(days=1)
    again, created_again = policies.register(engine, policy, now=later, actor="test")
    assert (created, created_again) == (True, False)
    assert again == first
    assert first.policy == policy
    assert first.registered_at == NOON
    assert count(engine, "audit_log") == 1
    assert policies.listed(engine) == [first]


@pytest.mark.parametrize(
    "other",
    [
        {"sha": "eee02a75"},
        {"name": "another"},
        {"kind": PolicyKind.TABNET},
        {"metadata": {"a": 1}},
        {"data_cutoff": NOON},
    ],
)
def test_another_body_under_the_same_name_or_sha_conflicts(
    engine: Engine, other: dict[str, object]
) -> None:
    policy = Policy(name=NEW, kind=PolicyKind.EXTERNAL, sha=PolicySha("eee02a74"))
    policies.register(engine, policy, now=NOON, actor="test")
    with pytest.raises(Conflict, match="a policy never changes"):
        policies.register(engine, replace(policy, **other), now=NOON, actor="test")
    assert count(engine, "policies") == 1


def test_name_of_one_and_sha_of_another_policy_conflict(engine: Engine) -> None:
    register(engine, "one", "11111111")
    register(engine, "two", "22222222")
    with pytest.raises(Conflict):
        register(engine, "one", "22222222")


def test_parent_must_be_registered(engine: Engine) -> None:
    register(engine, "old", "11111111")
    child = Policy(
        name=NEW,
        kind=PolicyKind.EXTERNAL,
        sha=PolicySha("eee02a74"),
        parent=PolicyName("old"),
    )
    assert policies.register(engine, child, now=NOON, actor="test")[0].policy == child
    orphan = replace(child, name=PolicyName("x"), sha=PolicySha("33333333"), parent=PolicyName("y"))
    with pytest.raises(UnknownName, match="known: old, "):
        policies.register(engine, orphan, now=NOON, actor="test")


@pytest.mark.parametrize("reference", [NEW, "eee02a74", "eee02a7", "eee"])
def test_policy_is_found_by_name_sha_or_unique_prefix(engine: Engine, reference: str) -> None:
    register(engine, NEW, "eee02a74")
    register(engine, PROD, "ee000000")
    assert policies.find(engine, reference).policy.name == NEW


def test_prefix_of_two_policies_names_both(engine: Engine) -> None:
    register(engine, NEW, "eee02a74")
    register(engine, PROD, "ee000000")
    with pytest.raises(AmbiguousName) as ambiguous:
        policies.find(engine, "ee")
    assert ambiguous.value.candidates == (NEW, PROD)


def test_name_that_is_another_policys_sha_is_ambiguous(engine: Engine) -> None:
    register(engine, "aaaaaaaa", "11111111")
    register(engine, "other", "aaaaaaaa")
    with pytest.raises(AmbiguousName) as ambiguous:
        policies.find(engine, "aaaaaaaa")
    assert ambiguous.value.candidates == ("aaaaaaaa", "other")


@pytest.mark.parametrize("reference", ["f", "prod%", "%", "PROD", "", "'; DROP TABLE policies"])
def test_unknown_policy_is_named_with_the_known_ones(engine: Engine, reference: str) -> None:
    register(engine, PROD, "aaaaaaaa")
    with pytest.raises(UnknownName, match="known: prod"):
        policies.find(engine, reference)


def test_reference_that_no_text_of_the_ledger_can_be_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="something the ledger can hold"):
        policies.find(engine, "a\0")
    with pytest.raises(InvalidInput, match="something the ledger can hold"):
        experiments.load(engine, "a\0")
