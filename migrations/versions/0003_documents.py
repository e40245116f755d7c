"""Names of the source documents: bandit_arms, trades, performance_metrics and histories."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the views and triggers that let the documents' statements run verbatim."""
    for statement in (CHAMPION_WINDOW, BANDIT_ARMS, UPDATE_BY_HAND, VIEWS, HISTORIES):
        op.execute(statement)


# The champion over a challenger's own calendar window and instruments: the day the window begins
# in from its trades, the days after it from their sums.
CHAMPION_WINDOW = """
CREATE FUNCTION champion_over_window(
    challenger bigint, OUT n bigint, OUT n_losses bigint, OUT gain numeric, OUT loss numeric)
  STABLE LANGUAGE sql AS $$
  WITH place AS MATERIALIZED (
    SELECT champion.id AS champion, s.window_from,
           (s.window_from AT TIME ZONE 'UTC')::date AS first_day,
           ARRAY(SELECT DISTINCT mine.instrument::text FROM outcomes mine
                 WHERE mine.arm_id = me.id AND NOT mine.no_trade
                   AND mine.closed_at >= s.window_from) AS instruments
    FROM arms me
    JOIN arm_statistics s ON s.arm_id = me.id
    JOIN experiments e ON e.id = me.experiment_id
    JOIN arms champion ON champion.experiment_id = e.id AND champion.policy_id = e.champion_id
    WHERE me.id = challenger
  ), parts AS (
    SELECT count(*) AS n, count(*) FILTER (WHERE o.return_ratio < 0) AS n_losses,
           sum(greatest(o.return_ratio, 0)) AS gain, -sum(least(o.return_ratio, 0)) AS loss
    FROM place p
    JOIN outcomes o ON o.arm_id = p.champion AND NOT o.no_trade AND o.closed_at >= p.window_from
      AND o.closed_at < ((p.first_day + 1)::timestamp AT TIME ZONE 'UTC')
      AND o.instrument = ANY (p.instruments)
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

# Simple enough to be updatable by itself: only traffic_allocation is a column of the table below.
# A profit factor that is not a number, or rests on too few champion trades, is NULL: NULL never
# matches.
BANDIT_ARMS = """
CREATE VIEW bandit_arms AS
SELECT a.id,
       a.experiment_id,
       a.policy_id,
       a.traffic_allocation,
       (SELECT s.pf_long FROM arm_statistics s WHERE s.arm_id = a.id) AS pf_150,
       (SELECT (w.gain / w.loss)::double precision
          FROM champion_over_window(a.id) w, experiments e
          WHERE e.id = a.experiment_id AND w.n_losses > 0
            AND w.n >= (e.rules -> 'ramp' ->> 'min_trades')::bigint) AS pf_prod,
       (SELECT s.dd_long_percent FROM arm_statistics s WHERE s.arm_id = a.id) AS dd_150,
       (SELECT s.pf_short FROM arm_statistics s WHERE s.arm_id = a.id) AS pf_30,
       (SELECT s.dd_short_percent FROM arm_statistics s WHERE s.arm_id = a.id) AS dd_30,
       (SELECT s.n_trades FROM arm_statistics s WHERE s.arm_id = a.id) AS trades,
       a.status,
       a.mode,
       a.joined_at
FROM arms a;
"""

# A person's UPDATE takes from the champion, appends its version and its audit row, counts as the
# night's change, and is refused with the name of the limit it breaks.
UPDATE_BY_HAND = """
CREATE FUNCTION gate_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_trigger_depth() = 1 THEN
    PERFORM pg_advisory_xact_lock(3, e.id) FROM (SELECT id FROM experiments ORDER BY id) e;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER gate_before_update BEFORE UPDATE OF traffic_allocation ON arms
  FOR EACH STATEMENT EXECUTE FUNCTION gate_before_update();

CREATE FUNCTION traffic_updated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  at       timestamptz;
  night    date;
  e        record;
  chosen   bigint;
  version  bigint;
  weights  integer[];
  details  jsonb;
