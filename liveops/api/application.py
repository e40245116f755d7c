"""The HTTP application: routes, access and problems put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bandit import __version__
from bandit.core.errors import BanditError
from bandit.service import experiments
from bandit.service.live_recording import LiveRecorder
from bandit.service.live_routing import LiveRouter
from config.scopes import KeyScope
from liveops.api import (
    breakers,
    close_orders,
    correcting,
    deciding,
    guards,
    heartbeats,
    marking,
    operating,
    probes,
    reconciling,
    selecting,
    shadowing,
    trading,
    webhooks,
)
from liveops.api.access import OPEN_PATHS, Gatekeeper, Keyring, scope_of
from liveops.api.bodies import (
    KillOrder,
    NewArm,
    NewAssignment,
    NewExperiment,
    NewFallback,
    NewMark,
    NewOutcome,
    NewPolicy,
    NewRevision,
    Reasoned,
)
from liveops.api.close_orders import NewCloseFailure
from liveops.api.deciding import NewAction
from liveops.api.heartbeats import NewHeartbeat
from liveops.api.hot import HotApi
from liveops.api.links import link
from liveops.api.problems import Problem, declared, install
from liveops.api.selecting import NewScores
from liveops.api.shadowing import NewShadowOutcome
from liveops.api.trading import NewClaim
from liveops.api.webhooks import NewAlerts
from liveops.deciders import Deciders, artifact_home
from liveops.exposition import Exposition
from liveops.wiring import App

log = logging.getLogger(__name__)

_DESCRIBED_HERE: tuple[type[BaseModel], ...] = (
    # FastAPI sees none of these: bodies are read by us, problems are answered by handlers.
    NewPolicy,
    NewExperiment,
    NewArm,
    NewAssignment,
    NewAction,
    NewCloseFailure,
    NewClaim,
    NewFallback,
    NewHeartbeat,
    NewScores,
    NewMark,
    NewOutcome,
    NewRevision,
    NewShadowOutcome,
    KillOrder,
    NewAlerts,
    Reasoned,
    Problem,
)


_ALWAYS = (400, 408, 431, 503)
"""What any request may be answered with before it reached its route."""

_KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": f"An API key; its scopes ({', '.join(KeyScope)}) say what it opens.",
}
EVERY_SCOPE = frozenset(KeyScope)


def create_api(app: App, *, served: frozenset[KeyScope] = EVERY_SCOPE) -> FastAPI:
    """Return the HTTP interface of `app`: DESIGN §10, described at /openapi.json.

    Of its routes, those that need one of the scopes `served`.

    Handlers run in threads, one use case each, and take the time from `app.clock` only.
    """
    api = HotApi(
        app.requests,
        title="liveops-bandit",
        version=__version__,
        description="Routes trading decisions between a champion and its challengers.",
        redirect_slashes=False,
        docs_url=None,  # the page would fetch its scripts from the internet
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan,
    )
    ring = _guarded(api, app, served=served)
    for scope, routes in (
        (KeyScope.TRADE, trading.hot),
        (KeyScope.TRADE, deciding.hot),
        (KeyScope.INGEST, trading.hot_outcomes),
    ):
        guard = partial(Gatekeeper, ring=ring, served=served, now=app.clock.now, needs=scope)
        api.enter_by(guard, routes.routes)
    for router in (
        operating.router,
        close_orders.router,
        trading.hot,
        deciding.hot,
        trading.hot_outcomes,
        trading.router,
        correcting.router,
        shadowing.router,
        marking.router,
        guards.router,
        selecting.router,
        reconciling.router,
        breakers.router,
        heartbeats.router,
        webhooks.router,
        probes.router,
    ):
        api.include_router(router)
    api.openapi = lambda: _described(api, with_key=not ring.is_empty, served=served)  # type: ignore[method-assign]  # FastAPI's documented way
    return api


def create_probe_api(app: App) -> FastAPI:
    """Return the interface of `app` for those who only watch it: probes, `/status`, `/metrics`."""
    api = HotApi(app.requests, openapi_url=None, redirect_slashes=False)
    _guarded(api, app, served=frozenset({KeyScope.READ}))
    api.include_router(probes.router)
    return api


def _guarded(api: FastAPI, app: App, *, served: frozenset[KeyScope]) -> Keyring:
    """Give `api` what every interface has: access, problems, and what probes ask."""
    api.state.app = app
    api.state.served = served
    api.state.exposition = Exposition(app)
    api.state.probes = probes.Probes.of(app)
    install(api)
    ring = Keyring.of(app.settings)
    api.add_middleware(Gatekeeper, ring=ring, served=served, now=app.clock.now)
    return ring


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    app: App = api.state.app
    url = app.engine.url.render_as_string(hide_password=False)
    live = api.state.live = LiveRouter(app.router, url=url, now=app.clock.now)
    recorder = api.state.recorder = LiveRecorder(app.engine, now=app.clock.now)
    deciders = api.state.deciders = Deciders(artifact_home(app.settings))
    async with live.running(), recorder.running():
        with closing(deciders):
            ahead = asyncio.create_task(_load_ahead(app, live, deciders, api.state.served))
            try:
                yield
            finally:
                ahead.cancel()


async def _load_ahead(
    app: App, live: LiveRouter, deciders: Deciders, served: frozenset[KeyScope]
) -> None:
    """Load the stored policies of every arm, so that the first question waits for none."""
    if KeyScope.TRADE not in served:
        return
    try:
        for name in await asyncio.to_thread(experiments.listed, app.engine):
            record = (await live.table(name)).record
            await deciders.load(arm.policy_sha for arm in record.kept_arms)
    except BanditError as error:
        log.info("stored policies wait to be asked for", extra={"detail": str(error)})


def _described(api: FastAPI, *, with_key: bool, served: frozenset[KeyScope]) -> dict[str, Any]:
    """Describe what FastAPI cannot know: bodies, problems, keys and scopes."""
    if api.openapi_schema is not None:
        return api.openapi_schema
    schema = get_openapi(
        title=api.title, version=api.version, description=api.description, routes=api.routes
    )
    components = schema.setdefault("components", {})
    _, bodies = models_json_schema(
        [(model, "validation") for model in _DESCRIBED_HERE],
        ref_template="#/components/schemas/{model}",
    )
    components["schemas"] |= bodies["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    if with_key:
        components["securitySchemes"] = {"key": _KEY_SCHEME}
    paths = {
        path: {
            method: route
            for method, route in routes.items()
            if path in OPEN_PATHS or scope_of(method.upper(), path) in served
        }
        for path, routes in schema["paths"].items()
    }
    schema["paths"] = {path: routes for path, routes in paths.items() if routes}
    for path, routes in schema["paths"].items():
        for method, route in routes.items():
            route["responses"] = _responses(_ALWAYS) | route["responses"]
            if path not in OPEN_PATHS:
                _describe_access(route, scope_of(method.upper(), path), with_key=with_key)
    link(schema["paths"])
    api.openapi_schema = schema
    return schema


def _describe_access(route: dict[str, Any], scope: KeyScope, *, with_key: bool) -> None:
    route["responses"] |= _responses((401, 403) if with_key else (403,))
    if with_key:
        # OpenAPI 3.1 lets any scheme list the roles that a route needs.
        route["security"] = [{"key": [scope.value]}]
        described = route.get("description", "")
        route["description"] = f"{described}\n\nNeeds the scope `{scope}`.".strip()


def _responses(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): answer for status, answer in declared(*statuses).items()}
