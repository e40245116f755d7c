"""Routes for whoever watches the service: alive, ready, healthy, measured."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import Future
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry
from sqlalchemy import Engine

from bandit import __version__
from bandit.core.errors import BanditError, ForeignProtocol, LedgerUnavailable
from bandit.storage import migrate
from liveops.api.answers import HealthAnswer, PingAnswer
from liveops.api.problems import declared
from liveops.wiring import require_ready

PROBE_SECONDS = 2.0
"""How long a probe waits for the ledger."""

router = APIRouter()


class LedgerProbe:
    """Asks whether the ledger can be decided on: once at a time, for everybody who waits.

    A ledger that swallows questions costs one connection and one thread, however many ask. The
    thread is none of the event loop's: it neither waits for a free one nor keeps the process.
    """

    def __init__(self, engine: Engine, *, seconds: float = PROBE_SECONDS) -> None:
        """Ask the ledger of `engine`, on a connection of its own, and wait for `seconds`."""
        limits = {"connect_timeout": str(math.ceil(seconds))}
        url = engine.url.update_query_dict(limits)
        self._url = url.render_as_string(hide_password=False)
        self._seconds = seconds
        self._asked: Future[BanditError | None] | None = None

    async def require_ledger(self) -> None:
        """Raise as `require_ready` does; `LedgerUnavailable` also when it takes too long."""
        if self._asked is None or self._asked.done():
            self._asked = Future()
            threading.Thread(
                target=self._ask, args=(self._asked,), name="ledger-probe", daemon=True
            ).start()
        try:
            answer = asyncio.shield(asyncio.wrap_future(self._asked))
            refused = await asyncio.wait_for(answer, self._seconds)
        except TimeoutError:
            message = f"the ledger did not answer within {self._seconds:g} s"
            raise LedgerUnavailable(message) from None
        if refused is not None:
            # One of our own: an error that many requests raise would collect all their tracebacks.
            raise type(refused)(str(refused)) from refused.__cause__

    def _ask(self, answer: Future[BanditError | None]) -> None:
        try:
            require_ready(self._url, statement_seconds=math.ceil(self._seconds))
        except (LedgerUnavailable, ForeignProtocol) as error:
            answer.set_result(error)
        else:
            answer.set_result(None)
        finally:
            answer.cancel()  # without effect unless a fault ended us: nobody shall wait for it


async def _probe(request: Request) -> LedgerProbe:
    probe = request.app.state.probe
    assert isinstance(probe, LedgerProbe)
    return probe


Probe = Annotated[LedgerProbe, Depends(_probe)]


@router.get("/ping")
async def ping() -> PingAnswer:
    """Say that the process answers, whatever its ledger does."""
    return PingAnswer(status="ok")


@router.get("/ready", responses=declared(503))
async def ready(probe: Probe) -> PingAnswer:
    """Say that decisions can be taken: the ledger answers, and has our schema, rules and time."""
    await probe.require_ledger()
    return PingAnswer(status="ok")


@router.get(
    "/health",
    responses={
        503: {"description": "Something is wrong; `issues` says what", "model": HealthAnswer}
    },
)
async def health(probe: Probe, response: Response) -> HealthAnswer:
    """Say how the process and its ledger are; 503 when something is wrong."""
    issues = []
    try:
        await probe.require_ledger()
    except (LedgerUnavailable, ForeignProtocol) as error:
        issues.append(str(error))
        response.status_code = 503
    return HealthAnswer(
        health_status="UNHEALTHY" if issues else "HEALTHY",
        issues=issues,
        version=__version__,
        schema_revision=migrate.head(),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text or OpenMetrics", "content": {"text/plain": {}}}
    },
)
def metrics(request: Request) -> Response:
    """Give every metric of docs/metrics.md in the format Prometheus asks for."""
    registry = request.app.state.registry
    assert isinstance(registry, CollectorRegistry)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})
