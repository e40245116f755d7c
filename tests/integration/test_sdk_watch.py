"""A bot whose monitor falls silent: smaller, then nothing new, whoever is away and whatever clock.

The scripted server says what a service says; tests/e2e/test_monitor_dies.py has both for real.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger import NOON
from sdk_bot import Hands, ScriptedService, eventually, problem, scripted

from liveops.client import (
    AsyncClient,
    Client,
    Heartbeat,
    InvalidInput,
    Killed,
    ServiceUnavailable,
    Unwatched,
)

ALIVE = "throttle=840, halt=1740"


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as service:
        service.watch = ALIVE
        yield service


@contextmanager
def bot(url: str, folder: Path, hands: Hands, **options: Any) -> Iterator[Client]:
    client = Client(url, "btc", spool_dir=folder, **(hands.options() | options))
    try:
        yield client
    finally:
        client.close(timeout=0)


@pytest.fixture
def client(service: ScriptedService, tmp_path: Path, hands: Hands) -> Iterator[Client]:
    with bot(service.url, tmp_path, hands) as client:
        yield client


def away(_: object) -> tuple[int, Any]:
    return problem(503, "ledger_unavailable")


def no_answers(service: ScriptedService) -> None:
    service.answers |= dict.fromkeys(("assign", "decide", "claim", "fallback"), away)


def beat(client: Client, service: ScriptedService) -> None:
    """Send a heartbeat, and return once its answer was taken in."""
    before = service.came.count("heartbeat")
    client.heartbeat(
        Heartbeat(bot="alpha", started_at=NOON, candles={}, api_errors_total=0, open_positions=0)
    )
    driver = client._client._driver
    eventually(lambda: service.came.count("heartbeat") > before)
    eventually(lambda: driver._beats is not None and driver._beats.done())


def test_answers_of_a_watched_experiment_change_nothing(client: Client) -> None:
    made = client.assign("u-1", "BTCUSD")
    assert (made.size_multiplier, made.is_unwatched, made.is_opening) == (1.0, False, True)
    assert client.claim(made) == NOON


def test_a_service_that_says_the_monitor_is_silent_makes_bots_smaller_then_stops_them(
    client: Client, service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="liveops.client")
    opener = client.assign("u-0", "BTCUSD")
    service.watch = "throttle=0, halt=900"
    for unit in ("u-1", "u-2"):
        made = client.assign(unit, "BTCUSD")
        assert (made.size_multiplier, made.is_unwatched) == (0.5, True)
        assert client.claim(made) == NOON
    service.watch = "throttle=0, halt=0"
    with pytest.raises(Unwatched, match="open nothing new") as caught:
        client.assign("u-3", "BTCUSD")
    assert caught.value.assignment is not None
    assert caught.value.assignment.unit_id == "u-3"
    client.no_trade(caught.value.assignment)
    with pytest.raises(Unwatched) as at_claim:
        client.claim(opener)
    assert at_claim.value.assignment == opener
    assert service.came.count("assign") == 4, "it asks each time"
    service.watch = ALIVE
    again = client.assign("u-3", "BTCUSD")
    assert (again.size_multiplier, again.is_unwatched) == (1.0, False)
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("new positions")]
    assert said == [
        "new positions are smaller: the monitor is silent",
        "new positions are refused: the monitor has been silent for too long",
        "new positions are opened as told: the monitor is there again",
    ]


def test_decisions_about_an_open_position_are_neither_refused_nor_smaller(
    client: Client, service: ScriptedService
) -> None:
    opener = client.assign("u-0", "BTCUSD")
    for watch in ("throttle=0, halt=900", "throttle=0, halt=0"):
        service.watch = watch
        later = client.assign("u-1", "BTCUSD", position=opener)
        assert (later.size_multiplier, later.is_unwatched) == (1.0, False)
        assert client.claim(later) == NOON
        acted = client.decide("u-2", "BTCUSD", features={}, position=opener)
        assert not acted.assignment.is_unwatched
        # Who says what it holds has something to close, whether it names the opener or not.
        held = client.decide(
            "u-3", "BTCUSD", features={}, held=0.5, unrealised_return=0.0, holding_share=0.1
        )
        assert not held.assignment.is_unwatched
        assert client.claim(held.assignment) == NOON
    with pytest.raises(Unwatched):
        client.decide("u-4", "BTCUSD", features={})


def test_an_action_is_as_much_smaller_as_its_decision(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    told = {
        "move": "open",
        "position": -0.8,
        "size": 0.8,
        "choice": "short",
        "confidence": 0.9,
        "reasons": [],
    }
    service.answers["decide"] = lambda body: (
        200,
        service.assignment(
            body["unit_id"], action=told, no_action_reason=None, size_multiplier=0.8
        ),
    )
    with bot(service.url, tmp_path, hands, watch_throttle=0.25) as client:
        assert client.decide("u-1", "BTCUSD", features={}).action.position == -0.8  # type: ignore[union-attr]
        service.watch = "throttle=0, halt=900"
        acted = client.decide("u-1", "BTCUSD", features={})
        assert acted.assignment.size_multiplier == pytest.approx(0.2)
        assert acted.action is not None
        assert (acted.action.position, acted.action.size) == (-0.2, 0.2)


def test_while_the_service_is_away_the_deadlines_run_on(
    client: Client, service: ScriptedService, hands: Hands
) -> None:
    service.watch = "throttle=300, halt=600"
    client.assign("u-0", "BTCUSD")
    no_answers(service)
    hands.pass_by(299)
    alone = client.assign("u-1", "BTCUSD")
    assert (alone.is_fallback, alone.size_multiplier, alone.is_unwatched) == (True, 1.0, False)
    hands.pass_by(1)
    smaller = client.assign("u-2", "BTCUSD")
    assert (smaller.is_fallback, smaller.size_multiplier) == (True, 0.5)
    # What was decided before is acted on under what holds now.
    assert client.assign("u-1", "BTCUSD").size_multiplier == 0.5
    hands.pass_by(299)
    late = client.assign("u-3", "BTCUSD")
    hands.pass_by(1)
    with pytest.raises(Unwatched) as caught:
        client.assign("u-4", "BTCUSD")
    assert caught.value.assignment is None
    assert client.pending() == 3, "what was refused is not decided"
    for ask in (lambda: client.assign("u-1", "BTCUSD"), lambda: client.claim(late)):
        with pytest.raises(Unwatched):
            ask()
    service.answers.clear()
    assert client.assign("u-4", "BTCUSD").size_multiplier == 1.0


@pytest.mark.parametrize("route", ["claim", "heartbeat"])
def test_claims_and_heartbeats_renew_the_deadlines_too(
    client: Client, service: ScriptedService, hands: Hands, route: str
) -> None:
    made = client.assign("u-0", "BTCUSD")
    hands.pass_by(800)
    if route == "claim":
        client.claim(made)
    else:
        beat(client, service)
    no_answers(service)
    hands.pass_by(90)  # 890 after the assignment, which told of 840
    assert not client.assign("u-1", "BTCUSD").is_unwatched


def test_a_heartbeat_is_no_contact_that_lets_the_champion_stand_in_for_longer(
    client: Client, service: ScriptedService, hands: Hands
) -> None:
    service.watch = None
    client.assign("u-0", "BTCUSD")
    hands.pass_by(800)
    hands.now -= timedelta(seconds=800)  # only the clock that nobody sets knows
    beat(client, service)
    no_answers(service)
    hands.pass_by(101)
    with pytest.raises(ServiceUnavailable, match="more than the 900 s"):
        client.assign("u-1", "BTCUSD")


def test_an_answer_without_the_header_waits_for_nobody(
    client: Client, service: ScriptedService, hands: Hands
) -> None:
    service.watch = "throttle=10, halt=20"
    client.assign("u-0", "BTCUSD")
    service.watch = None  # a person ended the monitor, or the service is older
    assert not client.assign("u-1", "BTCUSD").is_unwatched
    no_answers(service)
    hands.pass_by(600)
    assert not client.assign("u-2", "BTCUSD").is_unwatched


@pytest.mark.parametrize("said", ["soon", "throttle=-1, halt=5", "halt=5", "throttle=1e9, halt=1"])
def test_a_header_that_cannot_be_read_gives_no_more_time(
    client: Client, service: ScriptedService, hands: Hands, said: str
) -> None:
    client.assign("u-0", "BTCUSD")
    service.watch = said
    hands.pass_by(840)
    assert client.assign("u-1", "BTCUSD").is_unwatched


def test_refusals_of_the_service_come_before(
    client: Client, service: ScriptedService, hands: Hands
) -> None:
    client.assign("u-0", "BTCUSD")
    hands.pass_by(5000)
    service.answers["assign"] = lambda _: problem(423, "killed")
    with pytest.raises(Killed):
        client.assign("u-1", "BTCUSD")


# Restarts and clocks


@contextmanager
def restarted(tmp_path: Path, hands: Hands, *, at: datetime | None = None) -> Iterator[Client]:
    """A bot that heard of 300 and 600 s, was gone for 200, and whose service is away now."""
    with scripted() as service:
        service.watch = "throttle=300, halt=600"
        with bot(service.url, tmp_path, hands) as client:
            client.assign("u-0", "BTCUSD")
        url = service.url
    hands.pass_by(200)
    hands.seconds = 0.0  # its clock begins anew
    if at is not None:
        hands.now = at
    with bot(url, tmp_path, hands, fallback_minutes=600.0) as client:
        yield client


def test_deadlines_outlive_the_bot(tmp_path: Path, hands: Hands) -> None:
    with restarted(tmp_path, hands) as client:
        assert not client.assign("u-1", "BTCUSD").is_unwatched
        hands.pass_by(100)
        assert client.assign("u-2", "BTCUSD").is_unwatched
        hands.pass_by(300)
        with pytest.raises(Unwatched):
            client.assign("u-3", "BTCUSD")


def test_a_clock_set_back_gives_no_more_than_was_stored(tmp_path: Path, hands: Hands) -> None:
    with restarted(tmp_path, hands, at=NOON - timedelta(days=1)) as client:
        hands.pass_by(299)
        assert not client.assign("u-1", "BTCUSD").is_unwatched
        hands.pass_by(1)
        assert client.assign("u-2", "BTCUSD").is_unwatched
        hands.now -= timedelta(days=1)
        hands.pass_by(300)
        with pytest.raises(Unwatched):
            client.assign("u-3", "BTCUSD")


def test_a_machine_that_slept_is_not_young(client: Client, hands: Hands) -> None:
    """Its monotonic clock stood still; the wall clock did not."""
    service = client._client._driver.core
    client.assign("u-0", "BTCUSD")
    hands.now += timedelta(seconds=840)
    assert service._watchdog._now_level(service._contact.watch) == "throttled"


def test_what_a_process_beside_heard_last_counts_while_the_service_is_away(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.watch = "throttle=100, halt=200"
    with bot(service.url, tmp_path, hands) as first, bot(service.url, tmp_path, hands) as second:
        first.assign("u-0", "BTCUSD")
        hands.pass_by(90)
        second.assign("u-0", "BTCUSD")
        no_answers(service)
        hands.pass_by(60)
        assert not first.assign("u-1", "BTCUSD").is_unwatched


def test_answers_of_one_pulse_are_not_each_written_to_disk(
    client: Client, service: ScriptedService, hands: Hands
) -> None:
    spool = client._client._driver.core.spool
    client.assign("u-0", "BTCUSD")
    stored = spool.contact()
    for second in range(1, 9):
        hands.pass_by(1)
        service.watch = f"throttle={840 - second}, halt={1740 - second}"
        client.assign(f"u-{second}", "BTCUSD")
    assert spool.contact() == stored


def test_a_spool_of_a_release_before_is_read(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-0", "BTCUSD")
        spool = client._client._driver.core.spool
        with spool._transaction() as cursor:
            cursor.execute("UPDATE contact SET body = json_remove(body, '$.watch')")
    no_answers(service)
    hands.pass_by(850)
    with bot(service.url, tmp_path, hands) as client:
        made = client.assign("u-1", "BTCUSD")
        assert (made.is_fallback, made.is_unwatched) == (True, False)


# The same on an event loop


def test_an_async_bot_is_throttled_stopped_and_goes_on(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    async def trade() -> None:
        options = hands.options() | {"watch_throttle": 0.1}
        async with AsyncClient(service.url, "btc", spool_dir=tmp_path, **options) as client:
            opener = await client.assign("u-0", "BTCUSD")
            no_answers(service)
            hands.pass_by(840)
            assert (await client.assign("u-1", "BTCUSD")).size_multiplier == 0.1
            service.answers.clear()
            service.watch = "throttle=0, halt=0"
            for ask in (client.assign("u-2", "BTCUSD"), client.claim(opener)):
                with pytest.raises(Unwatched):
                    await ask
            assert not (await client.assign("u-3", "BTCUSD", position=opener)).is_unwatched
            service.watch = ALIVE
            assert not (await client.assign("u-4", "BTCUSD")).is_unwatched
            assert await client.claim(opener) == NOON
            await client.close(timeout=0)

    asyncio.run(trade())


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InvalidInput, match=r"watch_throttle: must lie in 0..1"):
        Client("http://127.0.0.1:9", "btc", spool_dir=tmp_path, watch_throttle=share)


def test_a_share_of_nothing_still_lets_positions_close(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.watch = "throttle=0, halt=900"
    with bot(service.url, tmp_path, hands, watch_throttle=0.0) as client:
        opener = client.assign("u-0", "BTCUSD")
        assert opener.size_multiplier == 0
        assert client.assign("u-1", "BTCUSD", position=opener).size_multiplier == 1.0
