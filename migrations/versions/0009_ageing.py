"""Archives: old decisions leave for files, and their keys, answers and sums stay."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Let settled history leave the ledger without freeing a key or changing a number."""
    for statement in (
        BATCHED,
        SUPERSEDED,
        ARCHIVES,
        AGED,
        BASES,
        LEAVING,
        AGE,
        ASSIGN,
        CLAIMS,
        MAKE_ROLE,
        GRANTS,
        NO_SHADOWS,
    ):
        op.execute(statement)


# From the first batch on every row belongs to one, whose digest the audit log holds; only rows that
# were there before have none.
BATCHED = """
ALTER TABLE assignments ADD CONSTRAINT of_a_batch CHECK (audit_id IS NOT NULL) NOT VALID;
ALTER TABLE outcomes ADD CONSTRAINT of_a_batch CHECK (audit_id IS NOT NULL) NOT VALID;
"""

# Every version of an outcome that another one has taken the place of.
SUPERSEDED = """
CREATE VIEW superseded_outcomes AS
SELECT o.*
FROM (
  SELECT assignment_id, 0 AS revision, arm_id, unit_id, instrument, no_trade, pnl, return_ratio,
         r_multiple, fees, slippage, size, worst_excursion, opened_at, closed_at, expired,
         unclaimed, body_hash, recorded_at, NULL AS actor, NULL AS reason
  FROM outcomes
  UNION ALL
  SELECT assignment_id, revision, arm_id, unit_id, instrument, no_trade, pnl, return_ratio,
         r_multiple, fees, slippage, size, worst_excursion, opened_at, closed_at, expired,
         unclaimed, body_hash, recorded_at, actor, reason
  FROM outcome_revisions) o
JOIN outcome_revisions later
  ON later.assignment_id = o.assignment_id AND later.revision = o.revision + 1;
"""

# Registered once its file is complete and on disk; unfinished while rows of it are still here too.
ARCHIVES = """
CREATE TABLE archives (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  experiment_id integer NOT NULL REFERENCES experiments,
  name          text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,99}$'),
  sha256        bytea NOT NULL CHECK (octet_length(sha256) = 32),
  n_rows        bigint NOT NULL CHECK (n_rows > 0),
  made_at       instant NOT NULL,
  finished_at   instant
);
CREATE FUNCTION archive_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.experiment_id, NEW.name, NEW.sha256, NEW.n_rows, NEW.made_at)
     IS DISTINCT FROM
     (OLD.id, OLD.experiment_id, OLD.name, OLD.sha256, OLD.n_rows, OLD.made_at)
     OR OLD.finished_at IS NOT NULL THEN
    RAISE EXCEPTION 'an archive is finished once, and nothing else of it changes'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER archive_guard BEFORE UPDATE ON archives
  FOR EACH ROW EXECUTE FUNCTION archive_guard();
CREATE TRIGGER archive_kept BEFORE DELETE ON archives
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

# What stays of a decision: its key, its answer, the hashes that its batches were digested from.
AGED = """
CREATE TABLE aged_assignments (
  id                      uuid PRIMARY KEY,
  experiment_id           integer NOT NULL,
  unit_id                 unit_key NOT NULL,
  instrument              instrument_key NOT NULL,
  arm_id                  bigint NOT NULL,
  mode                    text NOT NULL,
  role                    text NOT NULL,
  allocation_version      bigint NOT NULL,
  epoch                   bigint NOT NULL,
  propensity              ratio NOT NULL,
  position_id             uuid,
  is_fallback             boolean NOT NULL,
  size_multiplier         ratio NOT NULL,
  confidence_bump         ratio NOT NULL,
  context_sha256          bytea,
  proposed_actions_sha256 bytea,
  decided_at              instant NOT NULL,
  expires_at              instant NOT NULL,
  audit_id                bigint,
  claimed_at              instant,
  outcome_body_hash       bytea,
  outcome_recorded_at     instant,
  outcome_expired         boolean,
  outcome_unclaimed       boolean,
  outcome_audit_id        bigint,
  archive_id              bigint NOT NULL REFERENCES archives,
  aged_by                 bigint NOT NULL
);
SELECT make_append_only('aged_assignments');
CREATE INDEX aged_assignments_by_audit_row ON aged_assignments (aged_by);

