"""Reconciliation: what bots say they hold against the ledger, and what a mismatch blocks."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Keep how every account compares, and let nothing new open where it does not."""
    for statement in (POSITIONS, STATES, CHANGES, FOLLOW, ASSIGN, CLAIMS, GRANTS):
        op.execute(statement)


POSITIONS = """
ALTER TABLE heartbeats ADD COLUMN positions uuid[] CHECK (cardinality(positions) <= 256);
"""

# One row an account, from the first heartbeat that tells something which can be held against its
# ledger. `differs` is what is in force in words: whoever is refused reads it.
STATES = """
CREATE TABLE reconciliations (
  account_id          integer PRIMARY KEY REFERENCES accounts,
  state               text NOT NULL CHECK (state IN ('AGREES', 'DIFFERS', 'BLOCKED')),
  change_id           bigint,
  differs             text NOT NULL CHECK (length(differs) <= 1000),
  findings            jsonb NOT NULL
    CHECK (jsonb_typeof(findings) = 'array' AND jsonb_array_length(findings) <= 256),
  accepted            jsonb NOT NULL CHECK (jsonb_typeof(accepted) = 'array'),
  accepted_difference numeric(38,8) NOT NULL CHECK (accepted_difference <> 'NaN'),
  judged_at           instant NOT NULL,
  CONSTRAINT entered_by_a_change CHECK (state = 'AGREES' OR change_id IS NOT NULL)
);
CREATE TRIGGER reconciliation_kept BEFORE DELETE ON reconciliations
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

# Every change of a state, in an unbroken chain from AGREES; one to itself is a person's who accepts
# what has only begun to differ.
CHANGES = """
CREATE TABLE reconciliation_changes (
  id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id          integer NOT NULL REFERENCES reconciliations,
  from_state          text NOT NULL CHECK (from_state IN ('AGREES', 'DIFFERS', 'BLOCKED')),
  to_state            text NOT NULL CHECK (to_state IN ('AGREES', 'DIFFERS', 'BLOCKED')),
  at                  instant NOT NULL,
  actor               text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason              text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  findings            jsonb NOT NULL CHECK (jsonb_typeof(findings) = 'array'),
  accepted_difference numeric(38,8) NOT NULL CHECK (accepted_difference <> 'NaN'),
  UNIQUE (account_id, id),
  CONSTRAINT accepted_by_a_person CHECK (from_state <> to_state OR to_state = 'AGREES')
);
SELECT make_append_only('reconciliation_changes');
ALTER TABLE reconciliations
  ADD FOREIGN KEY (account_id, change_id) REFERENCES reconciliation_changes (account_id, id);
"""

FOLLOW = """
CREATE FUNCTION reconciliation_chained() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.from_state <> coalesce((SELECT c.to_state FROM reconciliation_changes c
      WHERE c.account_id = NEW.account_id ORDER BY c.id DESC LIMIT 1), 'AGREES') THEN
    RAISE EXCEPTION 'a change of a reconciliation begins where the one before it ended'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER reconciliation_chained BEFORE INSERT ON reconciliation_changes
  FOR EACH ROW EXECUTE FUNCTION reconciliation_chained();

CREATE FUNCTION reconciliation_follows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.account_id <> OLD.account_id
     OR ((NEW.state, NEW.change_id) IS DISTINCT FROM (OLD.state, OLD.change_id)
         AND NOT EXISTS (
           SELECT FROM (SELECT * FROM reconciliation_changes x WHERE x.account_id = NEW.account_id
                        ORDER BY x.id DESC LIMIT 1) c
           WHERE c.id = NEW.change_id AND c.to_state = NEW.state)) THEN
    RAISE EXCEPTION 'the state of a reconciliation follows reconciliation_changes: append one'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER reconciliation_follows BEFORE UPDATE ON reconciliations
  FOR EACH ROW EXECUTE FUNCTION reconciliation_follows();
"""

# As before; and while bots and ledger differ, a batch that would open something is refused whole.
# Whoever put that in force held the kill key alone until the commit that says so.
ASSIGN = """
CREATE FUNCTION require_reconciled(experiment experiments, batch json) RETURNS void
  STABLE LANGUAGE plpgsql AS $$
DECLARE
  differing text;
BEGIN
  SELECT x.differs INTO differing FROM reconciliations x
    WHERE x.account_id = experiment.account_id AND x.state = 'BLOCKED';
  -- Decisions about open positions go on, and nothing that has happened is refused.
  IF FOUND AND EXISTS (
      SELECT FROM json_to_recordset(batch) AS r (position_id uuid, is_fallback boolean)
      WHERE r.position_id IS NULL AND r.is_fallback IS NOT TRUE) THEN
    RAISE EXCEPTION 'bots and ledger differ on the account of experiment %: %',
      experiment.name, differing USING ERRCODE = 'LB005';
  END IF;
