"""Corrections of outcomes, outcomes that enter the audit log by batch, and nightly comparisons."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Keep every version of an outcome; whatever is read of outcomes is their newest version."""
    for statement in (
        REVISIONS,
        CURRENT,
        AS_OF,
        TRADES,
        CHAMPION_WINDOW,
        BATCHES,
        COMPARISONS,
    ):
        op.execute(statement)


# The outcome stands as it was first told; a correction is a row of its own beside it.
REVISIONS = """
CREATE TABLE outcome_revisions (
  assignment_id   uuid NOT NULL REFERENCES outcomes,
  revision        integer NOT NULL CHECK (revision >= 1),
  arm_id          bigint NOT NULL REFERENCES arms,
  unit_id         unit_key NOT NULL,
  instrument      instrument_key NOT NULL,
  no_trade        boolean NOT NULL,
  pnl             amount NOT NULL,
  return_ratio    trade_return NOT NULL,
  r_multiple      trade_return,
  fees            amount,
  slippage        amount,
  size            amount CHECK (size > 0),
  worst_excursion trade_return CHECK (worst_excursion >= 0),
  opened_at       instant NOT NULL,
  closed_at       instant NOT NULL CHECK (closed_at >= opened_at),
  expired         boolean NOT NULL,
  unclaimed       boolean NOT NULL,
  body_hash       bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  recorded_at     instant NOT NULL,
  actor           text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason          text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  PRIMARY KEY (assignment_id, revision),
  CONSTRAINT no_trade_earns_nothing
    CHECK (NOT no_trade OR (pnl = 0 AND return_ratio = 0 AND opened_at = closed_at)),
  CONSTRAINT one_sign CHECK (pnl * return_ratio >= 0)
);
CREATE INDEX revised_trades_of_arm ON outcome_revisions (arm_id, closed_at, unit_id)
  INCLUDE (return_ratio, instrument) WHERE NOT no_trade;
SELECT make_append_only('outcome_revisions');

CREATE FUNCTION revision_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  o      outcomes%ROWTYPE;
  newest integer;
  told   timestamptz;
BEGIN
  SELECT * INTO STRICT o FROM outcomes x WHERE x.assignment_id = NEW.assignment_id;
  IF (NEW.arm_id, NEW.unit_id, NEW.instrument) IS DISTINCT FROM (o.arm_id, o.unit_id, o.instrument)
  THEN
    RAISE EXCEPTION 'a revision keeps the arm, unit and instrument of its outcome'
      USING ERRCODE = 'restrict_violation';
  END IF;
  SELECT r.revision, r.recorded_at INTO newest, told FROM outcome_revisions r
    WHERE r.assignment_id = NEW.assignment_id ORDER BY r.revision DESC LIMIT 1;
  IF NEW.revision <> coalesce(newest, 0) + 1 THEN
    RAISE EXCEPTION 'revisions follow one another: % comes after %', NEW.revision, newest
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.recorded_at < coalesce(told, o.recorded_at) THEN
    RAISE EXCEPTION 'a revision is not recorded before what it corrects'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER revision_follows BEFORE INSERT ON outcome_revisions
  FOR EACH ROW EXECUTE FUNCTION revision_follows();
"""

# OFFSET 0 keeps the planner from making joins of the two conditions: a range of either table's
# index costs its own rows and one look each into a primary key, however long the history is.
CURRENT = """
CREATE VIEW current_outcomes AS
SELECT o.assignment_id, 0 AS revision, o.arm_id, o.unit_id, o.instrument, o.no_trade, o.pnl,
       o.return_ratio, o.r_multiple, o.fees, o.slippage, o.size, o.worst_excursion, o.opened_at,
       o.closed_at, o.expired, o.unclaimed, o.body_hash, o.recorded_at
FROM outcomes o
WHERE NOT EXISTS (
  SELECT FROM outcome_revisions r WHERE r.assignment_id = o.assignment_id OFFSET 0)
UNION ALL
SELECT v.assignment_id, v.revision, v.arm_id, v.unit_id, v.instrument, v.no_trade, v.pnl,
       v.return_ratio, v.r_multiple, v.fees, v.slippage, v.size, v.worst_excursion, v.opened_at,
       v.closed_at, v.expired, v.unclaimed, v.body_hash, v.recorded_at
FROM outcome_revisions v
WHERE NOT EXISTS (
  SELECT FROM outcome_revisions r
  WHERE r.assignment_id = v.assignment_id AND r.revision = v.revision + 1 OFFSET 0);
"""