-- How many rows an audit row tells of; NULL where that is no number.
CREATE FUNCTION told_rows(l audit_log) RETURNS bigint STABLE LANGUAGE sql AS $$
  SELECT CASE WHEN pg_input_is_valid(l.details ->> 'rows', 'bigint')
              THEN (l.details ->> 'rows')::bigint END
$$;

CREATE FUNCTION digested(g aged_assignments) RETURNS text STABLE LANGUAGE sql AS $$
  SELECT digested_line(
    g.id, g.experiment_id, g.unit_id, g.instrument, g.arm_id, g.mode, g.role,
    g.allocation_version, g.epoch, g.propensity, g.position_id, g.is_fallback, g.size_multiplier,
    g.confidence_bump, g.context_sha256, g.proposed_actions_sha256, g.decided_at, g.expires_at)
$$;

-- All that stays of a decision, beside what its batch was digested from.
CREATE FUNCTION aged_line(g aged_assignments) RETURNS text STABLE LANGUAGE sql AS $$
  SELECT json_build_array(
    digested(g), g.audit_id, (extract(epoch FROM g.claimed_at) * 1000000)::bigint,
    encode(g.outcome_body_hash, 'hex'),
    (extract(epoch FROM g.outcome_recorded_at) * 1000000)::bigint, g.outcome_expired,
    g.outcome_unclaimed, g.outcome_audit_id, g.archive_id)::text
$$;
"""

# What aged outcomes amount to: every later count starts here. The sums are exact, and the fold is
# that over all of them, which come before whatever is still here.
BASES = """
CREATE TABLE arm_bases (
  arm_id             bigint PRIMARY KEY REFERENCES arms,
  n_outcomes         bigint NOT NULL,
  n_trades           bigint NOT NULL,
  n_wins             bigint NOT NULL,
  n_losses           bigint NOT NULL,
  n_expired          bigint NOT NULL,
  n_unclaimed        bigint NOT NULL,
  gross_profit       numeric(38,8) NOT NULL CHECK (gross_profit >= 0 AND gross_profit <> 'NaN'),
  gross_loss         numeric(38,8) NOT NULL CHECK (gross_loss >= 0 AND gross_loss <> 'NaN'),
  fees               numeric(38,8) NOT NULL CHECK (fees <> 'NaN'),
  return_gain        numeric(30,12) NOT NULL CHECK (return_gain >= 0 AND return_gain <> 'NaN'),
  return_loss        numeric(30,12) NOT NULL CHECK (return_loss >= 0 AND return_loss <> 'NaN'),
  return_squares     numeric(44,24) NOT NULL
    CHECK (return_squares >= 0 AND return_squares <> 'NaN'),
  equity             ratio NOT NULL,
  equity_peak        ratio NOT NULL,
  drawdown_max       ratio NOT NULL,
  losing_streak      bigint NOT NULL,
  losing_streak_max  bigint NOT NULL,
  winning_streak     bigint NOT NULL,
  winning_streak_max bigint NOT NULL,
  recorded_to        instant NOT NULL
);
CREATE FUNCTION base_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.arm_id <> OLD.arm_id OR NEW.n_outcomes <= OLD.n_outcomes OR NEW.n_trades < OLD.n_trades
     OR NEW.recorded_to < OLD.recorded_to THEN
    RAISE EXCEPTION 'a base only takes up more history' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER base_guard BEFORE UPDATE ON arm_bases
  FOR EACH ROW EXECUTE FUNCTION base_guard();
CREATE TRIGGER base_kept BEFORE DELETE ON arm_bases
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE aged_days (LIKE arm_days INCLUDING ALL);
ALTER TABLE aged_days ADD FOREIGN KEY (arm_id) REFERENCES arms;
CREATE TRIGGER aged_days_kept BEFORE DELETE ON aged_days
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The audit log holds this of each arm's newest base, whatever a session's settings are.
CREATE FUNCTION base_digest(b arm_bases) RETURNS text STABLE LANGUAGE sql AS $$
  SELECT encode(sha256(convert_to(json_build_array(
    b.arm_id, b.n_outcomes, b.n_trades, b.n_wins, b.n_losses, b.n_expired, b.n_unclaimed,
    b.gross_profit, b.gross_loss, b.fees, b.return_gain, b.return_loss, b.return_squares,
    encode(float8send(b.equity), 'hex'), encode(float8send(b.equity_peak), 'hex'),
    encode(float8send(b.drawdown_max), 'hex'), b.losing_streak, b.losing_streak_max,
    b.winning_streak, b.winning_streak_max,
    (extract(epoch FROM b.recorded_to) * 1000000)::bigint)::text, 'UTF8')), 'hex')
