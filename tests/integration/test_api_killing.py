"""Kill, claim and fallback over HTTP, and the latch that works without the ledger."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from api_service import CheckedClient, application, outcome_body, service
from ledger import CHALLENGER, NOON, count, open_btc
from sqlalchemy import Engine, text

from bandit.core.kill_switch import KillCause
from bandit.service import killing
from liveops import kill_watch
from liveops.clock import VirtualClock
from liveops.kill_watch import watching_kill_switch
from liveops.latch import Latch

ASSIGN = "/v1/experiments/btc/assignments"
FALLBACKS = "/v1/experiments/btc/fallbacks"
WHY = {"reason": "drill"}


def assign(client: CheckedClient, unit: str = "u") -> tuple[int, dict[str, object]]:
    answer = client.post(ASSIGN, json={"unit_id": unit, "instrument": "BTCUSD"})
    return answer.status_code, answer.json()


def claim(client: CheckedClient, assignment: object) -> tuple[int, dict[str, object]]:
    answer = client.post(f"/v1/assignments/{assignment}/claim")
    return answer.status_code, answer.json()


def fallback(unit: str, **fields: object) -> dict[str, object]:
    told = {"unit_id": unit, "instrument": "BTCUSD", "decided_at": NOON.isoformat()}
    return told | {"reason": "connection refused"} | fields


def killed(engine: Engine) -> list[bool]:
    return [account.is_killed for account in killing.states(engine)]


@pytest.fixture
def latch(tmp_path: Path) -> Latch:
    return Latch(tmp_path / "KILLED")


def test_kill_stops_every_decision_until_it_is_released(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        _, made = assign(client)
        [account] = client.post("/v1/kill", json=WHY).json()
        assert (account["name"], account["killed"], account["cause"]) == ("usd", True, "hand")
        assert (account["reason"], account["actor"]) == ("drill", "local")
        for status, problem in (
            assign(client),
            assign(client, "new"),
            claim(client, made["assignment_id"]),
        ):
            assert (status, problem["code"]) == (423, "killed")
        assert client.get("/v1/accounts").json() == [account]
        [account] = client.request("DELETE", "/v1/kill", json={"reason": "over"}).json()
        assert (account["killed"], account["reason"]) == (False, None)
        assert assign(client) == (200, made)


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x", "accounts": []}])
def test_kill_that_says_too_little_is_refused(engine: Engine, body: dict[str, object]) -> None:
    open_btc(engine)
    with service(engine) as client:
        assert client.post("/v1/kill", json=body).status_code == 422
        assert client.post("/v1/kill", json=WHY | {"accounts": ["eur"]}).status_code == 404
    assert killed(engine) == [False]


def test_account_of_an_experiment_can_be_chosen(engine: Engine) -> None:
    open_btc(engine)
    body = {"name": "eth", "champion": "prod", "capital": "100", "account": "second"}
    with service(engine) as client:
        assert client.post("/v1/experiments", json=body).json()["account"] == "second"
        client.post("/v1/kill", json=WHY | {"accounts": ["second"]})
        assert assign(client)[0] == 200
        eth = client.post(
            "/v1/experiments/eth/assignments", json={"unit_id": "u", "instrument": "ETHUSD"}
        )
        assert eth.status_code == 423


def test_claim_answers_once_for_ever(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        _, made = assign(client)
        _, late = assign(client, "late")
        first = claim(client, made["assignment_id"])
        assert first == (
            200,
            {"assignment_id": made["assignment_id"], "claimed_at": NOON.isoformat()},
        )
        clock.advance_to(NOON + timedelta(seconds=3))
        assert claim(client, str(made["assignment_id"]).upper()) == first
        status, problem = claim(client, late["assignment_id"])
        assert (status, problem["code"]) == (409, "expired")
        status, problem = claim(client, "00000000-0000-8000-8000-000000000000")
        assert (status, problem["code"]) == (404, "unknown_name")
        status, problem = claim(client, "12")
        assert (status, problem["field"]) == (422, "assignment")


def test_claim_of_a_halted_arm_is_revoked(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        units = (assign(client, f"u-{i}")[1] for i in range(200))
        made = next(m for m in units if m["policy"] == CHALLENGER)
        client.post("/v1/experiments/btc/arms/eee02a74/halt", json=WHY)
        status, problem = claim(client, made["assignment_id"])
    assert (status, problem["code"]) == (409, "revoked")


# Fallbacks


def test_fallback_becomes_an_assignment_of_the_champion_with_an_outcome(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        client.post("/v1/kill", json=WHY)
        answer = client.post(FALLBACKS, json=fallback("alone"))
        made = answer.json()
        assert (answer.status_code, made["policy"], made["propensity"]) == (200, "prod", 1.0)
        assert client.post(FALLBACKS, json=fallback("alone")).json() == made
        assert client.post("/v1/outcomes", json=outcome_body(made)).status_code == 201
    with engine.connect() as connection:
        told = connection.execute(text("SELECT context FROM assignments")).scalar_one()
    assert told == {"fallback": {"reason": "connection refused", "reported_by": "local"}}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"decided_at": (NOON + timedelta(minutes=6)).isoformat()}, "decided_at"),
        ({"decided_at": "yesterday"}, "decided_at"),
        ({"reason": ""}, "reason"),
        ({"unit_id": "a b"}, "unit_id"),
        ({"context": {}}, "context"),
    ],
)
def test_unlawful_fallback_is_refused(
    engine: Engine, fields: dict[str, object], field: str
) -> None:
    open_btc(engine)
    with service(engine) as client:
        answer = client.post(FALLBACKS, json=fallback("alone", **fields))
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert count(engine, "assignments") == 0


# The latch


def test_latch_stops_answers_and_claims_without_the_ledger_s_help(
    engine: Engine, latch: Latch
) -> None:
    open_btc(engine)
    with service(engine, latch=latch) as client:
        _, made = assign(client)
        latch.path.touch()  # as anybody can
        for status, problem in (assign(client, "new"), claim(client, made["assignment_id"])):
            assert (status, problem["code"]) == (423, "killed")
            assert str(latch.path) in str(problem["detail"])
        assert killed(engine) == [False]  # nobody told the ledger: the file alone did it
        latch.clear()
        assert assign(client) == (200, made)


def test_latch_that_cannot_be_looked_at_counts_as_set(engine: Engine, tmp_path: Path) -> None:
    open_btc(engine)
    (tmp_path / "file").touch()
    unreadable = Latch(tmp_path / "file" / "KILLED")  # below a file: no such place can be read
    with service(engine, latch=unreadable) as client:
        assert assign(client)[0] == 423


def test_watch_tells_the_ledger_of_a_latch_and_a_release_needs_the_file_gone(
    engine: Engine, latch: Latch
) -> None:
    open_btc(engine)
    app = application(engine, latch=latch)
    kill_watch.look(app)
    assert killed(engine) == [False]
    assert latch.set(reason="fire", actor="cli:ann", now=NOON)
    assert not latch.set(reason="again", actor="cli:bob", now=NOON)
    kill_watch.look(app)
    kill_watch.look(app)
    assert count(engine, "kill_events") == 1
    [account] = killing.states(engine)
    assert account.newest is not None
    assert (account.newest.actor, account.newest.reason) == ("latch", "latch set by cli:ann: fire")
    with service(engine, latch=latch) as client:
        refused = client.request("DELETE", "/v1/kill", json=WHY)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        latch.clear()
        assert client.request("DELETE", "/v1/kill", json=WHY).status_code == 200
    kill_watch.look(app)
    assert killed(engine) == [False]


class ReleasedMeanwhile(Latch):
    """A latch that a person releases, ledger and all, right after the watch looked at it."""

    def __init__(self, path: Path, engine: Engine) -> None:
        super().__init__(path)
        self.engine = engine

    def is_set(self) -> bool:
        found = super().is_set()
        if found:
            self.clear()
            killing.release(self.engine, None, reason="out", now=NOON, actor="cli:ann")
        return found


def test_watch_does_not_kill_again_what_is_released_while_it_looks(
    engine: Engine, tmp_path: Path
) -> None:
    open_btc(engine)
    latch = ReleasedMeanwhile(tmp_path / "KILLED", engine)
    latch.path.touch()
    killing.kill(engine, None, cause=KillCause.HAND, reason="fire", now=NOON, actor="cli:ann")
    kill_watch.look(application(engine, latch=latch))
    assert killed(engine) == [False]
    assert count(engine, "kill_events") == 2


def test_watch_tells_the_ledger_by_itself(
    engine: Engine, latch: Latch, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_btc(engine)
    monkeypatch.setattr(kill_watch, "TICK_SECONDS", 0.01)
    latch.path.touch()
    with watching_kill_switch(application(engine, latch=latch)):
        pause = threading.Event()
        for _ in range(1000):
            if killed(engine) == [True]:
                break
            pause.wait(0.01)
    assert killed(engine) == [True]