# The same as of a past moment: what was recorded by then, in the version that was the newest then.
AS_OF = """
CREATE FUNCTION outcomes_as_of(moment timestamptz) RETURNS SETOF current_outcomes
  STABLE LANGUAGE sql AS $$
  SELECT o.assignment_id, 0, o.arm_id, o.unit_id, o.instrument, o.no_trade, o.pnl, o.return_ratio,
         o.r_multiple, o.fees, o.slippage, o.size, o.worst_excursion, o.opened_at, o.closed_at,
         o.expired, o.unclaimed, o.body_hash, o.recorded_at
  FROM outcomes o
  WHERE o.recorded_at <= moment AND NOT EXISTS (
    SELECT FROM outcome_revisions r
    WHERE r.assignment_id = o.assignment_id AND r.recorded_at <= moment OFFSET 0)
  UNION ALL
  SELECT v.assignment_id, v.revision, v.arm_id, v.unit_id, v.instrument, v.no_trade, v.pnl,
         v.return_ratio, v.r_multiple, v.fees, v.slippage, v.size, v.worst_excursion, v.opened_at,
         v.closed_at, v.expired, v.unclaimed, v.body_hash, v.recorded_at
  FROM outcome_revisions v
  WHERE v.recorded_at <= moment AND NOT EXISTS (
    SELECT FROM outcome_revisions r
    WHERE r.assignment_id = v.assignment_id AND r.revision > v.revision
      AND r.recorded_at <= moment OFFSET 0)
$$;
"""

TRADES = """
CREATE OR REPLACE VIEW trades AS
SELECT o.closed_at AS "timestamp", e.name AS experiment, p.name AS policy, o.instrument,
       o.opened_at, o.pnl, o.return_ratio AS "return", o.fees, o.slippage, o.size, o.r_multiple,
       o.worst_excursion, o.unit_id, o.assignment_id
FROM current_outcomes o
JOIN arms a ON a.id = o.arm_id
JOIN experiments e ON e.id = a.experiment_id
JOIN policies p ON p.id = a.policy_id
WHERE NOT o.no_trade;
"""

# As before, on the newest version of each outcome. LATERAL hands the bounds into both branches of
# the view; a join would read them whole.
CHAMPION_WINDOW = """
CREATE OR REPLACE FUNCTION champion_over_window(
    challenger bigint, OUT n bigint, OUT n_losses bigint, OUT gain numeric, OUT loss numeric)
  STABLE LANGUAGE sql AS $$
  WITH place AS MATERIALIZED (
    SELECT champion.id AS champion, s.window_from,
           (s.window_from AT TIME ZONE 'UTC')::date AS first_day,
           ARRAY(SELECT DISTINCT mine.instrument::text FROM current_outcomes mine
                 WHERE mine.arm_id = me.id AND NOT mine.no_trade
                   AND mine.closed_at >= s.window_from) AS instruments
    FROM arms me
    JOIN arm_statistics s ON s.arm_id = me.id
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
        AND o.closed_at < ((p.first_day + 1)::timestamp AT TIME ZONE 'UTC')
        AND o.instrument = ANY (p.instruments)) first
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

# Like assignments, outcomes enter the audit log as one digest a batch: that of their body hashes in
# the order of assignments. A body hash covers all that was told, and unlike the text of a row it
# does not depend on the settings of a session; the rest of a row is its assignment's, and that is
# digested there. Returned are the ids of the batch whose assignment has an outcome already.
BATCHES = """
ALTER TABLE outcomes ADD COLUMN audit_id bigint;
CREATE INDEX outcomes_by_batch ON outcomes (audit_id);

