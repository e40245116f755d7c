"""Order that what is open be closed, and hear what became of it (SPEC F10).

An order takes no gate and no kill key: it reduces risk, so it never waits for who decides.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine

from bandit.core.closing import (
    CloseFailure,
    CloseOrder,
    CloseTarget,
    WaitingToClose,
    heard_since,
)
from bandit.core.errors import UnknownName
from bandit.core.model import checked_instant, checked_text
from bandit.storage import audit, closing, experiments
from bandit.storage.engine import snapshot, transaction


def close_all(
    engine: Engine, experiment: str, *, reason: str, now: datetime, actor: str
) -> CloseOrder:
    """Order that every position of an experiment that is open now be closed, and say which.

    Given again, it concerns only what has opened since. It halts nothing: unless the account is
    killed, new positions may open. Raises `UnknownName`.
    """
    now = checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = experiments.load(connection, experiment)
        rule = record.rules.ladder
        recent = heard_since(decided_to=None, now=now, rule=rule)
        decided_to = closing.newest_decision(connection, record.id, looked_from=recent)
        order_id = closing.append_order(
            connection, record.id, now=now, actor=actor, reason=reason, decided_to=decided_to
        )
        since = heard_since(decided_to=decided_to, now=now, rule=rule)
        closing.append_targets(connection, order_id, experiment_id=record.id, since=since)
        targets = closing.of_order(connection, order_id)
        positions = [str(target.assignment_id) for target in targets]
        audit.append(
            connection,
            now=now,
            actor=actor,
            action="close_all",
            subject=experiment,
            details={"order": order_id, "reason": reason, "positions": positions},
        )
        return CloseOrder(
            id=order_id,
            experiment=experiment,
            at=now,
            actor=actor,
            reason=reason,
            targets=tuple(targets),
            waiting=len(closing.waiting(connection, experiment)),
            account=record.experiment.account_name,
            is_killed=record.is_killed,
        )


def waiting(engine: Engine, experiment: str) -> list[CloseTarget]:
    """Return what an experiment has to close still, oldest first; raises `UnknownName`."""
    with snapshot(engine) as connection:
        experiments.ids_of(connection, experiment)
        return closing.waiting(connection, experiment)


def ordered(engine: Engine, experiment: str) -> list[CloseTarget]:
    """Return everything that was ever to be closed in an experiment, closed or not."""
    with snapshot(engine) as connection:
        return closing.of_experiment(connection, experiment)


def waiting_by_experiment(engine: Engine) -> list[WaitingToClose]:
    """Return the experiments that have something to close still."""
    with snapshot(engine) as connection:
        return closing.waiting_by_experiment(connection)


def failed(
    engine: Engine,
    order_id: int,
    assignment_id: UUID,
    *,
    reason: str,
    now: datetime,
    actor: str,
) -> CloseTarget:
    """Hear that a position could not be closed, and return how it stands: it waits on.

    The same reason as last time is not stored again, nor anything of what is closed. Raises
    `UnknownName` where the order does not concern the position.
    """
    failure = CloseFailure(
        at=checked_instant(now, field="now"),
        actor=checked_text(actor, field="actor", length_max=200),
        reason=checked_text(reason, field="reason", length_max=1000),
    )
    with transaction(engine) as connection:
        found = closing.target(connection, order_id, assignment_id)
        if found is None:
            name = f"{order_id} of {assignment_id}"
            raise UnknownName(kind="close order", name=name)
        if found.is_closed or (found.failure and found.failure.reason == failure.reason):
            return found
        closing.append_failure(connection, order_id, assignment_id, failure)
        stands = closing.target(connection, order_id, assignment_id)
        assert stands is not None
        return stands
