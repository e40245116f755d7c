"""Promotion and rollback: the champion follows the newest version of the allocation."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Let two kinds of decisions change the champion, and nothing else."""
    for statement in (KINDS, CHAMPION, LIMITS, APPLIED, KILLED, ASSIGN, CLAIMS, GRANTS):
        op.execute(statement)


KINDS = """
ALTER TABLE decisions DROP CONSTRAINT decisions_kind_check;
ALTER TABLE decisions ADD CONSTRAINT decisions_kind_check CHECK (kind IN
  ('HOLD', 'RESCALE', 'ENTER', 'THROTTLE', 'HALT', 'RESUME', 'RETIRE', 'PROMOTE', 'ROLL_BACK'));
-- Asked for with every batch of outcomes: a champion that was replaced is judged from then on.
CREATE INDEX decisions_that_demoted ON decisions (experiment_id, (inputs ->> 'demoted'), decided_at)
  WHERE kind = 'PROMOTE';
"""

# `champion_epoch` began with the present champion; NULL with the one the experiment opened with.
# What was decided before it is void.
CHAMPION = """
ALTER TABLE experiments ADD COLUMN champion_epoch bigint;
ALTER TABLE experiments ADD CONSTRAINT champion_epoch CHECK (champion_epoch BETWEEN 1 AND epoch);

CREATE FUNCTION was_champion(experiment integer, policy bigint) RETURNS boolean
  STABLE LANGUAGE sql AS $$
  SELECT EXISTS (SELECT FROM allocations v WHERE v.experiment_id = experiment
                 AND v.policy_ids[v.champion_index] = policy)
$$;

CREATE OR REPLACE FUNCTION experiment_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.name, NEW.salt, NEW.capital, NEW.currency, NEW.account_id, NEW.opened_at)
     IS DISTINCT FROM
     (OLD.name, OLD.salt, OLD.capital, OLD.currency, OLD.account_id, OLD.opened_at) THEN
    RAISE EXCEPTION
      'name, salt, capital, currency, account and opened_at of an experiment never change'
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the epoch of an experiment never falls' USING ERRCODE = 'restrict_violation';
  END IF;
  IF (NEW.champion_id, NEW.champion_epoch) IS DISTINCT FROM (OLD.champion_id, OLD.champion_epoch)
     AND NOT EXISTS (
       SELECT FROM (SELECT * FROM allocations x WHERE x.experiment_id = NEW.id
                    ORDER BY x.version DESC LIMIT 1) v
       WHERE v.policy_ids[v.champion_index] = NEW.champion_id AND v.epoch = NEW.champion_epoch
         AND NEW.champion_id <> OLD.champion_id) THEN
    RAISE EXCEPTION 'the champion follows the allocation: append one'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
"""

