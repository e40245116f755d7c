"""The header that tells bots when to stop by themselves: bodies stay the same bytes for ever."""

from __future__ import annotations

import math
from typing import Any, Final

from starlette.requests import Request

from bandit.core.watch import Deadlines
from liveops.wiring import App

WATCH: Final = "Liveops-Watch"
EXPERIMENT: Final = "Liveops-Experiment"

_DESCRIPTION: Final = (
    "In how many seconds a bot trades smaller (`throttle`) and opens nothing new (`halt`), unless "
    "a later answer says otherwise: the experiment's monitor goes on renewing. Absent where no "
    "monitor is waited for."
)

WATCHED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            WATCH: {
                "description": _DESCRIPTION,
                "schema": {"type": "string", "pattern": "^throttle=[0-9]+, halt=[0-9]+$"},
            }
        }
    }
}
"""What OpenAPI says of an answer that tells the deadlines."""

NAMES_EXPERIMENT: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": EXPERIMENT,
            "in": "header",
            "required": False,
            "description": f"The experiment whose deadlines `{WATCH}` of the answer tells.",
            "schema": {"type": "string"},
        }
    ]
}
"""What OpenAPI says of a request whose address names no experiment."""


def watch_headers(request: Request, experiment: str | None = None) -> dict[str, str]:
    """Return the header of an answer about an experiment, by default the one the request names."""
    app = request.app.state.app
    assert isinstance(app, App)
    name = request.headers.get(EXPERIMENT) if experiment is None else experiment
    found = None if name is None else app.monitors.deadlines(name)
    return {} if found is None else {WATCH: told(found)}


def told(found: Deadlines) -> str:
    """Return deadlines as bots read them: whole seconds from now, at least 0.

    >>> told(Deadlines(throttle_in=839.9, halt_in=-3))
    'throttle=839, halt=0'
    """
    throttle, halt = (max(0, math.floor(s)) for s in (found.throttle_in, found.halt_in))
    return f"throttle={throttle}, halt={halt}"
