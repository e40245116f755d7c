"""What an experiment's strategy counts of its arms' results."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection

from bandit.core.allocators import registry
from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.strategy import DayResults
from bandit.core.model import ArmRole, PolicyName, Strategy
from bandit.core.tally import Sums
from bandit.storage import statistics
from bandit.storage.experiments import ExperimentRecord


def moments(
    connection: Connection, record: ExperimentRecord, *, day: date
) -> dict[PolicyName, Moments]:
    """Return each arm's results, weighed as the strategy does on the night of `day`.

    In units, the champion's mean |return|; nothing while it has none, and for the ramp, which
    reads windows. Trades that closed later, as a slow clock may have it, count as of today.
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
        sums = held[arm.id].sums
        days = [
            DayResults(days_ago=max(0, (day - at).days), n=n, total=float(total) / unit)
            for at, n, total in statistics.returns_by_day(connection, arm.id)
        ]
        second = float(sums.return_squares) / unit**2 / sums.n_trades if sums.n_trades else 0.0
        found[arm.place.policy] = strategy.weigh(days, second_moment=second)
    return found


def _mean_size(sums: Sums) -> float:
    if not sums.n_trades:
        return 0.0
    return float(sums.return_gain + sums.return_loss) / sums.n_trades
