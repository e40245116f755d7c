"""What arms would have earned: results on paper, pairs of results, and the gap to live ones."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Make room for results on paper, for what they are worth, and for what leaves of both."""
    for statement in (SHADOWS, COMMIT, PAIRS, GAPS, AGED, AGE, GRANTS):
        op.execute(statement)


# At most one result an arm and decision, whoever took the decision. Nothing of it moves money.
SHADOWS = """
CREATE TABLE shadow_outcomes (
  assignment_id uuid NOT NULL REFERENCES assignments,
  arm_id        bigint NOT NULL REFERENCES arms,
  no_trade      boolean NOT NULL,
  return_ratio  trade_return NOT NULL,
  opened_at     instant NOT NULL,
  closed_at     instant NOT NULL CHECK (closed_at >= opened_at),
  source        text NOT NULL CHECK (source IN ('reported', 'paper')),
  body_hash     bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  recorded_at   instant NOT NULL,
  audit_id      bigint NOT NULL,
  PRIMARY KEY (assignment_id, arm_id),
  CONSTRAINT no_trade_earns_nothing
    CHECK (NOT no_trade OR (return_ratio = 0 AND opened_at = closed_at))
);
CREATE INDEX shadow_outcomes_by_arm ON shadow_outcomes (arm_id);
CREATE INDEX shadow_outcomes_by_batch ON shadow_outcomes (audit_id);
CREATE TRIGGER append_only BEFORE UPDATE ON shadow_outcomes
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON shadow_outcomes
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER leaves_with_its_assignment BEFORE DELETE ON shadow_outcomes
  FOR EACH ROW EXECUTE FUNCTION leaves_with_its_assignment();
"""

# As outcomes are: one digest a batch enters the audit log. Returned are the keys of the batch that
# were there before.
COMMIT = """
CREATE FUNCTION commit_shadow_outcomes(batch json, recorded timestamptz)
  RETURNS TABLE (assignment uuid, arm bigint) VOLATILE LANGUAGE plpgsql AS $$
DECLARE
  batch_id   bigint := nextval(pg_get_serial_sequence('audit_log', 'id'));
  n_inserted bigint;
  arm_ids    bigint[];
  digest     text;
BEGIN
  WITH made AS (
    INSERT INTO shadow_outcomes AS o (
      assignment_id, arm_id, no_trade, return_ratio, opened_at, closed_at, source, body_hash,
      recorded_at, audit_id)
    SELECT r.assignment_id, r.arm_id, r.no_trade, r.return_ratio, r.opened_at, r.closed_at,
           r.source, decode(r.body_hash, 'hex'), recorded, batch_id
    FROM json_to_recordset(batch) AS r (
      assignment_id uuid, arm_id bigint, no_trade boolean, return_ratio numeric,
      opened_at timestamptz, closed_at timestamptz, source text, body_hash text)
    -- Sorted, so that two batches never wait for each other in a circle.
    ORDER BY r.assignment_id, r.arm_id
    ON CONFLICT DO NOTHING
    RETURNING o.assignment_id, o.arm_id, o.body_hash
  )
  SELECT count(*), array_agg(DISTINCT made.arm_id),
         encode(sha256(string_agg(
           made.body_hash, ''::bytea ORDER BY made.assignment_id, made.arm_id)), 'hex')
    INTO n_inserted, arm_ids, digest FROM made;
  IF n_inserted > 0 THEN
    INSERT INTO audit_log (id, at, actor, action, subject, details) OVERRIDING SYSTEM VALUE
      SELECT batch_id, recorded, 'recorder', 'shadow_outcomes',
             left(string_agg(DISTINCT e.name, ' ' ORDER BY e.name), 200),
             jsonb_build_object('rows', n_inserted, 'sha256', digest)
      FROM arms a JOIN experiments e ON e.id = a.experiment_id WHERE a.id = ANY (arm_ids);
  END IF;
  IF n_inserted < json_array_length(batch) THEN
    -- A snapshot of its own: it sees the twin of a row that this batch lost to.
    RETURN QUERY SELECT r.assignment_id, r.arm_id
      FROM json_to_recordset(batch) AS r (assignment_id uuid, arm_id bigint)
      WHERE NOT EXISTS (SELECT FROM shadow_outcomes o
                        WHERE o.assignment_id = r.assignment_id AND o.arm_id = r.arm_id
                          AND o.audit_id = batch_id);
  END IF;
END $$;
"""

# Cohorts of pairs: of one decision, the result of a challenger on paper beside its champion's.
PAIRS = """
CREATE TABLE paired_cohorts (LIKE evidence_cohorts INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE paired_cohorts ADD FOREIGN KEY (arm_id) REFERENCES arms,
  ADD FOREIGN KEY (champion_id) REFERENCES arms;
"""

