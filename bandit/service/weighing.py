"""What an experiment's strategy counts of its arms' results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection

from bandit.core.allocators import registry
from bandit.core.allocators.posterior import Moments, ResultKind
from bandit.core.allocators.strategy import DayResults
from bandit.core.model import ArmRole, PolicyName, Strategy
from bandit.core.reading import Rules
from bandit.core.tally import Sums
from bandit.storage import paper_days, shadows, statistics
from bandit.storage.experiments import ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """An arm's results of one kind: trades and the sum of their returns by day, and all squares."""

    kind: ResultKind
    days: Sequence[tuple[date, int, Decimal]]
    squares: Decimal

    @property
    def n(self) -> int:
        return sum(n for _, n, _ in self.days)


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
    strategy = registry.strategy(record.experiment.strategy.value, record.rules.allocator)
    found = {}
    for arm in record.kept_arms:
        results = _results(connection, arm.id, held[arm.id].sums, record.rules)
        days = [
            DayResults(days_ago=max(0, (day - at).days), n=n, total=float(total) / unit)
            for at, n, total in results.days
        ]
        second = float(results.squares) / unit**2 / results.n if results.n else 0.0
        weighed = strategy.weigh(days, second_moment=second)
        found[arm.place.policy] = replace(weighed, kind=results.kind)
    return found


def _results(connection: Connection, arm_id: int, live: Sums, rules: Rules) -> _Results:
    """Read the results that an arm is weighed by: on paper, or live; no number holds both."""
    if rules.weigh_paper:
        told = paper_days.of_arm(connection, arm_id)
        paper = _Results(
            kind=ResultKind.PAPER,
            days=[(day.day, day.sums.n_trades, day.sums.return_sum) for day in told],
            squares=sum((day.sums.return_squares for day in told), Decimal(0)),
        )
        gap = shadows.gap_of(connection, arm_id)
        if rules.weighs_paper(gap, on_paper=paper.n, live=live.n_trades):
            return paper
    days = statistics.returns_by_day(connection, arm_id)
    return _Results(kind=ResultKind.LIVE, days=days, squares=live.return_squares)


def _mean_size(sums: Sums) -> float:
    if not sums.n_trades:
        return 0.0
    return float(sums.return_gain + sums.return_loss) / sums.n_trades