END $$;

CREATE OR REPLACE FUNCTION commit_assignments(
    spoken integer, experiment integer, at_epoch bigint, at_version bigint,
    decided timestamptz, expires timestamptz, are_facts boolean, batch json)
  RETURNS SETOF answered_assignments VOLATILE LANGUAGE plpgsql SET enable_seqscan = off AS $$
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
  share      double precision;
  bump       double precision;
  of_account bigint;
  of_itself  bigint;
  is_paused  boolean;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1, x.account_id) FROM experiments x WHERE x.id = experiment;
  PERFORM pg_advisory_xact_lock_shared(3, experiment);
  -- Behind the gate: whoever changes the protocol under it leaves no batch of the old one behind.
  PERFORM require_protocol(spoken);
  SELECT * INTO e FROM experiments x WHERE x.id = experiment;
  IF NOT are_facts THEN
    PERFORM require_alive(e);
    PERFORM require_reconciled(e, batch);
  END IF;
  IF e.epoch IS DISTINCT FROM at_epoch THEN
    RAISE EXCEPTION 'experiment % is in epoch %, not %', e.name, e.epoch, at_epoch
      USING ERRCODE = 'LB001';
  END IF;
  -- Behind the gate, which whoever tightens a guard holds alone until the commit that says so: no
  -- decision of the looser state commits after it, and no replica has to forget anything.
  SELECT coalesce(min(g.size_multiplier), 1), coalesce(max(g.confidence_bump), 0),
         max(g.change_id) FILTER (WHERE g.state = 'PAUSED' AND g.experiment_id IS NULL),
         max(g.change_id) FILTER (WHERE g.state = 'PAUSED' AND g.experiment_id = e.id)
    INTO share, bump, of_account, of_itself FROM guard_states g
    WHERE g.account_id = e.account_id AND (g.experiment_id IS NULL OR g.experiment_id = e.id);
  is_paused := num_nonnulls(of_account, of_itself) > 0;
  SELECT * INTO budget FROM exploration_budgets b WHERE b.experiment_id = e.id FOR UPDATE;
  has_budget := FOUND;
  -- What only happens on paper costs nothing.
  IF has_budget AND NOT is_paused THEN
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
    SELECT r.id, e.id, r.unit_id, r.instrument, a.id,
           -- What a bot decided alone has happened; a position's own arm may close it.
           CASE WHEN is_paused AND r.position_id IS NULL AND r.is_fallback IS NOT TRUE
                THEN 'paper' ELSE a.mode END,
           CASE WHEN r.is_fallback OR a.policy_id = e.champion_id THEN 'champion'
                ELSE 'challenger' END,
           at_version, e.epoch, r.propensity, r.position_id, coalesce(r.is_fallback, false),
           CASE WHEN r.is_fallback THEN 1 ELSE share END,
           CASE WHEN r.is_fallback THEN 0 ELSE bump END,
           r.context, r.proposed_actions, coalesce(r.decided_at, decided),
           coalesce(r.decided_at + (expires - decided), expires), batch_id
    FROM json_to_recordset(batch) AS r (
      id uuid, unit_id text, instrument text, arm_id bigint, propensity double precision,
      position_id uuid, is_fallback boolean, context jsonb, proposed_actions jsonb,
      decided_at timestamptz)
    LEFT JOIN LATERAL (
      SELECT o.arm_id FROM assignments o
      WHERE r.position_id IS NOT NULL AND o.id = r.position_id AND o.experiment_id = e.id
        AND o.mode <> 'paper'
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
  IF is_paused AND n_inserted > 0 THEN
    INSERT INTO refusals (assignment_id, account_change, experiment_change)
      SELECT s.id, of_account, of_itself FROM assignments s
      WHERE s.audit_id = batch_id AND s.mode = 'paper' ORDER BY s.id;
  END IF;
  IF has_budget AND n_inserted > 0 THEN
    INSERT INTO reservations (assignment_id, at_risk, expected)
      SELECT s.id, CASE WHEN s.position_id IS NULL THEN budget.at_risk ELSE 0 END,
             CASE WHEN s.position_id IS NULL THEN budget.expected ELSE 0 END
      FROM assignments s
      WHERE s.audit_id = batch_id AND s.mode = 'live' AND s.role = 'challenger' AND (
        s.position_id IS NULL
        OR EXISTS (SELECT FROM reservations r WHERE r.assignment_id = s.position_id));
    INSERT INTO explored_opened AS x (arm_id, n_opened, charged)
      SELECT s.arm_id, count(*), sum(r.at_risk + r.expected)
      FROM assignments s JOIN reservations r ON r.assignment_id = s.id
      WHERE s.audit_id = batch_id AND s.position_id IS NULL GROUP BY 1 ORDER BY 1
      ON CONFLICT (arm_id) DO UPDATE
      SET n_opened = x.n_opened + excluded.n_opened, charged = x.charged + excluded.charged;
  END IF;
  IF n_known < json_array_length(batch) OR share < 1 OR bump > 0 THEN
    -- A snapshot of its own: it sees the twin of a row that this batch lost to.
    IF EXISTS (SELECT FROM json_to_recordset(batch) AS r (id uuid, position_id uuid)
               WHERE r.position_id IS NULL
                 AND NOT EXISTS (SELECT FROM assignments s WHERE s.id = r.id)
                 AND NOT EXISTS (SELECT FROM aged_assignments g WHERE g.id = r.id)) THEN
      RAISE EXCEPTION 'a unit of % was routed to an arm that takes no traffic', e.name
        USING ERRCODE = 'LB001';
    END IF;
    RETURN QUERY SELECT s.* FROM answered_assignments s
      WHERE s.id IN (SELECT r.id FROM json_to_recordset(batch) AS r (id uuid))
        AND (s.audit_id IS DISTINCT FROM batch_id OR s.position_id IS NOT NULL
             OR share < 1 OR bump > 0);
  END IF;
END $$;
"""

# As before, and nothing new is opened while bots and ledger differ.
CLAIMS = """
CREATE OR REPLACE VIEW claim_verdicts AS
SELECT s.id AS assignment_id, s.expires_at,
       CASE WHEN acc.is_killed IS NOT FALSE THEN 'killed'
            WHEN r.assignment_id IS NOT NULL THEN 'paused'
            -- A position's own arm may always act on it.
            WHEN s.position_id IS NULL AND (s.epoch < e.champion_epoch OR NOT (
              a.status = 'active' AND a.mode = s.mode AND a.traffic_allocation > 0))
            THEN 'revoked'
            WHEN s.position_id IS NULL AND EXISTS (
              SELECT FROM reconciliations x WHERE x.account_id = e.account_id
                AND x.state = 'BLOCKED')
            THEN 'unreconciled'
            WHEN s.position_id IS NULL AND EXISTS (
              SELECT FROM guard_states g WHERE g.account_id = e.account_id AND g.state = 'PAUSED'
                AND (g.experiment_id IS NULL OR g.experiment_id = e.id))
            THEN 'paused'
       END AS refusal,
       s.claimed_at
FROM (
  SELECT x.id, x.experiment_id, x.arm_id, x.mode, x.epoch, x.position_id, x.expires_at, c.claimed_at
  FROM assignments x LEFT JOIN claims c ON c.assignment_id = x.id
  UNION ALL
  SELECT g.id, g.experiment_id, g.arm_id, g.mode, g.epoch, g.position_id, g.expires_at, g.claimed_at
  FROM aged_assignments g) s
JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id
LEFT JOIN accounts acc ON acc.id = e.account_id
LEFT JOIN refusals r ON r.assignment_id = s.id;

CREATE OR REPLACE FUNCTION commit_claims(spoken integer, claimed timestamptz, ids uuid[])
  RETURNS TABLE (id uuid, verdict text, claimed_at timestamptz, expires_at timestamptz,
                 experiment text, policy text, scope text, since timestamptz, reason text)
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
      v.claimed_at::timestamptz, v.expires_at::timestamptz, w.*
    FROM claim_verdicts v
    LEFT JOIN LATERAL (
      SELECT p.experiment::text, p.policy::text, p.scope, p.since, p.reason
      FROM assignment_pauses p
      WHERE v.refusal = 'paused' AND p.assignment_id = v.assignment_id
      UNION ALL
      SELECT NULL, NULL, NULL, NULL, x.differs
      FROM assignments s JOIN experiments e ON e.id = s.experiment_id
      JOIN reconciliations x ON x.account_id = e.account_id
      WHERE v.refusal = 'unreconciled' AND s.id = v.assignment_id OFFSET 0) w ON true
    WHERE v.assignment_id = ANY (ids);
END $$;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE ON reconciliations TO liveops_app;
    GRANT SELECT, INSERT ON reconciliation_changes TO liveops_app;
    GRANT USAGE ON SEQUENCE reconciliation_changes_id_seq TO liveops_app;
  END IF;
END $$;
"""
