"""What a trading bot imports: decisions, and reports that outlive a service that is away.

docs/sdk.md shows a bot.
"""

from __future__ import annotations

from liveops.client.aio import AsyncClient
from liveops.client.closing import CloseOrder, ClosingAll
from liveops.client.errors import (
    ClientClosed,
    ClientError,
    Expired,
    InvalidInput,
    Killed,
    NoOrder,
    NotSelected,
    Paused,
    PositionLimit,
    Problem,
    RequestRefused,
    Revoked,
    ServiceUnavailable,
    SizeLimit,
    SpoolError,
    SpoolFull,
    SpoolUnusable,
    Unreconciled,
    Unwatched,
)
from liveops.client.heartbeat import Heartbeat
from liveops.client.sync import Client
from liveops.client.values import Acted, Action, Assignment, AssignmentId, Kind, Refusal, Sizing

__all__ = [
    "Acted",
    "Action",
    "Assignment",
    "AssignmentId",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ClientError",
    "CloseOrder",
    "ClosingAll",
    "Expired",
    "Heartbeat",
    "InvalidInput",
    "Killed",
    "Kind",
    "NoOrder",
    "NotSelected",
    "Paused",
    "PositionLimit",
    "Problem",
    "Refusal",
    "RequestRefused",
    "Revoked",
    "ServiceUnavailable",
    "SizeLimit",
    "Sizing",
    "SpoolError",
    "SpoolFull",
    "SpoolUnusable",
    "Unreconciled",
    "Unwatched",
]
