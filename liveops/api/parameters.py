"""What stands in a route's address, and the application behind it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from liveops.wiring import App


async def _app(request: Request) -> App:
    app = request.app.state.app
    assert isinstance(app, App)
    return app


async def _caller(request: Request) -> str:
    caller = request.state.caller
    assert isinstance(caller, str)
    return caller


Application = Annotated[App, Depends(_app)]
Caller = Annotated[str, Depends(_caller)]
"""The name of the key that calls: decisions and audit rows name it as their actor."""

ExperimentName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
AccountName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
PolicyReference = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$",
        description="Full name, full sha or unique prefix of a sha.",
    ),
]
Newest = Annotated[int, Query(ge=1, le=1000, description="Only this many of the newest.")]
AssignmentId = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
