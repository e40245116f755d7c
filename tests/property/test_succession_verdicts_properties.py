"""The database and the model give one verdict on who may be the champion, and what others have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger import open_btc
from planted import (
    CHALLENGERS,
    EARLIER,
    STRANGER,
    SUCCESSIONS,
    Planted,
    State,
    Vector,
    damage,
    lawful_places,
    random_state,
)
from sqlalchemy import Engine

from bandit.core.errors import InvalidAllocation, InvalidTransition
from bandit.core.limits import REDUCING, ArmPlace, Limits, champion_floor_of, check, with_champion
from bandit.core.model import (
    WHOLE_PPM,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Profile,
    whole,
)
from bandit.core.promotion import promoted, require_promotable, rolled_back

SEED = 20261122
STATES = 150
VECTORS = 8
PROD = PolicyName("prod")


@pytest.fixture
def planted(engine: Engine) -> Iterator[Planted]:
    open_btc(engine, challengers=[*CHALLENGERS, (STRANGER, "f" * 8)])
    raw = engine.raw_connection()
    try:
        yield Planted(raw.driver_connection)
    finally:
        raw.close()


def random_succession(
    rng: np.random.Generator, state: State, kind: DecisionKind, successor: PolicyName
) -> Vector:
    """What the service would give everybody, or all they had; one part moved, then some damage."""
    kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
    limits, profile = state.limits, state.profile
    parts: Vector = dict(
        promoted(kept, successor, limits=limits, profile=profile)
        if kind is DecisionKind.PROMOTE
        else rolled_back(kept, successor)
    )
    if rng.random() < 0.5:
        asked = with_champion(kept, successor, kind=kind, limits=limits)
        parts = {arm.policy: int(arm.ppm) for arm in asked if arm.policy != successor}
        parts[successor] = WHOLE_PPM - sum(parts.values())
    policy = kept[int(rng.integers(len(kept)))].policy
    if rng.random() < 0.7 and policy != successor and successor in parts:
        interesting = [limits.arm_minimum_ppm, limits.champion_floor_proven_ppm, parts[policy]]
        parts[policy] = int(rng.choice(interesting)) + int(rng.integers(-1, 2))
        parts[successor] = WHOLE_PPM - sum(p for name, p in parts.items() if name != successor)
    damage(rng, parts)
    return parts


def random_successor(rng: np.random.Generator, state: State, kind: DecisionKind) -> PolicyName:
    """Mostly somebody who could take over, now and then anybody, also the champion itself."""
    arms = state.arms
    if rng.random() < 0.8 and len(arms) > 1:
        arms = arms[1:2] if kind is DecisionKind.ROLL_BACK else arms[1:]
    return arms[int(rng.integers(len(arms)))].policy


def model_verdict(
    state: State, parts: Vector, kind: DecisionKind, successor: PolicyName | None = None
) -> str:
    """The limit that `parts` break, or the floor they are lawful above."""
    kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
    champion = PolicyName("prod")
    try:
        if successor is not None:
            whole(parts)
            if set(parts) != {arm.policy for arm in kept}:
                return "arms"
            _require_successor(kept, successor, kind)
            champion = successor
            kept = with_champion(kept, successor, kind=kind, limits=state.limits)
        check(parts, arms=kept, limits=state.limits, profile=state.profile, kind=kind)
    except InvalidTransition:
        return "champion"
    except InvalidAllocation as refused:
        return "sum" if refused.limit == "bounds" else refused.limit
    floor = champion_floor_of(kept, state.limits)
    held = int(parts[champion])
    return f"lawful above {min(floor, held) if kind in REDUCING else floor}"


def _require_successor(kept: Sequence[ArmPlace], successor: PolicyName, kind: DecisionKind) -> None:
    place = next((arm for arm in kept if arm.policy == successor), None)
    if place is None or (kind is DecisionKind.ROLL_BACK and successor != EARLIER):
        raise InvalidTransition("nobody who could be the champion")
    require_promotable(place)


def test_database_and_model_agree_on_every_succession(planted: Planted) -> None:
    rng = np.random.default_rng(SEED)
    seen: Counter[tuple[DecisionKind, str]] = Counter()
    for _ in range(STATES):
        state = random_state(rng)
        if rng.random() < 0.5:  # lawful, and full to what the limits leave
            lawful = lawful_places(rng, state, Limits())
            state = replace(state, arms=tuple(lawful), limits=Limits())
        planted.plant(state)
        for _ in range(VECTORS):
            kind = DecisionKind(rng.choice(sorted(SUCCESSIONS)))
            successor = random_successor(rng, state, kind)
            parts = random_succession(rng, state, kind, successor)
            expected = model_verdict(state, parts, kind, successor)
            found = planted.verdict(parts, kind, successor)
            assert found == expected, (state, parts, kind, successor)
            seen[kind, expected.partition(" ")[0]] += 1
    common = {"lawful", "sum", "arms", "champion", "reduces_only"}
    wanted = {(kind, limit) for kind in SUCCESSIONS for limit in common}
    limits = {"arm_minimum", "champion_floor"}
    assert seen.keys() >= wanted | {(DecisionKind.PROMOTE, limit) for limit in limits}
    assert min(seen[one] for one in wanted) >= 20, seen


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.sampled_from(list(Profile)))
def test_promotion_and_rollback_out_of_a_lawful_state_are_lawful(
    seed: int, profile: Profile
) -> None:
    rng = np.random.default_rng(seed)
    state, limits = random_state(rng), Limits()
    kept = lawful_places(rng, replace(state, profile=profile), limits)
    for place in kept:
        if place.role is ArmRole.CHAMPION or not place.routable:
            continue
        policy, kind = place.policy, DecisionKind.PROMOTE
        ppm = promoted(kept, policy, limits=limits, profile=profile)
        arms = with_champion(kept, policy, kind=kind, limits=limits)
        check(ppm, arms=arms, limits=limits, profile=profile, kind=kind)
        left = [replace(arm, ppm=ppm[arm.policy]) for arm in arms]
        back = rolled_back(left, PolicyName("prod"))
        returned = with_champion(
            left, PolicyName("prod"), kind=DecisionKind.ROLL_BACK, limits=limits
        )
        check(back, arms=returned, limits=limits, profile=profile, kind=DecisionKind.ROLL_BACK)
        # Nor does the failed one leave the champion under a floor, though nothing asks for it.
        stopped = [
            replace(arm, status=ArmStatus.HALTED) if arm.policy == policy else arm
            for arm in returned
        ]
        assert back[PolicyName("prod")] >= champion_floor_of(stopped, limits)
