"""What an experiment's strategy counts of its arms' results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

import numpy as np
from sqlalchemy import Connection

from bandit.core.allocators import registry
from bandit.core.allocators.posterior import Moments, ResultKind
from bandit.core.allocators.strategy import DayResults
from bandit.core.allocators.strategy import Strategy as Rule
from bandit.core.model import ArmRole, PolicyName, Strategy
from bandit.core.reading import Rules
from bandit.core.tally import Sums
from bandit.storage import paper_days, shadows, statistics
from bandit.storage.experiments import ExperimentRecord
from bandit.storage.statistics import DayReturns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """An arm's results of one kind: trades and the sum of their returns by day, and all squares."""

    kind: ResultKind
    days: DayReturns
    squares: Decimal

    def moments(self, rule: Rule, *, day: date, unit: float) -> Moments:
        """Weigh them as the strategy does on a day."""
        days = DayResults(
            days_ago=np.maximum(day.toordinal() - np.array(self.days.days, np.int64), 0),
            n=np.array(self.days.n, np.int64),
            total=np.array(self.days.totals, np.float64) / unit,
        )
        n = sum(self.days.n)
        second = float(self.squares) / unit**2 / n if n else 0.0
        return replace(rule.weigh(days, second_moment=second), kind=self.kind)


def moments(
    connection: Connection, record: ExperimentRecord, *, day: date
) -> dict[PolicyName, Moments]:
    """Return each arm's results, weighed as the strategy does on the night of `day`.

    Those on paper instead of the live ones where they agree and are more, each arm by itself.
    In units, the champion's mean |return| of live trades; nothing while it has none, and for the
    ramp, which reads windows. Trades of a later day, as a slow clock may have it, count as of
    today.
    """
    if record.experiment.strategy is Strategy.RAMP:
        return {}
    held = statistics.of_arms(connection, [arm.id for arm in record.kept_arms])
    (champion,) = (arm for arm in record.arms if arm.place.role is ArmRole.CHAMPION)
    unit = _mean_size(held[champion.id].sums)
    if not unit:
        return {}
    rule = registry.strategy(record.experiment.strategy.value, record.rules.allocator)
    live = {arm.id: held[arm.id].sums for arm in record.kept_arms}
    results = _results(connection, live, record.rules)
    return {
        arm.place.policy: results[arm.id].moments(rule, day=day, unit=unit)
        for arm in record.kept_arms
    }


def _results(connection: Connection, live: Mapping[int, Sums], rules: Rules) -> dict[int, _Results]:
    """Read the results that arms are weighed by: on paper, or live; no number holds both."""
    found = {}
    if rules.weigh_paper:
        gaps = shadows.gaps_of(connection, list(live))
        for arm_id, (days, squares) in paper_days.returns_by_day(connection, live).items():
            traded = live[arm_id].n_trades
            if rules.weighs_paper(gaps[arm_id], on_paper=sum(days.n), live=traded):
                found[arm_id] = _Results(kind=ResultKind.PAPER, days=days, squares=squares)
    by_day = statistics.returns_by_day(connection, live.keys() - found.keys())
    return found | {
        arm_id: _Results(
            kind=ResultKind.LIVE,
            days=by_day.get(arm_id, DayReturns()),
            squares=sums.return_squares,
        )
        for arm_id, sums in live.items()
        if arm_id not in found
    }


def _mean_size(sums: Sums) -> float:
    if not sums.n_trades:
        return 0.0
    return float(sums.return_gain + sums.return_loss) / sums.n_trades
