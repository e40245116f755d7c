"""Ask the service that runs on this machine, for what no ledger knows."""

from __future__ import annotations

from typing import Any, Final

from bandit.core.errors import BanditError
from config.settings import Settings

TIMEOUT_SECONDS: Final = 10.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - read, not listened on


class ServiceNotRunning(BanditError):
    """No service answers on this machine."""

    code = "service_not_running"


class ServiceRefused(BanditError):
    """The service that runs refused what it was asked; the message says why."""

    code = "service_refused"


def address(settings: Settings) -> str:
    """Return where the service listens for operators; with no admin listener, for everybody.

    >>> address(Settings())
    'http://127.0.0.1:8801'
    """
    server = settings.server
    host, port = server.admin_host, server.admin_port
    if port == 0:
        host, port = server.host, server.port
    return f"http://{_ANYWHERE.get(host, host)}:{port}"


def asked(settings: Settings, method: str, path: str, body: object = None) -> Any:
    """Return the answer's JSON; the key, if any, is `api_key` of the settings.

    Raises `ServiceNotRunning` and `ServiceRefused`.
    """
    import httpx

    url, key = address(settings), settings.api_key
    headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
    try:
        # No proxy of the environment: the service is on this machine.
        with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            answer = client.request(method, path, json=body, headers=headers)
    except httpx.HTTPError:
        raise ServiceNotRunning(
            f"no service answers at {url}: `liveops serve` starts one, and breakers end with it"
        ) from None
    if answer.is_success:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = "it did not say why"
    raise ServiceRefused(f"{url} answered {answer.status_code}: {detail}")
