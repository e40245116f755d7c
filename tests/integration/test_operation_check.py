"""The checker finds whatever is planted in a real ledger, and nothing in one that is clean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from ledger import CHALLENGER, NOON, assign, change, closed, open_btc
from sqlalchemy import Engine, make_url

from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import Assignment
from bandit.service import recording
from bandit.service.assigning import Router
from benchmarks.operation_check import Fault, FaultKind, faults
from benchmarks.operation_log import EVERY_ARM, OperationLog, Phase, Verb, parsed, written
from liveops.api.answers import OutcomeAnswer, claim_values
from liveops.api.hot import assignment_json

HALF = Limits(arm_minimum_ppm=500_000, start_ppm=500_000, unproven_cap_ppm=500_000)
Ledger = psycopg.Connection[Any]


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    plain = make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as opened:
        yield opened


class Client:
    """Calls the use cases and keeps the log of a client that heard every answer."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self.log, self._engine, self._ledger = OperationLog("c"), engine, ledger

    def told(self, verb: Verb, key: str, answer: str, *, is_new: bool = False) -> None:
        operation = self.log.invoked(verb, key)
        self.log.ended(operation, verb, key, Phase.OK, answer=answer, is_new=is_new)

    def assigned(self, units: list[str]) -> list[Assignment]:
        operations = [(unit, self.log.invoked(Verb.ASSIGN, unit)) for unit in units]
        made = assign(self._engine, units)
        for (unit, operation), one in zip(operations, made, strict=True):
            answer = assignment_json(one).decode()
            self.log.ended(operation, Verb.ASSIGN, unit, Phase.OK, answer=answer)
        return made

    def earned(self, made: Assignment) -> None:
        at = Router(self._engine).claim(made.id, now=NOON)
        self.told(Verb.CLAIM, str(made.id), json.dumps(claim_values(str(made.id), at)))
        outcome = closed(made, "0.001")
        [answer] = recording.record(self._engine, [outcome], now=NOON + timedelta(hours=2))
        assert isinstance(answer, recording.Recorded)
        said = OutcomeAnswer.of(answer).model_dump_json(exclude_none=True)
        self.told(Verb.OUTCOME, str(made.id), said, is_new=answer.created)

    def stopped(self, key: str = CHALLENGER) -> None:
        change(self._engine, ArmVerb.HALT)
        self.told(Verb.STOP, key, self.snapshot())

    def resumed(self) -> None:
        operation = self.log.invoked(Verb.RESUME, CHALLENGER, answer=self.snapshot())
        change(self._engine, ArmVerb.RESUME)
        self.log.ended(operation, Verb.RESUME, CHALLENGER, Phase.OK)

    def snapshot(self) -> str:
        return str(self._ledger.execute("SELECT pg_current_snapshot()").fetchone()[0])  # type: ignore[index]


@pytest.fixture
def client(engine: Engine, ledger: Ledger) -> Client:
    """A client that has done everything there is to do, and heard that it was done."""
    open_btc(engine, limits=HALF)
    client = Client(engine, ledger)
    for made in client.assigned([f"u-{i}" for i in range(20)]):
        client.earned(made)
    client.stopped()
    assert {m.policy for m in client.assigned([f"v-{i}" for i in range(20)])} == {"prod"}
    client.resumed()
    assert CHALLENGER in {m.policy for m in client.assigned([f"w-{i}" for i in range(20)])}
    return client


def first_of(ledger: Ledger, table: str, *, policy: str = "prod") -> str:
    key = "id" if table == "assignments" else "assignment_id"
    found = ledger.execute(
        f"SELECT t.{key}::text FROM {table} t JOIN assignments s ON s.id = t.{key}"
        " JOIN arms a ON a.id = s.arm_id JOIN policies p ON p.id = a.policy_id"
        " WHERE p.name = %s ORDER BY s.unit_id LIMIT 1",
        [policy],
    ).fetchone()
    assert found is not None
    return str(found[0])


def delete(table: str) -> Callable[[Ledger, Client], str]:
    def plant(ledger: Ledger, client: Client) -> str:
        key = "id" if table == "assignments" else "assignment_id"
        found = first_of(ledger, table)
        unit = ledger.execute("SELECT unit_id FROM assignments WHERE id = %s", [found]).fetchone()
        assert unit is not None
        ledger.execute("SET session_replication_role TO replica")
        ledger.execute(f"DELETE FROM {table} WHERE {key} = %s", [found])
        return str(unit[0]) if table == "assignments" else found

    return plant


def second_row(ledger: Ledger, client: Client) -> str:
    found = first_of(ledger, "claims")
    ledger.execute("ALTER TABLE claims DROP CONSTRAINT claims_pkey")
    ledger.execute("INSERT INTO claims SELECT * FROM claims WHERE assignment_id = %s", [found])
    return found


