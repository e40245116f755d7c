"""What one client may take: bytes, seconds and a place among the connections.

uvicorn waits for a request as long as its client likes, so a few slow clients would hold every
place; here each request has to arrive, and each answer to be read, in a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from liveops.api.problems import (
    HEADERS_TOO_LARGE,
    MALFORMED_REQUEST,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Kind,
    refused,
)

CONNECTIONS_MAX: Final = 512
ADMIN_CONNECTIONS_MAX: Final = 32
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a listener grants: one place each to so many clients, each request and answer so long.

    A body has `body_seconds` in all, which asks 4 MB of a batch to come at 3.4 Mbit/s or more.
    """

    connections_max: int = CONNECTIONS_MAX
    header_bytes_max: int = 16 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    answer_seconds: float = 10.0
    keep_alive_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.connections_max < 1:
            raise ValueError(f"connections_max must be at least 1, was {self.connections_max}")


def affordable(connections_max: int) -> int:
    """Return how many of `connections_max` clients the process has file descriptors for.

    Half of them are left to the ledger, the logs and the other listener.

    >>> affordable(1)
    1
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections_max
    return max(1, min(connections_max, soft // 2))


def bounded_by(bounds: Bounds) -> type[asyncio.Protocol]:
    """Return the protocol that holds every client of a listener to `bounds`."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"bounds": bounds})


class _BoundedProtocol(HttpToolsProtocol):
    """One client's connection: a timer runs while we wait for its bytes, another while it reads."""

    bounds: ClassVar[Bounds]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = self.bounds.keep_alive_seconds  # type: ignore[assignment]  # call_later takes a float
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._reads_head = True
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections_max:
            self._refuse(TOO_MANY_CONNECTIONS, "every connection is in use")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._reading)
        _stop(self._writing)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        if self._reads_head:
            # What is not parsed yet counts too: a header's value is not told before its end.
            self._head_bytes += len(data)
            if self._reading is None and (self.cycle is None or self.cycle.response_complete):
                self._await_head()
        super().data_received(data)
        if self._reads_head and self._head_bytes > self.bounds.header_bytes_max:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        fault = self._fault_of_head()
        if size > self.bounds.header_bytes_max:
            self._refuse_head()
        elif fault is not None:
            self._refuse(MALFORMED_REQUEST, fault)
        else:
            _stop(self._reading)
            self._reading = self.loop.call_later(self.bounds.body_seconds, self._body_is_late)
            self._reads_head = False
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_refused:
            return
        _stop(self._reading)
        self._reading, self._reads_head, self._head_bytes = None, True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(MALFORMED_REQUEST, msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            _stop(self._writing)

    def timeout_keep_alive_handler(self) -> None:
        self._hang_up()

    def _fault_of_head(self) -> str | None:
        """Say what in the head a proxy before us might read otherwise (request smuggling)."""
        values: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            values.setdefault(name, []).append(value)
        if len(values.get(b"host", [])) > 1:
            return "Host must be given once"
        encodings = values.get(b"transfer-encoding")
        if encodings is None:
            return None
        is_old = self.parser.get_http_version() == "1.0"
        if is_old or [value.lower() for value in encodings] != [b"chunked"]:
            return "Transfer-Encoding must be chunked, and the request HTTP/1.1"
        return None

    def _refuse_head(self) -> None:
        self._refuse(
            HEADERS_TOO_LARGE,
            f"the headers must have at most {self.bounds.header_bytes_max} bytes",
        )

    def _head_is_late(self) -> None:
        if self._head_bytes == 0:
            self._hang_up()  # nothing was asked, so nothing is answered
            return
        seconds = self.bounds.header_seconds
        self._refuse(REQUEST_TIMEOUT, f"the headers must arrive within {seconds:g} s")

    def _body_is_late(self) -> None:
        seconds = self.bounds.body_seconds
        self._refuse(REQUEST_TIMEOUT, f"the body must arrive within {seconds:g} s")

    def _refuse(self, kind: Kind, detail: str) -> None:
        """Answer where no answer has begun, and hang up; whoever works on the request is told."""
        if self._is_refused:
            return
        self._is_refused = True
        log.debug("connection refused", extra={"code": kind.code, "client": str(self.client)})
        if self._may_answer():
            self.transport.write(_as_bytes(kind, detail, self.server_state.default_headers))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._hang_up()

    def _may_answer(self) -> bool:
        # A refusal must not be taken for the answer to an earlier request of this connection.
        return self.cycle is None or (
            not self.pipeline
            and (
                self.cycle.response_complete
                if self._reads_head
                else not self.cycle.response_started
            )
        )

    def _hang_up(self) -> None:
        """Close once what was written is sent; a client that does not read it is cut off."""
        _stop(self._reading)
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self.transport.close()
            self._await_reader()

    def _await_head(self) -> None:
        self._reading = self.loop.call_later(self.bounds.header_seconds, self._head_is_late)

    def _await_reader(self) -> None:
        _stop(self._writing)
        self._writing = self.loop.call_later(self.bounds.answer_seconds, self.transport.abort)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _as_bytes(kind: Kind, detail: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return an answer as it goes over the wire, for requests that no application has seen."""
    answer = refused(kind, detail, headers={"Connection": "close"})
    status = f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n".encode()
    lines = [name + b": " + value + b"\r\n" for name, value in [*headers, *answer.raw_headers]]
    return b"".join([status, *lines, b"\r\n", bytes(answer.body)])
