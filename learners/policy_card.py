"""The policy card: what is known of a policy before it gets traffic, and what is not (SPEC H6).

A document of its own, JSON and Markdown, whose first line is decided by a rule (`headline_of`).
Reading a card is strict: an unknown key, a number that is none, or a headline or verdict that its
own checks do not bear out is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec

from bandit.core.backtest import BacktestRule, BacktestTrial, judged, verdict_of
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyKind, Verdict, checked_instant, checked_name
from bandit.core.multiplicity import Search
from bandit.core.verdicts import Reason, above, at_least
from learners.backtest import Backtest, UnseenBars
from learners.card_numbers import Number, numbers_of

SCHEMA: Final = 1
BYTES_MAX: Final = 1 << 20

NOT_MODELLED: Final = (
    "Borrowing and taxes.",
    "The effect of its own orders on the price, partial fills, and outages.",
    "Drawdown and daily returns count a trade when it closes, not while it is open.",
    "Days are taken as independent: runs of good and bad times make the truth wider.",
    "Trials that were never recorded.",
)

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_.-]{0,62}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class CardMarket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bars of one instrument that were tested on; `data` is the digest of all its candles."""

    instrument: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}$")]
    data: Sha256
    first: Moment
    last: Moment
    bars: Count


class CardSubject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was tried, as in the record of trials."""

    trial: Sha256
    family: Name
    kind: PolicyKind
    spec: Sha256
    data: Sha256
    features: Sha256
    feature_names: tuple[str, ...]
    window_first: Moment
    window_last: Moment
    folds: Count
    seed: Count
    steps: Count


class CardCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every fill was charged, as ratios of its value."""

    fee_ratio: Annotated[float, msgspec.Meta(ge=0, lt=0.1)]
    slippage_ratio: Annotated[float, msgspec.Meta(ge=0, lt=0.1)]


class CardSearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All trials ever recorded, and the annual Sharpe ratio that the best has by luck."""

    n_trials: Count
    n_measured: Count
    annual_deviation: float | None
    annual_benchmark: float | None


class CardBaseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody earned on the same bars; without a range it is what he did earn."""

    name: str
    total_return: float
    low: float | None
    high: float | None
    annual_sharpe: float | None
    drawdown_max_percent: float | None
    trades: Count
    as_good: float | None


class CardCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check of the rule, as `Reason`."""

    check: str
    value: float | None
    limit: float | None
    verdict: Verdict
    note: str


class CardLook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much TabNet looks at a column: its share of the masks, over bars it was made from."""

    column: str
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


