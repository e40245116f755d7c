"""Performance guards: states, their changes, and the opportunities that a pause refused."""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Guard every account and experiment, and let decisions follow what their guards say."""
    for statement in (STATES, CHANGES, REFUSALS, FOLLOW, OPENED, CARRY_OVER):
        op.execute(statement)
    for statement in (ANSWERED, ASSIGN, CLAIMS, PROTOCOL, GRANTS):
        op.execute(statement)


# One row an account and one an experiment, which every outcome of theirs updates. What a state does
# to decisions stands beside it: they are taken without reading the rule.
STATES = """
CREATE TABLE guard_states (
  id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id      integer NOT NULL REFERENCES accounts,
  experiment_id   integer REFERENCES experiments,
  rule            jsonb NOT NULL CHECK (jsonb_typeof(rule) = 'object'),
  state           text NOT NULL CHECK (state IN ('NORMAL', 'REDUCED', 'PAUSED')),
  size_multiplier ratio NOT NULL CHECK (size_multiplier BETWEEN 0 AND 1),
  confidence_bump ratio NOT NULL CHECK (confidence_bump BETWEEN 0 AND 1),
  change_id       bigint,
  trades          jsonb NOT NULL CHECK (jsonb_typeof(trades) = 'array'),
  losing_streak   bigint NOT NULL CHECK (losing_streak >= 0),
  trades_since    bigint NOT NULL CHECK (trades_since >= 0),
  CONSTRAINT one_guard_a_scope UNIQUE NULLS NOT DISTINCT (account_id, experiment_id),
  CONSTRAINT normal_is_whole
    CHECK (state <> 'NORMAL' OR (size_multiplier = 1 AND confidence_bump = 0)),
  CONSTRAINT paused_is_nothing CHECK (state <> 'PAUSED' OR size_multiplier = 0),
  CONSTRAINT entered_by_a_change CHECK (state = 'NORMAL' OR change_id IS NOT NULL)
);
CREATE TRIGGER guard_kept BEFORE DELETE ON guard_states
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

# Every change of a state, in an unbroken chain from NORMAL; one to itself is a guard begun anew.
CHANGES = """
CREATE TABLE guard_changes (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  guard_id   integer NOT NULL REFERENCES guard_states,
  from_state text NOT NULL CHECK (from_state IN ('NORMAL', 'REDUCED', 'PAUSED')),
  to_state   text NOT NULL CHECK (to_state IN ('NORMAL', 'REDUCED', 'PAUSED')),
  at         instant NOT NULL,
  actor      text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  reasons    jsonb NOT NULL CHECK (jsonb_typeof(reasons) = 'array'),
  UNIQUE (guard_id, id),
  CONSTRAINT back_to_normal_only CHECK (to_state <> 'REDUCED' OR from_state = 'NORMAL'),
  CONSTRAINT pauses_once CHECK (to_state <> 'PAUSED' OR from_state <> 'PAUSED')
);
SELECT make_append_only('guard_changes');
ALTER TABLE guard_states ADD FOREIGN KEY (id, change_id) REFERENCES guard_changes (guard_id, id);
"""

# Which pause refused an opportunity. It outlives the decision that it was stored as, so that the
# same unit gets the same answer when that has left for an archive.
REFUSALS = """
CREATE TABLE refusals (
  assignment_id     uuid PRIMARY KEY,
  account_change    bigint REFERENCES guard_changes,
  experiment_change bigint REFERENCES guard_changes,
  CONSTRAINT refused_by_somebody CHECK (num_nonnulls(account_change, experiment_change) > 0)
);
SELECT make_append_only('refusals');
"""

FOLLOW = """
CREATE FUNCTION guard_chained() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.from_state <> coalesce((SELECT c.to_state FROM guard_changes c
      WHERE c.guard_id = NEW.guard_id ORDER BY c.id DESC LIMIT 1), 'NORMAL') THEN
    RAISE EXCEPTION 'a change of a guard begins where the one before it ended'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_chained BEFORE INSERT ON guard_changes
  FOR EACH ROW EXECUTE FUNCTION guard_chained();

CREATE FUNCTION guard_follows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.account_id, NEW.experiment_id, NEW.rule)
     IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.experiment_id, OLD.rule) THEN
    RAISE EXCEPTION 'a guard keeps its scope and its rule' USING ERRCODE = 'restrict_violation';
  END IF;
  IF (NEW.state, NEW.change_id) IS DISTINCT FROM (OLD.state, OLD.change_id)
     AND NOT EXISTS (
       SELECT FROM (SELECT * FROM guard_changes x WHERE x.guard_id = NEW.id
                    ORDER BY x.id DESC LIMIT 1) c
       WHERE c.id = NEW.change_id AND c.to_state = NEW.state) THEN
    RAISE EXCEPTION 'the state of a guard follows guard_changes: append one'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_follows BEFORE UPDATE ON guard_states
  FOR EACH ROW EXECUTE FUNCTION guard_follows();
"""

