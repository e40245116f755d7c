"""Exploration budgets, and what the decisions of challengers cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.exploration import ExplorationBudget, Explored
from bandit.core.model import PolicyName
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


_EXPLORED = """
  SELECT a.id AS arm_id, coalesce(o.n_opened, 0) AS n_opened, coalesce(o.charged, 0) AS charged,
         coalesce(t.n_told, 0) AS n_told, coalesce(t.released, 0) AS released,
         coalesce(t.spent, 0) AS spent
  FROM arms a LEFT JOIN explored_opened o ON o.arm_id = a.id
  LEFT JOIN explored_told t ON t.arm_id = a.id
"""


def of_arms(connection: Connection, experiment_id: int) -> dict[int, Explored]:
    """Return what the arms of an experiment have cost, for those that were ever charged."""
    condition = "WHERE a.experiment_id = :id AND o.arm_id IS NOT NULL ORDER BY 1"
    found = rows(connection, f"{_EXPLORED} {condition}", id=experiment_id)
    return {row.pop("arm_id"): Explored(**row) for row in found}


def of_arm(connection: Connection, arm_id: int) -> Explored:
    """Return what one arm has cost; nothing where it was never charged."""
    found = one(connection, f"{_EXPLORED} WHERE a.id = :arm_id", arm_id=arm_id)
    assert found is not None
    return Explored(**{name: found[name] for name in Explored.__slots__})


def settle(connection: Connection, changes: Mapping[int, Explored]) -> None:
    """Add what outcomes have changed to the sums of their arms, in ascending order."""
    for arm_id, change in sorted(changes.items()):
        _add_told(connection, arm_id, change, table="explored_told")


def _add_told(
    connection: Connection,
    arm_id: int,
    change: Explored,
    *,
    table: Literal["explored_told", "aged_explored"],
) -> None:
    run(
        connection,
        f"""
        INSERT INTO {table} (arm_id, n_told, released, spent) VALUES (:arm_id, 0, 0, 0)
        ON CONFLICT DO NOTHING
        """,  # noqa: S608 - a constant
        arm_id=arm_id,
    )
    run(
        connection,
        f"UPDATE {table} SET n_told = n_told + :n_told, released = released + :released, "  # noqa: S608 - a constant
        "spent = spent + :spent WHERE arm_id = :arm_id",
        arm_id=arm_id,
        n_told=change.n_told,
        released=change.released,
        spent=change.spent,
    )


_COUNTED = """
  SELECT count(*) FILTER (WHERE s.position_id IS NULL) AS n_opened,
         coalesce(sum(r.at_risk + r.expected), 0) AS charged,
         count(*) FILTER (WHERE s.position_id IS NULL AND o.assignment_id IS NOT NULL) AS n_told,
         coalesce(sum(r.at_risk + r.expected) FILTER (WHERE o.assignment_id IS NOT NULL), 0)
           AS released,
         coalesce(sum(r.expected - o.pnl), 0) AS spent
  FROM reservations r JOIN assignments s ON s.id = r.assignment_id
  LEFT JOIN current_outcomes o ON o.assignment_id = s.id
"""


def let_go(connection: Connection, arm_id: int, assignments: Iterable[UUID]) -> Explored:
    """Keep what those of an arm's decisions cost that had a reservation, and return it.

    All must be told. They leave the ledger; the sums of the arm hold them already.
    """
    condition = "WHERE s.id = ANY(CAST(:ids AS uuid[]))"
    found = one(connection, f"{_COUNTED} {condition}", ids=uuids(assignments))
    assert found is not None
    left = Explored(**found)
    if left != Explored():
        _add_told(connection, arm_id, left, table="aged_explored")
    return left


def recounted(connection: Connection, arm_id: int) -> Explored:
    """Count anew what an arm's decisions cost, with what has left the ledger."""
    found = one(connection, f"{_COUNTED} WHERE s.arm_id = :arm_id", arm_id=arm_id)
    statement = "SELECT n_told, released, spent FROM aged_explored WHERE arm_id = :arm_id"
    aged = one(connection, statement, arm_id=arm_id)
    assert found is not None
    counted = Explored(**found)
    if aged is None:
        return counted
    return counted + Explored(n_opened=aged["n_told"], charged=aged["released"], **aged)


def recount(connection: Connection, experiment_id: int, arm_id: int) -> None:
    """Write the sums of an arm anew, which must be locked; batches with a budget stand still."""
    run(
        connection,
        "SELECT FROM exploration_budgets WHERE experiment_id = :id FOR UPDATE",
        id=experiment_id,
    )
    counted = recounted(connection, arm_id)
    for table in ("explored_opened", "explored_told"):
        run(connection, f"DELETE FROM {table} WHERE arm_id = :arm_id", arm_id=arm_id)  # noqa: S608 - a constant
    if counted.n_opened:
        run(
            connection,
            "INSERT INTO explored_opened (arm_id, n_opened, charged) "
            "VALUES (:arm_id, :n, :charged)",
            arm_id=arm_id,
            n=counted.n_opened,
            charged=counted.charged,
        )
        settle(connection, {arm_id: counted})


class OpenDecision(NamedTuple):
    """A decision of a challenger that nobody has told the outcome of, and what it holds aside."""

    assignment: UUID
    policy: PolicyName
    unit_id: str
    decided_at: datetime
    charge: Decimal


def open_decisions(connection: Connection, experiment_id: int, *, most: int) -> list[OpenDecision]:
    """Return the oldest decisions that are charged and not told."""
    found = rows(
        connection,
        """
        SELECT s.id AS assignment, p.name AS policy, s.unit_id, s.decided_at,
               r.at_risk + r.expected AS charge
        FROM reservations r JOIN assignments s ON s.id = r.assignment_id
        JOIN arms a ON a.id = s.arm_id JOIN policies p ON p.id = a.policy_id
        WHERE s.experiment_id = :id AND s.position_id IS NULL
          AND NOT EXISTS (SELECT FROM outcomes o WHERE o.assignment_id = s.id)
        ORDER BY s.decided_at, s.id LIMIT :most
        """,
        id=experiment_id,
        most=most,
    )
    return [OpenDecision(**row) for row in found]
