"""`decide` of the SDK: the action of a stored policy, and none while the service is away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from api_service import service
from ledger import CHALLENGER, NOON, assign_to, count, open_btc
from made_up_encoder_policy import embedding_policy
from made_up_policy import FEATURES, RISING, WEIGHTS, deciding
from sdk_bot import Hands
from sqlalchemy import Engine

from bandit.core.kill_switch import KillCause
from bandit.service import killing
from liveops.client import (
    Acted,
    AsyncClient,
    Client,
    InvalidInput,
    Killed,
    RequestRefused,
    ServiceUnavailable,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home" / "artifacts"


@pytest.fixture
def url(engine: Engine, root: Path) -> Iterator[str]:
    """A service with a stored policy as challenger, and none as champion."""
    open_btc(engine, challengers=[(CHALLENGER, deciding(root).sha)])
    with service(engine, settings={"home": str(root.parent)}) as client:
        yield str(client.base_url)


def test_a_bot_gets_the_action_of_its_arm(url: str, engine: Engine, tmp_path: Path) -> None:
    [unit] = assign_to(engine, CHALLENGER, 1)
    features = {name: np.float64(value) for name, value in RISING.items()}
    with Client(url, "btc", spool_dir=tmp_path / "spool", **Hands().options()) as client:
        acted = client.decide(
            unit.unit_id, "BTCUSD", features=features, features_digest=FEATURES.digest
        )
        assert acted.assignment == client.assign(unit.unit_id, "BTCUSD")
        assert acted.action is not None
        assert (acted.action.move, acted.action.position) == ("open", 1.0)
        assert (acted.action.choice, acted.no_action_reason) == ("long", None)
        checks = {check["check"]: check["verdict"] for check in acted.action.reasons}
        assert checks == dict.fromkeys(("confidence", "adx", "trend", "volatility"), "PASS")
        later = client.decide(
            "later",
            "BTCUSD",
            features=RISING | {"return_1": -1.0},
            held=0.5,
            unrealised_return=-0.01,
            holding_share=0.25,
            position=acted.assignment,
        )
        assert later.action is not None
        assert (later.assignment.policy, later.action.move) == (CHALLENGER, "close")
        [other] = assign_to(engine, "prod", 1)
        alone = client.decide(other.unit_id, "BTCUSD", features=RISING)
        assert alone.action is None
        assert alone.no_action_reason == "prod is not stored here: it decides where it runs"


def test_on_asyncio_it_is_the_same(url: str, engine: Engine, tmp_path: Path) -> None:
    [unit] = assign_to(engine, CHALLENGER, 1)

    async def ask() -> Acted:
        folder = tmp_path / "spool"
        async with AsyncClient(url, "btc", spool_dir=folder, **Hands().options()) as client:
            return await client.decide(unit.unit_id, "BTCUSD", features=RISING)

    acted = asyncio.run(ask())
    assert acted.action is not None
    assert acted.action.move == "open"


def test_while_the_service_is_away_the_champion_decides_and_there_is_no_action(
    engine: Engine, root: Path, tmp_path: Path
) -> None:
    open_btc(engine, challengers=[(CHALLENGER, deciding(root).sha)])
    with service(engine, settings={"home": str(root.parent)}) as client:
        url = str(client.base_url)
        bot = Client(url, "btc", spool_dir=tmp_path / "spool", **Hands().options())
        opener = bot.decide("before", "BTCUSD", features=RISING).assignment
    try:
        for _ in range(2):  # what was decided alone stays so
            acted = bot.decide("away", "BTCUSD", features=RISING)
            assert (acted.assignment.is_fallback, acted.assignment.policy) == (True, "prod")
            assert acted.action is None
            assert acted.no_action_reason is not None
            assert "alone" in acted.no_action_reason
        with pytest.raises(ServiceUnavailable, match="the policy that opened"):
            bot.decide("held", "BTCUSD", features=RISING, position=opener)
    finally:
        bot.close(timeout=0)
    assert count(engine, "assignments") == 1


def test_what_the_service_refuses_is_raised_and_nobody_stands_in(
    url: str, engine: Engine, root: Path, tmp_path: Path
) -> None:
    with Client(url, "btc", spool_dir=tmp_path / "spool", **Hands().options()) as client:
        with pytest.raises(InvalidInput, match=r"^features\.rsi: must be a finite number"):
            client.decide("u", "BTCUSD", features=RISING | {"rsi": math.nan})
        with pytest.raises(TypeError, match=r"^features\.rsi: must be a number, found str"):
            client.decide("u", "BTCUSD", features=RISING | {"rsi": "0.5"})  # type: ignore[dict-item]
        with pytest.raises(RequestRefused) as refused:
            client.decide("u", "BTCUSD", features={"rsi": 0.5})
        assert refused.value.problem.field == "features.return_1"
        with pytest.raises(RequestRefused) as refused:
            client.decide("u", "BTCUSD", features=RISING, held=1.0)
        assert refused.value.problem.field == "unrealised_return"
        killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
        with pytest.raises(Killed):
            client.decide("u", "BTCUSD", features=RISING)
    assert count(engine, "assignments") == 0


def test_an_encoder_is_told_the_bars_before(engine: Engine, root: Path, tmp_path: Path) -> None:
    open_btc(engine, challengers=[(CHALLENGER, embedding_policy(root).sha)])
    [unit] = assign_to(engine, CHALLENGER, 1)
    with (
        service(engine, settings={"home": str(root.parent)}) as served,
        Client(
            str(served.base_url), "btc", spool_dir=tmp_path / "spool", **Hands().options()
        ) as client,
    ):
        history = {name: np.arange(7.0) for name in RISING}
        acted = client.decide(unit.unit_id, "BTCUSD", features=RISING, history=history)
        assert acted.action is not None
        with pytest.raises(RequestRefused) as refused:
            client.decide(unit.unit_id, "BTCUSD", features=RISING)
        assert refused.value.problem.field == "history"
        with pytest.raises(InvalidInput, match=r"^history\.adx: must be a finite number"):
            client.decide(
                unit.unit_id, "BTCUSD", features=RISING, history={**history, "adx": [math.nan] * 7}
            )


def test_a_refused_policy_is_no_outage(engine: Engine, root: Path, tmp_path: Path) -> None:
    open_btc(engine, challengers=[(CHALLENGER, deciding(root).sha)])
    [folder] = root.iterdir()
    (folder / WEIGHTS).write_bytes(b"")
    with (
        service(engine, settings={"home": str(root.parent)}) as served,
        Client(
            str(served.base_url), "btc", spool_dir=tmp_path / "spool", **Hands().options()
        ) as client,
    ):
        with pytest.raises(RequestRefused) as refused:
            client.decide("u", "BTCUSD", features=RISING)
        assert refused.value.problem.code == "artifact_refused"
        assert not client.assign("u", "BTCUSD").is_fallback
