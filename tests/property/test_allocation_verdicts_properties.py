"""The database and the model give one verdict on every allocation, lawful or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger import open_btc
from planted import (
    CHALLENGERS,
    STRANGER,
    SUCCESSIONS,
    Planted,
    State,
    Vector,
    lawful_places,
    random_state,
    random_vector,
)
from sqlalchemy import Engine

from bandit.core.allocators.ramp import propose
from bandit.core.errors import InvalidAllocation
from bandit.core.limits import REDUCING, Limits, champion_floor_of, check, with_part
from bandit.core.model import (
    WHOLE_PPM,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
)
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, RampRule

SEED = 20261120
STATES = 600
VECTORS = 8
SCALINGS = [kind for kind in DecisionKind if kind not in SUCCESSIONS]


def model_verdict(state: State, parts: Vector, kind: DecisionKind) -> str:
    """The limit that `parts` break, or the floor they are lawful above."""
    kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
    try:
        check(parts, arms=kept, limits=state.limits, profile=state.profile, kind=kind)
    except InvalidAllocation as refused:
        return "sum" if refused.limit == "bounds" else refused.limit
    floor = champion_floor_of(kept, state.limits)
    held = int(parts[PolicyName("prod")])
    return f"lawful above {min(floor, held) if kind in REDUCING else floor}"


@pytest.fixture
def planted(engine: Engine) -> Iterator[Planted]:
    open_btc(engine, challengers=[*CHALLENGERS, (STRANGER, "f" * 8)])
    raw = engine.raw_connection()
    try:
        yield Planted(raw.driver_connection)
    finally:
        raw.close()


def test_database_and_model_agree_on_every_allocation(planted: Planted) -> None:
    rng = np.random.default_rng(SEED)
    seen: Counter[str] = Counter()
    for _ in range(STATES):
        state = random_state(rng)
        planted.plant(state)
        for _ in range(VECTORS):
            kind = DecisionKind(rng.choice(SCALINGS))
            parts = random_vector(rng, state, kind)
            expected = model_verdict(state, parts, kind)
            assert planted.verdict(parts, kind) == expected, (state, parts, kind)
            seen[expected.partition(" ")[0]] += 1
    # Not vacuous: every limit refused something, and a good part was lawful.
    assert seen.keys() == {
        "lawful",
        "sum",
        "arms",
        "reduces_only",
        "inactive_zero",
        "arm_cap",
        "unproven_cap",
        "arm_minimum",
        "step_up",
        "champion_floor",
        "challengers_cap",
    }
    assert seen["lawful"] > STATES * VECTORS / 10
    assert min(seen.values()) >= 5, seen


def test_database_and_model_agree_on_updates_by_hand(planted: Planted) -> None:
    rng = np.random.default_rng(SEED + 1)
    seen: Counter[str] = Counter()
    for _ in range(STATES // 2):
        state = random_state(rng)
        kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
        challengers = [arm for arm in kept if arm.role is ArmRole.CHALLENGER]
        if not challengers:
            continue
        planted.plant(state)
        arm = challengers[int(rng.integers(len(challengers)))]
        vector = random_vector(rng, state, DecisionKind.RESCALE)
        part = vector.get(arm.policy, arm.ppm + 1)
        traffic = f"{part / WHOLE_PPM:.6f}"
        verdict = planted.verdict_by_hand(arm.policy, traffic)
        seen[verdict] += 1
        if part == arm.ppm:
            assert verdict == "lawful"  # nothing changes, so nothing is asked
        elif 0 <= part <= WHOLE_PPM:
            proposed = with_part(kept, arm.policy, int(part))
            expected = model_verdict(state, proposed, DecisionKind.RESCALE)
            # The name may differ: a row's own check speaks before the version's guard.
            assert (verdict == "lawful") == expected.startswith("lawful"), (state, arm, part)
        else:
            assert verdict != "lawful", traffic
    assert seen["lawful"] >= 10
    assert len(seen) >= 5, seen


factors = st.builds(
    lambda gain, n, lost: ProfitFactor(
        gross_profit=gain if n > lost else 0.0,
        gross_loss=float(lost),
        n=n,
        n_losses=lost,
    ),
    st.floats(0, 100),
    st.integers(2, 200),
    st.integers(0, 2),
)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.data())
def test_nightly_proposals_are_lawful(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    state = random_state(rng)
    limits = Limits()
    kept = lawful_places(rng, state, limits)
    readings = [
        ArmReading(
            place=place,
            pf_short=data.draw(factors),
            pf_long=data.draw(factors),
            dd_long_percent=data.draw(st.floats(0, 10)),
            pf_prod=data.draw(factors),
        )
        for place in kept
    ]
    made = propose(readings, rule=RampRule(), limits=limits, profile=state.profile)
    check(
        made.ppm,
        arms=kept,
        limits=limits,
        profile=state.profile,
        kind=DecisionKind.RESCALE,
    )
