"""Routes for whoever watches the service: alive, ready, healthy, measured."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Generic, Self, TypeVar, cast

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from bandit import __version__
from bandit.core.errors import BanditError, ForeignProtocol, LedgerUnavailable
from bandit.core.health_table import HealthLevel
from bandit.service.health import Reading, read
from bandit.storage import migrate
from liveops.api.answers import PingAnswer
from liveops.api.parameters import Application
from liveops.api.problems import declared
from liveops.api.status_answers import HealthAnswer, StatusAnswer, Word
from liveops.clock import monotonic
from liveops.exposition import Exposition
from liveops.health import checkup, look, status_json
from liveops.wiring import App, ready_ledger

T = TypeVar("T")

PROBE_SECONDS = 2.0
"""How long a probe waits for the ledger."""

router = APIRouter()


class LedgerProbe(Generic[T]):
    """Asks a ledger that can be decided on: once at a time, for everybody who waits.

    A ledger that swallows questions costs one connection and one thread, however many ask. The
    thread is none of the event loop's: it neither waits for a free one nor keeps the process.
    """

    def __init__(
        self, engine: Engine, question: Callable[[Engine], T], *, seconds: float = PROBE_SECONDS
    ) -> None:
        """Ask the ledger of `engine`, on a connection of its own, and wait for `seconds`."""
        limits = {"connect_timeout": str(math.ceil(seconds))}
        url = engine.url.update_query_dict(limits)
        self._url = url.render_as_string(hide_password=False)
        self._question = question
        self._seconds = seconds
        self._asked: Future[T | BanditError] | None = None

    async def answer(self) -> T:
        """Raise as `ready_ledger` does; `LedgerUnavailable` also when it takes too long."""
        if self._asked is None or self._asked.done():
            self._asked = Future()
            threading.Thread(
                target=self._ask, args=(self._asked,), name="ledger-probe", daemon=True
            ).start()
        try:
            asked = asyncio.shield(asyncio.wrap_future(self._asked))
            found = await asyncio.wait_for(asked, self._seconds)
        except TimeoutError:
            message = f"the ledger did not answer within {self._seconds:g} s"
            raise LedgerUnavailable(message) from None
        if isinstance(found, BanditError):
            # One of our own: an error that many requests raise would collect all their tracebacks.
            raise type(found)(str(found)) from found.__cause__
        return found

    def _ask(self, answer: Future[T | BanditError]) -> None:
        try:
            with ready_ledger(self._url, statement_seconds=math.ceil(self._seconds)) as engine:
                found = self._question(engine)
        except (LedgerUnavailable, ForeignProtocol) as error:
            answer.set_result(error)
        else:
            answer.set_result(found)
        finally:
            answer.cancel()  # without effect unless a fault ended us: nobody shall wait for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What probes ask. Readiness asks for nothing more: it must not wait for what health reads."""

    ready: LedgerProbe[None]
    health: LedgerProbe[Reading]

    @classmethod
    def of(cls, app: App) -> Self:
        """Return the probes of `app`'s ledger."""
        return cls(
            ready=LedgerProbe(app.engine, lambda _: None),
            health=LedgerProbe(app.engine, lambda engine: read(engine, now=app.clock.now())),
        )


async def _probes(request: Request) -> Probes:
    probes = request.app.state.probes
    assert isinstance(probes, Probes)
    return probes


ProbesOf = Annotated[Probes, Depends(_probes)]


@router.get("/ping")
async def ping() -> PingAnswer:
    """Say that the process answers, whatever its ledger does."""
    return PingAnswer(status="ok")


@router.get("/ready", responses=declared(503))
async def ready(probes: ProbesOf) -> PingAnswer:
    """Say that decisions can be taken: the ledger answers, and has our schema, rules and time."""
    await probes.ready.answer()
    return PingAnswer(status="ok")


@router.get(
    "/health",
    responses={503: {"description": "UNHEALTHY; `issues` says why", "model": HealthAnswer}},
)
async def health(app: Application, probes: ProbesOf, response: Response) -> HealthAnswer:
    """Say how service and bots are, without names and numbers; 503 when UNHEALTHY."""
    try:
        found: Reading | BanditError = await probes.health.answer()
    except (LedgerUnavailable, ForeignProtocol) as error:
        found = error
    checked = checkup(app, found)
    if checked.level is HealthLevel.UNHEALTHY:
        response.status_code = 503
    trouble = [] if checked.vitals.ledger is None else [checked.vitals.ledger]
    return HealthAnswer(
        health_status=checked.level,
        status=cast(Word, checked.level.value.lower()),
        issues=trouble or checked.health.meanings(HealthLevel.UNHEALTHY),
        warnings=checked.health.meanings(HealthLevel.DEGRADED),
        version=__version__,
        schema_revision=migrate.head(),
    )


@router.get("/status")
def status(app: Application) -> StatusAnswer:
    """Say everything known of service, bots and trading; 200 whatever it says."""
    return StatusAnswer.model_validate(status_json(look(app)))


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text or OpenMetrics", "content": {"text/plain": {}}}
    },
)
async def metrics(request: Request) -> Response:
    """Give every metric of docs/metrics.md in the format Prometheus asks for."""
    exposition = request.app.state.exposition
    assert isinstance(exposition, Exposition)
    accept, came = request.headers.get("accept", ""), monotonic()
    encodings = request.headers.get("accept-encoding", "")
    answer = await run_in_threadpool(exposition.answer, accept, encodings=encodings)
    wait = exposition.ahead(request.client.host if request.client else "", at=came)
    if wait is not None:
        loop = asyncio.get_running_loop()
        wait = max(wait - (monotonic() - came), 0.0)
        loop.call_later(wait, loop.run_in_executor, None, exposition.read_ahead, accept)
    return Response(answer.body, headers=answer.headers)
