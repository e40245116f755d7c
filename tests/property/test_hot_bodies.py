"""The quick reader of assignment bodies takes nothing that the strict one would refuse."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from ledger import NOON

from bandit.core.errors import BanditError
from bandit.core.model import ArmMode, ArmRole, Assignment, PolicyName, PolicySha, UnitId
from bandit.core.sizing import Sizing, SizingRule
from bandit.service.routing_table import Opportunity
from liveops.api.answers import AssignmentAnswer, assignment_values
from liveops.api.bodies import NewAssignment, read
from liveops.api.hot import _usual, assignment_json, opportunity_in
from liveops.api.strict_json import parse

POSITION = "01234567-89ab-8def-8123-456789abcdef"
NAMES = [*NewAssignment.model_fields, "extra", "unit\\u005fid", "UNIT_ID", ""]
VALUES = [
    "u-1",
    "BTCUSD",
    POSITION,
    POSITION.upper(),
    "{" + POSITION + "}",
    "a b",
    "é",
    'say "hi"',
    "",
    "x" * 129,
    None,
    12,
    {"spread": 0.5},
    ["a"],
]
BROKEN = [b"", b"{}", b"[]", b"null", b'{"unit_id": "u"', b'\xef\xbb\xbf{"unit_id":"u"}', b"\xff"]

members = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES), st.sampled_from(["", " ", "\n\t"])),
    max_size=6,
)


def body_of(parts: list[tuple[str, object, str]]) -> bytes:
    """A JSON object of these members, in this order, repeated ones too."""
    ascii_only = len(parts) % 2 == 0
    texts = [
        f'{gap}"{name}"{gap}:{gap}{json.dumps(value, ensure_ascii=ascii_only)}'
        for name, value, gap in parts
    ]
    return ("{" + ",".join(texts) + "}").encode()


def strictly(body: bytes) -> Opportunity | str:
    try:
        asked = read(NewAssignment, parse(body))
        return Opportunity(
            unit_id=UnitId(asked.unit_id),
            instrument=asked.instrument,
            context=asked.context,
            proposed_actions=asked.proposed_actions,
            position=asked.position,
        )
    except BanditError as error:
        return f"{error.code}: {error}"


def quickly(body: bytes) -> Opportunity | str:
    try:
        return opportunity_in(body)
    except BanditError as error:
        return f"{error.code}: {error}"


@settings(max_examples=600, deadline=None)
@given(st.one_of(members.map(body_of), st.sampled_from(BROKEN)))
def test_both_readers_say_the_same(body: bytes) -> None:
    event("quick" if _usual(body) is not None else "strict")
    assert quickly(body) == strictly(body)


def test_usual_bodies_are_read_quickly_and_doubtful_ones_are_not() -> None:
    usual = b'{"unit_id": "u-1", "instrument": "BTCUSD"}'
    assert _usual(usual) == {"unit_id": "u-1", "instrument": "BTCUSD"}
    for doubtful in (
        b'{"unit_id": "u-1", "unit_id": "u-2", "instrument": "BTCUSD"}',
        b'{"unit_id": "u\\u002d1", "instrument": "BTCUSD"}',
        b'{"unit_id": "u-1", "instrument": "BTCUSD", "context": {}}',
        b'{"unit_id": "u-1"}',
    ):
        assert _usual(doubtful) is None, doubtful


@pytest.mark.parametrize("sizing", [None, SizingRule(max_open_positions=None).sizing(0.01)])
def test_answer_has_the_documented_fields_in_their_order(sizing: Sizing | None) -> None:
    made = Assignment(
        id=UUID(POSITION),
        experiment="btc",
        unit_id=UnitId('é"\\'),
        instrument="BTCUSD",
        policy=PolicyName("prod"),
        policy_sha=PolicySha("aaaaaaaa"),
        role=ArmRole.CHAMPION,
        mode=ArmMode.LIVE,
        propensity=0.1 + 0.2,
        sticky=False,
        allocation_version=1,
        epoch=2**53,
        size_multiplier=1.0,
        confidence_bump=0.0,
        decided_at=NOON + timedelta(microseconds=1),
        expires_at=NOON,
        sizing=sizing,
    )
    answer = assignment_json(made)
    # Held against the model that OpenAPI describes: same fields, same order, same values.
    assert AssignmentAnswer.model_validate_json(answer).model_dump(mode="json") == json.loads(
        answer
    )
    assert list(json.loads(answer)) == list(AssignmentAnswer.model_fields)
    assert AssignmentAnswer(**assignment_values(made)).model_dump(mode="json") == json.loads(answer)
