"""Bad clients over real sockets: each is cut off, and with the limit out of the way is served."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

import pytest
from api_service import application
from ledger import open_btc
from sqlalchemy import Engine

from bandit.storage.engine import connect
from liveops.api.connections import Bounds
from liveops.api.server import serving
from liveops.wiring import App

HURRIED = 0.2
PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
WIDE = Bounds()
BODY = b'{"unit_id": "u", "instrument": "BTCUSD"}'
ASSIGN = (
    b"POST /v1/experiments/btc/assignments HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\n"
)


@pytest.fixture
def app() -> App:
    """An App whose ledger is never asked."""
    return application(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))


@contextmanager
def client_of(app: App, bounds: Bounds) -> Iterator[socket.socket]:
    """A connection to a service with these bounds."""
    with serving(app, host="127.0.0.1", port=0, bounds=bounds) as url, connected(url) as client:
        yield client


def await_a_place(url: str) -> None:
    """Ask until the service has room for one more connection."""
    for _ in range(10_000):
        with connected(url) as client, suppress(ConnectionError):
            client.sendall(PING)
            if status(one_answer(client)) == 200:
                return
    raise AssertionError("no place became free")


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    port = int(url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as client:
        yield client


def everything(client: socket.socket) -> bytes:
    """What the service sends until it hangs up."""
    received = bytearray()
    with suppress(ConnectionResetError):  # it hung up before it had read all that we sent
        while part := client.recv(65536):
            received += part
    return bytes(received)


def one_answer(client: socket.socket) -> bytes:
    """The next answer, of a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(1)
        if not part:
            raise ConnectionError("the service hung up before it answered")
        received += part
    head = received.lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return received + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def refused(answer: bytes, expected: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) == expected
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == code


def dripped(client: socket.socket, data: bytes, *, pause: float) -> None:
    """Send byte by byte, `pause` apart, until the service hangs up or all is sent."""
    client.settimeout(pause)
    for n in range(len(data)):
        try:
            client.sendall(data[n : n + 1])
            if client.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    client.settimeout(30)


# Time


def test_headers_that_drip_are_cut_off(app: App) -> None:
    with client_of(app, replace(WIDE, header_seconds=HURRIED)) as client:
        dripped(client, PING, pause=0.02)
        refused(everything(client), 408, "request_timeout")
    with client_of(app, WIDE) as client:
        dripped(client, PING, pause=0.02)
        assert status(one_answer(client)) == 200


def test_a_body_that_drips_is_cut_off(engine: Engine) -> None:
    open_btc(engine)
    head = ASSIGN + b"Content-Length: %d\r\n\r\n" % len(BODY)
    with client_of(application(engine), replace(WIDE, body_seconds=HURRIED)) as client:
        client.sendall(head)
        dripped(client, BODY, pause=0.02)
        refused(everything(client), 408, "request_timeout")
    with engine.connect() as connection:
        assigned = connection.exec_driver_sql("SELECT count(*) FROM assignments").scalar_one()
    assert assigned == 0
    with client_of(application(engine), WIDE) as client:
        client.sendall(head)
        dripped(client, BODY, pause=0.02)
        assert status(one_answer(client)) == 200


def test_a_body_that_nobody_reads_does_not_hold_the_connection(app: App) -> None:
    head = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with client_of(app, replace(WIDE, body_seconds=HURRIED)) as client:
        client.sendall(head)
        assert status(one_answer(client)) == 200
        dripped(client, b"x" * 1000, pause=0.02)
        assert everything(client) == b""
    with client_of(app, WIDE) as client:
        client.sendall(head + b"x" * 1000 + PING)
        assert [status(one_answer(client)) for _ in range(2)] == [200, 200]


def test_a_connection_that_asks_nothing_is_closed(app: App) -> None:
    bounds = replace(WIDE, header_seconds=HURRIED)
    with serving(app, host="127.0.0.1", port=0, bounds=bounds) as url:
        with connected(url) as client:
            assert everything(client) == b""
        with connected(url) as client:
            client.sendall(b"\r\n" * 3)
            refused(everything(client), 408, "request_timeout")
        with connected(url) as client:
            client.sendall(b"\r\n" * 3 + PING)
            assert status(one_answer(client)) == 200


def test_an_idle_connection_is_closed_after_its_answer(app: App) -> None:
    with client_of(app, replace(WIDE, keep_alive_seconds=HURRIED)) as client:
        client.sendall(PING)
        assert status(one_answer(client)) == 200
        assert everything(client) == b""


def test_line_breaks_do_not_keep_an_idle_connection(app: App) -> None:
    bounds = replace(WIDE, keep_alive_seconds=HURRIED, header_seconds=HURRIED)
    with client_of(app, bounds) as client:
        client.sendall(PING)
        assert status(one_answer(client)) == 200
        dripped(client, b"\r\n" * 500, pause=0.02)
        assert b"HTTP/1.1 200" not in everything(client)