# An arm's own trades that have a result on paper too: live - paper in steps of 10^-12, squares of
# it in steps of 10^-24.
GAPS = """
CREATE TABLE fill_gaps (
  arm_id  bigint PRIMARY KEY REFERENCES arms,
  n       bigint NOT NULL CHECK (n >= 0),
  total   numeric NOT NULL CHECK (total <> 'NaN' AND total = round(total)),
  squares numeric NOT NULL CHECK (squares >= 0 AND squares <> 'NaN' AND squares = round(squares))
);
"""

# What stays of results on paper whose decisions have left, and what they amount to.
AGED = """
CREATE TABLE aged_shadow_outcomes (
  assignment_id uuid NOT NULL,
  arm_id        bigint NOT NULL,
  body_hash     bytea NOT NULL,
  recorded_at   instant NOT NULL,
  source        text NOT NULL,
  audit_id      bigint NOT NULL,
  PRIMARY KEY (assignment_id, arm_id)
);
SELECT make_append_only('aged_shadow_outcomes');
CREATE INDEX aged_shadow_outcomes_by_batch ON aged_shadow_outcomes (audit_id);

CREATE TABLE aged_paired_cohorts (
  LIKE evidence_cohorts INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE aged_paired_cohorts ADD FOREIGN KEY (arm_id) REFERENCES arms,
  ADD FOREIGN KEY (champion_id) REFERENCES arms;

CREATE TABLE aged_fill_gaps (LIKE fill_gaps INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE aged_fill_gaps ADD FOREIGN KEY (arm_id) REFERENCES arms;
"""

# As before, and results on paper leave with their decision.
AGE = """
CREATE OR REPLACE FUNCTION age_assignments(
    archive bigint, ids uuid[], at timestamptz, actor text, subject text, details jsonb)
  RETURNS bigint VOLATILE LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  row_id bigint := nextval(pg_get_serial_sequence('audit_log', 'id'));
  n_aged bigint;
BEGIN
  INSERT INTO aged_assignments
    SELECT s.id, s.experiment_id, s.unit_id, s.instrument, s.arm_id, s.mode, s.role,
           s.allocation_version, s.epoch, s.propensity, s.position_id, s.is_fallback,
           s.size_multiplier, s.confidence_bump, sha256_of(s.context),
           sha256_of(s.proposed_actions), s.decided_at, s.expires_at, s.audit_id, c.claimed_at,
           o.body_hash, o.recorded_at, o.expired, o.unclaimed, o.audit_id, archive,
           row_id
    FROM assignments s
    LEFT JOIN claims c ON c.assignment_id = s.id
    LEFT JOIN outcomes o ON o.assignment_id = s.id
    WHERE s.id = ANY (ids);
  GET DIAGNOSTICS n_aged = ROW_COUNT;
  INSERT INTO aged_shadow_outcomes
    SELECT h.assignment_id, h.arm_id, h.body_hash, h.recorded_at, h.source, h.audit_id
    FROM shadow_outcomes h WHERE h.assignment_id = ANY (ids);
  DELETE FROM shadow_outcomes WHERE assignment_id = ANY (ids);
  DELETE FROM claims WHERE assignment_id = ANY (ids);
  DELETE FROM marks WHERE assignment_id = ANY (ids);
  DELETE FROM outcome_revisions WHERE assignment_id = ANY (ids);
  DELETE FROM outcomes WHERE assignment_id = ANY (ids);
  DELETE FROM assignments WHERE id = ANY (ids);
  INSERT INTO audit_log (id, at, actor, action, subject, details) OVERRIDING SYSTEM VALUE
    SELECT row_id, at, actor, 'age', subject, details || jsonb_build_object(
             'rows', count(*), 'sha256', encode(sha256(convert_to(
               string_agg(aged_line(g), chr(10) ORDER BY g.id), 'UTF8')), 'hex'))
    FROM aged_assignments g WHERE g.aged_by = row_id;
  RETURN n_aged;
END $$;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON shadow_outcomes TO liveops_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON paired_cohorts, fill_gaps TO liveops_app;
    GRANT SELECT ON aged_shadow_outcomes, aged_paired_cohorts, aged_fill_gaps TO liveops_app;
    GRANT EXECUTE ON FUNCTION commit_shadow_outcomes TO liveops_app;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    GRANT SELECT, DELETE ON shadow_outcomes TO liveops_archivist;
    GRANT SELECT ON paired_cohorts, fill_gaps TO liveops_archivist;
    GRANT SELECT, INSERT ON aged_shadow_outcomes TO liveops_archivist;
    GRANT SELECT, INSERT, UPDATE ON aged_paired_cohorts, aged_fill_gaps TO liveops_archivist;
  END IF;
END $$;
"""