CREATE FUNCTION commit_outcomes(batch json, recorded timestamptz) RETURNS SETOF uuid
  VOLATILE LANGUAGE plpgsql AS $$
DECLARE
  batch_id   bigint := nextval(pg_get_serial_sequence('audit_log', 'id'));
  n_inserted bigint;
  n_known    bigint;
  arm_ids    bigint[];
  digest     text;
BEGIN
  WITH made AS (
    INSERT INTO outcomes AS o (
      assignment_id, arm_id, unit_id, instrument, no_trade, pnl, return_ratio, r_multiple, fees,
      slippage, size, worst_excursion, opened_at, closed_at, expired, unclaimed,
      body_hash, recorded_at, audit_id)
    SELECT r.assignment_id, r.arm_id, r.unit_id, r.instrument, r.no_trade, r.pnl, r.return_ratio,
           r.r_multiple, r.fees, r.slippage, r.size, r.worst_excursion, r.opened_at, r.closed_at,
           r.expired, r.unclaimed, decode(r.body_hash, 'hex'), recorded, batch_id
    FROM json_to_recordset(batch) AS r (
      assignment_id uuid, arm_id bigint, unit_id text, instrument text, no_trade boolean,
      pnl numeric, return_ratio numeric, r_multiple numeric, fees numeric, slippage numeric,
      size numeric, worst_excursion numeric, opened_at timestamptz, closed_at timestamptz,
      expired boolean, unclaimed boolean, body_hash text)
    -- Sorted, so that two batches never wait for each other in a circle.
    ORDER BY r.assignment_id
    ON CONFLICT DO NOTHING
    RETURNING o.assignment_id, o.arm_id, o.body_hash
  )
  SELECT count(*), array_agg(DISTINCT made.arm_id),
         encode(sha256(string_agg(made.body_hash, ''::bytea ORDER BY made.assignment_id)), 'hex')
    INTO n_inserted, arm_ids, digest FROM made;
  IF n_inserted > 0 THEN
    INSERT INTO audit_log (id, at, actor, action, subject, details) OVERRIDING SYSTEM VALUE
      SELECT batch_id, recorded, 'recorder', 'outcomes',
             left(string_agg(DISTINCT e.name, ' ' ORDER BY e.name), 200),
             jsonb_build_object('rows', n_inserted, 'sha256', digest)
      FROM arms a JOIN experiments e ON e.id = a.experiment_id WHERE a.id = ANY (arm_ids);
  END IF;
  IF n_inserted < json_array_length(batch) THEN
    -- A snapshot of its own: it sees the twin of a row that this batch lost to.
    RETURN QUERY SELECT o.assignment_id FROM outcomes o
      WHERE o.assignment_id IN (
              SELECT r.assignment_id FROM json_to_recordset(batch) AS r (assignment_id uuid))
        AND o.audit_id IS DISTINCT FROM batch_id;
    GET DIAGNOSTICS n_known = ROW_COUNT;
    IF n_inserted + n_known <> json_array_length(batch) THEN
      RAISE EXCEPTION 'an outcome left between two looks at it'
        USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'outcomes_assignment_id_fkey';
    END IF;
  END IF;
END $$;
"""

# What the nightly comparison of statistics with the outcomes behind them found.
COMPARISONS = """
CREATE TABLE statistics_comparisons (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  compared_at instant NOT NULL,
  arms        bigint NOT NULL CHECK (arms >= 0),
  mismatches  bigint NOT NULL CHECK (mismatches >= 0)
);
SELECT make_append_only('statistics_comparisons');
"""
