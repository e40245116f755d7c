"""Promotion and rollback over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest
from api_service import CheckedClient, row_counts, service
from ledger import CHALLENGER, NOON, change, open_btc, register
from sqlalchemy import Engine

from bandit.core.lifecycle import ArmVerb

PROMOTE = "/v1/experiments/btc/arms/{}/promote"
ROLLBACK = "/v1/experiments/btc/rollback"
FALLBACKS = "/v1/experiments/btc/fallbacks"
WHY = {"reason": "drill"}


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def champion(client: CheckedClient) -> str:
    return str(client.get("/v1/experiments/btc").json()["champion"])


def test_promotion_and_rollback_answer_the_champion(client: CheckedClient, engine: Engine) -> None:
    for _ in range(2):
        answer = client.post(PROMOTE.format("eee02a74"), json=WHY)
        assert answer.status_code == 200
        arm = answer.json()
        assert (arm["policy"], arm["role"], arm["traffic_allocation"]) == (
            CHALLENGER,
            "champion",
            0.9,
        )
    assert champion(client) == CHALLENGER
    after = row_counts(engine)
    made = client.get("/v1/experiments/btc/decisions").json()
    assert [(d["kind"], d["actor"], d["reason"]) for d in made[:1]] == [
        ("PROMOTE", "local", "drill")
    ]
    assert client.get("/v1/experiments/btc/report").json()["decisions"] == made
    for body in (WHY, WHY | {"to": "aaaaaaaa"}):
        arm = client.post(ROLLBACK, json=body).json()
        assert (arm["policy"], arm["role"], arm["traffic_allocation"]) == ("prod", "champion", 1.0)
    assert row_counts(engine)["decisions"] == after["decisions"] + 1
    versions = client.get("/v1/experiments/btc/allocations").json()
    assert [v["champion"] for v in versions] == ["prod", CHALLENGER, "prod"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PROMOTE.format("aaaaaaaa"), WHY, 409, "invalid_transition"),
        (PROMOTE.format("eee02a74"), {}, 422, "invalid_input"),
        (PROMOTE.format("eee02a74"), WHY | {"force": True}, 422, "invalid_input"),
        (PROMOTE.format("nobody"), WHY, 404, "unknown_name"),
        (ROLLBACK, WHY, 409, "invalid_transition"),
        (ROLLBACK, WHY | {"to": "eee02a74"}, 409, "invalid_transition"),
        (ROLLBACK, WHY | {"to": "nobody"}, 404, "unknown_name"),
        (ROLLBACK, {"to": "aaaaaaaa"}, 422, "invalid_input"),
        ("/v1/experiments/eth/rollback", WHY, 404, "unknown_name"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: CheckedClient, engine: Engine, path: str, body: object, status: int, code: str
) -> None:
    before = row_counts(engine)
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert row_counts(engine) == before


def test_killed_account_rolls_back_and_does_not_promote(client: CheckedClient) -> None:
    client.post(PROMOTE.format("eee02a74"), json=WHY)
    client.post("/v1/kill", json=WHY)
    answer = client.post(PROMOTE.format("aaaaaaaa"), json=WHY)
    assert (answer.status_code, answer.json()["code"]) == (423, "killed")
    assert client.post(ROLLBACK, json=WHY).status_code == 200
    assert champion(client) == "prod"


def test_decision_from_before_the_promotion_is_revoked(client: CheckedClient) -> None:
    body = {"unit_id": "u", "instrument": "BTCUSD"}
    made = client.post("/v1/experiments/btc/assignments", json=body).json()
    client.post(PROMOTE.format("eee02a74"), json=WHY)
    claim = client.post(f"/v1/assignments/{made['assignment_id']}/claim")
    assert (claim.status_code, claim.json()["code"]) == (409, "revoked")
    assert client.post("/v1/experiments/btc/assignments", json=body).json() == made


@pytest.mark.parametrize(("scope", "status"), [("operate", 200), ("trade", 403), ("read", 403)])
def test_only_operators_change_the_champion(engine: Engine, scope: str, status: int) -> None:
    open_btc(engine)
    keys = [{"name": "k", "scopes": [scope], "sha256": sha256(b"secret").hexdigest()}]
    with service(engine, keys=keys) as client:
        held = {"Authorization": "Bearer secret"}
        promoted = client.post(PROMOTE.format("eee02a74"), json=WHY, headers=held)
        assert promoted.status_code == status
        assert client.post(ROLLBACK, json=WHY, headers=held).status_code == status


def fallback(unit: str, **fields: str) -> dict[str, str]:
    told = {"unit_id": unit, "instrument": "BTCUSD", "decided_at": NOON.isoformat()}
    return told | {"reason": "connection refused"} | fields


def test_fallback_names_the_champion_that_the_bot_knew(
    client: CheckedClient, engine: Engine
) -> None:
    register(engine, "stranger", "bbbbbbbb")
    early = client.post(FALLBACKS, json=fallback("e", policy=CHALLENGER))
    assert (early.status_code, early.json()["field"]) == (422, "policy")
    client.post(PROMOTE.format("eee02a74"), json=WHY)
    for unit, told, policy in (
        ("f", {"policy": "prod"}, "prod"),
        ("g", {"policy": "eee02a74"}, CHALLENGER),
        ("h", {}, CHALLENGER),
    ):
        answer = client.post(FALLBACKS, json=fallback(unit, **told))
        assert (answer.json()["policy"], answer.json()["role"]) == (policy, "champion")
        assert client.post(FALLBACKS, json=fallback(unit, **told)).json() == answer.json()
    assert client.post(FALLBACKS, json=fallback("f", policy=CHALLENGER)).status_code == 409
    assert client.post(FALLBACKS, json=fallback("i", policy="stranger")).status_code == 404
    # Halted since, or out of the experiment: it happened all the same.
    change(engine, ArmVerb.RETIRE, "prod")
    answer = client.post(FALLBACKS, json=fallback("j", policy="prod"))
    assert (answer.status_code, answer.json()["policy"]) == (200, "prod")
