"""What callers get of the service's health: the shapes of `/health` and `/status`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bandit.core.health_table import Condition, HealthLevel
from bandit.core.heartbeat import BreakerState
from bandit.core.watch import WatchLevel
from liveops.api.account_answers import AccountAnswer
from liveops.api.answers import Amount, Answer, Id, Time

Word = Literal["healthy", "degraded", "unhealthy"]


class HealthAnswer(Answer):
    """How it is, without names and numbers: those need the scope `read`, at `/status`."""

    health_status: HealthLevel
    status: Word
    issues: list[str] = Field(description="What makes it UNHEALTHY.")
    warnings: list[str] = Field(description="What makes it DEGRADED.")
    version: str
    schema_revision: str = Field(description="The schema this release needs.")


class FindingAnswer(Answer):
    """One thing that is wrong, with the value that broke its limit."""

    code: Condition
    level: HealthLevel
    subject: str
    text: str
    value: float | None
    limit: float | None


class PortfolioAnswer(Answer):
    """Money over all accounts; null where they have several currencies, or none is known."""

    currency: str | None
    equity: float | None
    daily_pnl: float | None = Field(description="Equity less that of the UTC day's start.")
    unrealised_pnl: float | None
    open_positions: int | None = Field(description="As bots tell; null where none ever did.")
    accounts: list[AccountAnswer]


class PerformanceAnswer(Answer):
    """The worst of all accounts, as fractions; what the kill switch's limits read."""

    max_drawdown: float | None = Field(description="Under the account's peak, now.")
    max_daily_loss: float | None


class TradeAnswer(Answer):
    """A closed trade."""

    experiment: str
    policy: str
    instrument: str
    closed_at: Time
    pnl: Amount


class TradingAnswer(Answer):
    """Whether decisions are made."""

    halted: bool | None = Field(description="Null while the ledger, which would know, is away.")
    killed_accounts: list[str]
    blocked_accounts: list[str] = Field(
        description="Nothing new opens there: bots and ledger differ."
    )
    latch: str | None = Field(description="Why the latch of this host is set.")
    guard: str | None = Field(description="The performance guard's status; null: not known.")
    experiments: list[str]
    last_trade_at: Time | None
    recent_trades: list[TradeAnswer]


class BotAnswer(Answer):
    """What a bot said last, and what became of it since."""

    bot: str
    account: str | None
    running: bool
    api_connected: bool
    last_heartbeat: Time
    heartbeat_age_seconds: float
    started_at: Time
    candles: dict[str, Time]
    candle_gap_seconds: dict[str, float]
    api_errors: int = Field(description="In `operations.api_error_window_minutes`.")
    open_positions: int
    positions: list[Id] | None = Field(description="By the decisions that opened them.")
    equity: Amount | None
    breakers: dict[str, BreakerState]
    model_version: str | None
    model_age_days: float | None
    last_trade_at: Time | None


class MonitorAnswer(Answer):
    """The newest pulse of an experiment's monitor, and what bots do by it."""

    experiment: str
    policy: str = Field(description="The one that is monitored.")
    level: WatchLevel | None = Field(description="Null: the monitor was ended by a person.")
    last_pulse: Time = Field(description="By the database's clock.")
    pulse_age_seconds: float
    interval_seconds: float


class MetricsAnswer(Answer):
    """The few numbers that the documents' scripts print."""

    performance_guard_status: str | None
    open_positions: int | None
    current_drawdown: float | None
    api_errors: int | None
    heartbeat_age_seconds: float | None = Field(description="The oldest of running bots.")
    bots_running: int
    bots_known: int


class StatusAnswer(Answer):
    """Everything known of service, bots and trading."""

    health_status: HealthLevel
    status: Word
    as_of: Time
    version: str
    issues: list[str] = Field(description="What makes it UNHEALTHY.")
    warnings: list[str] = Field(description="What makes it DEGRADED.")
    findings: list[FindingAnswer]
    portfolio: PortfolioAnswer
    performance: PerformanceAnswer
    trading: TradingAnswer
    bots: list[BotAnswer]
    monitors: list[MonitorAnswer]
    metrics: MetricsAnswer
