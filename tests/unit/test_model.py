"""What a name, a hash, an instant, an amount and an allocation may be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal

import pytest

from bandit.core.errors import AmbiguousName, InvalidAllocation, InvalidInput, UnknownName
from bandit.core.model import (
    Allocation,
    Experiment,
    Policy,
    PolicyKind,
    PolicyName,
    PolicySha,
    Ppm,
    checked_amount,
    checked_document,
    checked_instant,
    checked_instrument,
    checked_name,
    checked_return,
    checked_sha,
    checked_text,
    checked_unit,
    whole,
)

OLD, NEW = PolicyName("old"), PolicyName("new")


class Nowhere(tzinfo):
    """A zone that does not know its offset: as naive as none."""

    def utcoffset(self, _dt: datetime | None) -> timedelta | None:
        return None


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checked_name, "a"),
        (checked_name, "0" + "z_.-" * 15 + "zz"),  # 63 characters
        (checked_sha, "eee02a74"),
        (checked_sha, "0123456789abcdef" * 4),
        (checked_unit, "BTC/USD@2026-01-01T00:00Z#1"),
        (checked_unit, "x" * 128),
        (checked_instrument, "BTC/USD:PERP"),
        (checked_instrument, "x" * 32),
    ],
)
def test_lawful_names_come_back_as_they_are(check: Callable[[str], str], value: str) -> None:
    assert check(value) == value


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checked_name, ""),
        (checked_name, "a" * 64),
        (checked_name, "Prod"),
        (checked_name, "-prod"),
        (checked_name, "prod\n"),
        (checked_name, "pröd"),
        (checked_name, "prod\0"),
        (checked_sha, "eee02a7"),
        (checked_sha, "E" * 8),
        (checked_sha, "0" * 65),
        (checked_unit, ""),
        (checked_unit, "a b"),
        (checked_unit, "x" * 129),
        (checked_unit, "bar-1\n"),
        (checked_instrument, "/BTC"),
        (checked_instrument, "x" * 33),
        (checked_instrument, "BTC USD"),
    ],
)
def test_unlawful_names_are_refused_with_field_and_rule(
    check: Callable[[str], str], value: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        check(value)
    assert refused.value.code == "invalid_input"
    assert refused.value.field in {"name", "sha", "unit_id", "instrument"}
    assert refused.value.rule.startswith("must ")


def test_instant_is_told_in_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    found = checked_instant(datetime(2026, 3, 1, 9, tzinfo=tokyo), field="now")
    assert found == datetime(2026, 3, 1, tzinfo=UTC)
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None),
        datetime(2026, 3, 1, tzinfo=Nowhere()),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2100, 1, 1, tzinfo=UTC),
        datetime(2100, 1, 1, 0, 30, tzinfo=timezone(timedelta(minutes=30))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
    ],
)
def test_naive_and_distant_instants_are_refused(value: datetime) -> None:
    with pytest.raises(InvalidInput, match=r"^closed_at: must"):
        checked_instant(value, field="closed_at")


def test_instants_at_the_border_are_lawful() -> None:
    first = datetime(2000, 1, 1, tzinfo=UTC)
    last = datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert checked_instant(first, field="now") == first
    assert checked_instant(last, field="now") == last


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("12.340", "12.34000000"),
        ("-0", "0E-8"),
        ("1e3", "1000.00000000"),
        ("0.00000001", "1E-8"),
        ("9999999999999999.99999999", "9999999999999999.99999999"),
    ],
)
def test_amounts_keep_eight_decimals(given: str, kept: str) -> None:
    assert str(checked_amount(Decimal(given), field="pnl")) == kept


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("NaN", "finite"),
        ("sNaN", "finite"),
        ("Infinity", "finite"),
        ("-Infinity", "finite"),
        ("1e16", "smaller than 10000000000000000"),
        ("-1e16", "smaller than 10000000000000000"),
        ("9999999999999999.999999999", "at most 8 decimals"),
        ("0.000000001", "at most 8 decimals"),
        ("1e-999999", "at most 8 decimals"),
        # Beyond the exponents of Python's default context, where abs() itself fails.
        ("1e1000000", "smaller than 10000000000000000"),
        ("-1e1000000", "smaller than 10000000000000000"),
    ],
)
def test_amounts_outside_the_domain_are_refused(given: str, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        checked_amount(Decimal(given), field="pnl")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("0.0012", "0.001200000000"),
        ("0.0000000000004", "0E-12"),
        ("-0.0000000000006", "-1E-12"),
        ("999.999999999999", "999.999999999999"),
    ],
)
def test_returns_are_rounded_to_twelve_decimals(given: str, kept: str) -> None:
    assert str(checked_return(Decimal(given), field="return")) == kept


@pytest.mark.parametrize(
    "given", ["NaN", "Infinity", "1000", "-1000", "999.9999999999996", "1e1000000"]
)
def test_returns_of_a_thousand_times_the_notional_are_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match=r"^return: must be"):
        checked_return(Decimal(given), field="return")


def test_text_is_stripped() -> None:
    assert checked_text("  drill\n", field="reason", length_max=5) == "drill"


@pytest.mark.parametrize("text", ["", " \t\n", "abcdef", "a\0b", "a\ud800"])
def test_text_that_says_nothing_or_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^reason: must be 1 to 5 characters"):
        checked_text(text, field="reason", length_max=5)


@pytest.mark.parametrize("value", [None, {"a": [1, 2.5, "x", None, True]}, "\\u0000", "😀", []])
def test_json_documents_come_back_as_they_are(value: object) -> None:
    assert checked_document(value, field="context") == value


def nested(depth: int) -> object:
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        [float("-inf")],
        {"a": Decimal(1)},
        "a\0b",
        {"key\0": 1},
        "\\\0",
        "\ud800",
        nested(100_000),
    ],
)
def test_what_the_ledger_cannot_hold_is_no_document(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^context: must"):
        checked_document(value, field="context")


def test_policy_checks_each_of_its_fields() -> None:
    lawful = {"name": OLD, "kind": PolicyKind.EXTERNAL, "sha": PolicySha("eee02a74")}
    Policy(**lawful, data_cutoff=datetime(2026, 1, 1, tzinfo=UTC))
    for change in (
        {"name": "Old"},
        {"sha": "xyz"},
        {"data_cutoff": datetime(2026, 1, 1, tzinfo=Nowhere())},
        {"metadata": {"sharpe": float("inf")}},
    ):
        with pytest.raises(InvalidInput, match=next(iter(change))):
            Policy(**(lawful | change))


def test_allocation_tells_propensities() -> None:
    made = Allocation(version=3, champion=OLD, ppm={NEW: Ppm(1), OLD: Ppm(999_999)})
    assert made.propensity(NEW) == 1e-6
    assert made.propensity(OLD) == 0.999999


@pytest.mark.parametrize(
    ("ppm", "limit"),
    [
        ({OLD: 999_999}, "sum"),
        ({OLD: 999_999, NEW: 2}, "sum"),
        ({OLD: 1_000_001, NEW: -1}, "bounds"),
        ({OLD: float("nan"), NEW: 0}, "bounds"),
        ({OLD: float("inf"), NEW: 0}, "bounds"),
        ({}, "sum"),
        ({NEW: 1_000_000}, "champion"),
    ],
)
def test_allocation_that_is_no_whole_is_refused_by_name(
    ppm: dict[PolicyName, Ppm], limit: str
) -> None:
    with pytest.raises(InvalidAllocation) as refused:
        Allocation(version=1, champion=OLD, ppm=ppm)
    assert refused.value.limit == limit


def test_one_policy_with_everything_is_a_whole() -> None:
    whole({OLD: Ppm(1_000_000)})


def experiment(**change: object) -> Experiment:
    values: dict[str, object] = {
        "name": "btc",
        "champion": OLD,
        "capital": Decimal(10_000),
        "currency": "USD",
        "equity_fraction": 0.1,
    }
    return Experiment(**(values | change))


@pytest.mark.parametrize(
    "change",
    [
        {"equity_fraction": 1.0},
        {"equity_fraction": 5e-324},
        {"capital": Decimal("0.00000001")},
        {"currency": "1INCH"},
        {"decision_seconds_valid": 0.001},
        {"decision_seconds_valid": 86_400.0},
    ],
)
def test_experiment_at_the_border_of_its_domain_is_lawful(change: dict[str, object]) -> None:
    experiment(**change)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "BTC"),
        ("capital", Decimal(0)),
        ("capital", Decimal(-1)),
        ("capital", Decimal("NaN")),
        ("currency", "usd"),
        ("currency", "U"),
        ("currency", "USD\n"),
        ("equity_fraction", 0.0),
        ("equity_fraction", 1.0000001),
        ("equity_fraction", float("nan")),
        ("decision_seconds_valid", 0.0),
        # Less than the clock can tell apart: the decision would expire as it is made.
        ("decision_seconds_valid", 1e-9),
        ("decision_seconds_valid", 86_401.0),
        ("decision_seconds_valid", float("inf")),
    ],
)
def test_experiment_outside_its_domain_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        experiment(**{field: value})
    assert refused.value.field == ("experiment" if field == "name" else field)


def test_long_findings_are_cut_in_messages() -> None:
    assert len(InvalidInput(field="unit_id", rule="must", found="x" * 500).found) == 80


def test_unknown_and_ambiguous_names_show_the_candidates() -> None:
    unknown = UnknownName(kind="policy", name="x", known=["old", "new"])
    assert str(unknown) == "no policy is registered as 'x'; known: old, new"
    assert str(UnknownName(kind="policy", name="x")) == "no policy is registered as 'x'"
    ambiguous = AmbiguousName(name="ee", candidates=["old", "new"])
    assert str(ambiguous) == "'ee' fits 2 policies: old, new"
