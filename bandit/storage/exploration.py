"""Exploration budgets, and what the decisions of challengers cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.exploration import ExplorationBudget, Explored
from bandit.storage.engine import one, rows, run, uuids


def budget_of(connection: Connection, experiment_id: int) -> ExplorationBudget | None:
    """Return the budget of an experiment; None where it has none."""
    found = one(
        connection,
        "SELECT amount, at_risk, expected FROM exploration_budgets WHERE experiment_id = :id",
        id=experiment_id,
    )
    return None if found is None else ExplorationBudget(**found)


def set_budget(
    connection: Connection, experiment_id: int, budget: ExplorationBudget, *, now: datetime
) -> None:
    """Charge decisions to this budget from now on."""
    run(
        connection,
        """
        INSERT INTO exploration_budgets (experiment_id, amount, at_risk, expected, set_at)
        VALUES (:id, :amount, :at_risk, :expected, :now)
        ON CONFLICT (experiment_id) DO UPDATE SET amount = excluded.amount,
          at_risk = excluded.at_risk, expected = excluded.expected, set_at = excluded.set_at
        """,
        id=experiment_id,
        amount=budget.amount,
        at_risk=budget.at_risk,
        expected=budget.expected,
        now=now,
    )


def expect(connection: Connection, experiment_id: int, expected: Decimal) -> None:
    """Charge decisions of an experiment that has a budget with what its champion earns by now."""
    run(
        connection,
        "UPDATE exploration_budgets SET expected = :expected "
        "WHERE experiment_id = :id AND expected <> :expected",
        id=experiment_id,
        expected=expected,
    )


def clear_budget(connection: Connection, experiment_id: int) -> None:
    """Charge no decision from now on; those that were charged are settled all the same."""
    run(connection, "DELETE FROM exploration_budgets WHERE experiment_id = :id", id=experiment_id)


def of_arms(connection: Connection, experiment_id: int) -> dict[int, Explored]:
    """Return what the arms of an experiment have cost, for those that were ever charged."""
    found = rows(
        connection,
        "SELECT x.arm_id, x.n_open, x.reserved, x.spent FROM explored x "
        "JOIN arms a ON a.id = x.arm_id WHERE a.experiment_id = :id ORDER BY 1",
        id=experiment_id,
    )
    return {row.pop("arm_id"): Explored(**row) for row in found}


def of_arm(connection: Connection, arm_id: int) -> Explored:
    """Return what one arm has cost; nothing where it was never charged."""
    found = one(
        connection,
        "SELECT n_open, reserved, spent FROM explored WHERE arm_id = :arm_id",
        arm_id=arm_id,
    )
    return Explored() if found is None else Explored(**found)


def settle(connection: Connection, changes: Mapping[int, Explored]) -> None:
    """Add what outcomes have changed to the sums of their arms, in ascending order."""
    for arm_id, change in sorted(changes.items()):
        run(
            connection,
            "UPDATE explored SET n_open = n_open + :n_open, reserved = reserved + :reserved, "
            "spent = spent + :spent WHERE arm_id = :arm_id",
            arm_id=arm_id,
            n_open=change.n_open,
            reserved=change.reserved,
            spent=change.spent,
        )


class Aged(NamedTuple):
    """Decisions with a reservation that have left the ledger, and what they cost."""

    n_told: int
    spent: Decimal


def aged_of(connection: Connection, arm_id: int) -> Aged:
    """Return what an arm's decisions cost that have left."""
    found = one(connection, "SELECT n_told, spent FROM aged_explored WHERE arm_id = :id", id=arm_id)
    return Aged(0, Decimal(0)) if found is None else Aged(**found)


def let_go(connection: Connection, arm_id: int, assignments: Iterable[UUID]) -> Aged:
    """Keep what those of an arm's decisions cost that had a reservation, and return it.

    All must be told. They leave the ledger; the sums of the arm hold them already.
    """
    found = one(
        connection,
        """
        SELECT count(*) AS n_told, coalesce(sum(r.expected - o.pnl), 0) AS spent
        FROM reservations r JOIN current_outcomes o ON o.assignment_id = r.assignment_id
        WHERE r.assignment_id = ANY(CAST(:ids AS uuid[]))
        """,
        ids=uuids(assignments),
    )
    assert found is not None
    left = Aged(**found)
    if left.n_told:
        run(
            connection,
            """
            INSERT INTO aged_explored AS x (arm_id, n_told, spent) VALUES (:arm_id, :n, :spent)
            ON CONFLICT (arm_id) DO UPDATE SET n_told = x.n_told + excluded.n_told,
              spent = x.spent + excluded.spent
            """,
            arm_id=arm_id,
            n=left.n_told,
            spent=left.spent,
        )
    return left


def recounted(connection: Connection, arm_id: int) -> Explored:
    """Count anew what an arm's decisions cost, with what has left the ledger."""
    found = one(
        connection,
        """
        SELECT count(*) FILTER (WHERE o.assignment_id IS NULL) AS n_open,
               coalesce(sum(r.at_risk + r.expected) FILTER (WHERE o.assignment_id IS NULL), 0)
                 AS reserved,
               coalesce(sum(r.expected - o.pnl), 0) AS spent
        FROM reservations r JOIN assignments s ON s.id = r.assignment_id
        LEFT JOIN current_outcomes o ON o.assignment_id = s.id
        WHERE s.arm_id = :arm_id
        """,
        arm_id=arm_id,
    )
    assert found is not None
    return Explored(**found) + Explored(spent=aged_of(connection, arm_id).spent)


def recount(connection: Connection, experiment_id: int, arm_id: int) -> None:
    """Write the sums of an arm anew, which must be locked; batches with a budget stand still."""
    run(
        connection,
        "SELECT FROM exploration_budgets WHERE experiment_id = :id FOR UPDATE",
        id=experiment_id,
    )
    counted = recounted(connection, arm_id)
    run(connection, "DELETE FROM explored WHERE arm_id = :arm_id", arm_id=arm_id)
    if counted != Explored():
        run(
            connection,
            "INSERT INTO explored (arm_id, n_open, reserved, spent) "
            "VALUES (:arm_id, :n_open, :reserved, :spent)",
            arm_id=arm_id,
            n_open=counted.n_open,
            reserved=counted.reserved,
            spent=counted.spent,
        )
