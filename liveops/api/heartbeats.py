"""The route on which bots say how they are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from bandit.core.heartbeat import (
    BREAKERS_MAX,
    CANDLE_SECONDS_MAX,
    POSITIONS_MAX,
    SYMBOLS_MAX,
    BreakerState,
    Heartbeat,
)
from bandit.core.model import checked_amount
from bandit.service import health, reconciling
from liveops.api.answers import Answer, Time, time_of
from liveops.api.bodies import Body, Id, Instant, Money, Name, Whole, body_of, schema_of
from liveops.api.parameters import Application
from liveops.api.problems import declared
from liveops.api.watching import NAMES_EXPERIMENT, WATCHED, watch_headers
from liveops.wiring import health_limits_of, reconciliation_rule_of

router = APIRouter(prefix="/v1", responses=declared(503))


class ToldModel(Body):
    """The model that a bot runs."""

    version: str = Field(min_length=1, max_length=64)
    trained_at: Instant | None = None


class NewHeartbeat(Body):
    """What a bot says of itself now; of what is left out nothing is judged."""

    bot: Name
    account: Name | None = None
    sent_at: Instant = Field(description="By the bot's clock; a later one replaces an earlier.")
    started_at: Instant = Field(description="When this run of the bot began.")
    running: bool = Field(description="False: it stopped, and says so.")
    api_connected: bool = Field(description="Whether it reaches its exchange.")
    candles: dict[str, Instant] = Field(
        description=f"When the newest closed candle of each symbol closed; {SYMBOLS_MAX} at most."
    )
    candle_seconds: Whole = Field(
        default=0,
        description="How long a candle is: the next one is not missed before it is due; "
        f"{CANDLE_SECONDS_MAX} at most.",
    )
    api_errors_total: Whole = Field(description="Errors since `started_at`; it never falls.")
    open_positions: Whole
    positions: list[Id] | None = Field(
        default=None,
        description="Decisions that opened what it holds of this service's positions; "
        f"{POSITIONS_MAX} at most, and no more than `open_positions`. Needs `account`.",
    )
    equity: Money | None = Field(
        default=None, description="Of the whole account, marked to market, in its currency."
    )
    breakers: dict[str, Annotated[BreakerState, Field(strict=False)]] = Field(
        default={}, description=f"Circuit breakers by name; {BREAKERS_MAX} at most."
    )
    model: ToldModel | None = None
    last_trade_at: Instant | None = None

    def heartbeat(self) -> Heartbeat:
        """Return the checked heartbeat; raises `InvalidInput` naming the field and the rule."""
        told = self.model_dump(exclude={"model", "equity", "positions"})
        model = self.model
        return Heartbeat(
            **told,
            positions=None if self.positions is None else tuple(self.positions),
            equity=None if self.equity is None else checked_amount(self.equity, field="equity"),
            model_version=None if model is None else model.version,
            model_trained_at=None if model is None else model.trained_at,
        )


class HeartbeatAnswer(Answer):
    """The newest heartbeat of the bot, which may be another than the one just sent."""

    bot: str
    sent_at: Time
    heard_at: Time = Field(description="By the service's clock.")
    blocked: bool = Field(
        description="Nothing new opens on its account: bots and ledger differ there."
    )


@router.post(
    "/heartbeats",
    openapi_extra=schema_of(NewHeartbeat) | NAMES_EXPERIMENT,
    responses=declared(400, 413, 415, 422) | WATCHED,
)
def hear_heartbeat(
    app: Application,
    request: Request,
    response: Response,
    body: Annotated[NewHeartbeat, Depends(body_of(NewHeartbeat))],
) -> HeartbeatAnswer:
    """Say how a bot is; one that is repeated, or older than the newest, changes nothing.

    What it holds is compared with the ledger: once this answers, nothing new opens on an account
    that was shown to differ.
    """
    known = health.hear(
        app.engine,
        body.heartbeat(),
        now=app.clock.now(),
        window=health_limits_of(app.settings).api_error_window,
        rule=reconciliation_rule_of(app.settings),
    )
    newest = known.newest
    response.headers.update(watch_headers(request))
    return HeartbeatAnswer(
        bot=newest.bot,
        sent_at=time_of(newest.sent_at),
        heard_at=time_of(known.heard_at),
        blocked=reconciling.is_blocked(app.engine, newest.account),
    )
