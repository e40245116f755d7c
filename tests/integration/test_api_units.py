"""A unit is one opportunity, whoever asks, however often and wherever (attacks R9 to R11)."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api_service import CheckedClient, outcome_body, service
from ledger import CHALLENGER, NOON, assign_to, count, open_btc, open_eth
from sqlalchemy import Engine, text

from bandit.storage.engine import connect
from liveops.clock import VirtualClock

CALLERS = 100
ASSIGN = "/v1/experiments/{}/assignments"


@pytest.fixture
def replicas(engine: Engine, database_url: str) -> Iterator[list[CheckedClient]]:
    """Two services on one ledger; their clocks differ, so that no two decisions look alike."""
    open_btc(engine)
    open_eth(engine)
    with ExitStack() as stack:
        made = []
        for number in range(2):
            own = connect(database_url)
            stack.callback(own.dispose)
            clock = VirtualClock(NOON + timedelta(milliseconds=number))
            made.append(stack.enter_context(service(own, clock=clock)))
        yield made


def asked_together(
    replicas: Sequence[CheckedClient], body_of: Callable[[int], tuple[str, dict[str, Any]]]
) -> list[httpx.Response]:
    """Let a hundred callers ask at one moment, half of them each replica."""
    barrier = threading.Barrier(CALLERS)

    def ask(caller: int) -> httpx.Response:
        experiment, body = body_of(caller)
        url = replicas[caller % len(replicas)].base_url.join(ASSIGN.format(experiment))
        barrier.wait(timeout=60)
        return http.post(url, json=body)

    everybody = httpx.Limits(max_connections=CALLERS)
    with httpx.Client(limits=everybody, timeout=60) as http, ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(ask, range(CALLERS)))


def test_hundred_callers_at_two_replicas_get_one_assignment(
    engine: Engine, replicas: list[CheckedClient]
) -> None:
    for unit in ("first", "second", "third"):
        body = {"unit_id": unit, "instrument": "BTCUSD"}
        answers = asked_together(replicas, lambda _, body=body: ("btc", body))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
    assert count(engine, "assignments") == 3


def test_hundred_units_at_once_are_a_hundred_assignments(
    engine: Engine, replicas: list[CheckedClient]
) -> None:
    """The control: whoever asks for a unit of its own gets an answer of its own."""
    answers = asked_together(
        replicas, lambda caller: ("btc", {"unit_id": f"u-{caller}", "instrument": "BTCUSD"})
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["assignment_id"] for answer in answers}) == CALLERS
    # Both replicas decided: the times of both clocks are there.
    assert len({answer.json()["decided_at"] for answer in answers}) == 2
    assert count(engine, "assignments") == CALLERS


def test_of_two_bodies_for_one_unit_one_stands_and_the_other_conflicts(
    engine: Engine, replicas: list[CheckedClient]
) -> None:
    instruments = ("BTCUSD", "ETHUSD")

    def body(caller: int) -> tuple[str, dict[str, Any]]:
        # Each replica hears of both.
        return "btc", {"unit_id": "u", "instrument": instruments[caller // 2 % 2]}

    answers = asked_together(replicas, body)
    assert Counter(answer.status_code for answer in answers) == {200: 50, 409: 50}
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"conflict"}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    with engine.connect() as connection:
        [stands] = connection.execute(text("SELECT instrument FROM assignments")).scalars()
    for caller, answer in enumerate(answers):
        asked = body(caller)[1]["instrument"]
        assert answer.status_code == (200 if asked == stands else 409)


def test_unit_that_comes_back_for_another_position_conflicts(
    engine: Engine, replicas: list[CheckedClient]
) -> None:
    [held] = assign_to(engine, CHALLENGER, 1)
    here, there = replicas
    path = ASSIGN.format("btc")
    entry = {"unit_id": "entry", "instrument": "BTCUSD"}
    leaving = {"unit_id": "exit", "instrument": "BTCUSD", "position": str(held.id)}
    first = [here.post(path, json=body).content for body in (entry, leaving)]
    assert [json.loads(answer)["propensity"] == 1.0 for answer in first] == [False, True]
    for body in (
        entry | {"position": str(held.id)},
        {name: value for name, value in leaving.items() if name != "position"},
        leaving | {"position": json.loads(first[0])["assignment_id"]},
    ):
        refused = there.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert [there.post(path, json=body).content for body in (entry, leaving)] == first


def test_notes_of_a_unit_are_those_that_came_first(
    engine: Engine, replicas: list[CheckedClient]
) -> None:
    here, there = replicas
    body = {"unit_id": "u", "instrument": "BTCUSD", "context": {"spread": 0.5}}
    first = here.post(ASSIGN.format("btc"), json=body)
    again = there.post(ASSIGN.format("btc"), json=body | {"context": {"spread": 99}})
    assert (again.status_code, again.content) == (200, first.content)
    with engine.connect() as connection:
        [kept] = connection.execute(text("SELECT context FROM assignments")).scalars()
    assert kept == {"spread": 0.5}


def test_same_unit_in_two_experiments_is_two_opportunities(
    engine: Engine, replicas: list[CheckedClient]
) -> None:
    names = ("btc", "eth")

    def body(caller: int) -> tuple[str, dict[str, Any]]:
        name = names[caller // 2 % 2]
        return name, {"unit_id": "u", "instrument": f"{name.upper()}USD"}

    answers = asked_together(replicas, body)
    assert {answer.status_code for answer in answers} == {200}
    told = {answer.content for answer in answers}
    made = {json.loads(answer)["experiment"]: json.loads(answer) for answer in told}
    assert (len(told), set(made)) == (2, set(names))
    assert made["btc"]["assignment_id"] != made["eth"]["assignment_id"]
    # What the one earned says nothing of the other.
    for name, pnl in zip(names, ("3.00", "-4.00"), strict=True):
        told = outcome_body(made[name], pnl=pnl, **{"return": float(pnl) / 1000})
        assert replicas[0].post("/v1/outcomes", json=told).status_code == 201
    for name, pnl in zip(names, ("3", "-4"), strict=True):
        report = replicas[1].get(f"/v1/experiments/{name}/report").json()
        assert sum(float(arm["pnl"]) for arm in report["arms"]) == float(pnl)
        assert sum(arm["outcomes"] for arm in report["arms"]) == 1
