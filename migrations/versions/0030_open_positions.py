"""Sizing limits: what is open in an account, and claims that it leaves no room for."""

from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Count open positions by account, and hold claims against the limits of their experiment."""
    for statement in (TOLD, LIMITS, OPEN, CLAIMED, FILL, FREE, CLAIMS, GRANTS):
        op.execute(statement)


# What a claim told of the position that was about to open.
TOLD = """
ALTER TABLE claims
  ADD COLUMN position_size ratio CHECK (position_size > 0 AND position_size <= 1000),
  ADD COLUMN leverage ratio CHECK (leverage > 0 AND leverage <= 1000);
"""

# As the experiment's rules say, and NULL where they say nothing: read for every claim.
LIMITS = """
ALTER TABLE experiments
  ADD COLUMN max_position_size ratio GENERATED ALWAYS AS
    ((rules #>> '{sizing,max_position_size}')::double precision) STORED,
  ADD COLUMN max_leverage ratio GENERATED ALWAYS AS
    ((rules #>> '{sizing,max_leverage}')::double precision) STORED,
  ADD COLUMN max_open_positions integer GENERATED ALWAYS AS
    ((rules #>> '{sizing,max_open_positions}')::integer) STORED,
  ADD COLUMN symbol_share_max ratio GENERATED ALWAYS AS
    ((rules #>> '{sizing,symbol_share_max}')::double precision) STORED,
  ADD COLUMN attribution interval NOT NULL GENERATED ALWAYS AS (make_interval(
    hours => coalesce((rules #>> '{ladder,attribution_hours}')::integer, 72))) STORED;
"""

# What may be open, so that a claim counts without reading history. A row goes with the outcome of
# its decision; one that is never told counts until `alive_until`, as long as claims wait to be
# reported, and longer while its position is marked.
OPEN = """
CREATE TABLE open_positions (
  assignment_id uuid PRIMARY KEY REFERENCES assignments ON DELETE CASCADE,
  account_id    integer NOT NULL,
  instrument    instrument_key NOT NULL,
  share         numeric NOT NULL CHECK (share > 0 AND share <= 1000),
  claimed_at    instant NOT NULL,
  attribution   interval NOT NULL,
  alive_until   instant NOT NULL
);
CREATE INDEX open_positions_of_account ON open_positions (account_id, alive_until);
"""

# The definition. By way of text a share has the digits that were told: limits are met exactly.
CLAIMED = """
CREATE VIEW claimed_positions AS
SELECT s.id AS assignment_id, e.account_id, s.instrument,
       coalesce(c.position_size, e.equity_fraction)::text::numeric AS share, c.claimed_at,
       e.attribution, greatest(c.claimed_at, m.marked_at) + e.attribution AS alive_until
FROM assignments s
JOIN experiments e ON e.id = s.experiment_id
-- By their keys, one by one, whatever a plan was made for.
CROSS JOIN LATERAL (SELECT x.claimed_at, x.position_size FROM claims x
  WHERE x.assignment_id = s.id OFFSET 0) c
LEFT JOIN LATERAL (SELECT x.marked_at FROM marks x
  WHERE x.assignment_id = s.id OFFSET 0) m ON true
WHERE s.position_id IS NULL AND s.mode = 'live'
  AND NOT EXISTS (SELECT FROM outcomes o WHERE o.assignment_id = s.id OFFSET 0);
"""

FILL = "INSERT INTO open_positions SELECT * FROM claimed_positions ORDER BY assignment_id;"

# A mark skips a row that is held: only an outcome, which takes it away, can be holding it, and that
# one may wait for the account, which whoever marks has.
FREE = """
CREATE FUNCTION positions_close() RETURNS trigger
  LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  DELETE FROM open_positions p
    WHERE p.assignment_id = ANY (ARRAY(SELECT t.assignment_id FROM told t));
  RETURN NULL;
END $$;
CREATE TRIGGER positions_close AFTER INSERT ON outcomes REFERENCING NEW TABLE AS told
  FOR EACH STATEMENT EXECUTE FUNCTION positions_close();

CREATE FUNCTION position_lives() RETURNS trigger
  LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  UPDATE open_positions p
    SET alive_until = greatest(p.alive_until, NEW.marked_at + p.attribution)
    WHERE p.assignment_id IN (
      SELECT q.assignment_id FROM open_positions q WHERE q.assignment_id = NEW.assignment_id
      FOR UPDATE SKIP LOCKED);
  RETURN NULL;
END $$;
CREATE TRIGGER position_lives AFTER INSERT OR UPDATE ON marks
  FOR EACH ROW EXECUTE FUNCTION position_lives();

-- What counts at a moment. An outcome that came together with its claim may leave a row behind.
CREATE FUNCTION positions_open(account integer, moment timestamptz) RETURNS SETOF open_positions
  STABLE LANGUAGE sql AS $$
  SELECT p.* FROM open_positions p
  WHERE p.account_id = account AND p.alive_until >= moment
    AND NOT EXISTS (SELECT FROM outcomes o WHERE o.assignment_id = p.assignment_id OFFSET 0)
$$;

-- The oldest of them, for whoever is refused.
CREATE FUNCTION positions_named(account integer, moment timestamptz) RETURNS jsonb
  STABLE LANGUAGE sql AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object(
           'assignment_id', q.assignment_id, 'experiment', q.name, 'instrument', q.instrument,
           'claimed_at', q.claimed_at) ORDER BY q.claimed_at, q.assignment_id), '[]')
  FROM (SELECT p.assignment_id, p.instrument, p.claimed_at, e.name
        FROM positions_open(account, moment) p
        JOIN assignments s ON s.id = p.assignment_id JOIN experiments e ON e.id = s.experiment_id
        ORDER BY p.claimed_at, p.assignment_id LIMIT 10) q
$$;
"""

# As before, and what is about to open is held against the limits of its experiment: what was told
# of its size, then how many are open. Claims of one call take the places that are left in the order
# of their ids. Its statements are planned once a session: planning them took longer than running
# them, and every look at a table that grows is one by its key.
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
  FROM assignments x
  LEFT JOIN LATERAL (SELECT y.claimed_at FROM claims y
    WHERE y.assignment_id = x.id OFFSET 0) c ON true
  UNION ALL
  SELECT g.id, g.experiment_id, g.arm_id, g.mode, g.epoch, g.position_id, g.expires_at, g.claimed_at
  FROM aged_assignments g) s
JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id
LEFT JOIN accounts acc ON acc.id = e.account_id
LEFT JOIN LATERAL (SELECT y.assignment_id FROM refusals y
  WHERE y.assignment_id = s.id OFFSET 0) r ON true;

DROP FUNCTION commit_claims;
CREATE FUNCTION commit_claims(
    spoken integer, claimed timestamptz, ids uuid[], sizes double precision[] DEFAULT NULL,
    leverages double precision[] DEFAULT NULL)
  RETURNS TABLE (id uuid, verdict text, claimed_at timestamptz, expires_at timestamptz,
                 experiment text, policy text, scope text, since timestamptz, reason text,
                 over jsonb)
  VOLATILE LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off
  SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  account_ids    integer[];
  experiment_ids integer[];
  counted_ids    integer[];
  is_limited     boolean;
  c              record;
  account        integer;
  n_open         bigint;
  taken          numeric;
  held           numeric;
  shares         jsonb;
  limited        jsonb;
  granted        uuid[] := '{}';
  refused        jsonb := '{}';
BEGIN
  -- In ascending order, all of them.
  SELECT array_agg(DISTINCT e.account_id), array_agg(DISTINCT e.id),
         array_agg(DISTINCT e.account_id) FILTER (WHERE s.position_id IS NULL
           AND num_nonnulls(e.max_open_positions, e.symbol_share_max) > 0),
         bool_or(s.position_id IS NULL AND e.max_position_size IS NOT NULL)
    INTO account_ids, experiment_ids, counted_ids, is_limited
    FROM assignments s JOIN experiments e ON e.id = s.experiment_id WHERE s.id = ANY (ids);
  PERFORM pg_advisory_xact_lock_shared(1, x.id) FROM unnest(account_ids) AS x (id);
  PERFORM pg_advisory_xact_lock_shared(3, x.id) FROM unnest(experiment_ids) AS x (id);
  PERFORM require_protocol(spoken);
  IF counted_ids IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(8, x.id) FROM unnest(counted_ids) AS x (id);
  END IF;
  IF is_limited THEN
    -- Behind the lock, in a snapshot of its own: it sees every place that was taken before.
    FOR c IN
      SELECT v.assignment_id, e.account_id, s.instrument::text AS instrument, t.size, t.leverage,
             s.position_id IS NULL AND s.mode = 'live' AS opens,
             coalesce(t.size, e.equity_fraction)::text::numeric AS share,
             CASE WHEN s.position_id IS NULL THEN e.max_position_size END AS size_max,
             CASE WHEN s.position_id IS NULL THEN e.max_leverage END AS leverage_max,
             CASE WHEN s.position_id IS NULL THEN e.max_open_positions END AS open_max,
             CASE WHEN s.position_id IS NULL THEN e.symbol_share_max END AS share_max
      FROM unnest(ids, sizes, leverages) AS t (id, size, leverage)
      -- Each by its key: joined as sets, every claim would look at all of them.
      CROSS JOIN LATERAL (SELECT x.* FROM claim_verdicts x WHERE x.assignment_id = t.id OFFSET 0) v
      JOIN assignments s ON s.id = t.id
      JOIN experiments e ON e.id = s.experiment_id
      WHERE v.refusal IS NULL AND v.expires_at >= claimed AND v.claimed_at IS NULL
      ORDER BY e.account_id, v.assignment_id
    LOOP
      IF c.account_id IS DISTINCT FROM account THEN
        account := c.account_id;
        shares := '{}';
        SELECT count(*) INTO n_open FROM positions_open(account, claimed);
      END IF;
      -- What this batch would open in the instrument.
      taken := c.share + coalesce((shares ->> c.instrument)::numeric, 0);
      held := NULL;
      IF c.share_max IS NOT NULL THEN
        held := taken + (SELECT coalesce(sum(p.share), 0) FROM positions_open(account, claimed) p
                         WHERE p.instrument = c.instrument);
      END IF;
      limited := CASE
        WHEN c.size > c.size_max THEN jsonb_build_object(
          'field', 'position_size', 'limit', c.size_max, 'found', c.size)
        WHEN c.leverage > c.leverage_max THEN jsonb_build_object(
          'field', 'leverage', 'limit', c.leverage_max, 'found', c.leverage)
        WHEN n_open >= c.open_max THEN jsonb_build_object(
          'limit', c.open_max, 'found', n_open, 'account', account)
        WHEN held > c.share_max::text::numeric THEN jsonb_build_object(
          'field', 'symbol_share', 'limit', c.share_max, 'found', held)
      END;
      IF limited IS NOT NULL THEN
        refused := refused || jsonb_build_object(c.assignment_id, limited);
      ELSE
        granted := granted || c.assignment_id;
        IF c.opens THEN
          n_open := n_open + 1;
          shares := shares || jsonb_build_object(c.instrument, taken);
        END IF;
      END IF;
    END LOOP;
  ELSE
    granted := ARRAY(SELECT v.assignment_id FROM claim_verdicts v
      WHERE v.assignment_id = ANY (ids) AND v.refusal IS NULL AND v.expires_at >= claimed
        AND v.claimed_at IS NULL);
  END IF;
  IF granted <> '{}' THEN
    INSERT INTO claims (assignment_id, claimed_at, position_size, leverage)
      SELECT t.id, claimed, t.size, t.leverage
      FROM unnest(ids, sizes, leverages) AS t (id, size, leverage)
      WHERE t.id = ANY (granted) ORDER BY t.id
      ON CONFLICT DO NOTHING;
    INSERT INTO open_positions SELECT p.* FROM claimed_positions p
      WHERE p.assignment_id = ANY (granted) ORDER BY p.assignment_id
      ON CONFLICT DO NOTHING;
  END IF;
  -- A snapshot of its own: the later of two claims at once answers with the earlier one's time.
  RETURN QUERY SELECT v.assignment_id, coalesce(v.refusal,
      CASE WHEN v.claimed_at IS NOT NULL THEN 'claimed' WHEN r.told IS NULL THEN 'expired'
           WHEN r.told ? 'field' THEN 'oversized' ELSE 'full' END),
      v.claimed_at::timestamptz, v.expires_at::timestamptz, w.*,
      CASE WHEN NOT r.told ? 'field' THEN (r.told - 'account') || jsonb_build_object(
             'open', positions_named((r.told ->> 'account')::integer, claimed))
           ELSE r.told END
    FROM claim_verdicts v
    CROSS JOIN LATERAL (SELECT refused -> v.assignment_id::text AS told) r
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
    GRANT SELECT, INSERT, UPDATE, DELETE ON open_positions TO liveops_app;
    GRANT SELECT ON claimed_positions TO liveops_app;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    GRANT SELECT ON open_positions, claimed_positions TO liveops_archivist;
  END IF;
END $$;
"""
