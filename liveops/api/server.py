"""Run the HTTP application, on a socket that is ours before anything starts."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI

from bandit.core.errors import BanditError, InvalidInput
from liveops.api.access import ADMIN_SCOPES, Keyring, warn_of_ending_keys
from liveops.api.application import create_api, create_probe_api
from liveops.api.connections import (
    ADMIN_CONNECTIONS_MAX,
    CONNECTIONS_MAX,
    Bounds,
    affordable,
    bounded_by,
)
from liveops.memory import keeping_what_is_loaded
from liveops.wiring import App, with_own_engine

GRACE_SECONDS = 5
"""How long requests under way may take to end after the service was told to stop."""

ADMIN_POOL_SIZE = 3
"""Connections to the ledger that the admin listener has for itself, and so the health one."""

POOL_SIZE = 10
STATEMENT_SECONDS = 2
"""How long one statement of a request may take: whoever asked is told within five seconds, also
where a session has to be made anew first. Jobs of the command line have half a minute."""

log = logging.getLogger(__name__)


class PortTaken(BanditError):
    """Another program listens on the port already."""

    code = "port_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the service answers; empty where a listener was not asked for."""

    public: str
    admin: str
    health: str


@contextmanager
def listening(
    app: App, *, host: str | None, port: int | None, admin_port: int | None
) -> Iterator[Addresses]:
    """Serve on every listener while the context lasts; None takes what the settings say.

    The admin listener shares nothing with the public one but the process: its own event loop,
    threads and connections to the ledger, so that an arm can be halted however crowded the public
    one is; so does the health listener, for those who only watch. Raises as `serving` does.
    """
    server = app.settings.server
    warn_of_ending_keys(Keyring.of(app.settings), now=app.clock.now())
    with ExitStack() as stack:
        admin = _beside(
            stack,
            app,
            host=server.admin_host,
            port=server.admin_port if admin_port is None else admin_port,
            serve=administering,
            ways="with --admin-port or LIVEOPS_ADMIN_PORT; 0 starts none",
        )
        health = _beside(
            stack,
            app,
            host=server.health_host,
            port=server.health_port,
            serve=watching,
            ways="with LIVEOPS_HEALTH_PORT; 0 starts none",
        )
        own = stack.enter_context(
            with_own_engine(app, pool_size=POOL_SIZE, statement_seconds=STATEMENT_SECONDS)
        )
        public = serving(own, host=host or server.host, port=port or server.port)
        addresses = Addresses(public=stack.enter_context(public), admin=admin, health=health)
        stack.enter_context(keeping_what_is_loaded())
        yield addresses


def _beside(
    stack: ExitStack,
    app: App,
    *,
    host: str,
    port: int,
    serve: Callable[..., AbstractContextManager[str]],
    ways: str,
) -> str:
    """Start a listener with an engine of its own, and return its URL; port 0 starts none."""
    if not port:
        return ""
    own = stack.enter_context(
        with_own_engine(app, pool_size=ADMIN_POOL_SIZE, statement_seconds=STATEMENT_SECONDS)
    )
    try:
        return stack.enter_context(serve(own, host=host, port=port))
    except PortTaken as taken:
        raise PortTaken(f"{taken} {ways}") from taken


@contextmanager
def administering(app: App, *, host: str, port: int) -> Iterator[str]:
    """Serve operators and probes; like `serving`, without the routes that trade."""
    make = partial(create_api, served=ADMIN_SCOPES)
    with serving(app, host=host, port=port, bounds=_few(), make=make) as url:
        yield url


@contextmanager
def watching(app: App, *, host: str, port: int) -> Iterator[str]:
    """Serve probes, `/status` and `/metrics`; like `serving`, without anything else."""
    with serving(app, host=host, port=port, bounds=_few(), make=create_probe_api) as url:
        yield url


def _few() -> Bounds:
    return Bounds(connections_max=affordable(ADMIN_CONNECTIONS_MAX))


@contextmanager
def serving(
    app: App,
    *,
    host: str,
    port: int,
    bounds: Bounds | None = None,
    make: Callable[[App], FastAPI] = create_api,
) -> Iterator[str]:
    """Serve in a thread of its own while the context lasts, and yield the base URL.

    Port 0 takes a free one. Raises `PortTaken`, and `InvalidInput` for an address that is not
    this machine's or that others reach while no API key is set.
    """
    is_guarded = not Keyring.of(app.settings).is_empty
    with _listener(host, port, others_may_reach=is_guarded) as listener:
        bounds = bounds or Bounds(connections_max=affordable(CONNECTIONS_MAX))
        server = _Server(_config(make(app), bounds))

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


class _Server(uvicorn.Server):
    """Says when its start has succeeded or failed, as polling for it would need a clock."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_settled.set()


def _config(api: FastAPI, bounds: Bounds) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        http=bounded_by(bounds),
        lifespan="on",
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
        rule = "must be a loopback address while no API key is set"
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
