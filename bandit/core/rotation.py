"""When a model is made anew, and what the new one must show before it may trade (SPEC G6).

A *model* is a policy that was learned and that has an arm; made anew, it is another policy, whose
parent it is. Nothing here trains: values in, reasons out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from bandit.core.backtest import BacktestMetrics
from bandit.core.errors import InvalidInput
from bandit.core.model import (
    NAME_LENGTH_MAX,
    PolicyName,
    PolicySha,
    Profile,
    Verdict,
    checked_name,
)
from bandit.core.verdicts import Reason, above, at_least, at_most

WIN_RATE_TRADES_MIN: Final = 30
"""Fewer trades tell no win rate: 48 % of 30 is 1.1 standard errors from 58 %."""

CONTEST_DAYS_MIN: Final = 7
"""Fewer days that neither had seen tell nothing of two policies."""

REST_DAYS: Final = 7
"""How long a model is left alone after it was made anew, whatever came of it."""

_DAY = re.compile(r"-20\d\d[01]\d[0-3]\d(?=-|$)")
_SHA_DIGITS: Final = (8, 16, 24, 32, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationRule:
    """When a model is due, and the limits of the one that follows it; defaults of the documents.

    `win_rate_min` is a fraction, `drawdown_max_percent` percent of the account. Where
    `outperforms`, the new one must earn more than the present one on bars that neither had seen.
    """

    age_max: timedelta = timedelta(days=30)
    win_rate_min: float = 0.48
    sharpe_min: float = 1.0
    profit_factor_min: float = 1.2
    drawdown_max_percent: float = 20.0
    trades_min: int = 50
    outperforms: bool = True

    def __post_init__(self) -> None:
        """Refuse limits that everything holds, or nothing."""
        for name, holds, rule in (
            ("age_max", self.age_max >= timedelta(days=1), "must be a day or more"),
            ("win_rate_min", 0 <= self.win_rate_min < 1, "must be at least 0 and below 1"),
            ("drawdown_max_percent", 0 < self.drawdown_max_percent <= 100, "must lie in (0, 100]"),
            ("profit_factor_min", self.profit_factor_min >= 0, "must not be negative"),
            ("trades_min", self.trades_min >= 1, "must be at least 1"),
        ):
            if not holds:
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A learned policy that has an arm: what it knows until when, and what its trades came to.

    `win_rate` is that of its newest `trades`; None where it made none.
    """

    policy: PolicyName
    knows_until: datetime
    trades: int
    win_rate: float | None


def triggers(model: Model, *, rule: RotationRule, now: datetime) -> tuple[Reason, ...]:
    """Hold a model against age and win rate; one FAIL makes it due.

    >>> from datetime import UTC
    >>> model = Model(policy=PolicyName("dqn"), knows_until=datetime(2026, 3, 1, tzinfo=UTC),
    ...               trades=40, win_rate=0.5)
    >>> [r.verdict.value for r in triggers(model, rule=RotationRule(),
    ...                                    now=datetime(2026, 4, 15, tzinfo=UTC))]
    ['FAIL', 'PASS']
    """
    enough = model.trades >= WIN_RATE_TRADES_MIN
    note = "" if enough else f"{model.trades} trades, of {WIN_RATE_TRADES_MIN} that tell a rate"
    age = (now - model.knows_until) / timedelta(days=1)
    return (
        at_most("model age in days", age, rule.age_max / timedelta(days=1)),
        at_least("win rate", model.win_rate if enough else None, rule.win_rate_min, note=note),
    )


