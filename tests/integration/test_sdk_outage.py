"""What a bot does while the service is away, killed or slow: a scripted server on a real socket.

What the service itself answers to kills, claims, fallbacks and marks is in test_sdk_service.py.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ledger import NOON
from sdk_bot import UNIT, Hands, ScriptedService, earned, eventually, experiment, problem, scripted

from liveops.client import (
    Client,
    Expired,
    Killed,
    Kind,
    Paused,
    RequestRefused,
    Revoked,
    ServiceUnavailable,
    SpoolFull,
)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as service:
        yield service


@contextmanager
def bot(url: str, folder: Path, hands: Hands, **options: Any) -> Iterator[Client]:
    """A client that does not wait for the service when it closes."""
    client = Client(url, "btc", spool_dir=folder, **(hands.options() | options))
    try:
        yield client
    finally:
        client.close(timeout=0)


@contextmanager
def bot_of_a_dead_service(folder: Path, hands: Hands, **options: Any) -> Iterator[Client]:
    """A client whose service routed one unit and then went away."""
    with scripted() as service:
        client = Client(service.url, "btc", spool_dir=folder, **(hands.options() | options))
        client.assign("before", "BTCUSD")
    try:
        yield client
    finally:
        client.close(timeout=0)


def away(_: object) -> tuple[int, Any]:
    return problem(503, "ledger_unavailable")


def test_the_champion_stands_in_for_fifteen_minutes_and_not_longer(
    tmp_path: Path, hands: Hands
) -> None:
    with bot_of_a_dead_service(tmp_path, hands) as client:
        hands.pass_by(899)
        assert client.assign("u-1", "BTCUSD").is_fallback
        hands.pass_by(2)
        with pytest.raises(ServiceUnavailable, match="more than the 900 s"):
            client.assign("u-2", "BTCUSD")
        assert client.assign("u-1", "BTCUSD").is_fallback  # decided already


def test_a_clock_set_back_gives_no_second_quarter_of_an_hour(tmp_path: Path, hands: Hands) -> None:
    with bot_of_a_dead_service(tmp_path, hands) as client:
        hands.pass_by(899)
        client.assign("u-1", "BTCUSD")
        url = client._client._driver.core.url
    hands.now -= timedelta(hours=1)
    hands.seconds = 0.0  # the machine was restarted
    with bot(url, tmp_path, hands) as client:
        assert client.assign("u-2", "BTCUSD").is_fallback
        hands.pass_by(2)
        with pytest.raises(ServiceUnavailable):
            client.assign("u-3", "BTCUSD")


def test_a_denied_fallback_stays_denied_after_a_restart(tmp_path: Path, hands: Hands) -> None:
    with bot_of_a_dead_service(tmp_path, hands) as client:
        hands.pass_by(3600)
        with pytest.raises(ServiceUnavailable):
            client.assign("u-1", "BTCUSD")
        url = client._client._driver.core.url
    hands.now -= timedelta(hours=1)
    with bot(url, tmp_path, hands) as client, pytest.raises(ServiceUnavailable):
        client.assign("u-2", "BTCUSD")


def test_a_restarted_bot_remembers_champion_and_contact(tmp_path: Path, hands: Hands) -> None:
    with bot_of_a_dead_service(tmp_path, hands) as client:
        url = client._client._driver.core.url
    hands.pass_by(600)
    with bot(url, tmp_path, hands) as client:
        alone = client.assign("u-1", "BTCUSD")
        assert (alone.policy, alone.is_fallback) == ("prod", True)
        assert alone.expires_at == hands.now + timedelta(seconds=2)


def test_nobody_stands_in_for_a_service_that_never_answered(tmp_path: Path, hands: Hands) -> None:
    with bot("http://127.0.0.1:9", tmp_path, hands) as client:
        with pytest.raises(ServiceUnavailable, match="has not routed a unit"):
            client.assign(UNIT, "BTCUSD")
        assert client.pending() == 0


def test_nobody_stands_in_while_the_champion_is_unknown(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.answers["experiment"] = lambda _: problem(403, "forbidden")
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        client.assign("u-2", "BTCUSD")
        assert service.came.count("experiment") == 1  # refused once, not asked at every decision
        service.answers["assign"] = away
        with pytest.raises(ServiceUnavailable, match="champion is not known"):
            client.assign("u-3", "BTCUSD")


def test_a_new_epoch_asks_for_the_champion_again(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        client.assign("u-2", "BTCUSD")
        new = {"policy": "next", "policy_sha": "bbbbbbbb"}
        service.answers["experiment"] = lambda _: (
            200,
            experiment(champion="next", epoch=2, arms=[new]),
        )
        service.answers["assign"] = lambda body: (
            200,
            service.assignment(body["unit_id"], epoch=2, **new),
        )
        client.assign("u-3", "BTCUSD")
        assert service.came.count("experiment") == 2
        service.answers["assign"] = away
        assert client.assign("u-4", "BTCUSD").policy == "next"


def test_a_fallback_trades_no_larger_than_the_champion_did_last(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    def reduced(body: Any) -> tuple[int, Any]:
        made = service.assignment(body["unit_id"], size_multiplier=0.5, confidence_bump=0.1)
        return 200, made

    service.answers["assign"] = reduced
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        service.answers["assign"] = away
        alone = client.assign("u-2", "BTCUSD")
        assert (alone.size_multiplier, alone.confidence_bump) == (0.5, 0.1)


def test_a_unit_is_asked_for_twice_before_the_client_decides_alone(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    answers = iter([problem(503, "stale_epoch")])
    service.answers["assign"] = lambda body: next(
        answers, (200, service.assignment(body["unit_id"]))
    )
    with bot(service.url, tmp_path, hands) as client:
        assert not client.assign(UNIT, "BTCUSD").is_fallback
        assert [body["unit_id"] for body in service.bodies["assign"]] == [UNIT, UNIT]
        service.answers["assign"] = away
        assert client.assign("u-2", "BTCUSD").is_fallback
        assert service.came.count("assign") == 4


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_a_refusal_is_no_outage(
    service: ScriptedService, tmp_path: Path, hands: Hands, status: int
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        service.answers["assign"] = lambda _: problem(status, "scripted_refusal")
        with pytest.raises(RequestRefused) as caught:
            client.assign("u-2", "BTCUSD")
        assert caught.value.code == "scripted_refusal"
        assert client.pending() == 0


def test_a_service_that_accepts_and_says_nothing_costs_the_deadline_then_nothing(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with bot(url, tmp_path, hands, failures_max=2) as client:
            for number in range(3):
                with pytest.raises(ServiceUnavailable):
                    client.assign(f"u-{number}", "BTCUSD", deadline=0.05)
            silent.settimeout(0)
            for _ in range(2):
                silent.accept()[0].close()
            with pytest.raises(BlockingIOError):  # the third call met an open circuit
                silent.accept()
            hands.pass_by(60)
            with pytest.raises(ServiceUnavailable):
                client.assign("u-9", "BTCUSD", deadline=0.05)
            silent.settimeout(5)
            silent.accept()[0].close()  # the probe


def test_many_silences_leave_connections_for_the_answer_that_comes(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    released = threading.Event()

    def slow(body: Any) -> tuple[int, Any]:
        released.wait(30)
        return 200, service.assignment(body["unit_id"])

    with bot(service.url, tmp_path, hands, failures_max=10**6) as client:
        client.assign("first", "BTCUSD")
        service.answers["assign"] = slow
        for number in range(150):
            assert client.assign(f"u-{number}", "BTCUSD", deadline=0.01).is_fallback
        released.set()
        assert not client.assign("last", "BTCUSD", deadline=10).is_fallback


def test_a_kill_is_raised_remembered_and_ended_by_the_next_answer(
    tmp_path: Path, hands: Hands
) -> None:
    with scripted() as service:
        with bot(service.url, tmp_path, hands) as client:
            client.assign("u-1", "BTCUSD")
            service.answers["assign"] = lambda _: problem(423, "killed", "kill switch: drill")
            with pytest.raises(Killed, match="kill switch: drill") as caught:
                client.assign("u-2", "BTCUSD")
            assert caught.value.code == "killed"
        url = service.url
    with bot(url, tmp_path, hands) as client:
        with pytest.raises(Killed, match="was killed when it was last heard of"):
            client.assign("u-3", "BTCUSD")
        assert client.pending() == 0


def test_a_kill_ends_with_the_next_answer(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        service.answers["assign"] = lambda _: problem(423, "killed")
        with pytest.raises(Killed):
            client.assign("u-2", "BTCUSD")
        del service.answers["assign"]
        hands.pass_by(1)
        client.assign("u-2", "BTCUSD")
        service.answers["assign"] = away
        assert client.assign("u-3", "BTCUSD").is_fallback


@pytest.mark.parametrize(
    ("status", "code", "error"), [(423, "killed", Killed), (409, "paused", Paused)]
)
def test_a_stop_that_one_process_heard_of_stops_the_other(
    service: ScriptedService,
    tmp_path: Path,
    hands: Hands,
    status: int,
    code: str,
    error: type[RequestRefused],
) -> None:
    with bot(service.url, tmp_path, hands) as first, bot(service.url, tmp_path, hands) as second:
        first.assign("u-1", "BTCUSD")
        second.assign("u-1", "BTCUSD")
        hands.pass_by(1)
        service.answers["assign"] = lambda _: problem(status, code)
        with pytest.raises(error):
            first.assign("u-2", "BTCUSD")
        service.answers["assign"] = away
        with pytest.raises(error):
            second.assign("u-3", "BTCUSD")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(409, "revoked", Revoked), (409, "expired", Expired), (423, "killed", Killed)],
)
def test_a_claim_tells_whether_the_decision_stands(
    service: ScriptedService,
    tmp_path: Path,
    hands: Hands,
    status: int,
    code: str,
    error: type[RequestRefused],
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        made = client.assign(UNIT, "BTCUSD")
        assert client.claim(made) == NOON
        service.answers["claim"] = lambda _: problem(status, code)
        with pytest.raises(error):
            client.claim(made)


def test_a_routed_decision_is_not_claimed_without_the_service(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        made = client.assign(UNIT, "BTCUSD")
        service.answers["claim"] = away
        with pytest.raises(ServiceUnavailable, match="place no order"):
            client.claim(made)


def test_a_decision_alone_is_claimed_alone_until_it_expires(tmp_path: Path, hands: Hands) -> None:
    with bot_of_a_dead_service(tmp_path, hands) as client:
        alone = client.assign("u-1", "BTCUSD")
        hands.pass_by(1)
        assert client.claim(alone) == hands.now
        hands.pass_by(2)
        with pytest.raises(Expired):
            client.claim(alone)


def test_a_decision_alone_is_claimed_at_the_service_that_came_back(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.answers["fallback"] = away
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        service.answers["assign"] = away
        alone = client.assign("u-2", "BTCUSD")
        del service.answers["fallback"]
        service.answers["claim"] = lambda _: problem(423, "killed")
        with pytest.raises(Killed):
            client.claim(alone)
        assert client.pending() == 0  # the report went first


def test_a_fallback_is_reported_before_its_outcome(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.answers["fallback"] = away
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        service.answers["assign"] = away
        alone = client.assign("u-2", "BTCUSD")
        earned(alone, client)
        client.mark(alone.id, unrealised_pnl=Decimal("-3.20"), marked_at=NOON)
        eventually(lambda: "fallback" in service.came)
        assert not {"batch", "marks"} & set(service.came)
        del service.answers["fallback"]
        assert client.flush(30)
    told = service.bodies["fallback"][-1]
    assert told == {
        "unit_id": "u-2",
        "instrument": "BTCUSD",
        "decided_at": NOON.isoformat(),
        "reason": "server_fault",
        "policy": "prod",
    }
    key = service.assignment("u-2")["assignment_id"]
    assert service.outcomes[key]["pnl"] == "12.34000000"
    assert service.bodies["marks"] == [
        [
            {
                "assignment_id": key,
                "unrealised_pnl": "-3.20000000",
                "marked_at": NOON.isoformat(),
            }
        ]
    ]


def test_a_fallback_of_a_unit_that_went_elsewhere_is_refused_with_its_outcome(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.answers["fallback"] = lambda _: problem(409, "conflict", "u-2 went to eee02a74")
    with bot(service.url, tmp_path, hands) as client:
        routed = client.assign("u-1", "BTCUSD")
        service.answers["assign"] = away
        alone = client.assign("u-2", "BTCUSD")
        earned(alone, client)
        earned(routed, client)
        assert client.flush(30)
        refused = client.refused()
        assert [(r.kind, r.problem.detail) for r in refused] == [
            (Kind.FALLBACK, "u-2 went to eee02a74"),
            (Kind.OUTCOME, "u-2 went to eee02a74"),
        ]
        with pytest.raises(RequestRefused, match="u-2 went to"):
            client.claim(alone)
    assert list(service.outcomes) == [routed.id]


def test_a_kill_told_to_a_report_stops_the_fallbacks(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands) as client:
        client.assign("u-1", "BTCUSD")
        service.answers["assign"] = away
        service.answers["fallback"] = lambda _: problem(423, "killed")
        client.assign("u-2", "BTCUSD")
        eventually(lambda: "fallback" in service.came)
        assert not client.flush(0.2)
        with pytest.raises(Killed):
            client.assign("u-3", "BTCUSD")
        assert client.pending() == 1


def test_marks_go_together_and_a_wrong_one_by_itself(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    def marks(body: Any) -> tuple[int, Any]:
        wrong = [mark for mark in body if mark["unrealised_pnl"].startswith("-")]
        return problem(422, "invalid_input") if wrong else (200, {"recorded": len(body)})

    service.answers["assign"] = away
    service.answers["marks"] = away
    with bot(service.url, tmp_path, hands) as client:
        key = "00000000-0000-0000-0000-000000000001"
        for pnl in ("1", "-2", "3"):
            client.mark(key, unrealised_pnl=Decimal(pnl), marked_at=NOON)  # type: ignore[arg-type]
        service.answers["marks"] = marks
        assert client.flush(30)
        (refusal,) = client.refused()
        assert (refusal.kind, refusal.problem.code) == (Kind.MARK, "invalid_input")
        assert '"-2.00000000"' in refusal.body


def test_a_route_that_takes_nothing_blocks_no_other(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.answers["marks"] = lambda _: problem(404, "no_such_route")
    with bot(service.url, tmp_path, hands) as client:
        made = client.assign(UNIT, "BTCUSD")
        client.mark(made, unrealised_pnl=Decimal(1), marked_at=NOON)
        earned(made, client)
        eventually(lambda: client.pending() == 1)
        assert list(service.outcomes) == [made.id]
        assert client.refused() == []


def test_a_report_that_makes_the_service_fail_blocks_no_other(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    def batch(lines: Any) -> tuple[int, Any]:
        if any(line["pnl"].startswith("66") for line in lines):
            return problem(500, "internal_error")
        return 200, [service._recorded(n, line) for n, line in enumerate(lines, start=1)]

    service.answers["batch"] = batch
    with bot(service.url, tmp_path, hands) as client:
        made = [client.assign(f"u-{n}", "BTCUSD") for n in range(5)]
        for number, assignment in enumerate(made):
            earned(assignment, client, pnl="66" if number == 1 else "1")
        eventually(lambda: client.pending() == 1)
        assert sorted(service.outcomes) == sorted(a.id for a in made if a is not made[1])
        del service.answers["batch"]
        assert client.flush(30)
        assert len(service.outcomes) == 5


def test_a_full_spool_is_told_to_the_caller(tmp_path: Path, hands: Hands) -> None:
    with bot_of_a_dead_service(tmp_path, hands, spool_max=2) as client:
        alone = client.assign("u-1", "BTCUSD")
        earned(alone, client)
        with pytest.raises(SpoolFull):
            earned(alone, client)
        with pytest.raises(SpoolFull):  # what cannot be journalled is not decided
            client.assign("u-2", "BTCUSD")
        assert client.pending() == 2


def test_clients_on_one_spool_send_each_report_once(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands) as first, bot(service.url, tmp_path, hands) as second:
        made = [first.assign(f"u-{n}", "BTCUSD") for n in range(30)]
        for number, assignment in enumerate(made):
            earned(assignment, (first, second)[number % 2])
        assert first.flush(30)
        assert second.flush(30)
    sent = [line["assignment_id"] for batch in service.bodies["batch"] for line in batch]
    assert sorted(sent) == sorted(assignment.id for assignment in made)


def test_the_key_goes_with_every_request(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    with bot(service.url, tmp_path, hands, key="a-key") as client:
        earned(client.assign(UNIT, "BTCUSD"), client)
        assert client.flush(30)
    assert set(service.keys) == {"Bearer a-key"}
    assert service.came == ["assign", "experiment", "batch"]


def test_an_answer_that_is_no_assignment_is_refused(
    service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    service.answers["assign"] = lambda _: (200, {"assignment_id": "x"})
    with bot(service.url, tmp_path, hands) as client:
        with pytest.raises(RequestRefused) as caught:
            client.assign(UNIT, "BTCUSD")
        assert caught.value.code == "unexpected_answer"
