"""What callers get of performance guards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bandit.core.guard_rule import GuardState
from bandit.core.model import Verdict
from liveops.api.answers import Answer, Time


class GuardCheckAnswer(Answer):
    """A measured value held against a limit; win rates and drawdowns in percent."""

    check: str
    value: float | None
    limit: float | None
    verdict: Verdict
    note: str


class GuardAnswer(Answer):
    """A performance guard: its state, what that does to decisions, and what may change it."""

    scope: Literal["account", "experiment"]
    name: str = Field(description="Of the account or experiment.")
    enabled: bool = Field(description="false: it reads nothing and stays NORMAL.")
    state: GuardState
    size_multiplier: float = Field(description="Share of its size that a decision keeps.")
    confidence_bump: float = Field(description="What is added to the confidence threshold.")
    since: Time | None = Field(description="When it changed last; null where it never did.")
    actor: str | None
    reason: str | None
    trades: int = Field(description="Trades in its window.")
    win_rate: float | None = Field(description="null while they are too few to tell.")
    drawdown: float = Field(description="Largest fall within the window, as a fraction.")
    losing_streak: int
    trades_since: int = Field(description="Trades since its state was entered.")
    reasons: list[GuardCheckAnswer] = Field(
        description="What may tighten it next, and where it is not NORMAL, what ends that."
    )