$$;
"""

# `enable_seqscan = off` here and below: a session keeps a plan that it made while a table was
# small, and would read all of it for every key once it has grown.
#
# A row leaves only behind what stays of it. A position and the decisions on it leave one by one, so
# that no key of theirs may hang on the row of another.
LEAVING = """
CREATE FUNCTION leaves_its_key() RETURNS trigger
  LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM aged_assignments g WHERE g.id = OLD.id) THEN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE FUNCTION leaves_with_its_assignment() RETURNS trigger
  LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM aged_assignments g WHERE g.id = OLD.assignment_id) THEN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN OLD;
END $$;

DROP TRIGGER append_only ON assignments;
CREATE TRIGGER append_only BEFORE UPDATE ON assignments
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER leaves_its_key BEFORE DELETE ON assignments
  FOR EACH ROW EXECUTE FUNCTION leaves_its_key();
DROP TRIGGER append_only ON outcomes;
CREATE TRIGGER append_only BEFORE UPDATE ON outcomes
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
DROP TRIGGER append_only ON outcome_revisions;
CREATE TRIGGER append_only BEFORE UPDATE ON outcome_revisions
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
DROP TRIGGER append_only ON claims;
CREATE TRIGGER append_only BEFORE UPDATE ON claims
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
DROP TRIGGER marks_kept ON marks;
CREATE TRIGGER leaves_with_its_assignment BEFORE DELETE ON outcomes
  FOR EACH ROW EXECUTE FUNCTION leaves_with_its_assignment();
CREATE TRIGGER leaves_with_its_assignment BEFORE DELETE ON outcome_revisions
  FOR EACH ROW EXECUTE FUNCTION leaves_with_its_assignment();
CREATE TRIGGER leaves_with_its_assignment BEFORE DELETE ON claims
  FOR EACH ROW EXECUTE FUNCTION leaves_with_its_assignment();
CREATE TRIGGER leaves_with_its_assignment BEFORE DELETE ON marks
  FOR EACH ROW EXECUTE FUNCTION leaves_with_its_assignment();

ALTER TABLE assignments DROP CONSTRAINT assignments_position_id_fkey;
CREATE FUNCTION position_is_known() RETURNS trigger
  LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM assignments s WHERE s.id = NEW.position_id)
     AND NOT EXISTS (SELECT FROM aged_assignments g WHERE g.id = NEW.position_id) THEN
    RAISE EXCEPTION 'assignments_position: nobody opened position %', NEW.position_id
      USING ERRCODE = 'foreign_key_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER position_is_known AFTER INSERT ON assignments
  FOR EACH ROW WHEN (NEW.position_id IS NOT NULL) EXECUTE FUNCTION position_is_known();
