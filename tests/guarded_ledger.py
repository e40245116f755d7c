"""Ledgers whose performance guards have something to say, for tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from ledger import NOON, assign, assign_to, closed, open_btc, record_all
from sqlalchemy import Engine, text

from bandit.core.account import LossLimits
from bandit.core.errors import Paused
from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.model import Assignment, PolicyName
from bandit.core.outcomes import Outcome
from bandit.core.performance_guard import Guard, GuardTrade, folded
from bandit.core.reading import Rules
from bandit.core.shadow import ShadowOutcome, shadow_declined, shadow_trade
from bandit.service import performance_guarding
from bandit.service.experiments import ExperimentRecord
from bandit.service.performance_guarding import GuardReport

LATER = NOON + timedelta(hours=2)
WIDE = LossLimits(daily_loss=Decimal(1), drawdown=Decimal("0.15"))


def open_wide(engine: Engine, *, rules: Rules | None = None) -> ExperimentRecord:
    """Open `btc` with a champion alone, in an account that no single day kills."""
    return open_btc(engine, challengers=(), loss_limits=WIDE, rules=rules)


def earned(made: Assignment, money: str) -> Outcome:
    """What a decision earned in money; its return says no more than the sign."""
    sign = Decimal(money).compare(0)
    return closed(made, str(sign * Decimal("0.000001")), pnl=money)


def earn(engine: Engine, *money: str, now: datetime = LATER, prefix: str | None = None) -> None:
    """Let the champion of `btc` earn this, one commit each, with decisions of before."""
    name = prefix or f"e-{count_of(engine, 'assignments')}"
    made = assign(engine, [f"{name}-{i}" for i in range(len(money))])
    for assignment, each in zip(made, money, strict=True):
        record_all(engine, [earned(assignment, each)], now=now)


def pause(engine: Engine, *, prefix: str = "pause") -> None:
    """Let five trades of the champion of `btc` lose a unit of money each."""
    made = assign_to(engine, "prod", 5, prefix=prefix)
    record_all(engine, [earned(each, "-1") for each in made], now=LATER)


def refused(engine: Engine, unit: str) -> Paused:
    """Ask for a unit of `btc` that has to be refused."""
    try:
        made = assign(engine, [unit])
    except Paused as paused:
        return paused
    raise AssertionError(f"not refused: {made}")


def followed(paused: Paused, result: str | None, policy: str = "prod") -> ShadowOutcome:
    """What a policy would have earned on a refused opportunity; None where it would decline."""
    name = PolicyName(policy)
    if result is None:
        return shadow_declined(paused.assignment_id, name)
    return shadow_trade(
        paused.assignment_id,
        name,
        return_ratio=Decimal(result),
        opened_at=NOON,
        closed_at=NOON + timedelta(hours=1),
    )


def begin_anew(engine: Engine, **scope: str) -> None:
    """Let a person begin a guard anew."""
    performance_guarding.reset(engine, **scope, reason="looked into it", now=LATER, actor="ann")


def seed_of(trades: int, of: int, wins: str = "0.2", losses: str = "-0.1") -> int:
    """A seed of a fair coin that a guard lets trade live so often, and on paper else."""
    for seed in range(10_000):
        coin = random.Random(seed)  # noqa: S311 - as the bot that is tested throws it
        guard, live = Guard(rule=GuardRule()), 0
        for _ in range(of):
            live += guard.state is not GuardState.PAUSED
            earned = Decimal(coin.choice([wins, losses]))
            guard, _ = folded(guard, [GuardTrade(earned, Decimal(10_000))])
        if live == trades:
            return seed
    raise AssertionError("no such seed")


def guard_reports(engine: Engine) -> dict[str, GuardReport]:
    """Every guard by the name of its experiment or account."""
    return {report.record.name: report for report in performance_guarding.listed(engine)}


def states(engine: Engine) -> dict[str, GuardState]:
    """The state of every guard."""
    return {name: report.record.guard.state for name, report in guard_reports(engine).items()}


def changes(engine: Engine, guard: str) -> list[tuple[str, str, str]]:
    """The changes of a guard: to which state, by whom and why."""
    statement = text(
        "SELECT c.to_state, c.actor, c.reason FROM guard_changes c"
        " JOIN guard_states g ON g.id = c.guard_id JOIN accounts a ON a.id = g.account_id"
        " LEFT JOIN experiments e ON e.id = g.experiment_id"
        " WHERE coalesce(e.name, a.name) = :name ORDER BY c.id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement, {"name": guard})]


def stored(engine: Engine, units: Sequence[str]) -> list[tuple[str, float, float]]:
    """Mode, size multiplier and confidence bump of units as the ledger has them."""
    statement = text(
        "SELECT mode, size_multiplier, confidence_bump FROM assignments"
        " WHERE unit_id = ANY(:units) ORDER BY unit_id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement, {"units": list(units)})]


def count_of(engine: Engine, table: str, condition: str = "true") -> int:
    """How many rows of a table meet a condition."""
    statement = text(f"SELECT count(*) FROM {table} WHERE {condition}")
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())
