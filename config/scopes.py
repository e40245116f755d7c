"""What an API key may open, and the names that the service itself goes by."""

from __future__ import annotations

from enum import StrEnum

OWNER = "owner"
"""Who the one `api_key` stands for."""

LOCAL = "local"
"""Who calls a service that asks for no key."""


class KeyScope(StrEnum):
    """What a key opens; every route asks for one of them."""

    TRADE = "trade"
    INGEST = "ingest"
    OPERATE = "operate"
    READ = "read"
    WEBHOOK = "webhook"
