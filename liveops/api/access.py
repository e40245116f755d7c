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
    """Refuses requests without the key; without a key, those of another host.

    The second keeps web pages away from a keyless service: those that reach it through a name
    which its owner lets point at this machine (DNS rebinding), and those that let a visitor's
    browser send it a request (the `Origin` header tells).
    """

    def __init__(self, app: ASGIApp, *, key: SecretStr | None) -> None:
        """Guard `app` with `key`; None or an empty one asks for none."""
        self._app = app
        self._key = b"" if key is None else key.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before anything of it is read."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._key and not _comes_from_here(headers):
            answer = refusal(403, "without an API key the service answers to loopback names only")
        elif self._key and not self._is_bearer(headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": "Bearer"}
            answer = refusal(401, "send the header Authorization: Bearer KEY", headers=challenge)
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)

    def _is_bearer(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        # In constant time: how long a comparison takes must not tell how much of a guess is right.
        is_key = hmac.compare_digest(given.encode("latin-1"), self._key)
        return is_key and scheme.lower() == "bearer"


def has_key(key: SecretStr | None) -> bool:
    """Say whether callers have to present a key.

    >>> has_key(SecretStr(""))
    False
    """
    return key is not None and bool(key.get_secret_value())


def _comes_from_here(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and not _is_loopback_name(origin.partition("://")[2]):
        return False
    return _is_loopback_name(headers.get("host", ""))


def _is_loopback_name(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host).lower() in LOOPBACK_NAMES
