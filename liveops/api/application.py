"""The HTTP application: routes, access and problems put together."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bandit import __version__
from liveops.api import operating, probes, trading
from liveops.api.access import OPEN_PATHS, Gatekeeper, has_key
from liveops.api.bodies import (
    NewArm,
    NewAssignment,
    NewExperiment,
    NewOutcome,
    NewPolicy,
    Reasoned,
)
from liveops.api.problems import Problem, declared, install
from liveops.metrics import registry_of
from liveops.wiring import App

_DESCRIBED_HERE: tuple[type[BaseModel], ...] = (
    # FastAPI sees none of these: bodies are read by us, problems are answered by handlers.
    NewPolicy,
    NewExperiment,
    NewArm,
    NewAssignment,
    NewOutcome,
    Reasoned,
    Problem,
)


def create_api(app: App) -> FastAPI:
    """Return the HTTP interface of `app`: DESIGN §10, described at /openapi.json.

    Handlers run in threads, one use case each, and take the time from `app.clock` only.
    """
    api = FastAPI(
        title="liveops-bandit",
        version=__version__,
        description="Routes trading decisions between a champion and its challengers.",
        redirect_slashes=False,
        docs_url=None,  # the page would fetch its scripts from the internet
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.app = app
    api.state.registry = registry_of(app)
    install(api)
    api.add_middleware(Gatekeeper, key=app.settings.api_key)
    for router in (operating.router, trading.router, probes.router):
        api.include_router(router)
    api.openapi = lambda: _described(api, with_key=has_key(app.settings.api_key))  # type: ignore[method-assign]  # FastAPI's documented way
    return api


def _described(api: FastAPI, *, with_key: bool) -> dict[str, Any]:
    """Describe what FastAPI cannot know: bodies, problems and the key."""
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
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, routes in schema["paths"].items():
        for route in routes.values():
            if path not in OPEN_PATHS:
                _describe_access(route, with_key=with_key)
    api.openapi_schema = schema
    return schema


def _describe_access(route: dict[str, Any], *, with_key: bool) -> None:
    refusals = declared(401 if with_key else 403)
    route["responses"] |= {str(status): answer for status, answer in refusals.items()}
    if with_key:
        route["security"] = [{"key": []}]
