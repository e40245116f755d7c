"""What a bot says of itself, as the service reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from liveops.client.errors import InvalidInput
from liveops.client.protocol import Request, encoded, post
from liveops.client.values import AssignmentId, amount, aware

Breaker = Literal["closed", "open", "half_open"]
"""How a circuit breaker of the bot stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """How a bot is now.

    `candles` holds when the newest closed candle of each symbol closed, `candle_seconds` how long a
    candle is. `api_errors_total` counts since `started_at` and never falls, so that a heartbeat
    that is lost loses no error. `positions` are the ids of the decisions that opened what it holds:
    all of them, or None; the service holds them against its ledger. A bot that ends says so with
    `running=False`.
    """

    bot: str
    started_at: datetime
    candles: Mapping[str, datetime]
    api_errors_total: int
    open_positions: int
    positions: Sequence[AssignmentId] | None = None
    running: bool = True
    api_connected: bool = True
    candle_seconds: int = 0
    account: str | None = None
    equity: Decimal | None = None
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    model_version: str | None = None
    model_trained_at: datetime | None = None
    last_trade_at: datetime | None = None

    def __post_init__(self) -> None:
        """Keep what is told now, whatever the bot makes of its own mappings later."""
        if self.positions is not None:
            object.__setattr__(self, "positions", tuple(self.positions))
        object.__setattr__(self, "candles", dict(self.candles))
        object.__setattr__(self, "breakers", dict(self.breakers))


def heartbeat_request(
    beat: Heartbeat, *, sent_at: datetime, positions: Sequence[AssignmentId] | None = None
) -> Request:
    """Return what tells the service of a bot; raises `InvalidInput` and `TypeError`.

    `positions` are those of `beat` by the ids that the service knows them by.

    >>> at = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> beat = Heartbeat(bot="alpha", started_at=at, candles={}, api_errors_total=0,
    ...                  open_positions=0)
    >>> heartbeat_request(beat, sent_at=at).path
    '/v1/heartbeats'
    """
    candles = {
        symbol: aware(at, field=f"candles.{symbol}").isoformat()
        for symbol, at in beat.candles.items()
    }
    told: dict[str, object] = {
        "bot": beat.bot,
        "sent_at": sent_at.isoformat(),
        "started_at": aware(beat.started_at, field="started_at").isoformat(),
        "running": beat.running,
        "api_connected": beat.api_connected,
        "candles": candles,
        "candle_seconds": beat.candle_seconds,
        "api_errors_total": beat.api_errors_total,
        "open_positions": beat.open_positions,
        "breakers": dict(beat.breakers),
    }
    if positions is not None:
        told["positions"] = list(positions)
    if beat.account is not None:
        told["account"] = beat.account
    if beat.equity is not None:
        told["equity"] = amount(beat.equity, field="equity")
    if beat.model_version is not None or beat.model_trained_at is not None:
        told["model"] = _model(beat)
    if beat.last_trade_at is not None:
        told["last_trade_at"] = aware(beat.last_trade_at, field="last_trade_at").isoformat()
    return post("/v1/heartbeats", encoded(told, field="heartbeat"))


def _model(beat: Heartbeat) -> dict[str, str]:
    if beat.model_version is None:
        rule = "is required beside model_trained_at"
        raise InvalidInput(field="model_version", rule=rule, found="nothing")
    told = {"version": beat.model_version}
    if beat.model_trained_at is not None:
        trained = aware(beat.model_trained_at, field="model_trained_at")
        told["trained_at"] = trained.isoformat()
    return told
