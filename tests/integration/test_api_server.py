"""Where the service listens, whom it lets in, and how it stops."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from api_service import application, service
from ledger import WAITING, open_btc
from sqlalchemy import Engine

from bandit.core.errors import InvalidInput
from bandit.storage.engine import connect
from liveops.api.server import PortTaken, serving
from liveops.stopping import wait_for_stop
from liveops.wiring import App

KEY = "correct-horse-battery-staple"


@pytest.fixture
def app() -> App:
    """An App that is not asked for anything."""
    return application(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))


@pytest.fixture
def guarded(engine: Engine) -> Iterator[str]:
    open_btc(engine)
    with service(engine, key=KEY) as client:
        yield str(client.base_url).removesuffix("/")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - must be refused
def test_without_a_key_only_loopback_is_served(app: App, host: str) -> None:
    with pytest.raises(InvalidInput) as caught, serving(app, host=host, port=0):
        pass
    assert caught.value.field == "host"
    assert caught.value.rule == "must be a loopback address while no API key is set"


def test_with_a_key_every_address_may_be_served() -> None:
    app = application(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), key=KEY)
    with serving(app, host="0.0.0.0", port=0) as url:  # noqa: S104 - what is tested
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/ping").json() == {"status": "ok"}


def test_an_empty_key_is_none() -> None:
    app = application(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), key="")
    with pytest.raises(InvalidInput), serving(app, host="0.0.0.0", port=0):  # noqa: S104
        pass
    with serving(app, host="127.0.0.1", port=0) as url:
        assert httpx.get(f"{url}/metrics").status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_every_loopback_name_may_be_served(app: App, host: str) -> None:
    with serving(app, host=host, port=0) as url:
        assert httpx.get(f"{url}/ping").status_code == 200


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1 "])
def test_a_host_that_is_none_is_said_so(app: App, host: str) -> None:
    with pytest.raises(InvalidInput) as caught, serving(app, host=host, port=0):
        pass
    assert caught.value.field == "host"


def test_an_address_of_another_machine_is_said_so() -> None:
    app = application(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), key=KEY)
    with pytest.raises(InvalidInput) as caught, serving(app, host="192.0.2.1", port=0):
        pass
    assert (caught.value.field, caught.value.found) == ("host", "192.0.2.1")


def test_a_taken_port_is_said_so(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken) as caught, serving(app, host="127.0.0.1", port=port):
            pass
    assert str(caught.value) == (
        f"port {port} of 127.0.0.1 is in use: stop that program, or choose another"
    )


def test_a_port_is_free_again_as_soon_as_serving_ends(app: App) -> None:
    with serving(app, host="127.0.0.1", port=0) as url:
        port = int(url.rpartition(":")[2])
        httpx.get(f"{url}/ping")
    with serving(app, host="127.0.0.1", port=port) as url:
        assert httpx.get(f"{url}/ping").status_code == 200
    assert "http" not in {thread.name for thread in threading.enumerate()}


def test_a_request_under_way_is_answered_before_the_end(engine: Engine) -> None:
    answers: list[int] = []
    with engine.connect() as blocker, engine.begin() as busy:
        busy.exec_driver_sql("LOCK TABLE policies IN ACCESS EXCLUSIVE MODE")
        with service(engine) as client:
            url = client.base_url.join("/v1/policies")
            body = {"name": "late", "kind": "tabnet", "sha": "bbbbbbbb"}
            thread = threading.Thread(
                target=lambda: answers.append(httpx.post(url, json=body).status_code)
            )
            thread.start()
            while blocker.exec_driver_sql(WAITING).scalar_one() == 0:
                blocker.rollback()  # a transaction sees one moment of other sessions
            threading.Timer(0.2, busy.commit).start()
        thread.join()
    assert answers == [201]


def test_probes_need_no_key(guarded: str) -> None:
    found = [httpx.get(f"{guarded}{path}").status_code for path in ("/ping", "/health", "/ready")]
    assert found == [200, 200, 200]


def test_everything_else_needs_the_key(guarded: str) -> None:
    paths = ("/metrics", "/openapi.json", "/v1/policies", "/v1/experiments/btc", "/nope")
    wrong: tuple[dict[str, str | bytes], ...] = (
        {},
        *(
            {"Authorization": value}
            for value in (
                "",
                KEY,
                "Bearer",
                f"Bearer {KEY[:-1]}",
                f"Bearer {KEY}x",
                f"Bearer  {KEY}",
                f"Basic {KEY}",
                b"Bearer \xff\xfe",
            )
        ),
    )
    with httpx.Client(base_url=guarded) as client:
        for path, headers in itertools.product(paths, wrong):
            response = client.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["code"] == "unauthorized"
            assert KEY not in response.text


def test_the_key_opens(guarded: str) -> None:
    headers = {"Authorization": f"bearer {KEY}"}
    assert httpx.get(f"{guarded}/metrics", headers=headers).status_code == 200
    body = {"unit_id": "u", "instrument": "BTCUSD"}
    url = f"{guarded}/v1/experiments/btc/assignments"
    assert httpx.post(url, json=body).status_code == 401
    assert httpx.post(url, json=body, headers=headers).status_code == 200


def test_without_a_key_only_loopback_names_are_answered(engine: Engine) -> None:
    lawful = ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8800", "[::1]")
    foreign = ("evil.example", "evil.example:8800", "192.0.2.1", "localhost.x", "")
    with service(engine) as client:
        for host in lawful:
            assert client.get("/v1/policies", headers={"Host": host}).status_code == 200
        for host in foreign:
            response = client.get("/v1/policies", headers={"Host": host})
            assert (response.status_code, response.json()["code"]) == (403, "foreign_host")


def test_without_a_key_a_foreign_page_cannot_send_a_visitor_here(engine: Engine) -> None:
    lawful = ("http://localhost:8800", "http://127.0.0.1:3000", "http://[::1]")
    foreign = ("https://evil.example", "http://localhost.evil.example:8800", "null")
    with service(engine) as client:
        for origin in lawful:
            assert client.get("/v1/policies", headers={"Origin": origin}).status_code == 200
        for origin in foreign:
            response = client.post("/v1/experiments/btc/scale", headers={"Origin": origin})
            assert (response.status_code, response.json()["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_and_nothing_else(app: App, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with serving(app, host="127.0.0.1", port=0) as url:
        # From another thread, as from another process: the main thread is the one that hears it.
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        wait_for_stop(meanwhile=lambda: None)
        assert httpx.get(f"{url}/ping").status_code == 200
    assert signal.getsignal(number) is before