# The same limits, under the same names, as bandit/core/limits.py; a property test compares them. A
# challenger's cap follows from its rung. Of a decision that changes the champion they read the arms
# as it leaves them: nobody else gains, and the one that was champion keeps a hold-out, or nothing
# when rolled back.
LIMITS = """
CREATE OR REPLACE FUNCTION allocation_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  e          experiments%ROWTYPE;
  d          decisions%ROWTYPE;
  arm        record;
  champion   bigint;
  demoted    bigint;
  kept       integer;
  reduces    boolean;
  changes    boolean;
  arm_cap    integer;
  cap_name   text;
  unseasoned integer := 0;
  seasoned   boolean := false;
BEGIN
  SELECT * INTO STRICT e FROM experiments WHERE id = NEW.experiment_id FOR NO KEY UPDATE;
  SELECT * INTO STRICT d FROM decisions x
    WHERE x.id = NEW.decision_id AND x.experiment_id = e.id;
  reduces := d.kind IN ('THROTTLE', 'HALT', 'RETIRE', 'ROLL_BACK');
  changes := d.kind IN ('PROMOTE', 'ROLL_BACK');
  champion := e.champion_id;
  PERFORM require_limit(is_whole(NEW.ppm, cardinality(NEW.policy_ids)), 'sum',
    'parts must lie in 0..1000000 and sum to 1000000 ppm');
  PERFORM require_limit(NEW.policy_ids = (
      SELECT array_agg(a.policy_id ORDER BY a.policy_id) FROM arms a
      WHERE a.experiment_id = e.id AND a.status <> 'retired'),
    'arms', 'every arm must have exactly one part, in the order of policy ids');
  PERFORM require_limit(NEW.version = 1 + (
      SELECT coalesce(max(v.version), 0) FROM allocations v WHERE v.experiment_id = e.id),
    'version', 'versions follow one another');
  PERFORM require_limit(NEW.epoch = e.epoch + 1, 'epoch', 'every version begins an epoch');
  IF changes THEN
    demoted := e.champion_id;
    SELECT p.id INTO champion FROM policies p JOIN arms a ON a.policy_id = p.id
      WHERE a.experiment_id = e.id AND p.name = d.inputs ->> 'policy' AND p.id <> demoted
        AND a.status = 'active' AND a.mode = 'live'
        AND (d.kind = 'PROMOTE' OR was_champion(e.id, p.id));
    PERFORM require_limit(champion IS NOT NULL AND EXISTS (
        SELECT FROM policies p WHERE p.id = demoted AND p.name = d.inputs ->> 'demoted'),
      'champion', 'the decision must name who becomes the champion, live and active, and who was');
    -- What a champion held counts for nothing once it is a challenger.
    kept := CASE d.kind WHEN 'PROMOTE' THEN greatest(e.champion_floor_proven_ppm, e.arm_minimum_ppm)
                        ELSE 0 END;
  END IF;
  NEW.champion_index := array_position(NEW.policy_ids, champion);
  FOR arm IN
    SELECT p.name, a.status, a.mode, a.rung, u.part,
           CASE WHEN a.policy_id = demoted THEN kept
                ELSE round(a.traffic_allocation * 1000000)::integer END AS held,
           coalesce(s.n_trades, 0) >= e.proven_trades AS is_seasoned
    FROM unnest(NEW.policy_ids, NEW.ppm) AS u (policy_id, part)
    JOIN arms a ON a.experiment_id = e.id AND a.policy_id = u.policy_id
    JOIN policies p ON p.id = a.policy_id
    LEFT JOIN arm_statistics s ON s.arm_id = a.id
    WHERE a.policy_id <> champion ORDER BY a.policy_id
  LOOP
    unseasoned := unseasoned + CASE WHEN arm.is_seasoned THEN 0 ELSE arm.part END;
    seasoned := seasoned
      OR (arm.is_seasoned AND arm.status = 'active' AND arm.mode = 'live');
    IF reduces OR changes THEN
      PERFORM require_limit(arm.part <= arm.held, 'reduces_only',
        format('%s would grow to %s ppm', arm.name, arm.part));
    END IF;
    CONTINUE WHEN reduces;
    IF arm.status <> 'active' OR arm.mode <> 'live' THEN
      PERFORM require_limit(arm.part = 0, 'inactive_zero',
        format('%s is %s in %s', arm.name, arm.status, arm.mode));
      CONTINUE;
    END IF;
    IF arm.rung = 'unproven' AND e.profile <> 'seed_exact' THEN
      cap_name := 'unproven_cap';
      arm_cap := e.unproven_cap_ppm;
    ELSE
      cap_name := 'arm_cap';
      arm_cap := 1000000 - CASE
        WHEN arm.is_seasoned AND (arm.rung = 'eligible' OR e.profile = 'seed_exact')
        THEN e.champion_floor_proven_ppm ELSE e.champion_floor_ppm END;
    END IF;
    -- What it holds it may keep: a cap that falls must not stand in the way of anybody's change.
    arm_cap := greatest(arm_cap, arm.held);
    PERFORM require_limit(arm.part <= arm_cap, cap_name,
      format('%s would hold %s ppm, limit %s', arm.name, arm.part, arm_cap));
    PERFORM require_limit(arm.part >= e.arm_minimum_ppm, 'arm_minimum',
      format('%s would hold %s ppm, limit %s', arm.name, arm.part, e.arm_minimum_ppm));
    IF d.kind = 'RESCALE' THEN
      PERFORM require_limit(arm.part <= floor(arm.held * e.step_up + 0.5), 'step_up',
        format('%s would hold %s ppm, limit %s', arm.name, arm.part,
               floor(arm.held * e.step_up + 0.5)));
    END IF;
  END LOOP;
  NEW.floor_ppm := CASE WHEN seasoned THEN e.champion_floor_proven_ppm
                        ELSE e.champion_floor_ppm END;
  IF reduces THEN
    NEW.floor_ppm := least(NEW.floor_ppm, NEW.ppm[NEW.champion_index]);
  ELSE
    PERFORM require_limit(NEW.ppm[NEW.champion_index] >= NEW.floor_ppm, 'champion_floor',
      format('the champion would hold %s ppm, limit %s',
             NEW.ppm[NEW.champion_index], NEW.floor_ppm));
    PERFORM require_limit(unseasoned <= 1000000 - e.champion_floor_ppm, 'challengers_cap',
      format('challengers under %s trades would hold %s ppm, limit %s',
             e.proven_trades, unseasoned, 1000000 - e.champion_floor_ppm));
  END IF;
  RETURN NEW;
END $$;
"""

APPLIED = """
CREATE OR REPLACE FUNCTION allocation_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE experiments e
    SET epoch = NEW.epoch, champion_id = c.id,
        champion_epoch = CASE WHEN c.id = e.champion_id THEN e.champion_epoch ELSE NEW.epoch END
    FROM (SELECT NEW.policy_ids[NEW.champion_index] AS id) c WHERE e.id = NEW.experiment_id;
  UPDATE arms a SET traffic_allocation = u.part / 1000000.0
    FROM unnest(NEW.policy_ids, NEW.ppm) AS u (policy_id, part)
    WHERE a.experiment_id = NEW.experiment_id AND a.policy_id = u.policy_id;
  PERFORM pg_notify('liveops_epoch', e.name || ' ' || NEW.epoch)
    FROM experiments e WHERE e.id = NEW.experiment_id;
  RETURN NULL;
END $$;
"""

# A rollback moves no traffic of a killed account: it says who gets it after the release.
KILLED = """
CREATE OR REPLACE FUNCTION kill_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM require_alive(e) FROM experiments e, decisions d
    WHERE e.id = NEW.experiment_id AND d.id = NEW.decision_id
      AND d.kind NOT IN ('THROTTLE', 'HALT', 'RETIRE', 'ROLL_BACK');
  RETURN NULL;
END $$;
"""

# As before, and what a bot decided alone is of the champion it knew, which may have been replaced
# or stopped before we hear of it: it happened.
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

# As before; what was decided under another champion is void, whatever its arm may do now.
CLAIMS = """
CREATE OR REPLACE VIEW claim_verdicts AS
SELECT s.id AS assignment_id, s.expires_at,
       CASE WHEN acc.is_killed IS NOT FALSE THEN 'killed'
            -- A position's own arm may always act on it.
            WHEN s.position_id IS NULL AND (s.epoch < e.champion_epoch OR NOT (
              a.status = 'active' AND a.mode = s.mode AND a.traffic_allocation > 0))
            THEN 'revoked'
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
LEFT JOIN accounts acc ON acc.id = e.account_id;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT EXECUTE ON FUNCTION was_champion TO liveops_app;
  END IF;
END $$;
"""
