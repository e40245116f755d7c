"""The whole loop over HTTP: register, open, assign, earn, scale, report."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from api_service import CheckedClient, outcome_body, row_counts, service
from ledger import NOON, open_btc
from sqlalchemy import Engine

from liveops.clock import VirtualClock

CHAMPION = {"name": "prod", "kind": "production", "sha": "aaaaaaaa"}
CHALLENGER = {
    "name": "reinforcement_20250707_154526_eee02a74",
    "kind": "reinforcement",
    "sha": "eee02a74",
    "data_cutoff": "2025-07-01T02:00:00+02:00",
    "parent": "prod",
    "metadata": {"steps": 250000, "learning_rate": 0.0003, "huge": 10**23},
}
EXPERIMENT = {
    "name": "btc",
    "champion": "prod",
    "challengers": ["eee02a74"],
    "capital": "10000.00",
    "equity_fraction": 0.1,
}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOON)


@pytest.fixture
def client(engine: Engine, clock: VirtualClock) -> Iterator[CheckedClient]:
    with service(engine, clock=clock) as client:
        yield client


def opened(client: httpx.Client) -> None:
    for policy in (CHAMPION, CHALLENGER):
        assert client.post("/v1/policies", json=policy).status_code == 201
    assert client.post("/v1/experiments", json=EXPERIMENT).status_code == 201


def assigned(client: httpx.Client, unit: str) -> dict[str, object]:
    body = {"unit_id": unit, "instrument": "BTCUSD"}
    response = client.post("/v1/experiments/btc/assignments", json=body)
    assert response.status_code == 200
    return response.json()


def units_of(client: httpx.Client, policy: str, count: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for unit in range(1000):
        made = assigned(client, f"{policy}-{unit}")
        found += [made] if made["policy"] == policy else []
        if len(found) == count:
            return found
    raise AssertionError(f"{policy} gets no traffic")


def test_a_challenger_that_loses_is_halted_by_the_outcome_that_shows_it(
    client: CheckedClient, clock: VirtualClock
) -> None:
    opened(client)
    # Five trades of -9 % at a tenth of the equity: drawdown 4.5 %, over the 4 % that halt.
    for made in units_of(client, CHALLENGER["name"], 5):
        assert client.get("/v1/experiments/btc").json()["arms"][1]["status"] == "active"
        body = outcome_body(made, pnl="-50", **{"return": -0.09})
        assert client.post("/v1/outcomes", json=body).status_code == 201
    assert client.get("/v1/experiments/btc").json()["arms"][1]["status"] == "halted"

    clock.advance_to(NOON + timedelta(days=1))
    night = client.post("/v1/experiments/btc/scale").json()
    assert night["actions"] == []
    assert night["decision"]["trading_day"] == "2026-03-02"
    assert night["already_done"] is False

    report = client.get("/v1/experiments/btc/report").json()
    champion, challenger = report["arms"]
    assert challenger["status"] == "halted"
    assert challenger["pnl"] == "-250.00000000"
    assert challenger["losing_streak"] == 5
    assert challenger["dd_150"] == pytest.approx(4.5)
    assert challenger["profit_factor"]["value"] == 0.0
    assert challenger["traffic_allocation"] == 0.0
    assert champion["traffic_allocation"] == 1.0
    assert [row["flagged"] for row in challenger["checklist"]] == [False, True]

    versions = client.get("/v1/experiments/btc/allocations").json()
    assert [v["traffic_allocation"]["prod"] for v in versions] == [0.9, 1.0]
    kinds = [d["kind"] for d in client.get("/v1/experiments/btc/decisions").json()]
    assert kinds == ["HOLD", "HALT", "ENTER"]


def test_a_night_is_decided_once(client: CheckedClient, engine: Engine) -> None:
    opened(client)
    first = client.post("/v1/experiments/btc/scale").json()
    before = row_counts(engine)
    second = client.post("/v1/experiments/btc/scale").json()
    assert second["decision"] == first["decision"]
    assert second["already_done"] is True
    assert row_counts(engine) == before


def test_the_same_unit_gets_the_same_bytes(client: CheckedClient, clock: VirtualClock) -> None:
    opened(client)
    body = {"unit_id": "bar-1", "instrument": "BTCUSD", "context": {"spread": 0.25}}
    first = client.post("/v1/experiments/btc/assignments", json=body)
    clock.advance_to(NOON + timedelta(hours=1))
    client.post("/v1/experiments/btc/arms/eee02a74/halt", json={"reason": "stale feed"})
    again = client.post("/v1/experiments/btc/assignments", json=body)
    assert again.content == first.content
    assert first.json()["decided_at"] == "2026-03-01T12:00:00+00:00"
    assert first.json()["expires_at"] == "2026-03-01T12:00:02+00:00"


def test_an_open_position_keeps_its_arm(client: CheckedClient) -> None:
    opened(client)
    (entry,) = units_of(client, CHALLENGER["name"], 1)
    exits = [
        client.post(
            "/v1/experiments/btc/assignments",
            json={
                "unit_id": f"exit-{n}",
                "instrument": "BTCUSD",
                "position": entry["assignment_id"],
            },
        ).json()
        for n in range(20)
    ]
    assert {made["policy"] for made in exits} == {CHALLENGER["name"]}
    assert {made["propensity"] for made in exits} == {1.0}


def test_an_outcome_is_counted_once(client: CheckedClient, engine: Engine) -> None:
    opened(client)
    made = assigned(client, "bar-1")
    first = client.post("/v1/outcomes", json=outcome_body(made, pnl="12.340"))
    before = row_counts(engine)
    again = client.post("/v1/outcomes", json=outcome_body(made, pnl=12.34))
    other = client.post("/v1/outcomes", json=outcome_body(made, pnl="12.35"))
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert again.content == first.content
    assert other.json()["code"] == "conflict"
    assert row_counts(engine) == before


def test_a_declined_opportunity_is_evidence_but_no_trade(client: CheckedClient) -> None:
    opened(client)
    made = assigned(client, "bar-1")
    body = {"assignment_id": made["assignment_id"], "no_trade": True}
    assert client.post("/v1/outcomes", json=body).status_code == 201
    arms = client.get("/v1/experiments/btc/report").json()["arms"]
    arm = next(arm for arm in arms if arm["policy"] == made["policy"])
    assert (arm["outcomes"], arm["trades"]) == (1, 0)


def test_money_is_exact(client: CheckedClient) -> None:
    opened(client)
    for n in range(3):
        made = assigned(client, f"bar-{n}")
        body = outcome_body(made, pnl="0.10000001", fees="0.00000001")
        assert client.post("/v1/outcomes", json=body).status_code == 201
    arms = client.get("/v1/experiments/btc/report").json()["arms"]
    # In doubles, three times 0.10000001 is 0.30000003000000004.
    assert sum(float(arm["pnl"]) > 0 for arm in arms) >= 1
    assert {arm["pnl"] for arm in arms if arm["trades"] == 3} <= {"0.30000003"}


def test_creating_twice_answers_the_same_body(client: CheckedClient, engine: Engine) -> None:
    calls = [
        ("/v1/policies", CHAMPION),
        ("/v1/policies", CHALLENGER),
        ("/v1/policies", {"name": "late", "kind": "tabnet", "sha": "bbbbbbbb"}),
        ("/v1/experiments", EXPERIMENT),
        ("/v1/experiments/btc/arms", {"policy": "bbbb"}),
    ]
    first = [client.post(path, json=body) for path, body in calls]
    before = row_counts(engine)
    again = [client.post(path, json=body) for path, body in calls[::-1]][::-1]
    assert {r.status_code for r in first} == {201}
    assert {r.status_code for r in again} == {200}
    assert [r.content for r in again[:3]] == [r.content for r in first[:3]]
    assert again[4].content == first[4].content
    assert row_counts(engine) == before


def test_a_policy_is_found_by_name_sha_and_prefix(client: CheckedClient) -> None:
    opened(client)
    found = [client.get(f"/v1/policies/{ref}") for ref in (CHALLENGER["name"], "eee02a74", "eee0")]
    assert {r.json()["name"] for r in found} == {CHALLENGER["name"]}
    assert found[0].json()["data_cutoff"] == "2025-07-01T00:00:00+00:00"
    assert found[0].json()["metadata"] == CHALLENGER["metadata"]
    assert [p["name"] for p in client.get("/v1/policies").json()] == ["prod", CHALLENGER["name"]]


def test_an_experiment_takes_what_is_left_out_from_the_settings(client: CheckedClient) -> None:
    client.post("/v1/policies", json=CHAMPION)
    body = {"name": "btc", "champion": "prod", "capital": 10000}
    made = client.post("/v1/experiments", json=body).json()
    assert made["equity_fraction"] == 0.01
    assert (made["currency"], made["profile"], made["strategy"]) == ("USD", "guarded", "ramp")
    assert made["decision_seconds_valid"] == 2.0
    assert client.get("/v1/experiments").json() == [made]
    assert client.get("/v1/experiments/btc").json() == made


def test_an_experiments_salt_is_its_own_and_secret(client: CheckedClient, engine: Engine) -> None:
    opened(client)
    client.post("/v1/experiments", json=EXPERIMENT | {"name": "eth"})
    with engine.connect() as connection:
        salts = connection.exec_driver_sql("SELECT salt FROM experiments").scalars().all()
    assert len(set(salts)) == 2
    shown = client.get("/v1/experiments").text
    assert "salt" not in shown
    assert not any(bytes(salt).hex() in shown for salt in salts)


def test_an_arm_is_halted_resumed_throttled_and_retired(client: CheckedClient) -> None:
    opened(client)
    arm = f"/v1/experiments/btc/arms/{CHALLENGER['name']}"
    seen = [
        client.post(f"{arm}/{verb}", json={"reason": f"{verb} by hand"}).json()
        for verb in ("halt", "resume", "throttle", "resume", "retire")
    ]
    assert [made["status"] for made in seen] == [
        "halted",
        "active",
        "throttled",
        "active",
        "retired",
    ]
    # A resumed arm starts at the least a live arm has.
    assert [made["traffic_allocation"] for made in seen] == [0.0, 0.02, 0.0, 0.02, 0.0]
    assert seen[-1]["status_reason"] == "retire by hand"


def test_a_halted_arm_gets_no_more_units_but_its_outcomes_count(client: CheckedClient) -> None:
    opened(client)
    (before,) = units_of(client, CHALLENGER["name"], 1)
    client.post("/v1/experiments/btc/arms/eee02a74/halt", json={"reason": "stale feed"})
    after = {assigned(client, f"after-{n}")["policy"] for n in range(100)}
    assert after == {"prod"}
    assert client.post("/v1/outcomes", json=outcome_body(before)).status_code == 201


def test_newest_limits_the_histories(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        for verb in ("halt", "resume"):
            client.post(f"/v1/experiments/btc/arms/eee02a74/{verb}", json={"reason": "drill"})
        decisions = client.get("/v1/experiments/btc/decisions?newest=2").json()
        versions = client.get("/v1/experiments/btc/allocations?newest=2").json()
    assert [made["kind"] for made in decisions] == ["RESUME", "HALT"]
    assert [made["version"] for made in versions] == [2, 3]
