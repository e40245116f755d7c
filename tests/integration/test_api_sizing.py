"""Sizing limits over HTTP and in the SDK: what bots are told, and what refuses them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_service import CheckedClient, post, service
from ledger import CHALLENGER, assign_to, count, open_btc, register
from made_up_policy import RISING, deciding
from sqlalchemy import Engine

from bandit.core.reading import Rules
from bandit.core.sizing import SizingRule
from liveops.client import (
    AsyncClient,
    Client,
    InvalidInput,
    PositionLimit,
    RequestRefused,
    SizeLimit,
    Sizing,
)

TOLD = {
    "base_position_size": 0.01,
    "max_position_size": 0.05,
    "max_leverage": 2.0,
    "max_open_positions": 2,
    "stop_loss_pct": 0.02,
    "take_profit_pct": 0.03,
}


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    """A service on `btc`, opened with the documents' limits."""
    open_btc(engine, rules=Rules(sizing=SizingRule()), equity_fraction=0.01)
    with service(engine) as client:
        yield client


def made(client: httpx.Client, unit: str) -> str:
    body = {"unit_id": unit, "instrument": "BTCUSD"}
    answer = client.post("/v1/experiments/btc/assignments", json=body)
    assert answer.json()["sizing"] == TOLD
    return str(answer.json()["assignment_id"])


def claimed(client: httpx.Client, key: str, **told: object) -> Any:
    values = {"json": told} if told else {}
    answer = client.post(f"/v1/assignments/{key}/claim", **values)
    return answer.status_code, answer.json()


def test_an_experiment_opened_over_http_has_the_settings_limits(engine: Engine) -> None:
    register(engine, "prod", "aaaaaaaa")
    risk = {"max_open_positions": None, "max_position_size": 0.2}
    body = {"name": "btc", "champion": "prod", "capital": "1000"}
    with service(engine, settings={"risk": risk}) as client:
        opened = client.post("/v1/experiments", json=body).json()
        assert opened["sizing"] == TOLD | {"max_open_positions": None, "max_position_size": 0.2}
        assert client.get("/v1/experiments/btc").json() == opened


def test_an_experiment_without_limits_says_null(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        assert client.get("/v1/experiments/btc").json()["sizing"] is None
        body = {"unit_id": "u", "instrument": "BTCUSD"}
        for route, more in (("assignments", {}), ("decide", {"features": {}})):
            answer = client.post(f"/v1/experiments/btc/{route}", json=body | more)
            assert answer.json()["sizing"] is None


def test_every_answer_of_a_decision_has_them_and_the_same_bytes_again(
    client: CheckedClient,
) -> None:
    path, body = "/v1/experiments/btc/assignments", {"unit_id": "u", "instrument": "BTCUSD"}
    first = client.post(path, json=body)
    assert first.json()["sizing"] == TOLD
    assert client.post(path, json=body).content == first.content
    told = {"decided_at": "2026-03-01T12:00:00Z", "reason": "away"}
    alone = client.post("/v1/experiments/btc/fallbacks", json=body | {"unit_id": "f"} | told)
    assert (alone.status_code, alone.json()["sizing"]) == (200, TOLD)


def test_the_third_position_is_refused_with_what_is_open(client: CheckedClient) -> None:
    keys = [made(client, f"u-{i}") for i in range(3)]
    assert [claimed(client, key)[0] for key in keys] == [200, 200, 409]
    _, problem = claimed(client, keys[2])
    assert (problem["code"], problem["limit"], problem["found"]) == ("position_limit", 2, 2)
    assert problem["title"] == "As many positions are open as may be"
    assert sorted(each["assignment_id"] for each in problem["open"]) == sorted(keys[:2])
    assert problem["open"][0] | {"assignment_id": ""} == {
        "assignment_id": "",
        "experiment": "btc",
        "instrument": "BTCUSD",
        "claimed_at": "2026-03-01T12:00:00+00:00",
    }
    ended = client.post("/v1/outcomes", json={"assignment_id": keys[0], "no_trade": True})
    assert ended.status_code == 201
    assert claimed(client, keys[2])[0] == 200


def test_a_position_over_a_limit_is_refused_by_field(client: CheckedClient) -> None:
    key = made(client, "u")
    for told, field, limit in (
        ({"position_size": 0.06, "leverage": 1}, "position_size", 0.05),
        ({"position_size": 0.05, "leverage": 2.5}, "leverage", 2.0),
    ):
        status, problem = claimed(client, key, **told)
        assert (status, problem["code"], problem["field"]) == (409, "size_limit", field)
        assert (problem["limit"], problem["found"]) == (limit, told[field])
    assert claimed(client, key, position_size=0.05, leverage=2) == claimed(client, key)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"[]", 422, "body"),
        (b"{", 400, "body"),
        (b'{"size": 1}', 422, "size"),
        (b'{"position_size": "0.01"}', 422, "position_size"),
        (b'{"position_size": 0}', 422, "position_size"),
        (b'{"leverage": -1}', 422, "leverage"),
        (b'{"leverage": 1, "leverage": 2}', 400, "leverage"),
        (b'{"leverage": 1e300}', 422, "leverage"),
        (b" " * 70_000, 413, None),
    ],
)
def test_a_claim_that_tells_what_it_may_not_is_refused(
    client: CheckedClient, engine: Engine, body: bytes, status: int, field: str | None
) -> None:
    answer = post(client, f"/v1/assignments/{made(client, 'u')}/claim", body)
    assert answer.status_code == status, answer.text
    assert field is None or field in answer.json()["detail"]
    assert count(engine, "claims") == 0


