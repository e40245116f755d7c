"""The database and the model give one verdict on every value, alone and in its row."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger import NOON, SALT, assign, open_btc
from sqlalchemy import Engine

from bandit.core.errors import BanditError
from bandit.core.limits import Limits
from bandit.core.model import (
    EARLIEST,
    LATEST,
    Experiment,
    Policy,
    PolicyKind,
    PolicyName,
    PolicySha,
    checked_amount,
    checked_instant,
    checked_instrument,
    checked_name,
    checked_return,
    checked_unit,
)
from bandit.core.outcomes import trade

# Characters at the borders of every class the patterns use, and some that only look alike.
LETTERS = "az09AZ!~-_./: \n\t\x1f\x7f@[`{éİıßаА٣"
names = st.one_of(
    st.text(st.sampled_from(LETTERS), max_size=8),
    st.text(st.sampled_from("az09_.-"), min_size=60, max_size=66),
    st.text(st.sampled_from("aZ/:"), min_size=30, max_size=34),
    st.text(st.sampled_from("!~"), min_size=126, max_size=130),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
)
numbers = st.one_of(
    st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "-0", "1e1000", "-1e1000", "1e-1000"]),
    st.sampled_from(["1e16", "-1e16", "9999999999999999.99999999", "9999999999999999.999999999"]),
    st.sampled_from(["1000", "999.999999999999", "999.9999999999994", "999.9999999999995"]),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: f"{d:.30f}"[:60]),
    st.decimals(-2000, 2000, places=13).map(str),
    st.decimals(-(10**17), 10**17, places=8).map(str),
    st.decimals(-1, 1, places=9).map(str),
)
offsets = st.integers(-15 * 60, 15 * 60).map(lambda m: timezone(timedelta(minutes=m)))
FIRST, LAST = EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None)
instants = st.one_of(
    st.builds(
        lambda border, days, microseconds, zone: (
            border + timedelta(days=days, microseconds=microseconds)
        ).replace(tzinfo=zone),
        st.sampled_from([FIRST, LAST]),
        st.sampled_from([-1, 0, 1]),
        st.integers(-1, 1),
        st.one_of(st.just(UTC), offsets),
    ),
    st.datetimes(FIRST.replace(year=1, day=3), LAST.replace(year=9999, day=29), timezones=offsets),
)
many = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def model_accepts(check: Callable[..., object], *values: object, **named: object) -> bool:
    try:
        check(*values, **named)
    except BanditError:
        return False
    return True


def database_accepts(engine: Engine, domain: str, values: list[str]) -> list[bool]:
    statement = (
        "SELECT pg_input_is_valid(x, %s) FROM unnest(%s::text[]) WITH ORDINALITY u (x, n)"
        " ORDER BY n"
    )
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(statement, (domain, values)).all()
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("domain", "check"),
    [("slug", checked_name), ("unit_key", checked_unit), ("instrument_key", checked_instrument)],
)
@many
@given(values=st.lists(names, min_size=100, max_size=100))
def test_names(engine: Engine, domain: str, check: Callable[[str], str], values: list[str]) -> None:
    expected = [model_accepts(check, value) for value in values]
    assert database_accepts(engine, domain, values) == expected


@pytest.mark.parametrize(
    ("domain", "check"), [("amount", checked_amount), ("trade_return", checked_return)]
)
@many
@given(values=st.lists(numbers, min_size=100, max_size=100))
def test_money_and_returns(
    engine: Engine, domain: str, check: Callable[..., Decimal], values: list[str]
) -> None:
    expected = [model_accepts(check, Decimal(value), field="x") for value in values]
    assert database_accepts(engine, domain, values) == expected


@many
@given(values=st.lists(st.floats().map(repr), min_size=100, max_size=100))
def test_ratios_are_the_finite_doubles(engine: Engine, values: list[str]) -> None:
    expected = [math.isfinite(float(value)) for value in values]
    assert database_accepts(engine, "ratio", values) == expected


@many
@given(values=st.lists(instants, min_size=100, max_size=100))
def test_instants(engine: Engine, values: list[datetime]) -> None:
    expected = [model_accepts(checked_instant, value, field="now") for value in values]
    texts = [value.isoformat() for value in values]
    assert database_accepts(engine, "instant", texts) == expected


def test_naive_instants_never_reach_the_database() -> None:
    assert not model_accepts(checked_instant, NOON.replace(tzinfo=None), field="now")


class Rows:
    """Throws rows at the tables of a ledger; nothing of them stays."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    def accepts(self, statement: str, values: dict[str, object]) -> bool:
        try:
            self.connection.execute(statement, values)
        except (psycopg.IntegrityError, psycopg.DataError):
            return False
        finally:
            self.connection.rollback()
        return True


