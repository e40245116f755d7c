"""One number for everything the domain remembers, and the rows behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sqlalchemy import Connection, text

# Canonical rows: no surrogate ids, no time of recording, no hashes, no batch boundaries.
TABLES = {
    "policies": """
        SELECT p.name, p.kind, p.sha, p.data_cutoff, parent.name AS parent, p.metadata
        FROM policies p LEFT JOIN policies parent ON parent.id = p.parent_id
        ORDER BY p.name""",
    "experiments": """
        SELECT e.name, p.name AS champion, e.capital, e.currency, e.equity_fraction, e.profile,
               e.strategy, e.decision_seconds_valid, e.epoch, e.champion_floor_ppm,
               e.champion_floor_proven_ppm, e.proven_trades, e.unproven_cap_ppm, e.arm_minimum_ppm,
               e.start_ppm, e.step_up, e.rules, e.opened_at
        FROM experiments e JOIN policies p ON p.id = e.champion_id ORDER BY e.name""",
    "arms": """
        SELECT e.name AS experiment, p.name AS policy, a.status, a.status_reason, a.mode,
               a.traffic_allocation, a.joined_at
        FROM arms a JOIN experiments e ON e.id = a.experiment_id
        JOIN policies p ON p.id = a.policy_id ORDER BY e.name, p.name""",
    "decisions": """
        SELECT e.name AS experiment, d.kind, d.trading_day, d.decided_at, d.actor, d.reason,
               d.profile, d.strategy, d.seed, d.code_version, d.inputs, d.reasons, v.version
        FROM decisions d JOIN experiments e ON e.id = d.experiment_id
        LEFT JOIN allocations v ON v.decision_id = d.id ORDER BY e.name, d.id""",
    "allocations": """
        SELECT e.name AS experiment, v.version, v.epoch, p.name AS policy, u.ppm, v.created_at
        FROM allocations v JOIN experiments e ON e.id = v.experiment_id
        CROSS JOIN unnest(v.policy_ids, v.ppm) AS u (policy_id, ppm)
        JOIN policies p ON p.id = u.policy_id ORDER BY e.name, v.version, p.name""",
    "assignments": """
        SELECT e.name AS experiment, s.unit_id, s.instrument, p.name AS policy, s.role, s.mode,
               s.allocation_version, s.epoch, s.propensity, s.size_multiplier, s.confidence_bump,
               coalesce(opened.unit_id, aged.unit_id) AS position_unit, s.context,
               s.proposed_actions, s.decided_at, s.expires_at
        FROM assignments s JOIN experiments e ON e.id = s.experiment_id
        JOIN arms a ON a.id = s.arm_id JOIN policies p ON p.id = a.policy_id
        LEFT JOIN assignments opened ON opened.id = s.position_id
        LEFT JOIN aged_assignments aged ON aged.id = s.position_id
        ORDER BY e.name, s.unit_id""",
    "outcomes": """
        SELECT e.name AS experiment, o.unit_id, p.name AS policy, o.instrument, o.no_trade, o.pnl,
               o.return_ratio, o.r_multiple, o.fees, o.slippage, o.size, o.worst_excursion,
               o.opened_at, o.closed_at, o.expired, o.unclaimed, o.revision, r.reason
        FROM current_outcomes o JOIN arms a ON a.id = o.arm_id
        JOIN experiments e ON e.id = a.experiment_id JOIN policies p ON p.id = a.policy_id
        LEFT JOIN outcome_revisions r
          ON r.assignment_id = o.assignment_id AND r.revision = o.revision
        ORDER BY e.name, o.unit_id""",
    "superseded_outcomes": """
        SELECT e.name AS experiment, o.unit_id, p.name AS policy, o.instrument, o.no_trade, o.pnl,
               o.return_ratio, o.r_multiple, o.fees, o.slippage, o.size, o.worst_excursion,
               o.opened_at, o.closed_at, o.expired, o.unclaimed, o.revision, o.reason
        FROM superseded_outcomes o
        JOIN arms a ON a.id = o.arm_id
        JOIN experiments e ON e.id = a.experiment_id JOIN policies p ON p.id = a.policy_id
        ORDER BY e.name, o.unit_id, o.revision""",
    "shadow_outcomes": """
        SELECT e.name AS experiment, s.unit_id, p.name AS policy, s.instrument, h.no_trade,
               h.return_ratio, h.opened_at, h.closed_at, h.source
        FROM shadow_outcomes h JOIN assignments s ON s.id = h.assignment_id
        JOIN experiments e ON e.id = s.experiment_id
        JOIN arms a ON a.id = h.arm_id JOIN policies p ON p.id = a.policy_id
        ORDER BY e.name, s.unit_id, p.name""",
    "arm_statistics": """
        SELECT e.name AS experiment, p.name AS policy, s.n_outcomes, s.n_trades, s.n_wins,
               s.n_losses, s.n_expired, s.n_unclaimed, s.gross_profit, s.gross_loss, s.fees,
               s.return_gain, s.return_loss, s.return_squares, s.pf_short, s.pf_short_state,
               s.dd_short_percent,
               s.pf_long, s.pf_long_state, s.dd_long_percent, s.equity, s.equity_peak,
               s.drawdown_max, s.losing_streak, s.losing_streak_max, s.winning_streak,
               s.winning_streak_max
        FROM arm_statistics s
        JOIN arms a ON a.id = s.arm_id
        JOIN experiments e ON e.id = a.experiment_id JOIN policies p ON p.id = a.policy_id
        ORDER BY e.name, p.name""",
    "backtest_trials": """
        SELECT t.family, t.kind, t.spec, t.data, t.features, t.window_first, t.window_last, t.seed,
               t.steps, t.n_periods, t.mean, t.variance, t.skew, t.kurtosis, t.sharpe,
               t.periods_per_year, t.n_trades, t.n_losses, t.gross_profit, t.gross_loss,
               t.total_return, t.drawdown_max_percent, t.n_wins, t.trade_mean, t.trade_error,
               t.trade_slippage, t.verdict, t.failure
        FROM backtest_trials t ORDER BY t.family, t.id""",
    "drift_checks": """
        SELECT d.sha, d.window_from, d.window_to, d.metric, d.subject, d.value, d.limit_value,
               d.p_value, d.verdict, d.n, d.n_effective, d.detail
        FROM drift_checks d ORDER BY d.sha, d.window_from, d.window_to, d.metric, d.subject""",
    "archives": """
        SELECT e.name AS experiment, r.name, r.n_rows, encode(r.sha256, 'hex') AS sha256
        FROM archives r JOIN experiments e ON e.id = r.experiment_id ORDER BY r.name""",
}


def columns_and_rows(
    connection: Connection, table: str
) -> tuple[list[str], Iterator[tuple[object, ...]]]:
    """Return the column names of one canonical table and its rows, streamed in order."""
    result = connection.execution_options(yield_per=1000).execute(text(TABLES[table]))
    return list(result.keys()), (tuple(row) for row in result)


def ledger_digest(connection: Connection) -> str:
    """Return the SHA-256 of every canonical row, in hexadecimal.

    Two ledgers with the same digest remember the same policies, decisions, assignments, outcomes
    and statistics.
    """
    digest = hashlib.sha256()
    for table, statement in TABLES.items():
        digest.update(f"{table}\n".encode())
        lines = text(f"SELECT row_to_json(t)::text FROM ({statement}) t")  # noqa: S608 - constants
        for (line,) in connection.execution_options(yield_per=1000).execute(lines):
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()
