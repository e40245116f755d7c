"""The champion over a challenger's window, found without reading a history of ten million."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Replace the function."""
    op.execute(CHAMPION_WINDOW)


# As in 0006, but for how a challenger's instruments are found: of the window's first day by trade,
# between two bounds, of later days by their sums. With one bound the planner expects a third of the
# arm's history, and reads the whole table.
CHAMPION_WINDOW = """
CREATE OR REPLACE FUNCTION champion_over_window(
    challenger bigint, OUT n bigint, OUT n_losses bigint, OUT gain numeric, OUT loss numeric)
  STABLE LANGUAGE sql AS $$
  WITH place AS MATERIALIZED (
    SELECT champion.id AS champion, s.window_from, began.first_day, began.next_day,
           ARRAY(SELECT mine.instrument::text FROM current_outcomes mine
                 WHERE mine.arm_id = me.id AND NOT mine.no_trade
                   AND mine.closed_at >= s.window_from AND mine.closed_at < began.next_day
                 UNION
                 SELECT later.instrument::text FROM arm_days later
                 WHERE later.arm_id = me.id AND later.day > began.first_day
                   AND later.n_trades > 0) AS instruments
    FROM arms me
    JOIN arm_statistics s ON s.arm_id = me.id
    CROSS JOIN LATERAL (
      SELECT day AS first_day, ((day + 1)::timestamp AT TIME ZONE 'UTC') AS next_day
      FROM (SELECT (s.window_from AT TIME ZONE 'UTC')::date AS day) AS of_window) AS began
    JOIN experiments e ON e.id = me.experiment_id
    JOIN arms champion ON champion.experiment_id = e.id AND champion.policy_id = e.champion_id
    WHERE me.id = challenger
  ), parts AS (
    SELECT first.n, first.n_losses, first.gain, first.loss
    FROM place p CROSS JOIN LATERAL (
      SELECT count(*) AS n, count(*) FILTER (WHERE o.return_ratio < 0) AS n_losses,
             sum(greatest(o.return_ratio, 0)) AS gain, -sum(least(o.return_ratio, 0)) AS loss
      FROM current_outcomes o
      WHERE o.arm_id = p.champion AND NOT o.no_trade AND o.closed_at >= p.window_from
        AND o.closed_at < p.next_day AND o.instrument = ANY (p.instruments)) first
    UNION ALL
    SELECT sum(d.n_trades), sum(d.n_losses), sum(d.return_gain), sum(d.return_loss)
    FROM place p
    JOIN arm_days d ON d.arm_id = p.champion AND d.day > p.first_day
      AND d.instrument = ANY (p.instruments)
  )
  SELECT coalesce(sum(n), 0)::bigint, coalesce(sum(n_losses), 0)::bigint,
         coalesce(sum(gain), 0), coalesce(sum(loss), 0)
  FROM parts
$$;
"""
