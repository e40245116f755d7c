"""Clocks that are wrong, far ahead, or set back: what starts, what is stored, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from api_service import CheckedClient, outcome_body, service
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    count,
    open_btc,
    scale,
    set_database_clock,
    sizes,
    traffic,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from bandit.core.errors import BanditError, LedgerUnavailable
from bandit.core.model import EARLIEST, LATEST, checked_instant
from bandit.service import killing, reporting
from bandit.storage.engine import PROTOCOL
from config.settings import Settings
from liveops import cli
from liveops.clock import VirtualClock
from liveops.wiring import running_app

ASSIGN = "/v1/experiments/btc/assignments"
BERLIN = ZoneInfo("Europe/Berlin")
SOON = NOON + timedelta(seconds=1)
LAST_OF_32_BITS = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)


class SetClock:
    """A clock that somebody sets, backwards too."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment


# The database's clock


def started(database_url: str, home: Path) -> None:
    settings = Settings.model_validate({"database": {"url": database_url}, "home": str(home)})
    with running_app(settings, demo=False, create=False, upgrade=False):
        pass


@pytest.mark.parametrize(
    "moment",
    [
        "now() - interval '1 hour'",
        "now() + interval '1 hour'",
        "now() + interval '1 day'",
        "now() + interval '400 days'",
        "timestamptz '2038-01-19 03:14:08Z'",
        "timestamptz '294276-12-31 23:59:59Z'",
        "timestamptz 'infinity'",
        "timestamptz '-infinity'",
    ],
)
def test_service_with_another_time_than_its_database_does_not_start(
    engine: Engine, database_url: str, tmp_path: Path, moment: str
) -> None:
    started(database_url, tmp_path)  # the control: with one time it does
    set_database_clock(engine, moment)
    with pytest.raises(BanditError) as refused:
        started(database_url, tmp_path)
    if isinstance(refused.value, LedgerUnavailable):
        assert str(refused.value).endswith("at most 5 s are allowed: synchronise both")
    else:
        assert "timestamp too" in str(refused.value)  # large or small for any calendar of ours


ARM = ["--policy-sha", "eee02a74", "--reason", "drill"]