def is_due(reasons: Sequence[Reason]) -> bool:
    """Say whether any trigger was pulled; what is not known pulls none."""
    return any(reason.verdict is Verdict.FAIL for reason in reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What the new model and the present one earned of the same bars, which neither had seen.

    Total returns of an account that began with 1, net of costs, over `days`.
    """

    days: float
    new_return: float
    present_return: float


def gates(
    metrics: BacktestMetrics, contest: Contest | None, *, rule: RotationRule
) -> tuple[Reason, ...]:
    """Hold a new model's walk-forward measurement against what it must show.

    A profit factor without losses, or of no trades, is INCONCLUSIVE, as is a contest that was not
    held or over fewer than `CONTEST_DAYS_MIN` days.
    """
    factor = metrics.profit_factor
    value = factor.value if factor.n_losses else None
    why = "" if factor.n_losses else "no losses, or no trades: not a number"
    found = [
        at_least("trades", factor.n, rule.trades_min),
        at_least("sharpe_annual", metrics.annual_sharpe, rule.sharpe_min),
        at_least("profit_factor", value, rule.profit_factor_min, note=why),
        at_most("drawdown_max_percent", metrics.drawdown_max_percent, rule.drawdown_max_percent),
    ]
    if rule.outperforms:
        found.append(_outperformance(contest))
    return tuple(found)


def _outperformance(contest: Contest | None) -> Reason:
    check = "return beside the present model"
    if contest is None:
        return above(check, None, None, note="there are no bars that neither had seen")
    note = f"over {contest.days:.1f} days that neither had seen"
    if contest.days < CONTEST_DAYS_MIN:
        note += f", of {CONTEST_DAYS_MIN} that tell something"
        return above(check, None, contest.present_return, note=note)
    return above(check, contest.new_return, contest.present_return, note=note)


class Placing(StrEnum):
    """What becomes of a new model in an experiment of the one before it."""

    JOINED = "joined"
    """It is a challenger, at the start of the ladder; the one before stays."""

    REPLACED = "replaced"
    """It has the place of the one before, which is kept for a rollback."""

    KEPT_OUT = "kept_out"
    """It is registered, and trades nothing."""


def placing(verdict: Verdict, *, profile: Profile, replaces: bool) -> Placing:
    """Say what becomes of a new model; `replaces` is whether the settings let it take a place.

    Only `seed_exact` replaces on a backtest alone; in `guarded` the ladder asks for live evidence,
    and `observe` changes nothing.

    >>> placing(Verdict.PASS, profile=Profile.GUARDED, replaces=True).value
    'joined'
    >>> placing(Verdict.INCONCLUSIVE, profile=Profile.SEED_EXACT, replaces=True).value
    'kept_out'
    """
    if verdict is not Verdict.PASS or profile is Profile.OBSERVE:
        return Placing.KEPT_OUT
    if profile is Profile.SEED_EXACT and replaces:
        return Placing.REPLACED
    return Placing.JOINED


def successor_names(
    models: Mapping[PolicyName, PolicySha],
    day: date,
    *,
    taken: Mapping[PolicyName, PolicyName | None],
) -> dict[PolicyName, PolicyName]:
    """Return the name of what a day makes of each of these models: no two have one name.

    It is the model's with the day for the days before. Where another has that name or would get it,
    the beginning of the model's sha comes between. `taken` are the policies there are, each with
    its parent: what was made of a model that day already keeps its name.

    >>> sha = PolicySha("3fa9c1aa")
    >>> one, day = {PolicyName("dqn-20260308"): sha}, date(2026, 3, 15)
    >>> [*successor_names(one, day, taken={}).values()]
    ['dqn-20260315']
    >>> [*successor_names(one, day, taken={PolicyName("dqn-20260315"): None}).values()]
    ['dqn-3fa9c1aa-20260315']
    """
    lawful = {name: _names(name, sha, day) for name, sha in models.items()}
    wanted = Counter(names[0] for names in lawful.values())
    named: dict[PolicyName, PolicyName] = {}
    for model, names in sorted(lawful.items()):
        made = [name for name in names if name in taken and taken[name] == model]
        free = [
            name
            for n, name in enumerate(names)
            if name not in taken and name not in named.values() and wanted[name] == (n == 0)
        ]
        # Where none is free, whoever registers it is told of the conflict.
        named[model] = (made + free + names[-1:])[0]
    return named


def _names(policy: PolicyName, sha: PolicySha, day: date) -> list[PolicyName]:
    """Return the names that a day may give to what follows a policy, the plain one first."""
    stem = _DAY.sub("", policy)
    ends = [f"-{day:%Y%m%d}", *(f"-{sha[:digits]}-{day:%Y%m%d}" for digits in _SHA_DIGITS)]
    names = [PolicyName(stem[: NAME_LENGTH_MAX - len(end)] + end) for end in ends]
    for name in names:
        checked_name(name)
    return names
