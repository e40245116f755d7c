"""What must not be forgotten about who may trade: as rows that any program reads."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from bandit.storage import digest

# No salt: who knows it foresees which arm a decision gets.
STATEMENTS = {
    "experiments": digest.TABLES["experiments"],
    "arms": digest.TABLES["arms"],
    "policies": digest.TABLES["policies"],
    "allocations": """
        SELECT e.name AS experiment, v.version, v.epoch, p.name AS policy, u.ppm, v.created_at
        FROM experiments e JOIN LATERAL (
          SELECT * FROM allocations v WHERE v.experiment_id = e.id
          ORDER BY v.version DESC LIMIT 1) v ON true
        CROSS JOIN unnest(v.policy_ids, v.ppm) AS u (policy_id, ppm)
        JOIN policies p ON p.id = u.policy_id ORDER BY e.name, p.name""",
    "accounts": """
        SELECT a.name, a.currency, a.is_killed, k.kind, k.cause, k.at, k.actor, k.reason
        FROM accounts a LEFT JOIN LATERAL (
          SELECT * FROM kill_events k WHERE k.account_id = a.id
          ORDER BY k.id DESC LIMIT 1) k ON true ORDER BY a.name""",
    "guards": """
        SELECT a.name AS account, e.name AS experiment, g.state, g.rule, g.size_multiplier,
               g.confidence_bump, g.losing_streak, g.trades_since
        FROM guard_states g JOIN accounts a ON a.id = g.account_id
        LEFT JOIN experiments e ON e.id = g.experiment_id ORDER BY a.name, e.name NULLS FIRST""",
    "open_positions": """
        SELECT a.name AS account, e.name AS experiment, s.unit_id, s.id, p.instrument, p.share,
               p.claimed_at
        FROM open_positions p JOIN accounts a ON a.id = p.account_id
        JOIN assignments s ON s.id = p.assignment_id
        JOIN experiments e ON e.id = s.experiment_id ORDER BY a.name, p.claimed_at, s.id""",
}


def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each part of the state, as this transaction sees it."""
    state = {}
    for part, statement in STATEMENTS.items():
        asked = text(f"SELECT row_to_json(t) FROM ({statement}) t")  # noqa: S608 - constants
        state[part] = [row for (row,) in connection.execute(asked)]
    return state