@pytest.fixture
def run(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Run a command of `liveops` on a ledger whose clock is six seconds from ours."""
    open_btc(engine)
    set_database_clock(engine, "now() - interval '6 seconds'")
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))

    def run(*command: str) -> tuple[int, str]:
        code = cli.exit_code(cli.app, command)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.parametrize(
    "command", [["serve"], ["doctor"], ["resume", *ARM], ["release", "--reason", "drill"]]
)
def test_command_that_may_raise_risk_is_refused_under_a_wrong_clock(
    run: Callable[..., tuple[int, str]], engine: Engine, command: list[str]
) -> None:
    before = sizes(engine)
    code, said = run(*command)
    assert code == 1
    assert "s from the database's, at most 5 s are allowed" in said
    assert sizes(engine) == before


@pytest.mark.parametrize("verb", ["throttle", "halt", "retire"])
def test_arm_is_stopped_under_any_clock(
    run: Callable[..., tuple[int, str]],
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    verb: str,
) -> None:
    assert run(verb, *ARM)[0] == 0
    assert traffic(engine) in ({"prod": 1_000_000, CHALLENGER: 0}, {"prod": 1_000_000})
    assert "from the database's, at most 5 s are allowed" in caplog.text


def test_everything_is_killed_under_any_clock(
    run: Callable[..., tuple[int, str]], engine: Engine
) -> None:
    code, said = run("kill", "--reason", "drill")
    assert (code, said.splitlines()[-1]) == (0, "account usd is killed")
    assert [account.is_killed for account in killing.states(engine)] == [True]


# What the database takes


def times_outside_the_domain(engine: Engine) -> list[str]:
    statement = text("""
        SELECT c.table_name || '.' || c.column_name FROM information_schema.columns c
        JOIN information_schema.tables t USING (table_schema, table_name)
        WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'
          AND c.data_type LIKE 'time%' AND c.domain_name IS DISTINCT FROM 'instant'""")
    with engine.connect() as connection:
        return list(connection.execute(statement).scalars())


def test_every_time_that_is_stored_is_an_instant(engine: Engine) -> None:
    assert times_outside_the_domain(engine) == []
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE planted (at timestamptz)"))
    assert times_outside_the_domain(engine) == ["planted.at"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("infinity", None),
        ("-infinity", None),
        ("294276-12-31 23:59:59Z", None),
        ("4713-01-01 BC", None),
        ("epoch", None),
        ("1999-12-31 23:59:59.999999Z", None),
        ("2100-01-01Z", None),
        ("2000-01-01Z", EARLIEST),
        ("2099-12-31 23:59:59.999999Z", LATEST - timedelta(microseconds=1)),
        ("2038-01-19 03:14:08Z", LAST_OF_32_BITS + timedelta(seconds=1)),
        # A leap second is the second after it, as POSIX has it.
        ("2016-12-31 23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        # Sessions of ours are in UTC: no local time, absent or twice, is read as one.
        ("2027-03-28 02:30", datetime(2027, 3, 28, 2, 30, tzinfo=UTC)),
        ("2026-10-25 02:30", datetime(2026, 10, 25, 2, 30, tzinfo=UTC)),
        ("2026-10-25 02:30 Europe/Berlin", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ],
)
def test_database_holds_finite_times_of_a_century(
    engine: Engine, value: str, expected: datetime | None
) -> None:
    with engine.connect() as connection:
        statement = text("SELECT CAST(CAST(:value AS text) AS instant)::timestamptz")
        if expected is not None:
            assert connection.execute(statement, {"value": value}).scalar_one() == expected
            return
        with pytest.raises(DBAPIError, match="violates check constraint") as refused:
            connection.execute(statement, {"value": value})
        assert isinstance(refused.value.orig, psycopg.errors.CheckViolation)


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_no_decision_or_claim_is_taken_at_the_end_of_time(engine: Engine, moment: str) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    row = {"id": "01234567-89ab-8def-8123-456789abcdef", "unit_id": "v", "instrument": "BTCUSD"}
    batch = json.dumps([row | {"arm_id": 1, "propensity": 0.9}])
    decide = text("""
        SELECT * FROM commit_assignments(
          :spoken, 1, 1, 1, CAST(:decided AS timestamptz), CAST(:expires AS timestamptz), false,
          CAST(:batch AS json))""")
    spoken = {"spoken": PROTOCOL}
    with engine.begin() as connection:
        statement = (
            "SELECT commit_claims(:spoken, CAST(:at AS timestamptz), ARRAY[CAST(:id AS uuid)])"
        )
        for decided, expires in ((moment, moment), (moment, SOON), (NOON, moment)):
            values = {"decided": decided, "expires": expires, "batch": batch, **spoken}
            with pytest.raises(DBAPIError), connection.begin_nested():
                connection.execute(decide, values)
        try:
            with connection.begin_nested():
                connection.execute(text(statement), {"at": moment, "id": made.id, **spoken})
        except DBAPIError as error:
            assert isinstance(error.orig, psycopg.errors.CheckViolation)  # noqa: PT017
    assert (count(engine, "assignments"), count(engine, "claims")) == (1, 0)
    with engine.begin() as connection:  # the control: at noon both are
        connection.execute(decide, {"decided": NOON, "expires": SOON, "batch": batch, **spoken})
        connection.execute(text(statement), {"at": NOON, "id": made.id, **spoken})
    assert (count(engine, "assignments"), count(engine, "claims")) == (2, 1)


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (datetime(2027, 3, 28, 1, 59, 59, tzinfo=BERLIN), "2027-03-28T00:59:59"),
        # Absent: read with the offset before the gap, and after it with fold.
        (datetime(2027, 3, 28, 2, 30, tzinfo=BERLIN), "2027-03-28T01:30:00"),
        (datetime(2027, 3, 28, 2, 30, fold=1, tzinfo=BERLIN), "2027-03-28T00:30:00"),
        (datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN), "2026-10-25T00:30:00"),
        (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN), "2026-10-25T01:30:00"),
    ],
)
def test_local_times_round_a_shift_are_instants(local: datetime, expected: str) -> None:
    assert checked_instant(local, field="now").isoformat() == f"{expected}+00:00"


def test_nights_are_days_in_utc_whatever_the_clocks_on_the_wall_do(engine: Engine) -> None:
    open_btc(engine)
    walls = [
        datetime(*day, hour, minute, fold=fold, tzinfo=BERLIN)
        for day in ((2026, 10, 24), (2026, 10, 25), (2027, 3, 27), (2027, 3, 28))
        for hour in (0, 1, 2, 3, 23)
        for minute in (30, 59)
        for fold in ((0, 1) if hour == 2 else (0,))
    ]
    decided = [scale(engine, now=wall) for wall in walls]
    new = [night.decision.trading_day for night in decided if not night.already_done]
    assert new == sorted({wall.astimezone(UTC).date() for wall in walls})
    assert len(new) == 8 - 2  # each of four days began the evening before, two after each other
    nights = reporting.decision_history(engine, "btc")
    assert sorted(n.trading_day for n in nights if n.trading_day is not None) == new


# A service whose clock is set while it runs


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def client(engine: Engine, clock: SetClock) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine, clock=clock) as client:
        yield client


def assigned(client: CheckedClient, unit: str) -> dict[str, Any]:
    answer = client.post(ASSIGN, json={"unit_id": unit, "instrument": "BTCUSD"})
    assert answer.status_code == 200, answer.text
    return answer.json()


JUMPS = {
    "an hour back": NOON - timedelta(hours=1),
    "a day on": NOON + timedelta(days=1),
    "400 days on": NOON + timedelta(days=400),
    "2038": LAST_OF_32_BITS + timedelta(seconds=1),
}


@pytest.mark.parametrize("moment", JUMPS.values(), ids=JUMPS)
def test_what_was_decided_stands_when_the_clock_is_set(
    client: CheckedClient, clock: SetClock, moment: datetime
) -> None:
    before = [assigned(client, f"u-{i}") for i in range(20)]
    claim = f"/v1/assignments/{before[0]['assignment_id']}/claim"
    claimed = client.post(claim).content
    night = client.post("/v1/experiments/btc/scale").json()
    clock.moment = moment
    assert [assigned(client, f"u-{i}") for i in range(20)] == before
    assert client.post(claim).content == claimed
    again = client.post("/v1/experiments/btc/scale").json()
    assert again["already_done"] is (moment.date() == NOON.date())
    # And when it is right again, with what was decided meanwhile.
    wrong = assigned(client, "meanwhile")
    assert datetime.fromisoformat(wrong["decided_at"]) == moment
    clock.moment = NOON
    assert assigned(client, "meanwhile") == wrong
    assert client.post("/v1/experiments/btc/scale").json() == night | {"already_done": True}


def test_decision_is_expired_by_a_clock_that_runs_ahead(
    client: CheckedClient, clock: SetClock
) -> None:
    made = assigned(client, "u")
    clock.moment = NOON + timedelta(hours=1)
    refused = client.post(f"/v1/assignments/{made['assignment_id']}/claim")
    assert (refused.status_code, refused.json()["code"]) == (409, "expired")


def test_outcome_that_a_slow_clock_refuses_counts_once_it_is_right(
    client: CheckedClient, clock: SetClock, engine: Engine
) -> None:
    told = outcome_body(assigned(client, "u"))
    clock.moment = NOON - timedelta(hours=1)
    refused = client.post("/v1/outcomes", json=told)
    assert (refused.status_code, refused.json()["field"]) == (422, "closed_at")
    assert count(engine, "outcomes") == 0
    clock.moment = NOON
    assert client.post("/v1/outcomes", json=told).status_code == 201


def test_loop_goes_on_past_the_end_of_32_bits(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(LAST_OF_32_BITS)
    with service(engine, clock=clock) as client:
        for number in range(2):
            made = assigned(client, f"u-{number}")
            assert made["decided_at"] == f"2038-01-19T03:14:0{7 + number}+00:00"
            assert made["expires_at"] == f"2038-01-19T03:14:{9 + number:02}+00:00"
            claim = client.post(f"/v1/assignments/{made['assignment_id']}/claim")
            assert claim.json()["claimed_at"] == made["decided_at"]
            assert client.post("/v1/outcomes", json=outcome_body(made)).status_code == 201
            if number == 0:
                clock.advance_to(LAST_OF_32_BITS + timedelta(seconds=1))
        night = client.post("/v1/experiments/btc/scale").json()["decision"]
        assert date.fromisoformat(night["trading_day"]) == date(2038, 1, 19)
        report = client.get("/v1/experiments/btc/report").json()
        assert sum(arm["trades"] for arm in report["arms"]) == 2
    assert assign_to(engine, CHALLENGER, 1, now=LATEST - timedelta(days=1))
