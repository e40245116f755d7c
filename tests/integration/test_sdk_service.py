"""The SDK against the service itself, over a socket, on a real ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from api_service import application, service
from ledger import CHALLENGER, NOON, change, count, open_btc
from sdk_bot import UNIT, Hands, earned
from sqlalchemy import Engine, text

from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.service import killing
from liveops.api.server import serving
from liveops.client import (
    AsyncClient,
    Client,
    ClientClosed,
    InvalidInput,
    Killed,
    Kind,
    RequestRefused,
    Revoked,
    ServiceUnavailable,
)
from liveops.client.values import AssignmentId, Reason
from liveops.clock import VirtualClock

KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    """A service with the experiment `btc`."""
    open_btc(engine)
    with service(engine, key=KEY) as client:
        yield str(client.base_url)


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[Client]:
    with Client(url, "btc", key=KEY, spool_dir=tmp_path, **Hands().options()) as client:
        yield client


def outcomes(engine: Engine) -> list[tuple[str, Decimal]]:
    """Unit and P&L of every outcome, in the order of units."""
    statement = text(
        "SELECT a.unit_id, o.pnl FROM outcomes o JOIN assignments a ON a.id = o.assignment_id"
        " ORDER BY a.unit_id"
    )
    with engine.connect() as connection:
        return [(unit, pnl) for unit, pnl in connection.execute(statement)]


def test_a_unit_gets_one_policy_for_ever(client: Client, engine: Engine) -> None:
    first = client.assign(UNIT, "BTCUSD", context={"spread": 0.25})
    assert client.assign(UNIT, "BTCUSD", context={"spread": 0.25}) == first
    assert (first.experiment, first.unit_id, first.is_fallback) == ("btc", UNIT, False)
    assert first.policy in ("prod", CHALLENGER)
    assert (
        first.expires_at == first.decided_at + timedelta(seconds=2) == NOON + timedelta(seconds=2)
    )
    assert count(engine, "assignments") == 1


def test_an_open_position_keeps_its_policy(client: Client) -> None:
    opener = client.assign(UNIT, "BTCUSD")
    for bar in range(5):
        later = client.assign(f"bar-{bar}", "BTCUSD", position=opener)
        assert (later.policy, later.propensity) == (opener.policy, 1.0)


def test_outcomes_reach_the_ledger_once(client: Client, engine: Engine) -> None:
    made = [client.assign(f"u-{n}", "BTCUSD") for n in range(5)]
    for assignment in made:
        earned(assignment, client)
        earned(assignment.id, client)  # reported twice, as a bot does that is not sure
    client.no_trade(client.assign("u-9", "BTCUSD"))
    assert client.flush(30)
    assert outcomes(engine) == [(f"u-{n}", Decimal("12.34")) for n in range(5)] + [
        ("u-9", Decimal(0))
    ]
    assert (client.pending(), client.refused()) == (0, [])


def test_results_on_paper_reach_the_ledger_once(client: Client, engine: Engine) -> None:
    made = [client.assign(f"u-{n}", "BTCUSD") for n in range(3)]
    times = {"opened_at": NOON, "closed_at": NOON + timedelta(minutes=5)}
    for _ in range(2):  # told twice, as a bot does that is not sure
        client.on_paper(made[0], "prod", return_ratio=Decimal("0.001"), **times)
        client.on_paper_fill(
            made[1],
            CHALLENGER,
            side="long",
            entry_price=Decimal(100),
            exit_price=Decimal(110),
            size=Decimal(2),
            fee_bps=10,
            slippage_bps=0,
            **times,
        )
        client.on_paper_no_trade(made[2].id, CHALLENGER)
    earned(made[0], client)
    assert client.flush(30)
    assert (client.pending(), client.refused()) == (0, [])
    statement = text(
        "SELECT s.unit_id, p.name, h.return_ratio, h.no_trade FROM shadow_outcomes h"
        " JOIN assignments s ON s.id = h.assignment_id JOIN arms a ON a.id = h.arm_id"
        " JOIN policies p ON p.id = a.policy_id ORDER BY 1"
    )
    with engine.connect() as connection:
        told = [tuple(row) for row in connection.execute(statement)]
    assert told == [
        ("u-0", "prod", Decimal("0.001"), False),
        ("u-1", CHALLENGER, Decimal("0.0979"), False),
        ("u-2", CHALLENGER, Decimal(0), True),
    ]
    assert outcomes(engine) == [("u-0", Decimal("12.34"))]


def test_a_result_on_paper_that_is_refused_blocks_nothing(client: Client, engine: Engine) -> None:
    made = client.assign(UNIT, "BTCUSD")
    times = {"opened_at": NOON, "closed_at": NOON + timedelta(minutes=5)}
    client.on_paper(made, "nobody", return_ratio=0.001, **times)
    client.on_paper(made, "prod", return_ratio=0.001, **times)
    assert client.flush(30)
    [refusal] = client.refused()
    assert (refusal.kind, refusal.problem.code) == (Kind.PAPER, "unknown_name")
    assert count(engine, "shadow_outcomes") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"closed_at": NOON - timedelta(minutes=1)}, "closed_at: must not be before opened_at"),
        ({"opened_at": NOON.replace(tzinfo=None)}, "opened_at: must be aware"),
        ({"return_ratio": float("nan")}, "return: must be a finite number"),
    ],
)
def test_what_cannot_be_a_result_on_paper_is_refused_at_once(
    client: Client, changes: dict[str, Any], message: str
) -> None:
    told = {"return_ratio": 0.001, "opened_at": NOON, "closed_at": NOON + timedelta(minutes=5)}
    with pytest.raises(InvalidInput, match=message):
        client.on_paper(client.assign(UNIT, "BTCUSD"), "prod", **{**told, **changes})
    assert client.pending() == 0


def test_a_refused_outcome_is_kept_told_and_blocks_nothing(
    client: Client, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    made = [client.assign(f"u-{n}", "BTCUSD") for n in range(3)]
    earned(made[0], client)
    assert client.flush(30)
    earned(made[0], client, pnl="99")  # another body for the same decision
    for assignment in made[1:]:
        earned(assignment, client)
    assert client.flush(30)
    (refusal,) = client.refused()
    assert (refusal.kind, refusal.problem.code, refusal.problem.status) == (
        Kind.OUTCOME,
        "conflict",
        409,
    )
    assert '"99.00000000"' in refusal.body
    assert "the service refused a report" in caplog.messages
    assert outcomes(engine) == [(f"u-{n}", Decimal("12.34")) for n in range(3)]
    client.forget(refusal)
    assert client.refused() == []


def test_what_the_service_refuses_is_raised_with_field_and_rule(client: Client, url: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        client.assign(UNIT, "BTCUSD", context=["x" * 70_000])
    assert caught.value.code == "body_too_large"
    with pytest.raises(InvalidInput, match="unit_id: must match"):
        client.assign("with space", "BTCUSD")
    earned(client.assign("late", "BTCUSD"), client)


def test_an_experiment_that_is_none_is_no_outage(url: str, tmp_path: Path) -> None:
    with Client(url, "eth", key=KEY, spool_dir=tmp_path, **Hands().options()) as client:
        with pytest.raises(RequestRefused) as caught:
            client.assign(UNIT, "BTCUSD")
        assert caught.value.code == "unknown_name"


def test_a_wrong_key_loses_no_outcome_and_is_never_shown(
    url: str, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(url, "btc", key=KEY, spool_dir=tmp_path, **Hands().options()) as client:
        made = client.assign(UNIT, "BTCUSD")
        assert KEY not in repr(client)
    wrong = "another-key-that-nobody-may-see"
    with Client(url, "btc", key=wrong, spool_dir=tmp_path, **Hands().options()) as client:
        with pytest.raises(RequestRefused) as caught:
            client.assign("u-2", "BTCUSD")
        assert caught.value.code == "unauthorized"
        earned(made, client)
        assert not client.flush(1)
        assert (client.pending(), client.refused()) == (1, [])
    with Client(url, "btc", key=KEY, spool_dir=tmp_path, **Hands().options()) as client:
        assert client.flush(30)
    assert outcomes(engine) == [(UNIT, Decimal("12.34"))]
    shown = [*caplog.messages, *(str(vars(r)) for r in caplog.records), str(caught.value)]
    shown += [file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*")]
    assert not [said for said in shown if "nobody-may-see" in said]


def test_the_champion_decides_while_the_service_is_away(engine: Engine, tmp_path: Path) -> None:
    open_btc(engine)
    app = application(engine, clock=VirtualClock(NOON))
    hands = Hands()
    with serving(app, host="127.0.0.1", port=0) as url:
        client = Client(url, "btc", spool_dir=tmp_path, **hands.options())
        routed = client.assign(UNIT, "BTCUSD")
    hands.pass_by(60)
    alone = client.assign("u-2", "BTCUSD")
    assert (alone.policy, alone.policy_sha, alone.role) == ("prod", "aaaaaaaa", "champion")
    assert (alone.is_fallback, alone.propensity) == (True, 1.0)
    assert alone.decided_at == NOON + timedelta(minutes=1)
    assert client.assign("u-2", "BTCUSD") == alone
    with pytest.raises(ServiceUnavailable):
        client.claim(routed)
    with pytest.raises(ServiceUnavailable, match="the policy that opened the position"):
        client.assign("u-3", "BTCUSD", position=routed)
    earned(routed, client)
    port = int(url.rsplit(":", 1)[1])
    with serving(app, host="127.0.0.1", port=port):
        assert client.flush(60)
        assert outcomes(engine) == [(UNIT, Decimal("12.34"))]
    client.close(timeout=0)


def test_an_async_bot_gets_the_same(url: str, engine: Engine, tmp_path: Path) -> None:
    async def bot() -> list[str]:
        options: dict[str, Any] = Hands().options()
        async with AsyncClient(url, "btc", key=KEY, spool_dir=tmp_path, **options) as client:
            made = await asyncio.gather(*(client.assign(f"u-{n}", "BTCUSD") for n in range(20)))
            for assignment in made:
                await client.outcome(
                    assignment,
                    pnl=Decimal("-1.5"),
                    return_ratio=-0.00015,
                    opened_at=NOON,
                    closed_at=NOON,
                )
            assert await client.flush(30)
            assert (await client.pending(), await client.refused()) == (0, [])
            assert repr(client) == f"AsyncClient('{url}', 'btc')"
        with pytest.raises(ClientClosed):
            await client.assign("late", "BTCUSD")
        return [assignment.unit_id for assignment in made]

    units = asyncio.run(bot())
    assert outcomes(engine) == [(unit, Decimal("-1.5")) for unit in sorted(units)]


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.assign(UNIT, "BTCUSD")


def test_a_decision_alone_says_why(url: str, tmp_path: Path) -> None:
    hands = Hands()
    with Client(url, "btc", key=KEY, spool_dir=tmp_path, **hands.options()) as client:
        client.assign(UNIT, "BTCUSD")
        # A deadline that nobody can meet is an outage to the bot.
        for number in range(4):
            assert client.assign(f"u-{number}", "BTCUSD", deadline=0.0).is_fallback
        core = client._client._driver.core
        reasons = [core.spool.fallback(f"u-{number}") for number in range(4)]
        assert [r.reason for r in reasons if r is not None] == [Reason.NO_ANSWER] * 3 + [
            Reason.BREAKER_OPEN
        ]
        client.close(timeout=0)


def test_a_kill_stops_the_bot_and_a_release_lets_it_go_on(client: Client, engine: Engine) -> None:
    made = client.assign(UNIT, "BTCUSD")
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    for call in (lambda: client.assign("next", "BTCUSD"), lambda: client.claim(made)):
        with pytest.raises(Killed):
            call()
    killing.release(engine, None, reason="over", now=NOON, actor="test")
    assert client.claim(made) == NOON
    assert client.assign(UNIT, "BTCUSD") == made


def test_a_claim_is_refused_once_the_arm_is_halted(client: Client, engine: Engine) -> None:
    made = [client.assign(f"u-{n}", "BTCUSD") for n in range(60)]
    challenger = next(a for a in made if a.policy == CHALLENGER)
    champion = next(a for a in made if a.policy == "prod")
    change(engine, ArmVerb.HALT)
    with pytest.raises(Revoked):
        client.claim(challenger)
    assert client.claim(champion) == NOON


def test_marks_reach_the_ledger_and_a_wrong_one_goes_nowhere(
    client: Client, engine: Engine
) -> None:
    made = client.assign(UNIT, "BTCUSD")
    client.mark(made, unrealised_pnl=Decimal("-3.20"), marked_at=NOON)
    client.mark(AssignmentId(str(UUID(int=7))), unrealised_pnl=Decimal(1), marked_at=NOON)
    assert client.flush(30)
    with engine.connect() as connection:
        marked = connection.execute(text("SELECT unrealised_pnl FROM marks")).scalars().all()
    assert marked == [Decimal("-3.20")]
    (refusal,) = client.refused()
    assert (refusal.kind, refusal.problem.code) == (Kind.MARK, "unknown_name")


def test_decisions_taken_alone_are_told_when_the_service_is_back(
    engine: Engine, tmp_path: Path
) -> None:
    open_btc(engine)
    app = application(engine, clock=VirtualClock(NOON))
    with serving(app, host="127.0.0.1", port=0) as url:
        bot = Client(url, "btc", spool_dir=tmp_path, **Hands().options())
        bot.assign("before", "BTCUSD")
    with bot:
        alone = bot.assign("alone", "BTCUSD")
        assert (alone.policy, alone.is_fallback) == ("prod", True)
        earned(alone, bot)
        with serving(app, host="127.0.0.1", port=int(url.rpartition(":")[2])):
            assert bot.flush(60)
            assert bot.refused() == []
    assert [unit for unit, _ in outcomes(engine)] == ["alone"]
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT unit_id, propensity FROM assignments WHERE is_fallback")
        ).all()
    assert [tuple(row) for row in told] == [("alone", 1.0)]
