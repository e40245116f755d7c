"""Run the HTTP application, on a socket that is ours before anything starts."""

from __future__ import annotations

import errno
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from bandit.core.errors import BanditError, InvalidInput
from liveops.api.access import has_key
from liveops.api.application import create_api
from liveops.wiring import App

GRACE_SECONDS = 5
"""How long requests under way may take to end after the service was told to stop."""

WATCH_SECONDS = 1.0
log = logging.getLogger(__name__)
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class PortTaken(BanditError):
    """Another program listens on the port already."""

    code = "port_taken"


@contextmanager
def serving(app: App, *, host: str, port: int) -> Iterator[str]:
    """Serve in a thread of its own while the context lasts, and yield the base URL.

    Port 0 takes a free one. Raises `PortTaken`, and `InvalidInput` for an address that is not
    this machine's or that others reach while no API key is set.
    """
    with _listener(host, port, others_may_reach=has_key(app.settings.api_key)) as listener:
        server = _Server(_config(app))

        def run() -> None:
            try:
                server.run([listener])
            finally:
                server.is_settled.set()

        url = _base_url(listener)
        thread = threading.Thread(target=run, name="http")
        thread.start()
        try:
            server.is_settled.wait()
            assert server.started, "the HTTP server ended while it started; its log says why"
            yield url
        finally:
            server.should_exit = True
            thread.join()


def wait_for_stop(*, meanwhile: Callable[[], None]) -> None:
    """Wait for SIGINT or SIGTERM, and return; for the main thread, which alone hears of them.

    `meanwhile` is called each second, from the main thread: it revives what died.
    """
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _STOPPING}
    try:
        while not stop.wait(WATCH_SECONDS):
            try:
                meanwhile()
            except BanditError as error:
                log.warning("the ledger cannot be revived: %s", error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Says when its start has succeeded or failed, as polling for it would need a clock."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_settled.set()


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        create_api(app),
        lifespan="off",
        ws="none",
        log_config=None,  # whoever runs us has set up logging, to stderr
        access_log=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _listener(host: str, port: int, *, others_may_reach: bool) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        rule = "must be a name or address of this machine"
        raise InvalidInput(field="host", rule=rule, found=host) from error
    # IPv4 first: for `localhost`, that is what most clients try.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    if not others_may_reach and not ipaddress.ip_address(address[0]).is_loopback:
        rule = "must be a loopback address while no api_key is set"
        raise InvalidInput(field="host", rule=rule, found=host)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else a restart would wait for the last connections to time out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _refused(error, host, port) from error
    return listener


def _refused(error: OSError, host: str, port: int) -> BanditError:
    match error.errno:
        case errno.EADDRINUSE:
            return PortTaken(
                f"port {port} of {host} is in use: stop that program, or choose another"
            )
        case errno.EACCES:
            rule = "must be one that this user may listen on"
            return InvalidInput(field="port", rule=rule, found=port)
        case _:
            rule = "must be a name or address of this machine"
            return InvalidInput(field="host", rule=rule, found=host)


def _base_url(listener: socket.socket) -> str:
    name, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(name)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"
