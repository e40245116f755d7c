"""Who may call, and what: bearers of an API key, or without any whoever is on this machine."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from config.scopes import LOCAL, OWNER, KeyScope
from config.settings import Settings
from liveops.api.problems import FOREIGN_HOST, NO_SUCH_ROUTE, SCOPE_MISSING, UNAUTHORIZED, refused

OPEN_PATHS: Final = frozenset({"/ping", "/health", "/ready"})
"""Routes that never ask for a key: they tell whether the service lives, and nothing of it."""

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
EXPIRES_SOON: Final = timedelta(days=7)
ADMIN_SCOPES: Final = frozenset({KeyScope.OPERATE, KeyScope.READ, KeyScope.WEBHOOK})
"""What the admin listener serves: whatever stops trading or watches it, and no trading."""

_SCOPES: Final = (
    (KeyScope.TRADE, re.compile(r"/v1/experiments/[^/]+/(assignments|decide|fallbacks)")),
    (KeyScope.TRADE, re.compile(r"/v1/assignments/[^/]+/claim")),
    (KeyScope.TRADE, re.compile(r"/v1/close-orders/[^/]+/failures")),
    (KeyScope.INGEST, re.compile(r"/v1/(outcomes|shadow-outcomes|marks|heartbeats)(/.*)?")),
    (KeyScope.WEBHOOK, re.compile(r"/v1/webhooks/.+")),
)
_CLOSE_ORDERS: Final = re.compile(r"/v1/experiments/[^/]+/close-orders")
log = logging.getLogger(__name__)


def scope_of(method: str, path: str) -> KeyScope:
    """Return the scope a request needs; what is not known to need less needs `operate`.

    >>> scope_of("POST", "/v1/experiments/btc/assignments").value
    'trade'
    >>> scope_of("POST", "/v1/experiments/btc/anything-new").value
    'operate'
    """
    if method == "GET":
        # What a bot has to do is told to bots.
        return KeyScope.TRADE if _CLOSE_ORDERS.fullmatch(path) else KeyScope.READ
    found = (scope for scope, pattern in _SCOPES if pattern.fullmatch(path))
    return next(found, KeyScope.OPERATE) if method == "POST" else KeyScope.OPERATE


class KeyState(StrEnum):
    """How long a key is still good for; `EXPIRES_SOON` is soon."""

    VALID = "valid"
    ENDING = "expires soon"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that the service knows, by its hash."""

    name: str
    scopes: frozenset[KeyScope]
    digest: str
    expires_at: datetime | None

    def state(self, *, now: datetime) -> KeyState:
        """Say how long the key is still good for."""
        if self.expires_at is None or self.expires_at > now + EXPIRES_SOON:
            return KeyState.VALID
        return KeyState.ENDING if self.expires_at > now else KeyState.EXPIRED


class Keyring:
    """Every key of the settings; empty, the service asks for none.

    A key that has expired stays on the ring: with the last one the service closes, not opens.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        """Hold `keys`."""
        self.keys = tuple(keys)

    @classmethod
    def of(cls, settings: Settings) -> Keyring:
        """Return the ring of `settings`; `api_key` is the owner's, with every scope.

        >>> Keyring.of(Settings(api_key="")).is_empty
        True
        """
        keys = [
            Key(
                name=entry.name,
                scopes=frozenset(entry.scopes),
                digest=entry.sha256,
                expires_at=entry.expires_at,
            )
            for entry in settings.api_keys
        ]
        owner = settings.api_key and settings.api_key.get_secret_value()
        if owner:
            digest = digest_of(owner.encode())
            keys.append(Key(name=OWNER, scopes=frozenset(KeyScope), digest=digest, expires_at=None))
        return cls(keys)

    @property
    def is_empty(self) -> bool:
        """Say that callers need no key."""
        return not self.keys

    def find(self, presented: str) -> Key | None:
        """Return the key whose text was presented."""
        digest, found = digest_of(presented.encode("latin-1")), None
        # Every key is compared, each in constant time: how long an answer takes tells nothing.
        for key in self.keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def ending(self, *, now: datetime) -> list[Key]:
        """Return the keys that have expired or soon will."""
        return [key for key in self.keys if key.state(now=now) is not KeyState.VALID]


def digest_of(key: bytes) -> str:
    """Return what the settings hold of a key.

    >>> digest_of(b"lo_example")[:8]
    '27062f41'
    """
    return hashlib.sha256(key).hexdigest()


def warn_of_ending_keys(ring: Keyring, *, now: datetime) -> None:
    """Log each key that has expired or soon will."""
    for key in ring.ending(now=now):
        data = {
            "key_name": key.name,
            "state": key.state(now=now).value,
            "expires_at": str(key.expires_at),
        }
        log.warning("API key ends", extra=data)


class Gatekeeper:
    """Refuses requests without a key of the right scope; without any key, those of another host.

    The second keeps web pages away from a keyless service: those that reach it through a name
    which its owner lets point at this machine (DNS rebinding), and those that let a visitor's
    browser send it a request (the `Origin` header tells).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ring: Keyring,
        served: frozenset[KeyScope],
        now: Callable[[], datetime],
        needs: KeyScope | None = None,
    ) -> None:
        """Guard `app` with the keys of `ring`; of its routes, those of the scopes `served`.

        Where every route of `app` needs one scope, `needs` spares the search for it.
        """
        self._app = app
        self._ring = ring
        self._served = served
        self._now = now
        self._needs = needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before anything of it is read."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        needed = self._needs or scope_of(scope["method"], scope["path"])
        caller = self._caller(Headers(scope=scope), needed)
        if isinstance(caller, Response):
            await caller(scope, receive, send)
        elif needed not in self._served:
            detail = f"this listener does not serve what needs the scope {needed}"
            await refused(NO_SUCH_ROUTE, detail)(scope, receive, send)
        else:
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send)

    def _caller(self, headers: Headers, needed: KeyScope) -> str | Response:
        """Return the name of who calls, or why that one may not."""
        if self._ring.is_empty:
            if _comes_from_here(headers):
                return LOCAL
            detail = "without an API key the service answers to loopback names only"
            return refused(FOREIGN_HOST, detail)
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        key = self._ring.find(presented) if scheme.lower() == "bearer" else None
        challenge = {"WWW-Authenticate": "Bearer"}
        if key is None:
            detail = "send the header Authorization: Bearer KEY"
            return refused(UNAUTHORIZED, detail, headers=challenge)
        if key.state(now=self._now()) is KeyState.EXPIRED:
            detail = f"the key of {key.name} expired at {key.expires_at}"
            return refused(UNAUTHORIZED, detail, headers=challenge)
        if needed not in key.scopes:
            held = ", ".join(sorted(key.scopes))
            detail = f"the request needs the scope {needed}, the key of {key.name} has {held}"
            return refused(SCOPE_MISSING, detail)
        return key.name


def _comes_from_here(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and not _is_loopback_name(origin.partition("://")[2]):
        return False
    return _is_loopback_name(headers.get("host", ""))


def _is_loopback_name(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host).lower() in LOOPBACK_NAMES
