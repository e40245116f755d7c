"""An arm that holds nothing may rise to what a new one starts with."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Replace the function."""
    op.execute(GUARD)


# As in 0013, but for `most`: no factor leads away from nothing, so where `arm_minimum` is 0 an arm
# that a strategy had taken everything from never got anything again.
GUARD = """
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
  most       integer;
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
      most := CASE arm.held WHEN 0 THEN e.start_ppm ELSE floor(arm.held * e.step_up + 0.5) END;
      PERFORM require_limit(arm.part <= most, 'step_up',
        format('%s would hold %s ppm, limit %s', arm.name, arm.part, most));
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