class CardEntries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often it wanted in while flat, and what kept it out, as `Entries`."""

    confidence_min: Annotated[float, msgspec.Meta(ge=0, le=1)]
    asked: Count
    wanted: Count
    unsure: Count
    off_regime: Count
    entered: Count


class PolicyCard(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One policy's card; made by `card_of`, read back by `read_card`."""

    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)]
    policy: Name
    headline: str
    verdict: Verdict
    made_at: Moment
    subject: CardSubject
    markets: tuple[CardMarket, ...]
    costs: CardCosts
    search: CardSearch
    numbers: dict[str, Number]
    baselines: tuple[CardBaseline, ...]
    checks: tuple[CardCheck, ...]
    not_modelled: tuple[str, ...]
    entries: CardEntries | None = None
    looks: tuple[CardLook, ...] = ()

    def to_json(self) -> bytes:
        """Return the card as JSON of a stable form: the same card, the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def card_of(
    policy: str,
    trial: BacktestTrial,
    backtest: Backtest,
    *,
    search: Search,
    rule: BacktestRule,
    markets: Sequence[UnseenBars],
    feature_names: Sequence[str],
    folds: int,
    not_modelled: Sequence[str],
    now: datetime,
    entries: CardEntries | None = None,
    looks: Mapping[str, float] | None = None,
) -> PolicyCard:
    """Write the card of a policy.

    `search` counts every trial ever recorded, this one among them; `not_modelled` is what this
    backtest left out beside what none can hold (`NOT_MODELLED`); `entries` say how often it wanted
    in, where that was counted; `looks` are the shares of the columns in TabNet's masks, of a policy
    that has some. Raises `InvalidInput` where the trial measured something else than the backtest.
    """
    if trial.metrics != backtest.metrics:
        rule_broken = "must have the metrics of the backtest"
        raise InvalidInput(field="trial", rule=rule_broken, found=trial.failure or "other ones")
    reasons = judged(
        backtest.metrics,
        buy_and_hold=backtest.buy_and_hold.total_return,
        search=search,
        rule=rule,
    )
    return PolicyCard(
        schema=SCHEMA,
        policy=checked_name(policy, field="policy"),
        headline=headline_of([_check(reason) for reason in reasons]),
        verdict=verdict_of(reasons),
        made_at=checked_instant(now, field="now"),
        subject=_subject(trial, feature_names, folds),
        markets=tuple(_market(market) for market in markets),
        costs=CardCosts(fee_ratio=backtest.fee_ratio, slippage_ratio=backtest.slippage_ratio),
        search=_search(search),
        numbers=numbers_of(backtest, deflated=reasons[-1].value),
        baselines=_baselines(backtest),
        checks=tuple(_check(reason) for reason in reasons),
        not_modelled=(*not_modelled, *NOT_MODELLED),
        entries=entries,
        looks=tuple(
            CardLook(column=column, share=share)
            for column, share in sorted((looks or {}).items(), key=lambda item: -item[1])
        ),
    )


def read_card(document: bytes) -> PolicyCard:
    """Read a card; raises `InvalidInput` for anything that `card_of` would not have written."""
    if len(document) > BYTES_MAX:
        rule = f"must be at most {BYTES_MAX} bytes"
        raise InvalidInput(field="card", rule=rule, found=len(document))
    try:
        card = msgspec.json.decode(document, type=PolicyCard)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(field="card", rule="must be a policy card", found=error) from error
    reasons = tuple(_held(check) for check in card.checks)
    for field, told, found in (
        ("checks", card.checks, tuple(map(_check, reasons))),
        ("headline", card.headline, headline_of(card.checks)),
        ("verdict", card.verdict, verdict_of(reasons)),
    ):
        if told != found:
            raise InvalidInput(field=field, rule="must be what the numbers say", found=told)
    return card


def headline_of(checks: Sequence[CardCheck]) -> str:
    """Say in one line what the checks come to: the first of these that holds.

    No trades; not above buy-and-hold; not above 0; too little to judge by; luck not known; luck may
    explain it; passed. Raises `InvalidInput` for checks that are not those of the rule.
    """
    by_name = {check.check: check for check in checks}
    try:
        trades, periods = by_name["trades"], by_name["periods"]
        alone, beside = by_name["total return"], by_name["total return beside buy-and-hold"]
        deflated = by_name["deflated Sharpe ratio"]
    except KeyError as error:
        raise InvalidInput(field="checks", rule="must have each check", found=error) from error
    earned = f"{_percent(beside.value)} against {_percent(beside.limit)}"
    if not trades.value:
        return f"Makes no trade: nothing to judge ({earned})."
    if beside.verdict is not Verdict.PASS:
        return f"Does not beat buy-and-hold after fees ({earned})."
    if alone.verdict is not Verdict.PASS:
        return f"Loses money, if less than buy-and-hold after fees ({earned})."
    beats = f"Beats buy-and-hold after fees ({earned})"
    if trades.verdict is not Verdict.PASS or periods.verdict is not Verdict.PASS:
        return (
            f"{beats}, with too little to judge it by: {trades.value:.0f} trades on "
            f"{periods.value or 0:.0f} days."
        )
    if deflated.value is None:
        return f"{beats}; how much of it is luck is not known."
    found = f"deflated Sharpe ratio {deflated.value:.2f}"
    if deflated.verdict is not Verdict.PASS:
        return f"{beats}, which luck may explain: {found}, not {deflated.limit}."
    return f"{beats}; {found}. A backtest is no promise."


def _percent(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{100 * ratio:+.2f} %"


def _held(check: CardCheck) -> Reason:
    """Hold what a check measured against its limit once more."""
    verdict = above if check.check.startswith("total return") else at_least
    return verdict(check.check, check.value, check.limit, note=check.note)


def _check(reason: Reason) -> CardCheck:
    return CardCheck(
        check=reason.check,
        value=None if reason.value is None else float(reason.value),
        limit=None if reason.limit is None else float(reason.limit),
        verdict=reason.verdict,
        note=reason.note,
    )


def _subject(trial: BacktestTrial, feature_names: Sequence[str], folds: int) -> CardSubject:
    subject = trial.subject
    return CardSubject(
        trial=trial.id,
        family=subject.family,
        kind=subject.kind,
        spec=subject.spec,
        data=subject.data,
        features=subject.features,
        feature_names=tuple(feature_names),
        window_first=subject.window_first,
        window_last=subject.window_last,
        folds=folds,
        seed=subject.seed,
        steps=subject.steps,
    )


def _search(search: Search) -> CardSearch:
    return CardSearch(
        n_trials=search.n_trials,
        n_measured=search.n_measured,
        annual_deviation=search.annual_deviation,
        annual_benchmark=search.annual_benchmark(),
    )


def _market(market: UnseenBars) -> CardMarket:
    candles = market.candles
    return CardMarket(
        instrument=candles.instrument,
        data=candles.digest,
        first=candles.opening(int(market.bars[0])),
        last=candles.closing(int(market.bars[-1])),
        bars=len(market.bars),
    )


def _baselines(backtest: Backtest) -> tuple[CardBaseline, ...]:
    found = [
        CardBaseline(
            name=name,
            total_return=metrics.total_return,
            low=None,
            high=None,
            annual_sharpe=metrics.annual_sharpe,
            drawdown_max_percent=metrics.drawdown_max_percent,
            trades=metrics.profit_factor.n,
            as_good=None,
        )
        for name, metrics in (
            ("buy-and-hold after fees", backtest.buy_and_hold),
            ("flat", backtest.flat),
        )
    ]
    flips = backtest.coin_flips
    coin = CardBaseline(
        name=f"coin flips ({flips.n_flips:,} runs)",
        total_return=flips.median,
        low=flips.low,
        high=flips.high,
        annual_sharpe=None,
        drawdown_max_percent=None,
        trades=backtest.metrics.profit_factor.n,
        as_good=flips.as_good,
    )
    return (*found, coin)