@pytest.fixture
def rows(engine: Engine) -> Iterator[Rows]:
    raw = engine.raw_connection()
    try:
        yield Rows(raw.driver_connection)
    finally:
        raw.close()


def picked(rng: np.random.Generator, lawful: dict[str, object], odd: dict[str, list[object]]):
    """The lawful row with one or two of its values replaced by odd ones."""
    changed = rng.choice(list(odd), size=int(rng.integers(0, 3)), replace=False)
    return lawful | {name: odd[name][int(rng.integers(len(odd[name])))] for name in changed}


LAWFUL_POLICY: dict[str, object] = {
    "name": "new",
    "sha": "eee02a74",
    "data_cutoff": NOON,
    "metadata": {"sharpe": 1.5},
}
ODD_POLICY: dict[str, list[object]] = {
    "name": ["New", "a" * 63, "a" * 64, "", "a\n", "0.-_"],
    "sha": ["eee02a7", "0" * 64, "0" * 65, "EEE02A74", "eee02a7g", "eee02a74\n"],
    "data_cutoff": [None, datetime(1999, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)],
    "metadata": [{}, {"a": float("nan")}, {"a": "\0"}, {"a": "\ud800"}, {"a": [None]}],
}


def test_policies(rows: Rows) -> None:
    statement = (
        "INSERT INTO policies (name, kind, sha, data_cutoff, metadata, registered_at)"
        " VALUES (%(name)s, 'external', %(sha)s, %(data_cutoff)s, %(metadata)s, now())"
    )
    rng, seen = np.random.default_rng(1), Counter()
    for _ in range(300):
        row = picked(rng, LAWFUL_POLICY, ODD_POLICY)
        expected = model_accepts(
            lambda row=row: Policy(
                name=PolicyName(row["name"]),
                kind=PolicyKind.EXTERNAL,
                sha=PolicySha(row["sha"]),
                data_cutoff=row["data_cutoff"],
                metadata=row["metadata"],
            )
        )
        stored = row | {"metadata": json.dumps(row["metadata"])}
        assert rows.accepts(statement, stored) == expected, row
        seen[expected] += 1
    assert min(seen[True], seen[False]) > 30


NAN, INF = float("nan"), float("inf")
LAWFUL_EXPERIMENT: dict[str, object] = {
    "name": "eth",
    "capital": Decimal(10_000),
    "currency": "USD",
    "equity_fraction": 0.1,
    "decision_seconds_valid": 2.0,
    **asdict(Limits()),
}
ODD_EXPERIMENT: dict[str, list[object]] = {
    "name": ["ETH", "", "e" * 64, "e"],
    "capital": [Decimal(x) for x in ("0", "-1", "NaN", "Infinity", "1e16", "1e-8", "1e-9")],
    "currency": ["usd", "U", "USD\n", "1INCH", "A" * 10, "A" * 11, "US D", "ÜSD"],
    "equity_fraction": [0.0, 1.0, 1.0000000000000002, -0.1, NAN, INF, 5e-324],
    "decision_seconds_valid": [0.0, 0.0009, 0.001, 86_400.0, 86_400.1, NAN, INF],
    "champion_floor_ppm": [-1, 0, 99_999, 100_000, 1_000_000, 1_000_001],
    "champion_floor_proven_ppm": [-1, 0, 400_000, 400_001],
    "proven_trades": [-1, 0, 1],
    "unproven_cap_ppm": [99_999, 100_000, 1_000_000, 1_000_001],
    "arm_minimum_ppm": [-1, 0, 100_000, 100_001],
    "start_ppm": [19_999, 20_000, 250_000, 250_001],
    "step_up": [0.999, 1.0, 10.0, 10.000001, NAN, INF, -INF],
}


