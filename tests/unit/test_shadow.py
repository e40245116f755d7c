"""Results on paper: what is a lawful one, and when two are one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.model import CLOCK_TOLERANCE, PolicyName
from bandit.core.shadow import (
    ShadowOutcome,
    ShadowSource,
    check_shadow,
    shadow_declined,
    shadow_trade,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = UUID(int=1)
NEW = PolicyName("new")


def made(**changes: object) -> ShadowOutcome:
    values = {
        "return_ratio": Decimal("0.001"),
        "opened_at": NOON,
        "closed_at": NOON + timedelta(hours=1),
    } | changes
    return shadow_trade(KEY, NEW, **values)  # type: ignore[arg-type]


def test_every_field_is_part_of_the_body() -> None:
    bodies = [
        made(),
        made(return_ratio=Decimal("0.0011")),
        made(opened_at=NOON + timedelta(microseconds=1)),
        made(closed_at=NOON + timedelta(hours=2)),
        made(source=ShadowSource.PAPER),
        shadow_trade(
            KEY, PolicyName("old"), return_ratio=Decimal("0.001"),
            opened_at=NOON, closed_at=NOON + timedelta(hours=1),
        ),
        shadow_trade(
            UUID(int=2), NEW, return_ratio=Decimal("0.001"),
            opened_at=NOON, closed_at=NOON + timedelta(hours=1),
        ),
        shadow_declined(KEY, NEW),
        made(return_ratio=Decimal(0)),
    ]  # fmt: skip
    assert len({body.body_hash() for body in bodies}) == len(bodies)


def test_one_moment_in_two_zones_is_one_body() -> None:
    there = datetime.fromisoformat("2026-03-01T14:00:00+02:00")
    assert made(opened_at=there).body_hash() == made().body_hash()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"return_ratio": Decimal("NaN")}, "return"),
        ({"return_ratio": Decimal(1000)}, "return"),
        ({"opened_at": NOON.replace(tzinfo=None)}, "opened_at"),
        ({"closed_at": NOON - timedelta(seconds=1)}, "closed_at"),
    ],
)
def test_what_no_trade_can_be_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        made(**changes)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"decided_at": NOON + CLOCK_TOLERANCE}, None),
        ({"decided_at": NOON + CLOCK_TOLERANCE + timedelta(seconds=1)}, "opened_at"),
        ({"now": NOON + timedelta(minutes=54)}, "closed_at"),
        ({"joined_at": NOON + timedelta(microseconds=1)}, "policy"),
        ({"is_opportunity": False}, "assignment_id"),
    ],
)
def test_it_must_fit_its_decision(changes: dict[str, object], field: str | None) -> None:
    values = {
        "decided_at": NOON,
        "joined_at": NOON,
        "is_opportunity": True,
        "now": NOON + timedelta(days=1),
    } | changes
    if field is None:
        check_shadow(made(), **values)  # type: ignore[arg-type]
        return
    with pytest.raises(InvalidInput) as refused:
        check_shadow(made(), **values)  # type: ignore[arg-type]
    assert refused.value.field == field