# An experiment is guarded from its first moment, whoever opens it, and an account by the rule of
# its first experiment.
OPENED = """
CREATE FUNCTION guard_opened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO guard_states (account_id, experiment_id, rule, state, size_multiplier,
                            confidence_bump, trades, losing_streak, trades_since)
    SELECT NEW.account_id, x.id, coalesce(NEW.rules -> 'guard', '{}'), 'NORMAL', 1, 0, '[]', 0, 0
    FROM (VALUES (NULL::integer), (NEW.id)) AS x (id)
    ON CONFLICT ON CONSTRAINT one_guard_a_scope DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER guard_opened AFTER INSERT ON experiments
  FOR EACH ROW EXECUTE FUNCTION guard_opened();
"""

# By the documents' own rule, from the next trade on: what came before has no order of arrival.
CARRY_OVER = """
INSERT INTO guard_states (account_id, experiment_id, rule, state, size_multiplier,
                          confidence_bump, trades, losing_streak, trades_since)
SELECT x.account_id, x.id, '{}', 'NORMAL', 1, 0, '[]', 0, 0
FROM (SELECT account_id, id FROM experiments
      UNION ALL SELECT DISTINCT account_id, NULL::integer FROM experiments) x
ORDER BY x.account_id, x.id NULLS FIRST;
"""

# Decisions as their callers are answered, also those that have left, with the pause that refused
# them.
ANSWERED = """
CREATE VIEW answered_assignments AS
SELECT s.*, CASE WHEN c.id IS NULL THEN NULL WHEN g.experiment_id IS NULL THEN 'account'
                 ELSE 'experiment' END AS paused_scope,
       c.at::timestamptz AS paused_since, c.reason AS paused_reason
FROM (
  SELECT x.id, x.experiment_id, x.unit_id, x.instrument, x.arm_id, x.mode, x.role,
         x.allocation_version, x.epoch, x.propensity, x.position_id, x.is_fallback,
         x.size_multiplier, x.confidence_bump, x.decided_at, x.expires_at, x.audit_id
  FROM assignments x
  UNION ALL
  SELECT g.id, g.experiment_id, g.unit_id, g.instrument, g.arm_id, g.mode, g.role,
         g.allocation_version, g.epoch, g.propensity, g.position_id, g.is_fallback,
         g.size_multiplier, g.confidence_bump, g.decided_at, g.expires_at, g.audit_id
  FROM aged_assignments g) s
LEFT JOIN refusals r ON r.assignment_id = s.id
LEFT JOIN guard_changes c ON c.id = coalesce(r.account_change, r.experiment_change)
LEFT JOIN guard_states g ON g.id = c.guard_id;
"""

# As before; and while a guard is REDUCED decisions carry its share. While it is PAUSED what is new
# is stored on paper, with the pause that refused it, and the next decision about a position gets no
# size. All that a guard changed is returned.
ASSIGN = """
DROP FUNCTION commit_assignments;
CREATE FUNCTION commit_assignments(
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

# As before, and nothing new is opened while a guard is PAUSED, whenever it was decided, nor ever
# what a pause has refused.
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

-- The pause that stands in the way of a decision: the one that refused it, else the one of now.
CREATE VIEW assignment_pauses AS
SELECT s.id AS assignment_id, e.name AS experiment, p.name AS policy,
       CASE WHEN g.experiment_id IS NULL THEN 'account' ELSE 'experiment' END AS scope,
       c.at::timestamptz AS since, c.reason
FROM (SELECT x.id, x.experiment_id, x.arm_id FROM assignments x
      UNION ALL SELECT y.id, y.experiment_id, y.arm_id FROM aged_assignments y) s
JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id
JOIN policies p ON p.id = a.policy_id
LEFT JOIN refusals r ON r.assignment_id = s.id
JOIN guard_changes c ON c.id = coalesce(r.account_change, r.experiment_change, (
  SELECT w.change_id FROM guard_states w
  WHERE w.account_id = e.account_id AND w.state = 'PAUSED'
    AND (w.experiment_id IS NULL OR w.experiment_id = e.id)
  ORDER BY w.experiment_id NULLS FIRST LIMIT 1))
JOIN guard_states g ON g.id = c.guard_id;

DROP FUNCTION commit_claims;
CREATE FUNCTION commit_claims(spoken integer, claimed timestamptz, ids uuid[])
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
      WHERE v.refusal = 'paused' AND p.assignment_id = v.assignment_id OFFSET 0) w ON true
    WHERE v.assignment_id = ANY (ids);
END $$;
"""

# Who records outcomes must fold guards, and who decides must know what a refusal looks like.
PROTOCOL = "UPDATE decision_protocol SET version = 3;"

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE ON guard_states TO liveops_app;
    GRANT SELECT, INSERT ON guard_changes, refusals TO liveops_app;
    GRANT SELECT ON answered_assignments, assignment_pauses TO liveops_app;
    GRANT USAGE ON SEQUENCE guard_states_id_seq, guard_changes_id_seq TO liveops_app;
  END IF;
END $$;
"""