def test_experiments(rows: Rows, engine: Engine) -> None:
    open_btc(engine)
    columns = ", ".join(LAWFUL_EXPERIMENT)
    values = ", ".join(f"%({name})s" for name in LAWFUL_EXPERIMENT)
    statement = (
        "WITH account AS (INSERT INTO accounts (name, currency, is_killed, opened_at)"
        " VALUES ('another', %(currency)s, false, '2026-01-01T00:00:00Z') RETURNING id)"
        f" INSERT INTO experiments ({columns}, champion_id, profile, strategy, salt, epoch,"
        f" rules, opened_at, account_id) SELECT {values}, champion_id, profile, strategy, salt, 0,"
        " rules, experiments.opened_at, account.id FROM experiments, account"
    )
    rng, seen = np.random.default_rng(2), Counter()
    for _ in range(1000):
        row = picked(rng, LAWFUL_EXPERIMENT, ODD_EXPERIMENT)
        own = {name: row[name] for name in row if name not in Limits.__slots__}
        limits = {name: row[name] for name in Limits.__slots__}
        expected = model_accepts(Experiment, champion=PolicyName("prod"), **own)
        expected = expected and model_accepts(Limits, **limits)
        assert rows.accepts(statement, row) == expected, row
        seen[expected] += 1
    assert len(SALT) == 32
    assert min(seen[True], seen[False]) > 100


MONEY = [
    Decimal(x)
    for x in ("0", "-0", "NaN", "Infinity", "-Infinity", "1e16", "1e-8", "-1e-8", "1e-9", "7", "-7")
]
RATIOS = [
    Decimal(x)
    for x in ("0", "NaN", "Infinity", "999.9999999999994", "999.9999999999995", "1000", "-1e-12")
] + [Decimal(x) for x in ("5e-13", "-5e-13", "4.9e-13", "-4.9e-13", "-1000", "0.001", "-0.001")]
TIMES = [
    NOON + timedelta(minutes=59, seconds=59, microseconds=999_999),
    NOON + timedelta(hours=1),
    NOON + timedelta(hours=1, microseconds=1),
    datetime(1999, 12, 31, tzinfo=UTC),
    datetime(2100, 1, 1, tzinfo=UTC),
]
LAWFUL_OUTCOME: dict[str, object] = {
    "pnl": Decimal("1.5"),
    "return_ratio": Decimal("0.001"),
    "fees": None,
    "slippage": None,
    "size": None,
    "r_multiple": None,
    "worst_excursion": None,
    "opened_at": NOON + timedelta(hours=1),
    "closed_at": NOON + timedelta(hours=1),
}
ODD_OUTCOME: dict[str, list[object]] = {
    **dict.fromkeys(("pnl", "fees", "slippage", "size"), MONEY),
    **dict.fromkeys(("return_ratio", "r_multiple", "worst_excursion"), RATIOS),
    **dict.fromkeys(("opened_at", "closed_at"), TIMES),
}


def test_outcomes(rows: Rows, engine: Engine) -> None:
    open_btc(engine)
    assignment = assign(engine, ["unit"])[0]
    columns = ", ".join(LAWFUL_OUTCOME)
    values = ", ".join(f"%({name})s" for name in LAWFUL_OUTCOME)
    statement = (
        f"INSERT INTO outcomes ({columns}, assignment_id, arm_id, unit_id, instrument, no_trade,"
        f" expired, unclaimed, body_hash, recorded_at, audit_id) SELECT {values}, id, arm_id,"
        " unit_id, instrument, false, false, false, sha256('x'), decided_at, 1 FROM assignments"
    )
    rng, seen = np.random.default_rng(3), Counter()
    for _ in range(1500):
        row = picked(rng, LAWFUL_OUTCOME, ODD_OUTCOME)
        expected = model_accepts(trade, assignment.id, **row)
        assert rows.accepts(statement, row) == expected, row
        seen[expected] += 1
    assert min(seen[True], seen[False]) > 300