def counted_twice(ledger: Ledger, client: Client) -> str:
    arm = ledger.execute(
        "UPDATE arm_statistics SET n_outcomes = n_outcomes + 1, n_trades = n_trades + 1,"
        " gross_profit = gross_profit + 1 WHERE n_outcomes > 0 RETURNING arm_id"
    ).fetchone()
    assert arm is not None
    return f"arm {arm[0]}"


def new_twice(ledger: Ledger, client: Client) -> str:
    entry = next(e for e in client.log.entries if e.is_new)
    client.told(Verb.OUTCOME, entry.key, entry.answer, is_new=True)
    return entry.key


def other_answer(ledger: Ledger, client: Client) -> str:
    entry = next(e for e in client.log.entries if e.verb is Verb.ASSIGN and e.phase is Phase.OK)
    told = json.loads(entry.answer) | {"policy": "another"}
    client.told(Verb.ASSIGN, entry.key, json.dumps(told))
    return entry.key


def profit_moved(ledger: Ledger, client: Client) -> str:
    arm = ledger.execute(
        "UPDATE arm_statistics SET gross_profit = gross_profit + 1"
        " WHERE n_outcomes > 0 RETURNING arm_id"
    ).fetchone()
    assert arm is not None
    return f"arm {arm[0]}"


def day_moved(ledger: Ledger, client: Client) -> str:
    ledger.execute("UPDATE arm_days SET pnl = pnl + 1")
    return "arm_days"


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (delete("assignments"), FaultKind.LOST),
        (delete("claims"), FaultKind.LOST),
        (delete("outcomes"), FaultKind.LOST),
        (second_row, FaultKind.DUPLICATED),
        (counted_twice, FaultKind.DUPLICATED),
        (new_twice, FaultKind.DUPLICATED),
        (other_answer, FaultKind.CHANGED),
        (profit_moved, FaultKind.MISCOUNTED),
        (day_moved, FaultKind.MISCOUNTED),
    ],
)
def test_what_is_planted_is_found(
    client: Client,
    ledger: Ledger,
    plant: Callable[[Ledger, Client], str],
    kind: FaultKind,
) -> None:
    assert faults(client.log.entries, ledger) == []  # the control: nothing to find yet
    key = plant(ledger, client)
    assert (kind, key) in {(f.kind, f.key) for f in faults(client.log.entries, ledger)}


def leaked(found: list[Fault]) -> set[str]:
    return {fault.key for fault in found if fault.kind is FaultKind.LEAKED}


def test_row_that_was_committed_during_a_stop_is_a_leak_by_the_ledger_alone(
    engine: Engine, ledger: Ledger
) -> None:
    open_btc(engine, limits=HALF)
    client = Client(engine, ledger)
    before = client.assigned([f"u-{i}" for i in range(20)])
    first = next(m for m in before if m.policy == CHALLENGER)
    client.stopped()
    assert faults(client.log.entries, ledger) == []
    # As a service without the gate would: its transaction ends after the acknowledgement.
    ledger.execute(
        "INSERT INTO assignments SELECT (x.s).* FROM (SELECT jsonb_populate_record(s, jsonb_build_"
        "object('id', gen_random_uuid(), 'unit_id', 'late')) AS s"
        " FROM assignments s WHERE id = %s) x",
        [first.id],
    )
    assert leaked(faults(client.log.entries, ledger)) == {"late"}
    client.resumed()
    assert leaked(faults(client.log.entries, ledger)) == {"late"}
    client.assigned([f"w-{i}" for i in range(20)])
    assert leaked(faults(client.log.entries, ledger)) == {"late"}


@pytest.mark.parametrize("key", [CHALLENGER, EVERY_ARM])
def test_answer_for_a_unit_first_asked_for_during_a_stop_is_a_leak_by_the_logs_alone(
    client: Client, ledger: Ledger, key: str
) -> None:
    routed = next(
        e
        for e in client.log.entries
        if e.answer and f'"{CHALLENGER}"' in e.answer and "u-" in e.key
    )
    client.stopped(key)
    client.told(Verb.ASSIGN, routed.key, routed.answer)  # a unit that had its arm before
    assert leaked(faults(client.log.entries, ledger)) == set()
    client.told(Verb.ASSIGN, "fresh", routed.answer)
    assert leaked(faults(client.log.entries, ledger)) == {"fresh"}


def test_operation_that_nobody_answered_may_or_may_not_have_happened(
    client: Client, ledger: Ledger
) -> None:
    for unit in ("u-0", "never"):
        operation = client.log.invoked(Verb.ASSIGN, unit)
        client.log.ended(operation, Verb.ASSIGN, unit, Phase.UNKNOWN)
    assert faults(client.log.entries, ledger) == []


def test_log_of_another_process_is_read_as_it_was_written(client: Client) -> None:
    assert parsed(written(client.log.entries)) == client.log.entries