BEGIN
  IF pg_trigger_depth() <> 1 THEN
    RETURN NULL;
  END IF;
  -- A person at psql has no `now` to hand over, so the database's clock stands in.
  at := clock_timestamp();
  night := (at AT TIME ZONE 'UTC')::date;
  FOR e IN
    SELECT x.* FROM experiments x WHERE x.id IN (
      SELECT n.experiment_id FROM new_rows n JOIN old_rows o ON o.id = n.id
      WHERE n.traffic_allocation <> o.traffic_allocation) ORDER BY x.id
  LOOP
    PERFORM require_limit(NOT EXISTS (
        SELECT FROM new_rows n JOIN old_rows o ON o.id = n.id
        WHERE n.experiment_id = e.id AND n.policy_id = e.champion_id
          AND n.traffic_allocation <> o.traffic_allocation),
      'champion', 'the champion takes what challengers leave: change the challengers');
    PERFORM require_limit(NOT EXISTS (
        SELECT FROM decisions d WHERE d.experiment_id = e.id AND d.trading_day = night),
      'once_a_night', format('the traffic of %s was decided for %s already', e.name, night));
    SELECT array_agg(CASE WHEN a.policy_id = e.champion_id THEN 1000000 - c.total
                          ELSE round(a.traffic_allocation * 1000000)::integer END
                     ORDER BY a.policy_id),
           jsonb_object_agg(p.name, jsonb_build_object(
             'before', coalesce(o.traffic_allocation, a.traffic_allocation),
             'after', CASE WHEN a.policy_id = e.champion_id THEN 1 - c.total / 1000000.0
                           ELSE a.traffic_allocation END))
      INTO weights, details
      FROM arms a
      JOIN policies p ON p.id = a.policy_id
      LEFT JOIN old_rows o ON o.id = a.id
      CROSS JOIN (SELECT coalesce(sum(round(b.traffic_allocation * 1000000)), 0)::integer AS total
                  FROM arms b WHERE b.experiment_id = e.id AND b.policy_id <> e.champion_id) c
      WHERE a.experiment_id = e.id AND a.status <> 'retired';
    -- The rows go back to what they were: the version below sets them, and its guard compares
    -- each step with the version before.
    UPDATE arms a SET traffic_allocation = o.traffic_allocation
      FROM old_rows o WHERE o.id = a.id AND o.experiment_id = e.id;
    INSERT INTO decisions (experiment_id, kind, trading_day, decided_at, actor, reason, profile,
                           strategy, code_version, inputs, inputs_digest, reasons)
      VALUES (e.id, 'RESCALE', night, at, 'sql:' || session_user,
              'UPDATE of bandit_arms by hand', e.profile, e.strategy, 'sql',
              details, sha256(details::text::bytea), '{}')
      RETURNING id INTO chosen;
    SELECT coalesce(max(v.version), 0) + 1 INTO version
      FROM allocations v WHERE v.experiment_id = e.id;
    INSERT INTO allocations (experiment_id, version, epoch, decision_id, policy_ids, ppm,
                             champion_index, floor_ppm, created_at)
      SELECT e.id, version, e.epoch + 1, chosen, array_agg(a.policy_id ORDER BY a.policy_id),
             weights, 1, 0, at
      FROM arms a WHERE a.experiment_id = e.id AND a.status <> 'retired';
    INSERT INTO audit_log (at, actor, action, subject, details)
      VALUES (at, 'sql:' || session_user, 'RESCALE', e.name,
              jsonb_build_object('decision', chosen, 'version', version, 'traffic', details));
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER traffic_updated AFTER UPDATE ON arms
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION traffic_updated();
"""

VIEWS = """
CREATE VIEW trades AS
SELECT o.closed_at AS "timestamp", e.name AS experiment, p.name AS policy, o.instrument,
       o.opened_at, o.pnl, o.return_ratio AS "return", o.fees, o.slippage, o.size, o.r_multiple,
       o.worst_excursion, o.unit_id, o.assignment_id
FROM outcomes o
JOIN arms a ON a.id = o.arm_id
JOIN experiments e ON e.id = a.experiment_id
JOIN policies p ON p.id = a.policy_id
WHERE NOT o.no_trade;

CREATE VIEW performance_metrics AS
SELECT d.day AS date, e.name AS experiment, p.name AS policy,
       sum(d.n_trades)::bigint AS trades, sum(d.n_wins)::bigint AS wins,
       sum(d.pnl) AS pnl, sum(d.fees) AS fees,
       (sum(d.return_gain) / nullif(sum(d.return_loss), 0))::double precision AS profit_factor
FROM arm_days d
JOIN arms a ON a.id = d.arm_id
JOIN experiments e ON e.id = a.experiment_id
JOIN policies p ON p.id = a.policy_id
GROUP BY 1, 2, 3;
"""

HISTORIES = """
CREATE TABLE parameter_history (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "timestamp"   instant NOT NULL,
  experiment_id integer NOT NULL REFERENCES experiments,
  parameter     text NOT NULL,
  old_value     jsonb,
  new_value     jsonb NOT NULL,
  actor         text NOT NULL,
  reason        text NOT NULL
);
SELECT make_append_only('parameter_history');

CREATE TABLE optimization_runs (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "timestamp" instant NOT NULL,
  study       text NOT NULL,
  trials      integer NOT NULL CHECK (trials >= 0),
  best_value  ratio,
  parameters  jsonb NOT NULL,
  state       text NOT NULL CHECK (state IN ('running', 'complete', 'failed'))
);
"""
