"""A reweight moves exactly what the weights moved: no router can move less."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.core.model import WHOLE_PPM, PolicyName, Ppm
from bandit.core.routing import Partition, partition, partition_of_history, repartition

unhurried = settings(deadline=None, max_examples=150)
POLICIES = [PolicyName(f"arm-{i}") for i in range(8)]
Weights = dict[PolicyName, Ppm]


@st.composite
def weights(draw: st.DrawFn) -> Weights:
    """Any number of arms in any order, with weights from none to all, that sum to a million."""
    policies = draw(st.permutations(POLICIES))[: draw(st.integers(1, len(POLICIES)))]
    cuts = draw(
        st.lists(
            # Coarse cuts make borders meet, fine ones leave slivers of a single part.
            st.one_of(st.integers(0, 10).map(lambda n: n * 100_000), st.integers(0, WHOLE_PPM)),
            min_size=len(policies) - 1,
            max_size=len(policies) - 1,
        )
    )
    borders = [0, *sorted(cuts), WHOLE_PPM]
    parts = [Ppm(stop - start) for start, stop in pairwise(borders)]
    return dict(zip(policies, parts, strict=True))


histories = st.lists(weights(), min_size=2, max_size=12)


def distance(before: Weights, after: Weights) -> int:
    """Total-variation distance in parts: what shrinking arms give up."""
    return sum(max(0, part - after.get(policy, 0)) for policy, part in before.items())


def moved(before: Partition, after: Partition) -> int:
    """Parts that change hands, read off the stretches alone."""
    borders = sorted({s.start for made in (before, after) for s in made.stretches} | {WHOLE_PPM})
    owners = [owners_at(made, borders) for made in (before, after)]
    return sum(
        stop - start
        for start, stop, old, new in zip(borders[:-1], borders[1:], *owners, strict=True)
        if old != new
    )


def owners_at(made: Partition, borders: list[int]) -> list[PolicyName]:
    owners, stretches = [], iter(made.stretches)
    stretch = next(stretches)
    for border in borders[:-1]:
        while border >= stretch.stop:
            stretch = next(stretches)
        owners.append(stretch.policy)
    return owners


@pytest.mark.no_cover
@unhurried
@given(histories)
def test_only_the_theoretical_minimum_moves(history: list[Weights]) -> None:
    made, before = partition(history[0]), history[0]
    for after in history[1:]:
        again = repartition(made, after)
        assert moved(made, again) == distance(before, after)
        made, before = again, after


@pytest.mark.no_cover
@unhurried
@given(histories)
def test_every_part_belongs_to_one_arm_and_every_arm_has_its_weight(
    history: list[Weights],
) -> None:
    made = partition_of_history(history)
    stretches = made.stretches
    assert stretches[0].start == 0
    assert stretches[-1].stop == WHOLE_PPM
    for left, right in pairwise(stretches):
        assert left.stop == right.start
        assert left.policy != right.policy
    held = dict.fromkeys(history[-1], 0)
    for stretch in stretches:
        assert stretch.start < stretch.stop
        held[stretch.policy] += stretch.stop - stretch.start
    assert held == history[-1]


@pytest.mark.no_cover
@unhurried
@given(histories)
def test_a_version_adds_at_most_one_stretch_for_each_arm_that_moved(
    history: list[Weights],
) -> None:
    made, before = partition(history[0]), history[0]
    for after in history[1:]:
        again = repartition(made, after)
        changed = [p for p in POLICIES if before.get(p, 0) != after.get(p, 0)]
        assert len(again.stretches) <= len(made.stretches) + len(changed)
        made, before = again, after