def test_an_answer_that_nobody_reads_is_given_up(app: App) -> None:
    asked = PING.replace(b"/ping", b"/openapi.json") * 400  # their answers exceed every buffer
    bounds = replace(WIDE, connections_max=1, answer_seconds=HURRIED)
    with serving(app, host="127.0.0.1", port=0, bounds=bounds) as url, connected(url) as client:
        client.sendall(asked)
        assert client.recv(1, socket.MSG_PEEK)
        await_a_place(url)
        assert everything(client).count(b"HTTP/1.1 200") < 400
    with client_of(app, bounds) as client:
        client.sendall(asked)
        assert {status(one_answer(client)) for _ in range(400)} == {200}


# Size


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "unending"])
@pytest.mark.parametrize("size", [64 * 1024, 10_000_000])
def test_headers_over_their_limit_are_refused(app: App, size: int, whole: bool) -> None:
    asked = PING[:-2] + b"X: " + b"x" * size + (b"\r\n\r\n" if whole else b"")
    with client_of(app, WIDE) as client:
        with suppress(ConnectionError):  # refused before all was sent
            client.sendall(asked)
        answer = everything(client)
        if size < 100_000 or answer:  # of more, the answer may be lost behind what was still sent
            refused(answer, 431, "headers_too_large")


def test_the_limit_of_headers_is_exact(app: App) -> None:
    for more, expected in ((0, 200), (1, 431)):
        fixed = len(b"/ping") + len(b"Hostlocalhost") + len(b"X")
        value = b"x" * (1000 - fixed + more)
        with client_of(app, replace(WIDE, header_bytes_max=1000)) as client:
            client.sendall(PING[:-2] + b"X: " + value + b"\r\n\r\n")
            assert status(one_answer(client)) == expected


def test_a_chunked_body_over_the_limit_is_refused_before_its_end(app: App) -> None:
    head = ASSIGN + b"Transfer-Encoding: chunked\r\n\r\n"
    with client_of(app, WIDE) as client:
        client.sendall(head + b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(17)))
        answer = one_answer(client)  # and the body has not ended
    assert (status(answer), json.loads(answer.partition(b"\r\n\r\n")[2])["code"]) == (
        413,
        "body_too_large",
    )


# Ambiguity: what a proxy before us might take for two requests


def chunked(*headers: bytes, version: bytes = b"1.1") -> bytes:
    return (
        b"POST /ping HTTP/"
        + version
        + b"\r\nHost: localhost\r\n"
        + b"".join(header + b"\r\n" for header in headers)
        + b"\r\n0\r\n\r\n"
    )


@pytest.mark.parametrize(
    "asked",
    [
        chunked(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        chunked(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        chunked(b"Content-Length: 5", b"Content-Length: 5"),
        chunked(b"Content-Length: 5", b"Content-Length: 6"),
        chunked(b"Content-Length: 5, 5"),
        chunked(b"Content-Length: +5"),
        chunked(b"Transfer-Encoding : chunked"),
        chunked(b"Transfer-Encoding: xchunked"),
        chunked(b"Transfer-Encoding: gzip, chunked"),
        chunked(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        chunked(b"Transfer-Encoding: chunked", version=b"1.0"),
        chunked(b"X: a\r\n b", b"Content-Length: 5"),
        chunked(b"Host: other", b"Content-Length: 5"),
        PING.replace(b"\r\n", b"\n"),
    ],
)
def test_a_request_that_may_be_read_in_two_ways_is_refused(app: App, asked: bytes) -> None:
    smuggled = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with client_of(app, WIDE) as client:
        client.sendall(asked + smuggled)
        answers = everything(client)
    refused(answers, 400, "malformed_request")
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("header", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_request_that_may_be_read_in_one_way_is_served(app: App, header: bytes) -> None:
    with client_of(app, WIDE) as client:
        client.sendall(chunked(header) + PING)
        # There is no POST /ping; the second request shows that the first was read to its end.
        assert [status(one_answer(client)) for _ in range(2)] == [405, 200]


# Connections


def test_connections_over_the_limit_are_told_and_leave_no_trace(app: App) -> None:
    bounds = replace(WIDE, connections_max=20)
    with serving(app, host="127.0.0.1", port=0, bounds=bounds) as url, ExitStack() as stack:
        held = [stack.enter_context(connected(url)) for _ in range(20)]
        for client in held:  # each has its place once it was answered
            client.sendall(PING)
            assert status(one_answer(client)) == 200
        for _ in range(200):
            with connected(url) as client:
                refused(everything(client), 503, "too_many_connections")
        held[0].sendall(PING)
        assert status(one_answer(held[0])) == 200
        held.pop().close()
        await_a_place(url)


def test_idle_connections_make_room_by_themselves(app: App) -> None:
    bounds = replace(WIDE, connections_max=20, header_seconds=HURRIED)
    with serving(app, host="127.0.0.1", port=0, bounds=bounds) as url, ExitStack() as stack:
        idle = [stack.enter_context(connected(url)) for _ in range(20)]
        assert [everything(client) for client in idle] == [b""] * 20
        with connected(url) as client:
            client.sendall(PING)
            assert status(one_answer(client)) == 200
