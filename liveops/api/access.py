"""Who may call: bearers of the API key, or without one whoever is on this machine."""

from __future__ import annotations

import hmac
from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from liveops.api.problems import refusal

OPEN_PATHS: Final = frozenset({"/ping", "/health", "/ready"})
"""Routes that never ask for a key: they tell whether the service lives, and nothing of it."""

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gatekeeper:
    """Refuses requests without the key; without a key, those for another host's name.

    The second keeps a web page from reaching a keyless service through a name that its owner
    lets point at this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, key: SecretStr | None) -> None:
        """Guard `app` with `key`; None or an empty one asks for none."""
        self._app = app
        secret = "" if key is None else key.get_secret_value()
        self._expected = f"Bearer {secret}".encode() if secret else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before anything of it is read."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._expected is None:
            if _host_name(headers.get("host", "")) in LOOPBACK_NAMES:
                await self._app(scope, receive, send)
                return
            answer = refusal(403, "without an API key the service answers to loopback names only")
        else:
            given = headers.get("authorization", "").encode("latin-1")
            if hmac.compare_digest(given, self._expected):
                await self._app(scope, receive, send)
                return
            answer = refusal(
                401,
                "send the header Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        await answer(scope, receive, send)


def has_key(key: SecretStr | None) -> bool:
    """Say whether callers have to present a key.

    >>> has_key(SecretStr(""))
    False
    """
    return key is not None and bool(key.get_secret_value())


def _host_name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() and name else host).lower()
