"""Routes for whoever watches the service: alive, ready, healthy, measured."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from bandit import __version__
from bandit.core.errors import LedgerUnavailable
from bandit.storage import migrate
from liveops.api.answers import HealthAnswer, PingAnswer
from liveops.api.parameters import Application
from liveops.api.problems import declared
from liveops.wiring import App

router = APIRouter()


@router.get("/ping")
async def ping() -> PingAnswer:
    """Say that the process answers, whatever its ledger does."""
    return PingAnswer(status="ok")


@router.get("/ready", responses=declared(503))
def ready(app: Application) -> PingAnswer:
    """Say that requests can be served: the ledger answers and has the schema of this release."""
    _require_ledger(app)
    return PingAnswer(status="ok")


@router.get(
    "/health",
    responses={
        503: {"description": "Something is wrong; `issues` says what", "model": HealthAnswer}
    },
)
def health(app: Application, response: Response) -> HealthAnswer:
    """Say how the process and its ledger are; 503 when something is wrong."""
    issues = []
    try:
        _require_ledger(app)
    except LedgerUnavailable as error:
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


def _require_ledger(app: App) -> None:
    migrate.require_head(app.engine.url.render_as_string(hide_password=False))