def test_a_claim_s_body_must_be_json(client: CheckedClient) -> None:
    path = f"/v1/assignments/{made(client, 'u')}/claim"
    answer = client.post(path, content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    for empty in (b"", b"{}", b'{"position_size": null}'):
        assert post(client, path, empty).status_code == 200


def test_a_stored_policy_opens_no_more_than_the_largest_position(
    engine: Engine, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    open_btc(
        engine,
        challengers=[(CHALLENGER, deciding(root).sha)],
        rules=Rules(sizing=SizingRule()),
        equity_fraction=0.1,
    )
    [unit] = assign_to(engine, CHALLENGER, 1)
    body = {"unit_id": unit.unit_id, "instrument": "BTCUSD", "features": RISING}
    with service(engine, settings={"home": str(tmp_path)}) as client:
        action = client.post("/v1/experiments/btc/decide", json=body).json()["action"]
    assert (action["move"], action["position"]) == ("open", 0.5)
    assert action["reasons"][-1] == {
        "check": "position_size",
        "value": 0.1,
        "limit": 0.05,
        "verdict": "FAIL",
        "note": "capped at 0.05 of equity",
    }


# The SDK


def bot(url: object, folder: Path, **options: Any) -> Client:
    return Client(str(url), "btc", spool_dir=folder, deadline_seconds=30.0, **options)


def test_a_bot_knows_its_limits_and_is_told_when_it_is_over(
    client: CheckedClient, tmp_path: Path
) -> None:
    with bot(client.base_url, tmp_path) as trader:
        first, second, third = (trader.assign(f"u-{i}", "BTCUSD") for i in range(3))
        assert first.sizing == Sizing(**TOLD)
        with pytest.raises(SizeLimit) as oversized:
            trader.claim(first, position_size=Decimal("0.06"))
        assert (oversized.value.field, oversized.value.limit, oversized.value.found) == (
            "position_size",
            0.05,
            0.06,
        )
        trader.claim(first, position_size=0.05, leverage=2)
        trader.claim(second)
        with pytest.raises(PositionLimit) as full:
            trader.claim(third)
        assert isinstance(full.value, RequestRefused)
        assert full.value.limit == 2
        assert {each["assignment_id"] for each in full.value.open} == {first.id, second.id}
        with pytest.raises(InvalidInput, match=r"^leverage: must be above 0"):
            trader.claim(first, leverage=0)
        trader.no_trade(third)
        trader.no_trade(first)
        assert trader.flush(30)
        fourth = trader.assign("u-4", "BTCUSD")
        trader.claim(fourth)


def test_an_async_bot_is_refused_alike(client: CheckedClient, tmp_path: Path) -> None:
    async def trade() -> None:
        url = str(client.base_url)
        async with AsyncClient(url, "btc", spool_dir=tmp_path, deadline_seconds=30.0) as trader:
            made = [await trader.assign(f"u-{i}", "BTCUSD") for i in range(3)]
            with pytest.raises(SizeLimit):
                await trader.claim(made[0], leverage=Decimal("2.5"))
            for each in made[:2]:
                await trader.claim(each, position_size=0.01)
            with pytest.raises(PositionLimit):
                await trader.claim(made[2])

    asyncio.run(trade())


def test_the_champion_stands_in_with_the_limits_last_known_also_after_a_restart(
    engine: Engine, tmp_path: Path
) -> None:
    open_btc(engine, rules=Rules(sizing=SizingRule()), equity_fraction=0.01)
    with service(engine) as client, bot(client.base_url, tmp_path) as trader:
        trader.assign("u", "BTCUSD")
        url = client.base_url
    with bot(url, tmp_path, failures_max=1) as trader:
        alone = trader.assign("alone", "BTCUSD", deadline=0.2)
        assert (alone.is_fallback, alone.sizing) == (True, Sizing(**TOLD))
        # Nobody counts what is open while the service is away.
        for i in range(3):
            more = trader.assign(f"alone-{i}", "BTCUSD", deadline=0.2)
            assert trader.claim(more, deadline=0.2)
        assert trader.assign("alone", "BTCUSD") == alone