"""

# What leaves in one transaction leaves with one audit row, which holds the digest of what stays.
AGE = """
CREATE FUNCTION age_assignments(
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

# As before, and the key of a decision that has left is still its own: the gate, which ageing holds
# exclusively, keeps a row from leaving between the look at aged_assignments and the insert. OFFSET
# 0 makes that one probe a row of the batch.
ASSIGN = """
CREATE OR REPLACE FUNCTION commit_assignments(
    spoken integer, experiment integer, at_epoch bigint, at_version bigint,
    decided timestamptz, expires timestamptz, are_facts boolean, batch json)
  RETURNS SETOF assignments VOLATILE LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  e          experiments%ROWTYPE;
  batch_id   bigint := nextval(pg_get_serial_sequence('audit_log', 'id'));
  n_inserted bigint;
  n_known    bigint;
  digest     text;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1, x.account_id) FROM experiments x WHERE x.id = experiment;
  PERFORM pg_advisory_xact_lock_shared(3, experiment);
  -- Behind the gate: whoever changes the protocol under it leaves no batch of the old one behind.
  PERFORM require_protocol(spoken);
  SELECT * INTO e FROM experiments x WHERE x.id = experiment;
  IF NOT are_facts THEN
    PERFORM require_alive(e);
  END IF;
  IF e.epoch IS DISTINCT FROM at_epoch THEN
    RAISE EXCEPTION 'experiment % is in epoch %, not %', e.name, e.epoch, at_epoch
      USING ERRCODE = 'LB001';
  END IF;
  WITH made AS (
    INSERT INTO assignments AS s (
      id, experiment_id, unit_id, instrument, arm_id, mode, role, allocation_version, epoch,
      propensity, position_id, is_fallback, size_multiplier, confidence_bump, context,
      proposed_actions, decided_at, expires_at, audit_id)
    SELECT r.id, e.id, r.unit_id, r.instrument, a.id, a.mode,
           CASE WHEN a.policy_id = e.champion_id THEN 'champion' ELSE 'challenger' END,
           at_version, e.epoch, r.propensity, r.position_id, coalesce(r.is_fallback, false), 1, 0,
           r.context, r.proposed_actions, coalesce(r.decided_at, decided),
           coalesce(r.decided_at + (expires - decided), expires), batch_id
    FROM json_to_recordset(batch) AS r (
      id uuid, unit_id text, instrument text, arm_id bigint, propensity double precision,
      position_id uuid, is_fallback boolean, context jsonb, proposed_actions jsonb,
      decided_at timestamptz)
    LEFT JOIN LATERAL (
      SELECT o.arm_id FROM assignments o
      WHERE r.position_id IS NOT NULL AND o.id = r.position_id AND o.experiment_id = e.id
        AND NOT EXISTS (SELECT FROM outcomes t WHERE t.assignment_id = o.id)) opened ON true
    JOIN arms a
      ON a.id = CASE WHEN r.position_id IS NULL THEN r.arm_id ELSE opened.arm_id END
      AND a.experiment_id = e.id
      -- The epoch says so too; who is not to be routed to is refused twice.
      AND (r.position_id IS NOT NULL OR (a.status = 'active' AND a.mode = 'live'))
    WHERE NOT EXISTS (SELECT FROM aged_assignments g WHERE g.id = r.id OFFSET 0)
    -- Sorted, so that two batches never wait for each other in a circle.
    ORDER BY r.id
    ON CONFLICT DO NOTHING
    RETURNING s.id, s.position_id, digested(s) AS line
  )
  SELECT count(*), count(*) FILTER (WHERE made.position_id IS NULL),
         encode(sha256(convert_to(
           string_agg(made.line, chr(10) ORDER BY made.id), 'UTF8')), 'hex')
    INTO n_inserted, n_known, digest FROM made;
  IF n_inserted > 0 THEN
    INSERT INTO audit_log (id, at, actor, action, subject, details) OVERRIDING SYSTEM VALUE
      VALUES (batch_id, decided, 'router', 'assignments', e.name,
              jsonb_build_object('rows', n_inserted, 'sha256', digest));
  END IF;
  IF n_known < json_array_length(batch) THEN
    -- A snapshot of its own: it sees the twin of a row that this batch lost to.
    IF EXISTS (SELECT FROM json_to_recordset(batch) AS r (id uuid, position_id uuid)
               WHERE r.position_id IS NULL
                 AND NOT EXISTS (SELECT FROM assignments s WHERE s.id = r.id)
                 AND NOT EXISTS (SELECT FROM aged_assignments g WHERE g.id = r.id)) THEN
      RAISE EXCEPTION 'a unit of % was routed to an arm that takes no traffic', e.name
        USING ERRCODE = 'LB001';
    END IF;
    RETURN QUERY SELECT s.* FROM assignments s
      WHERE s.id IN (SELECT r.id FROM json_to_recordset(batch) AS r (id uuid))
        AND (s.audit_id IS DISTINCT FROM batch_id OR s.position_id IS NOT NULL)
      UNION ALL
      SELECT g.id, g.experiment_id, g.unit_id, g.instrument, g.arm_id, g.mode, g.role,
             g.allocation_version, g.epoch, g.propensity, g.position_id, g.size_multiplier,
             g.confidence_bump, NULL, NULL, g.decided_at, g.expires_at, g.is_fallback, g.audit_id
      FROM aged_assignments g
      WHERE g.id IN (SELECT r.id FROM json_to_recordset(batch) AS r (id uuid));
  END IF;
END $$;
"""

CLAIMS = """
CREATE OR REPLACE VIEW claim_verdicts AS
SELECT s.id AS assignment_id, s.expires_at,
       CASE WHEN acc.is_killed IS NOT FALSE THEN 'killed'
            -- A position's own arm may always act on it.
            WHEN s.position_id IS NULL AND NOT (
              a.status = 'active' AND a.mode = s.mode AND a.traffic_allocation > 0
              AND (s.role = 'champion') = (a.policy_id = e.champion_id)) THEN 'revoked'
       END AS refusal,
       s.claimed_at
FROM (
  SELECT x.id, x.experiment_id, x.arm_id, x.mode, x.role, x.position_id, x.expires_at, c.claimed_at
  FROM assignments x LEFT JOIN claims c ON c.assignment_id = x.id
  UNION ALL
  SELECT g.id, g.experiment_id, g.arm_id, g.mode, g.role, g.position_id, g.expires_at, g.claimed_at
  FROM aged_assignments g) s
JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id
LEFT JOIN accounts acc ON acc.id = e.account_id;

CREATE OR REPLACE FUNCTION commit_claims(spoken integer, claimed timestamptz, ids uuid[])
  RETURNS TABLE (id uuid, verdict text, claimed_at timestamptz, expires_at timestamptz)
  VOLATILE LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1, x.account_id) FROM (
    SELECT DISTINCT e.account_id FROM assignments s JOIN experiments e ON e.id = s.experiment_id
    WHERE s.id = ANY (ids) ORDER BY 1) x;
  PERFORM pg_advisory_xact_lock_shared(3, x.experiment_id) FROM (
    SELECT DISTINCT s.experiment_id FROM assignments s WHERE s.id = ANY (ids) ORDER BY 1) x;
  PERFORM require_protocol(spoken);
  INSERT INTO claims (assignment_id, claimed_at)
    SELECT v.assignment_id, claimed FROM claim_verdicts v
    WHERE v.assignment_id = ANY (ids) AND v.refusal IS NULL AND v.expires_at >= claimed
      AND v.claimed_at IS NULL
    ORDER BY v.assignment_id
    ON CONFLICT DO NOTHING;
  -- A snapshot of its own: the later of two claims at once answers with the earlier one's time.
  RETURN QUERY SELECT v.assignment_id, coalesce(v.refusal,
      CASE WHEN v.claimed_at IS NULL THEN 'expired' ELSE 'claimed' END),
      v.claimed_at::timestamptz, v.expires_at::timestamptz
    FROM claim_verdicts v WHERE v.assignment_id = ANY (ids);
END $$;
"""

# Only this role can make rows leave; a service has no way to.
MAKE_ROLE = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    CREATE ROLE liveops_archivist NOLOGIN;
  END IF;
  IF NOT pg_has_role(current_user, 'liveops_archivist', 'SET') THEN
    EXECUTE format('GRANT liveops_archivist TO %I', current_user);
  END IF;
EXCEPTION
  -- A user who may not make roles, or another ledger of this server that makes it just now.
  WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
END $$;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT ON archives, aged_assignments, arm_bases, aged_days, superseded_outcomes
      TO liveops_app;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO liveops_archivist', current_schema());
    EXECUTE format(
      'GRANT SELECT ON ALL TABLES IN SCHEMA %I TO liveops_archivist', current_schema());
    EXECUTE format(
      'GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO liveops_archivist', current_schema());
    EXECUTE format(
      'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO liveops_archivist', current_schema());
    GRANT INSERT ON aged_assignments, audit_log, audit_unsealed TO liveops_archivist;
    GRANT INSERT, UPDATE ON archives, arm_bases, aged_days TO liveops_archivist;
    -- UPDATE is what locking a row takes; triggers refuse every real one.
    GRANT UPDATE, DELETE ON assignments TO liveops_archivist;
    GRANT UPDATE (arm_id) ON arm_statistics TO liveops_archivist;
    GRANT DELETE ON outcomes, outcome_revisions, claims, marks, equity_checkpoints
      TO liveops_archivist;
  END IF;
END $$;
"""

# A table of a session's own comes before one of the ledger's of that name, also in what a trigger
# reads: neither role makes any.
NO_SHADOWS = """
DO $$
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END $$;
"""
