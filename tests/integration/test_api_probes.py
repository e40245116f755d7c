"""Probes when the ledger says nothing, and what the log says of requests that were not served."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest
from api_service import application, service
from ledger import open_btc, set_database_clock
from sqlalchemy import Engine

from bandit.core.errors import LedgerUnavailable
from bandit.storage.engine import PROTOCOL, connect
from liveops.api.probes import LedgerProbe
from liveops.api.server import serving

HURRIED = 0.2


class BlackHole:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take)
        self._thread.start()
        port = self._socket.getsockname()[1]
        self.url = f"postgresql+psycopg://bot:s3cret@127.0.0.1:{port}/ledger"

    def _take(self) -> None:
        while True:
            taken, _ = self._socket.accept()
            self.taken.append(taken)
            if taken.recv(1) == b"!":
                return

    def close(self) -> None:
        with socket.create_connection(self._socket.getsockname()) as last:
            last.sendall(b"!")
            self._thread.join()
        for taken in (*self.taken, self._socket):
            taken.close()


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    with closing(BlackHole()) as hole:
        yield hole


def test_probes_of_a_silent_ledger_end_and_share_their_questions(black_hole: BlackHole) -> None:
    app = application(connect(black_hole.url))
    with serving(app, host="127.0.0.1", port=0) as url:

        async def asked() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                paths = ["/ready", "/health"] * 10
                return await asyncio.gather(*(client.get(path) for path in paths))

        answers = asyncio.run(asked())
        assert httpx.get(f"{url}/ping").status_code == 200
    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].json()["code"] == "ledger_unavailable"
    assert answers[1].json()["health_status"] == "UNHEALTHY"
    assert len(black_hole.taken) <= 4  # two questions, of one attempt more at most
    assert not any("s3cret" in answer.text for answer in answers)


def test_a_ledger_that_falls_silent_is_unready_until_it_speaks(engine: Engine) -> None:
    async def asked(probe: LedgerProbe[None]) -> str:
        try:
            await probe.answer()
        except LedgerUnavailable as error:
            return str(error)
        return "ready"

    async def told() -> None:
        probe = LedgerProbe(engine, lambda _: None, seconds=HURRIED)
        with engine.connect() as locker:
            locker.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
            assert await asked(probe) == "the ledger did not answer within 0.2 s"
            locker.rollback()
        patient = LedgerProbe(engine, lambda _: None, seconds=30)
        assert await asked(patient) == "ready"

    asyncio.run(told())


FOREIGN = f"this process speaks decision protocol {PROTOCOL}, the ledger {PROTOCOL + 1}"


def next_protocol(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE decision_protocol SET version = version + 1")


def clock_of_tomorrow(engine: Engine) -> None:
    set_database_clock(engine, "now() + interval '1 day'")


@pytest.mark.parametrize(
    ("befall", "code", "detail"),
    [
        (next_protocol, "foreign_protocol", FOREIGN),
        (clock_of_tomorrow, "ledger_unavailable", "from the database's, at most 5 s are allowed"),
    ],
)
def test_replica_that_may_not_decide_is_unready_and_says_why(
    engine: Engine, befall: Callable[[Engine], None], code: str, detail: str
) -> None:
    open_btc(engine)
    with service(engine) as client:
        assert client.get("/ready").status_code == 200
        befall(engine)
        refused = client.get("/ready")
        assert (refused.status_code, refused.json()["code"]) == (503, code)
        assert refused.headers["retry-after"] == "1"
        health = client.get("/health")
        [issue] = health.json()["issues"]
        assert (health.status_code, health.json()["health_status"]) == (503, "UNHEALTHY")
        assert detail in refused.json()["detail"]
        assert detail in issue
        # What takes risk away needs no readiness.
        halt = "/v1/experiments/btc/arms/eee02a74/halt"
        assert client.post(halt, json={"reason": "drill"}).status_code == 200


def test_the_log_tells_route_and_cause_of_a_request_that_was_not_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = connect("postgresql+psycopg://bot:s3cret@127.0.0.1:1/ledger")
    with (
        serving(application(nowhere), host="127.0.0.1", port=0) as url,
        caplog.at_level(logging.WARNING, logger="liveops"),
    ):
        httpx.get(f"{url}/v1/experiments/btc/report")
        httpx.post(f"{url}/v1/policies", json={"name": "p", "kind": "tabnet", "sha": "aaaaaaaa"})
        httpx.get(f"{url}/ready")
    told = [
        (
            record.getMessage(),
            *(vars(record)[name] for name in ("method", "route", "code", "cause")),
        )
        for record in caplog.records
    ]
    event, code, cause = "request not served", "ledger_unavailable", "OperationalError"
    assert told == [
        (event, "GET", "/v1/experiments/{experiment}/report", code, cause),
        (event, "POST", "/v1/policies", code, cause),
        (event, "GET", "/ready", code, cause),
    ]
    assert "s3cret" not in str([vars(record) for record in caplog.records])
