"""The exploration budget of an experiment: who sets it, what is charged to it, what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.errors import Conflict, InvalidInput
from bandit.core.exploration import ExplorationBudget, Explored, expected_of
from bandit.core.model import PolicyName, checked_instant, checked_text
from bandit.service.scoring import Told
from bandit.storage import audit, experiments, exploration, statistics
from bandit.storage.assignments import AssignedUnit
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ExperimentRecord
from bandit.storage.exploration import OpenDecision

_STEP = Decimal("0.00000001")
_OPEN_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReport:
    """A budget and what its challengers have cost; `budget` is None where none is set now."""

    experiment: str
    currency: str
    capital: Decimal
    budget: ExplorationBudget | None
    by_arm: dict[PolicyName, Explored]

    @property
    def explored(self) -> Explored:
        """What all arms have cost together."""
        return sum(self.by_arm.values(), Explored())

    @property
    def room(self) -> int | None:
        """How many more decisions challengers may take now; None without a limit."""
        return None if self.budget is None else self.budget.room(self.explored)

    def to_json(self) -> dict[str, Any]:
        """Return the budget as the report and `liveops budget show --json` print it."""
        explored, budget = self.explored, self.budget
        return {
            "amount": None if budget is None else f"{budget.amount:f}",
            "amount_percent": None if budget is None else self.percent(budget.amount),
            "at_risk": None if budget is None else f"{budget.at_risk:f}",
            "expected": None if budget is None else f"{budget.expected:f}",
            "spent": f"{explored.spent:f}",
            "spent_percent": self.percent(explored.spent),
            "reserved": f"{explored.reserved:f}",
            "open_decisions": explored.n_open,
            "room": self.room,
            "arms": {
                policy: {
                    "spent": f"{found.spent:f}",
                    "reserved": f"{found.reserved:f}",
                    "open_decisions": found.n_open,
                }
                for policy, found in self.by_arm.items()
            },
        }

    def percent(self, money: Decimal) -> float:
        """Return money in percent of the experiment's capital."""
        return float(100 * money / self.capital)


def set_budget(
    engine: Engine,
    name: str,
    *,
    amount: Decimal,
    at_risk: Decimal | None,
    reason: str,
    now: datetime,
    actor: str,
) -> BudgetReport:
    """Let challengers of an experiment cost no more than this than their champion, in all.

    `at_risk` is the most that a position opened by one decision may lose; left out, all that the
    experiment puts into a trade at nominal size. What was charged before stays charged: a larger
    amount is how exploration goes on once the budget is spent. Counted are decisions from now on.
    Raises `UnknownName` and `InvalidInput`.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = experiments.load(connection, name)
        put = _nominal_size(record) if at_risk is None else at_risk
        budget = ExplorationBudget(
            amount=amount, at_risk=put, expected=_expected(connection, record)
        )
        if budget.reservation.charge > budget.amount:
            charge = f"{budget.reservation.charge:f} (at_risk {put:f}, and what the champion earns)"
            rule = f"must not be below what a decision is charged, {charge}"
            raise InvalidInput(field="amount", rule=rule, found=f"{budget.amount:f}")
        exploration.set_budget(connection, record.id, budget, now=now)
        told = {"amount": f"{budget.amount:f}", "at_risk": f"{budget.at_risk:f}", "reason": reason}
        audit.append(connection, now=now, actor=actor, action="budget", subject=name, details=told)
        return read(connection, record)


def open_decisions(engine: Engine, name: str) -> list[OpenDecision]:
    """Return the oldest decisions that hold something aside, as many as a person looks at.

    One that never traded gives it back once it is told as declined. Raises `UnknownName`.
    """
    with snapshot(engine) as connection:
        record = experiments.load(connection, name)
        return exploration.open_decisions(connection, record.id, most=_OPEN_SHOWN)


def clear_budget(
    engine: Engine, name: str, *, reason: str, now: datetime, actor: str
) -> BudgetReport:
    """Let challengers decide without a budget again; raises `Conflict` where none is set."""
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = experiments.load(connection, name)
        if exploration.budget_of(connection, record.id) is None:
            raise Conflict(f"experiment {name} has no exploration budget")
        exploration.clear_budget(connection, record.id)
        told = {"amount": None, "reason": reason}
        audit.append(connection, now=now, actor=actor, action="budget", subject=name, details=told)
        return read(connection, record)


def report(engine: Engine, name: str) -> BudgetReport:
    """Return where the budget of an experiment stands; raises `UnknownName`."""
    with snapshot(engine) as connection:
        return read(connection, experiments.load(connection, name))


def read(connection: Connection, record: ExperimentRecord) -> BudgetReport:
    """Return where the budget of an experiment stands, as this transaction sees it."""
    found = exploration.of_arms(connection, record.id)
    policies = {arm.id: arm.place.policy for arm in record.arms}
    return BudgetReport(
        experiment=record.experiment.name,
        currency=record.experiment.currency,
        capital=record.experiment.capital,
        budget=exploration.budget_of(connection, record.id),
        by_arm={policies[arm_id]: explored for arm_id, explored in found.items()},
    )


def _nominal_size(record: ExperimentRecord) -> Decimal:
    """Return what an experiment puts into a trade at nominal size: no more can be lost unlevered.

    Money to eight decimals, rounded down.
    """
    experiment = record.experiment
    put = experiment.capital * Decimal(str(experiment.equity_fraction))
    return put.quantize(_STEP, rounding=ROUND_FLOOR)


def amount_of_percent(engine: Engine, name: str, percent: float) -> Decimal:
    """Return this many percent of an experiment's capital; raises `InvalidInput` and `UnknownName`.

    Money to eight decimals, rounded down.
    """
    if not 0 < percent <= 100:
        rule = "must be above 0 and at most 100"
        raise InvalidInput(field="percent", rule=rule, found=percent)
    with snapshot(engine) as connection:
        capital = experiments.load(connection, name).experiment.capital
    return (capital * Decimal(str(percent)) / 100).quantize(_STEP, rounding=ROUND_FLOOR)


def expect(connection: Connection, record: ExperimentRecord) -> None:
    """Charge decisions with what the champion earns by now, where there is a budget."""
    exploration.expect(connection, record.id, _expected(connection, record))


def _expected(connection: Connection, record: ExperimentRecord) -> Decimal:
    champion = record.arm_of(record.experiment.champion)
    sums = statistics.of_arms(connection, [champion.id])[champion.id].sums
    return expected_of(sums.pnl, sums.n_outcomes)


def settle(connection: Connection, created: Iterable[Told]) -> None:
    """Charge what outcomes that were just stored say, in the place of what was set aside."""
    changes: dict[int, Explored] = {}
    for row, unit in created:
        kept = unit.reservation
        if kept is not None:
            before = changes.get(unit.arm_id, Explored())
            changes[unit.arm_id] = before + Explored.told(kept, row.outcome.pnl)
    exploration.settle(connection, changes)


def correct(connection: Connection, unit: AssignedUnit, *, before: Decimal, after: Decimal) -> None:
    """Charge what a corrected outcome says."""
    if unit.reservation is not None and before != after:
        change = Explored.corrected(before=before, after=after)
        exploration.settle(connection, {unit.arm_id: change})
