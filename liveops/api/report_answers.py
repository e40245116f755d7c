"""What a report answers: arms with their numbers, and what holds them where they are."""

from __future__ import annotations

from pydantic import Field

from bandit.core.allocators.posterior import ResultKind
from bandit.core.model import DecisionKind, Profile, Strategy, Verdict
from bandit.core.performance import NumberState
from bandit.core.profit_factor import ProfitFactorState
from liveops.api.answers import Amount, Answer, ArmAnswer, Day, DecisionAnswer, Time
from liveops.api.guard_answers import GuardAnswer


class ProfitFactorAnswer(Answer):
    """A profit factor with its state: `value` is null without a loss and without a trade."""

    value: float | None
    state: ProfitFactorState
    gross_profit: float
    gross_loss: float
    n: int
    n_losses: int


class StatedAnswer(Answer):
    """A number, or why there is none."""

    value: float | None
    state: NumberState


class ChecklistAnswer(Answer):
    """One row of the live-ops checklist."""

    metric: str
    band: list[float]
    check: str
    value: float | None
    limit: float | None
    verdict: Verdict
    note: str
    flagged: bool
    action: str


class ReasonAnswer(Answer):
    """A measured value held against a limit."""

    check: str
    value: float | None
    limit: float | None
    verdict: Verdict
    note: str


class FillGapAnswer(ReasonAnswer):
    """Whether paper agrees with live: `value` is the mean of paper - live, as a return."""

    trades: int


class OnPaperAnswer(Answer):
    """What an arm's results on paper say; they enter no number of live trades."""

    pairs: int = Field(description="Decisions with its result on paper and the champion's.")
    pairs_with_live: int = Field(description="Those where the champion's result is a live one.")
    evidence_log: float | None = Field(description="Natural log of the e-value of the pairs.")
    fill_gap: FillGapAnswer


class GapAnswer(Answer):
    """Live less backtest, with its 95 % interval: null where it is not known."""

    live: float | None
    backtest: float | None
    difference: float | None
    low: float | None
    high: float | None
    is_worse: bool | None = Field(description="The whole interval lies on the bad side.")


class BacktestGapAnswer(Answer):
    """An arm's newest live trades beside what its policy's backtest promised."""

    trial: str = Field(description="Id of the backtest trial.")
    trades: int = Field(description="Live trades compared: the newest 300 at most.")
    trades_with_slippage: int = Field(description="Those of them that tell their slippage.")
    trades_backtest: int | None = Field(description="Null where the trial kept no such numbers.")
    return_mean: GapAnswer = Field(description="Mean net return of a trade.")
    win_rate: GapAnswer
    slippage: GapAnswer = Field(description="Of both fills, over the value at entry.")


class ArmReportAnswer(ArmAnswer):
    """An arm with its numbers at nominal size; `pnl` and `fees` in the experiment's currency."""

    outcomes: int
    wins: int
    losses: int
    expired: int
    unclaimed: int
    pnl: Amount
    fees: Amount
    profit_factor: ProfitFactorAnswer
    win_rate: float | None
    trade_sharpe: StatedAnswer
    sqn: StatedAnswer
    days: int = Field(description="UTC days from the first trade's to the newest's.")
    losing_days: int
    sharpe_daily: StatedAnswer
    sortino_daily: StatedAnswer
    calmar_daily: StatedAnswer
    losing_streak: int
    losing_streak_max: int
    drawdown_percent: float
    drawdown_max_percent: float
    pf_30: ProfitFactorAnswer
    pf_30_low: StatedAnswer = Field(description="Lower end of its 95 % interval.")
    pf_30_high: StatedAnswer = Field(description="Upper end of its 95 % interval.")
    dd_30: float | None
    pf_150: ProfitFactorAnswer
    pf_150_low: StatedAnswer = Field(description="Lower end of its 95 % interval.")
    pf_150_high: StatedAnswer = Field(description="Upper end of its 95 % interval.")
    dd_150: float | None
    dd_contrib: float | None = Field(
        description="Fall of its own P&L from its best, in percent of the equity of all arms then."
    )
    dd_contrib_max: float | None = Field(description="The deepest such fall.")
    pf_prod: ProfitFactorAnswer | None
    checklist: list[ChecklistAnswer]
    evidence: list[ReasonAnswer] = Field(description="What its rung and the next ones ask for.")
    evidence_night: Day | None = Field(description="The night that looked at it, as a UTC day.")
    claims: ReasonAnswer | None = Field(
        description="Whether too many decisions that bots claimed came to nothing, that night."
    )
    weighed: ResultKind | None = Field(
        description="Which results the newest night's strategy weighed; the ramp weighs none."
    )
    on_paper: OnPaperAnswer
    backtest_gap: BacktestGapAnswer | None = Field(
        description="Null where the policy names no backtest trial of the ledger."
    )


class ExploredAnswer(Answer):
    """What an arm's decisions as a challenger cost beside its champion."""

    spent: Amount = Field(description="How much less it earned; below 0 where it earned more.")
    reserved: Amount = Field(description="What its open decisions may cost at worst.")
    open_decisions: int


class ExplorationAnswer(Answer):
    """An exploration budget, in the experiment's currency; null where none is set now."""

    amount: Amount | None
    amount_percent: float | None = Field(description="Of the experiment's capital.")
    at_risk: Amount | None = Field(description="The most that a decision may lose.")
    expected: Amount | None = Field(description="What the champion earns with a decision.")
    spent: Amount
    spent_percent: float
    reserved: Amount
    open_decisions: int
    room: int | None = Field(description="Decisions that challengers may take before an outcome.")
    arms: dict[str, ExploredAnswer] = Field(description="By policy.")


class LimitCheckAnswer(Answer):
    """How often arms pass a drawdown limit within a window: shares, null while unknown."""

    percent: float
    healthy: float | None = Field(description="Of arms that earn like the champion.")
    healthy_verdict: Verdict = Field(description="FAIL: it would often stop a good arm.")
    sick: float | None = Field(description="Of arms that lose what the champion earns.")
    sick_verdict: Verdict = Field(description="FAIL: it would hardly ever stop a bad arm.")


class SuccessionAnswer(Answer):
    """How the champion became one."""

    kind: DecisionKind
    demoted: str = Field(description="Who was the champion before.")
    decided_at: Time
    actor: str
    reason: str


class ReportAnswer(Answer):
    """An experiment at one moment."""

    experiment: str
    champion: str
    succession: SuccessionAnswer | None = Field(
        description="How the champion became one; null where the experiment opened with it."
    )
    capital: Amount
    currency: str
    account: str
    killed: bool = Field(description="The account's kill switch is on: nothing is decided.")
    dd_total: float = Field(description="Drawdown of the account's marked equity, in percent.")
    equity_fraction: float
    profile: Profile
    strategy: Strategy
    allocation_version: int
    epoch: int
    exploration: ExplorationAnswer | None = Field(description="Null where none was ever set.")
    drawdown_limits: dict[str, LimitCheckAnswer] = Field(description="By setting.")
    draws: ReasonAnswer | None = Field(
        description="Whether units fell to arms as allocated, in the newest night."
    )
    guards: list[GuardAnswer] = Field(
        description="Its account's performance guard and its own: the stricter one holds."
    )
    arms: list[ArmReportAnswer]
    machine: list[ChecklistAnswer] = Field(description="The checklist of the machine that serves.")
    decisions: list[DecisionAnswer]
