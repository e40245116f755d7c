"""A router says of a group what bucket, partition and allocation say of each of its units."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.core.model import WHOLE_PPM, Allocation, PolicyName, Ppm, UnitId
from bandit.core.routing import (
    BUCKET_BITS,
    Partition,
    Route,
    bucket_of,
    partition,
    partition_of_history,
    router,
)

unhurried = settings(deadline=None)
A, B, C = (PolicyName(name) for name in "abc")
SALTS = st.binary(min_size=32, max_size=32)
UNITS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)


@st.composite
def weights(draw: st.DrawFn) -> dict[PolicyName, Ppm]:
    low, high = sorted(draw(st.tuples(*[st.integers(0, WHOLE_PPM)] * 2)))
    return {A: Ppm(low), B: Ppm(high - low), C: Ppm(WHOLE_PPM - high)}


def routes(salt: bytes, made: Partition, ppm: dict[PolicyName, Ppm], units: list[str]) -> object:
    allocation = Allocation(version=1, champion=A, ppm=ppm)
    route = router(salt, experiment="btc", allocation=allocation, partition=made)
    return route(UnitId(unit) for unit in units)


@unhurried
@given(SALTS, st.lists(weights(), min_size=1, max_size=6), st.lists(UNITS, max_size=40))
def test_routes_are_those_of_the_buckets(
    salt: bytes, history: list[dict[PolicyName, Ppm]], units: list[str]
) -> None:
    made = partition_of_history(history)
    policies = [made.policy_of(bucket_of(salt, experiment="btc", unit=UnitId(u))) for u in units]
    assert routes(salt, made, history[-1], units) == [
        Route(policy=policy, propensity=history[-1][policy] / WHOLE_PPM) for policy in policies
    ]


@unhurried
@given(SALTS, UNITS)
def test_a_border_that_is_one_part_further_takes_the_unit_over(salt: bytes, unit: str) -> None:
    bucket = bucket_of(salt, experiment="btc", unit=UnitId(unit))
    part = (bucket * WHOLE_PPM) >> BUCKET_BITS
    for border, policy in ((part, B), (part + 1, A)):
        ppm = {A: Ppm(border), B: Ppm(WHOLE_PPM - border)}
        expected = Route(policy=policy, propensity=ppm[policy] / WHOLE_PPM)
        assert routes(salt, partition(ppm), ppm, [unit]) == [expected]
