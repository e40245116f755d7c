"""The newest closed trades, whichever arm made them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from bandit.storage.engine import rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTrade:
    """A closed trade as it counts now, corrections included."""

    experiment: str
    policy: str
    instrument: str
    closed_at: datetime
    pnl: Decimal


def newest(connection: Connection, *, most: int) -> list[ClosedTrade]:
    """Return the trades that closed last, the newest first.

    What it costs grows with the number of arms, not with that of their trades. A trade that was
    corrected is looked for by its first closing time.
    """
    # OFFSET 0: a planner that joins instead would read the version of every outcome there is.
    found = rows(
        connection,
        """
        SELECT e.name AS experiment, p.name AS policy, c.instrument, c.closed_at, c.pnl
        FROM arms a
        JOIN experiments e ON e.id = a.experiment_id
        JOIN policies p ON p.id = a.policy_id
        CROSS JOIN LATERAL (
          SELECT o.assignment_id FROM outcomes o WHERE o.arm_id = a.id AND NOT o.no_trade
          ORDER BY o.closed_at DESC, o.unit_id DESC LIMIT :most) n
        CROSS JOIN LATERAL (
          SELECT * FROM current_outcomes o WHERE o.assignment_id = n.assignment_id OFFSET 0) c
        WHERE NOT c.no_trade
        ORDER BY c.closed_at DESC, c.unit_id DESC LIMIT :most
        """,
        most=most,
    )
    return [ClosedTrade(**row) for row in found]
