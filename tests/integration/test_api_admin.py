"""The admin listener: what it serves, and that it answers while the public one cannot."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import httpx
import pytest
from api_service import application
from ledger import open_btc
from sqlalchemy import Engine

from bandit.core.model import ArmStatus
from bandit.service import experiments
from bandit.storage.engine import connect
from liveops.api.connections import Bounds
from liveops.api.server import PortTaken, administering, listening, serving
from liveops.wiring import App, with_own_engine

HALT = "/v1/experiments/btc/arms/eee02a74/halt"
REASON = {"reason": "its feed is stale"}
PLACES = 60


@pytest.fixture
def app(engine: Engine) -> App:
    open_btc(engine)
    return application(engine)


@contextmanager
def both(app: App) -> Iterator[tuple[str, str]]:
    """A public listener with few places, and the admin listener."""
    bounds = Bounds(connections_max=PLACES, header_seconds=600)
    with (
        with_own_engine(app, pool_size=2, statement_seconds=30) as own,
        administering(own, host="127.0.0.1", port=0) as admin,
        serving(app, host="127.0.0.1", port=0, bounds=bounds) as public,
    ):
        yield public, admin


def status_of_arm(engine: Engine) -> ArmStatus:
    arms = experiments.load(engine, "btc").arms
    return next(arm.place.status for arm in arms if arm.place.policy.endswith("eee02a74"))


@contextmanager
def every_connection_to_the_ledger_taken(engine: Engine) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(engine.pool.size()):  # type: ignore[attr-defined]
            stack.enter_context(engine.connect())
        yield


@contextmanager
def every_thread_taken(url: str, engine: Engine) -> Iterator[None]:
    """More requests than the listener has threads wait for a connection to the ledger."""
    asked = b"GET /v1/policies HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(PLACES - 10):
            client = stack.enter_context(dialled(url))
            client.sendall(asked)
        waiting = "AnyIO worker thread"
        while sum(thread.name == waiting for thread in threading.enumerate()) < 40:
            threading.Event().wait(0.01)
        yield


@contextmanager
def every_place_taken(url: str) -> Iterator[None]:
    """Clients that send a header byte and no more, until one is told that there is no room."""
    with ExitStack() as stack:
        while True:
            client = stack.enter_context(dialled(url))
            client.sendall(b"G")
            client.settimeout(0.2)
            try:
                assert b"503" in client.recv(100)
            except TimeoutError:
                continue
            except ConnectionResetError:
                pass
            break
        yield


def dialled(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def test_an_arm_is_halted_while_the_public_listener_is_crowded(app: App, engine: Engine) -> None:
    watcher = connect(engine.url.render_as_string(hide_password=False))
    with (
        both(app) as (public, admin),
        every_connection_to_the_ledger_taken(engine),
        every_thread_taken(public, engine),
        every_place_taken(public),
    ):
        try:
            crowded = httpx.post(public + HALT, json=REASON, timeout=5).status_code
        except httpx.TransportError:
            crowded = 0
        assert crowded in (0, 503)
        assert status_of_arm(watcher) is ArmStatus.ACTIVE
        assert httpx.get(f"{admin}/ready").status_code == 200
        assert httpx.get(f"{admin}/metrics").status_code == 200
        assert httpx.post(admin + HALT, json=REASON).status_code == 200
        assert status_of_arm(watcher) is ArmStatus.HALTED
    watcher.dispose()


def test_with_room_the_public_listener_halts_too(app: App, engine: Engine) -> None:
    with both(app) as (public, _):
        assert httpx.post(public + HALT, json=REASON).status_code == 200
    assert status_of_arm(engine) is ArmStatus.HALTED


def test_the_admin_listener_does_not_trade(app: App) -> None:
    assignments = "/v1/experiments/btc/assignments"
    body = {"unit_id": "u", "instrument": "BTCUSD"}
    with both(app) as (public, admin):
        refused = httpx.post(admin + assignments, json=body)
        assert (refused.status_code, refused.json()["code"]) == (404, "no_such_route")
        assert httpx.post(public + assignments, json=body).status_code == 200
        assert httpx.get(f"{admin}/v1/experiments/btc/report").status_code == 200
        paths = httpx.get(f"{admin}/openapi.json").json()["paths"]
    assert HALT.replace("btc", "{experiment}").replace("eee02a74", "{policy}") in paths
    assert set(paths["/v1/policies"]) == {"get", "post"}
    assert not [path for path in paths if "assignments" in path or "outcomes" in path]


def test_both_listeners_start_where_the_settings_say(app: App) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    server = app.settings.server.model_copy(update={"port": ports[0], "admin_port": ports[1]})
    chosen = replace(app, settings=app.settings.model_copy(update={"server": server}))
    with listening(chosen, host=None, port=None, admin_port=None) as at:
        assert (at.public, at.admin) == tuple(f"http://127.0.0.1:{port}" for port in ports)
        assert [httpx.get(f"{url}/ping").status_code for url in (at.public, at.admin)] == [200, 200]
        assert gc.get_freeze_count() > 0, "the collector looks through every library"
    with listening(chosen, host=None, port=None, admin_port=0) as at:
        assert at.admin == ""
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{ports[1]}/ping")


def test_a_taken_admin_port_is_said_so(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(PortTaken) as caught,
            listening(app, host=None, port=None, admin_port=port),
        ):
            pass
    assert str(caught.value) == (
        f"port {port} of 127.0.0.1 is in use: stop that program, or choose another with "
        "--admin-port or LIVEOPS_ADMIN_PORT; 0 starts none"
    )
