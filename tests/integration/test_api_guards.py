"""Performance guards over HTTP and in the SDK: what a bot is told, and what a person may do."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from api_service import service
from guarded_ledger import LATER, earn, followed, open_wide, pause, states
from ledger import NOON, assign, open_btc
from shadow_history import tell
from sqlalchemy import Engine

from bandit.core.errors import Paused as PausedInService
from bandit.core.guard_rule import GuardState
from liveops.client import Client, Paused
from liveops.client.contact import Standing
from liveops.clock import VirtualClock

NORMAL, REDUCED, PAUSED = GuardState
UNIT = {"unit_id": "new", "instrument": "BTCUSD"}
SIGHT = {"features": {"rsi": 50.0}}


def asked(client: Any, route: str = "assignments", **more: object) -> Any:
    return client.post(f"/v1/experiments/btc/{route}", json={**UNIT, **more})


def test_a_refusal_tells_what_can_be_followed_on_paper(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    with service(engine) as client:
        answer = asked(client)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (409, "paused")
        told = problem["paused"]
        assert {name: told[name] for name in ("experiment", "scope", "policy", "reason")} == {
            "experiment": "btc",
            "scope": "account",
            "policy": "prod",
            "reason": "win_rate_percent 0 under 30",
        }
        assert datetime.fromisoformat(told["since"]) == LATER
        # Again, by either way of asking, and just before an order: the same.
        for again in (
            asked(client),
            asked(client, "decide", **SIGHT),
            client.post(f"/v1/assignments/{told['assignment_id']}/claim"),
        ):
            assert (again.status_code, again.json()) == (409, problem)
        outcome = client.post(
            "/v1/outcomes", json={"assignment_id": told["assignment_id"], "no_trade": True}
        )
        assert (outcome.status_code, outcome.json()["code"]) == (409, "conflict")


def test_a_reduced_guard_stands_in_the_answer(engine: Engine) -> None:
    open_wide(engine)
    earn(engine, "-501")
    with service(engine) as client:
        for route, more in (("assignments", {}), ("decide", SIGHT)):
            answer = asked(client, route, unit_id=route, **more).json()
            assert (answer["size_multiplier"], answer["confidence_bump"]) == (0.5, 0.1)


def test_a_position_is_decided_on_while_paused_and_opens_nothing(engine: Engine) -> None:
    open_wide(engine)
    with service(engine) as client:
        held = asked(client, unit_id="held").json()
        pause(engine)
        answer = asked(client, position=held["assignment_id"])
        assert answer.status_code == 200
        assert (answer.json()["size_multiplier"], answer.json()["mode"]) == (0.0, "live")


def test_guards_are_listed_and_begun_anew_by_a_person(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    with service(engine, clock=VirtualClock(LATER), key="key") as client:
        found = client.get("/v1/guards").json()
        assert [(g["scope"], g["name"], g["state"]) for g in found] == [
            ("account", "usd", "PAUSED"),
            ("experiment", "btc", "PAUSED"),
        ]
        assert {check["check"] for check in found[0]["reasons"]} == {
            "recovery_win_rate_percent",
            "recovery_drawdown_percent",
            "recovery_trades",
            "recovery_losing_streak",
        }
        report = client.get("/v1/experiments/btc/report").json()
        assert report["guards"] == found
        for path in ("/v1/experiments/btc", "/v1/accounts/usd"):
            begun = client.post(f"{path}/guard/reset", json={"reason": "looked into it"})
            told = begun.json()
            assert (told["state"], told["actor"], told["reason"], told["trades"]) == (
                "NORMAL",
                "owner",
                "looked into it",
                0,
            )
        assert asked(client).status_code == 200
        for path in ("/v1/experiments/none", "/v1/accounts/none"):
            missing = client.post(f"{path}/guard/reset", json={"reason": "x"})
            assert (missing.status_code, missing.json()["code"]) == (404, "unknown_name")
        assert client.post("/v1/accounts/usd/guard/reset", json={"reason": ""}).status_code == 422


def test_metrics_and_report_show_guards(engine: Engine) -> None:
    open_wide(engine)
    earn(engine, "-501")
    with service(engine) as client:
        lines = client.get("/metrics").text.splitlines()
    of = '{name="btc",scope="experiment"}'
    for line in (
        f"liveops_performance_guard_state{of} 1.0",
        f"liveops_performance_guard_losing_streak{of} 1.0",
        f"liveops_performance_guard_trades{of} 0.0",
        'liveops_performance_guard_state{name="usd",scope="account"} 1.0',
    ):
        assert line in [_sorted(each) for each in lines]


def _sorted(line: str) -> str:
    head, brace, rest = line.partition("{")
    labels, _, value = rest.partition("}")
    return f"{head}{{{','.join(sorted(labels.split(',')))}}}{value}" if brace else line


# The SDK


@pytest.fixture
def served(engine: Engine) -> Any:
    open_wide(engine)
    with service(engine) as client:
        yield str(client.base_url)


def bot(url: str, folder: Path, **options: Any) -> Client:
    return Client(url, "btc", spool_dir=folder, deadline_seconds=30.0, **options)


def test_a_bot_follows_what_was_refused_and_ends_the_pause(
    engine: Engine, served: str, tmp_path: Path
) -> None:
    pause(engine)
    with bot(served, tmp_path) as client:
        for i in range(5):
            with pytest.raises(Paused) as caught:
                client.assign(f"bar-{i}", "BTCUSD")
            paused = caught.value
            assert (paused.scope, paused.policy, paused.since) == ("account", "prod", LATER)
            assert paused.assignment_id is not None
            assert paused.policy is not None
            client.on_paper(
                paused.assignment_id,
                paused.policy,
                return_ratio=Decimal("0.001"),
                opened_at=NOON,
                closed_at=NOON + timedelta(minutes=1),
            )
            assert client.flush(30)
        assert client.refused() == []
        assert states(engine) == {"usd": NORMAL, "btc": NORMAL}
        assert client.assign("bar-5", "BTCUSD").size_multiplier == 1.0


def test_a_bot_that_knows_of_a_pause_decides_nothing_alone(engine: Engine, tmp_path: Path) -> None:
    open_wide(engine)
    with service(engine) as served, bot(str(served.base_url), tmp_path) as client:
        held = client.assign("held", "BTCUSD")
        old = client.assign("old", "BTCUSD")
        pause(engine)
        with pytest.raises(Paused):
            client.assign("new", "BTCUSD")
        # None of these proves that the pause is over: what was decided before it, a position's
        # next decision, and the claim of that.
        assert client.assign("old", "BTCUSD") == old
        follower = client.assign("next", "BTCUSD", position=held)
        assert follower.size_multiplier == 0
        client.claim(follower)
        assert client._client._driver.core.spool.contact().standing is Standing.PAUSED
        url = str(served.base_url)
    # Away, also after a restart: no fallback.
    with bot(url, tmp_path, failures_max=1) as client, pytest.raises(Paused) as caught:
        client.assign("alone", "BTCUSD", deadline=0.2)
    assert caught.value.assignment_id is None


def test_a_bot_that_knows_of_no_pause_stands_in_with_the_reduced_size(
    engine: Engine, tmp_path: Path
) -> None:
    open_wide(engine)
    earn(engine, "-501")
    with service(engine) as served, bot(str(served.base_url), tmp_path) as client:
        assert client.assign("a", "BTCUSD").size_multiplier == 0.5
        url = str(served.base_url)
    with bot(url, tmp_path, failures_max=1) as client:
        alone = client.assign("alone", "BTCUSD", deadline=0.2)
        assert (alone.is_fallback, alone.size_multiplier, alone.confidence_bump) == (True, 0.5, 0.1)


def test_recovery_by_paper_reaches_whoever_asks_next(engine: Engine) -> None:
    open_btc(engine, challengers=())
    pause(engine)
    told = []
    for i in range(5):
        with pytest.raises(PausedInService) as caught:
            assign(engine, [f"n-{i}"])
        told.append(followed(caught.value, "0.001"))
    with service(engine) as client:
        assert asked(client).status_code == 409
        tell(engine, told, now=LATER)
        assert asked(client, unit_id="later").status_code == 200
        # The unit that was refused stays refused.
        assert asked(client).status_code == 409
