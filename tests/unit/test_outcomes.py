"""What an outcome may be, and which bodies are the same."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.outcomes import (
    CLOCK_TOLERANCE,
    Flags,
    Outcome,
    check_times,
    declined,
    flags_of,
    trade,
)

ID = UUID(int=1)
OPENED = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOSED = OPENED + timedelta(hours=1)


def made(**change: object) -> Outcome:
    values: dict[str, object] = {
        "pnl": Decimal("12.34"),
        "return_ratio": Decimal("0.0012"),
        "opened_at": OPENED,
        "closed_at": CLOSED,
    }
    return trade(ID, **(values | change))


@pytest.mark.parametrize(
    "same",
    [
        {"pnl": Decimal("12.340")},
        {"pnl": Decimal("1234e-2")},
        {"return_ratio": Decimal("0.00120000000000000")},
        {"return_ratio": Decimal("0.0012000000000001")},  # beyond the twelve decimals kept
        {"opened_at": OPENED.astimezone(timezone(timedelta(hours=-5)))},
    ],
)
def test_same_body_said_otherwise_has_the_same_hash(same: dict[str, object]) -> None:
    assert made(**same).body_hash() == made().body_hash()


@pytest.mark.parametrize(
    "other",
    [
        {"pnl": Decimal("12.35")},
        {"return_ratio": Decimal("0.001200000001")},
        {"opened_at": OPENED - timedelta(microseconds=1)},
        {"closed_at": CLOSED + timedelta(microseconds=1)},
        {"fees": Decimal(0)},
        {"slippage": Decimal(0)},
        {"size": Decimal(1)},
        {"r_multiple": Decimal(0)},
        {"worst_excursion": Decimal(0)},
    ],
)
def test_another_body_has_another_hash(other: dict[str, object]) -> None:
    assert made(**other).body_hash() != made().body_hash()


def test_fields_are_told_apart_in_the_hash() -> None:
    fees, slippage = made(fees=Decimal(1)), made(slippage=Decimal(1))
    assert fees.body_hash() != slippage.body_hash()
    assert declined(ID).body_hash() != declined(UUID(int=2)).body_hash()


def test_declined_is_no_trade_without_times() -> None:
    nothing = declined(ID)
    assert nothing.no_trade
    assert (nothing.pnl, nothing.return_ratio) == (0, 0)
    assert (nothing.opened_at, nothing.closed_at) == (None, None)


@pytest.mark.parametrize("zero", ["0", "-0"])
def test_trade_that_broke_even_is_a_trade(zero: str) -> None:
    even = made(pnl=Decimal(zero), return_ratio=Decimal(zero))
    assert not even.no_trade
    assert str(even.pnl) == "0E-8"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("pnl", {"pnl": Decimal("NaN")}),
        ("pnl", {"pnl": Decimal("0.000000001")}),
        ("return", {"return_ratio": Decimal("Infinity")}),
        ("return", {"return_ratio": Decimal("-0.1")}),
        ("return", {"pnl": Decimal(-1)}),
        ("fees", {"fees": Decimal("-Infinity")}),
        ("slippage", {"slippage": Decimal("1e16")}),
        ("size", {"size": Decimal(0)}),
        ("size", {"size": Decimal(-1)}),
        ("r_multiple", {"r_multiple": Decimal(1000)}),
        ("worst_excursion", {"worst_excursion": Decimal("-0.01")}),
        ("opened_at", {"opened_at": OPENED.replace(tzinfo=None)}),
        ("closed_at", {"closed_at": datetime(2101, 3, 1, tzinfo=UTC)}),
        ("closed_at", {"closed_at": OPENED - timedelta(microseconds=1)}),
    ],
)
def test_unlawful_fields_are_refused_by_name(field: str, change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        made(**change)
    assert refused.value.field == field


def test_trade_may_close_as_it_opens() -> None:
    assert made(closed_at=OPENED).closed_at == OPENED


def test_clocks_may_differ_by_five_minutes() -> None:
    outcome = made()
    decided, now = OPENED + CLOCK_TOLERANCE, CLOSED - CLOCK_TOLERANCE
    check_times(outcome, decided_at=decided, now=now)
    step = timedelta(microseconds=1)
    with pytest.raises(InvalidInput, match=r"^closed_at: must not lie more than 5 minutes"):
        check_times(outcome, decided_at=decided, now=now - step)
    with pytest.raises(InvalidInput, match=r"^opened_at: must not be before the decision"):
        check_times(outcome, decided_at=decided + step, now=now)


def test_declined_has_no_times_to_check() -> None:
    check_times(declined(ID), decided_at=OPENED, now=OPENED - timedelta(days=1))


def test_position_opened_after_its_decision_expired_is_flagged() -> None:
    assert flags_of(made(), expires_at=OPENED, claimed=True) == Flags()
    late = OPENED - timedelta(microseconds=1)
    assert flags_of(made(), expires_at=late, claimed=True) == Flags(expired=True)
    assert flags_of(declined(ID), expires_at=late, claimed=False) == Flags()


def test_position_opened_without_asking_is_flagged() -> None:
    assert flags_of(made(), expires_at=OPENED, claimed=False) == Flags(unclaimed=True)


def canonical(value: object) -> object:
    match value:
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            return value


FULL = {
    "fees": Decimal("0.25"),
    "slippage": Decimal("-1e-8"),
    "size": Decimal(3),
    "r_multiple": Decimal("-0.5"),
    "worst_excursion": Decimal(0),
}


@pytest.mark.parametrize(
    "outcome",
    [
        made(),
        made(**FULL),
        made(pnl=Decimal(0), return_ratio=Decimal(0), closed_at=OPENED.replace(microsecond=7)),
        made(pnl=Decimal("-9999999999999999.99999999"), return_ratio=Decimal("-1e-12")),
        declined(ID),
    ],
)
def test_hash_is_that_of_the_body_as_sorted_json(outcome: Outcome) -> None:
    # What ledgers hold since the first release.
    body = {name: canonical(getattr(outcome, name)) for name in Outcome.__slots__}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    assert outcome.body_hash() == digest
