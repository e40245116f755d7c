"""Exploration budgets: what challengers may cost, set aside before they decide."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Let an experiment have a budget that no batch of decisions can pass."""
    for statement in (BUDGETS, RESERVATIONS, EXPLORED, ASSIGN, AGE, PROTOCOL, GRANTS):
        op.execute(statement)


# In the account's currency; `expected` is what the champion is taken to earn with a decision.
BUDGETS = """
CREATE TABLE exploration_budgets (
  experiment_id integer PRIMARY KEY REFERENCES experiments,
  amount        amount NOT NULL CHECK (amount > 0),
  at_risk       amount NOT NULL CHECK (at_risk > 0),
  expected      amount NOT NULL CHECK (expected >= 0),
  set_at        instant NOT NULL
);
"""

# What was set aside for a decision of a challenger when it was taken: nothing for a later decision
# about the position that it opened, whose money counts all the same.
RESERVATIONS = """
CREATE TABLE reservations (
  assignment_id uuid PRIMARY KEY REFERENCES assignments,
  at_risk       amount NOT NULL CHECK (at_risk >= 0),
  expected      amount NOT NULL CHECK (expected >= 0)
);
"""

# Of an arm's decisions with a reservation what was set aside when they were taken, and what their
# outcomes gave back and cost. Apart, so that batches and outcomes never wait for each other.
EXPLORED = """
CREATE TABLE explored_opened (
  arm_id   bigint PRIMARY KEY REFERENCES arms,
  n_opened bigint NOT NULL CHECK (n_opened > 0),
  charged  numeric(38,8) NOT NULL CHECK (charged > 0 AND charged <> 'NaN')
);
CREATE TABLE explored_told (
  arm_id   bigint PRIMARY KEY REFERENCES arms,
  n_told   bigint NOT NULL CHECK (n_told >= 0),
  released numeric(38,8) NOT NULL CHECK (released >= 0 AND released <> 'NaN'),
  spent    numeric(38,8) NOT NULL CHECK (spent <> 'NaN')
);
CREATE TABLE aged_explored (LIKE explored_told INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE aged_explored ADD FOREIGN KEY (arm_id) REFERENCES arms;
"""

# As before; and in an experiment with a budget a batch is refused as a whole, with the number of
# decisions that would fit, where the worst that all of it may cost does not; else what its
# challengers may cost is set aside with it.
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
  budget     exploration_budgets%ROWTYPE;
  has_budget boolean;
  n_drawn    bigint;
  room       numeric;
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
  SELECT * INTO budget FROM exploration_budgets b WHERE b.experiment_id = e.id FOR UPDATE;
  has_budget := FOUND;
  IF has_budget THEN
    -- All that may fall to a challenger, whoever it fell to: what is kept back must not depend on
    -- that. Only what is withheld is the champion's for sure.
    SELECT count(*) INTO n_drawn FROM json_to_recordset(batch) AS r (
      arm_id bigint, propensity double precision, position_id uuid, is_fallback boolean)
    JOIN arms a ON a.id = r.arm_id
    WHERE r.position_id IS NULL AND r.is_fallback IS NOT TRUE
      AND (r.propensity < 1 OR a.policy_id <> e.champion_id);
    -- Behind the lock, in one snapshot: an outcome gives back what it cost as it is charged.
    SELECT budget.amount - coalesce(sum(o.charged), 0)
           - coalesce(sum(t.spent - t.released), 0) INTO room
    FROM arms a LEFT JOIN explored_opened o ON o.arm_id = a.id
    LEFT JOIN explored_told t ON t.arm_id = a.id WHERE a.experiment_id = e.id;
    IF n_drawn > 0 AND n_drawn * (budget.at_risk + budget.expected) > room THEN
      RAISE EXCEPTION 'the exploration budget of % has no room', e.name USING ERRCODE = 'LB004',
        DETAIL = greatest(0, floor(room / (budget.at_risk + budget.expected)))::text;
    END IF;
  END IF;
  WITH made AS (
    INSERT INTO assignments AS s (
      id, experiment_id, unit_id, instrument, arm_id, mode, role, allocation_version, epoch,
      propensity, position_id, is_fallback, size_multiplier, confidence_bump, context,
      proposed_actions, decided_at, expires_at, audit_id)
    SELECT r.id, e.id, r.unit_id, r.instrument, a.id, a.mode,
           CASE WHEN r.is_fallback OR a.policy_id = e.champion_id THEN 'champion'
                ELSE 'challenger' END,
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
      AND (r.position_id IS NOT NULL OR (a.status = 'active' AND a.mode = 'live')
           OR (r.is_fallback AND was_champion(e.id, a.policy_id)))
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
  IF has_budget AND n_inserted > 0 THEN
    INSERT INTO reservations (assignment_id, at_risk, expected)
      SELECT s.id, CASE WHEN s.position_id IS NULL THEN budget.at_risk ELSE 0 END,
             CASE WHEN s.position_id IS NULL THEN budget.expected ELSE 0 END
      FROM assignments s
      WHERE s.audit_id = batch_id AND s.role = 'challenger' AND (s.position_id IS NULL
        OR EXISTS (SELECT FROM reservations r WHERE r.assignment_id = s.position_id));
    INSERT INTO explored_opened AS x (arm_id, n_opened, charged)
      SELECT s.arm_id, count(*), sum(r.at_risk + r.expected)
      FROM assignments s JOIN reservations r ON r.assignment_id = s.id
      WHERE s.audit_id = batch_id AND s.position_id IS NULL GROUP BY 1 ORDER BY 1
      ON CONFLICT (arm_id) DO UPDATE
      SET n_opened = x.n_opened + excluded.n_opened, charged = x.charged + excluded.charged;
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

# As before, and what was set aside for a decision leaves with it.
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
  DELETE FROM reservations WHERE assignment_id = ANY (ids);
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

# Who records outcomes must know what was set aside.
PROTOCOL = "UPDATE decision_protocol SET version = 2;"

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON exploration_budgets, explored_opened, explored_told
      TO liveops_app;
    GRANT SELECT, INSERT ON reservations TO liveops_app;
    GRANT SELECT ON aged_explored TO liveops_app;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    GRANT SELECT ON exploration_budgets, explored_opened, explored_told TO liveops_archivist;
    GRANT SELECT, DELETE ON reservations TO liveops_archivist;
    GRANT SELECT, INSERT, UPDATE ON aged_explored TO liveops_archivist;
  END IF;
END $$;
"""
