"""Every verb on every status."""

from __future__ import annotations

import pytest

from bandit.core.errors import InvalidTransition
from bandit.core.lifecycle import ArmVerb, after, decision_of
from bandit.core.model import ArmRole, ArmStatus, DecisionKind

# What a challenger of each status becomes; "-" is refused.
TABLE = """
            active     throttled  halted     retired
throttle    throttled  throttled  -          -
halt        halted     halted     halted     -
resume      active     active     active     -
retire      retired    retired    retired    retired
"""
HEADER, *LINES = TABLE.strip().splitlines()
CASES = [
    (ArmVerb(verb), ArmStatus(status), target)
    for verb, *targets in (line.split() for line in LINES)
    for status, target in zip(HEADER.split(), targets, strict=True)
]


@pytest.mark.parametrize(("verb", "status", "target"), CASES)
def test_verb_leads_a_challenger_where_the_table_says(
    verb: ArmVerb, status: ArmStatus, target: str
) -> None:
    if target == "-":
        with pytest.raises(InvalidTransition, match=f"cannot {verb} an arm that is {status}"):
            after(verb, status=status, role=ArmRole.CHALLENGER)
    else:
        assert after(verb, status=status, role=ArmRole.CHALLENGER) is ArmStatus(target)


def test_table_is_complete() -> None:
    assert len(CASES) == len(ArmVerb) * len(ArmStatus)


@pytest.mark.parametrize("verb", ArmVerb)
def test_champion_is_never_moved(verb: ArmVerb) -> None:
    with pytest.raises(InvalidTransition, match=f"cannot {verb} the champion"):
        after(verb, status=ArmStatus.ACTIVE, role=ArmRole.CHAMPION)


def test_each_verb_is_recorded_as_a_decision_of_its_own() -> None:
    assert [decision_of(verb) for verb in ArmVerb] == [
        DecisionKind.THROTTLE,
        DecisionKind.HALT,
        DecisionKind.RESUME,
        DecisionKind.RETIRE,
    ]
