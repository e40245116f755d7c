"""Decisions, allocations, assignments, outcomes, statistics and the audit log."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create what is remembered, and the limits every allocation keeps."""
    for statement in (
        DECISIONS,
        ALLOCATIONS,
        ALLOCATION_LIMITS,
        ASSIGNMENTS,
        OUTCOMES,
        STATISTICS,
        AUDIT,
    ):
        op.execute(statement)


DECISIONS = """
CREATE TABLE decisions (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  experiment_id integer NOT NULL REFERENCES experiments,
  kind          text NOT NULL CHECK (kind IN
    ('HOLD', 'RESCALE', 'ENTER', 'THROTTLE', 'HALT', 'RESUME', 'RETIRE')),
  trading_day   date,
  decided_at    instant NOT NULL,
  actor         text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason        text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  profile       text NOT NULL,
  strategy      text NOT NULL,
  seed          bigint,
  code_version  text NOT NULL,
  inputs        jsonb NOT NULL,
  inputs_digest bytea NOT NULL CHECK (octet_length(inputs_digest) = 32),
  reasons       jsonb NOT NULL,
  CONSTRAINT night_decisions_have_a_day
    CHECK (trading_day IS NULL OR kind IN ('HOLD', 'RESCALE'))
);
-- At most one scaling decision per experiment and night, however many schedulers run.
CREATE UNIQUE INDEX once_a_night ON decisions (experiment_id, trading_day)
  WHERE trading_day IS NOT NULL;
CREATE INDEX decisions_by_experiment ON decisions (experiment_id, id);
SELECT make_append_only('decisions');
"""

ALLOCATIONS = """
CREATE FUNCTION is_whole(ppm integer[], n integer) RETURNS boolean
  IMMUTABLE STRICT LANGUAGE sql AS $$
  SELECT array_ndims(ppm) = 1 AND array_lower(ppm, 1) = 1 AND cardinality(ppm) = n
    AND n BETWEEN 1 AND 65
    AND NOT EXISTS (SELECT FROM unnest(ppm) p WHERE p IS NULL OR p NOT BETWEEN 0 AND 1000000)
    AND (SELECT sum(p) FROM unnest(ppm) p) = 1000000
$$;

-- One row per version: no check ever has to look at several rows that may be written apart.
CREATE TABLE allocations (
  experiment_id  integer NOT NULL REFERENCES experiments,
  version        bigint NOT NULL CHECK (version >= 1),
  epoch          bigint NOT NULL CHECK (epoch >= 1),
  decision_id    bigint NOT NULL UNIQUE REFERENCES decisions,
  policy_ids     bigint[] NOT NULL,
  ppm            integer[] NOT NULL,
  champion_index integer NOT NULL,
  floor_ppm      parts NOT NULL,
  created_at     instant NOT NULL,
  PRIMARY KEY (experiment_id, version),
  CONSTRAINT sum CHECK (is_whole(ppm, cardinality(policy_ids))),
  CONSTRAINT champion CHECK (ppm[champion_index] IS NOT NULL),
  CONSTRAINT champion_floor CHECK (ppm[champion_index] >= floor_ppm)
);
SELECT make_append_only('allocations');
"""

# The same limits, under the same names, as bandit/core/limits.py; a property test compares them.
ALLOCATION_LIMITS = """
CREATE FUNCTION require_limit(held boolean, name text, message text) RETURNS void
  LANGUAGE plpgsql AS $$
BEGIN
  IF held IS NOT TRUE THEN
    RAISE EXCEPTION 'limit %: %', name, message USING ERRCODE = 'check_violation';
  END IF;
END $$;

CREATE FUNCTION allocation_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  e          experiments%ROWTYPE;
  kind       text;
  arm        record;
  reduces    boolean;
  arm_cap    integer;
  cap_name   text;
  unseasoned integer := 0;
  seasoned   boolean := false;
BEGIN
  SELECT * INTO STRICT e FROM experiments WHERE id = NEW.experiment_id FOR NO KEY UPDATE;
  SELECT d.kind INTO STRICT kind FROM decisions d
    WHERE d.id = NEW.decision_id AND d.experiment_id = e.id;
  reduces := kind IN ('THROTTLE', 'HALT', 'RETIRE');
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
  NEW.champion_index := array_position(NEW.policy_ids, e.champion_id);
  FOR arm IN
    SELECT p.name, a.status, a.mode, u.part,
           round(a.traffic_allocation * 1000000)::integer AS held,
           coalesce(s.n_trades, 0) >= e.proven_trades AS is_seasoned
    FROM unnest(NEW.policy_ids, NEW.ppm) AS u (policy_id, part)
    JOIN arms a ON a.experiment_id = e.id AND a.policy_id = u.policy_id
    JOIN policies p ON p.id = a.policy_id
    LEFT JOIN arm_statistics s ON s.arm_id = a.id
    WHERE a.policy_id <> e.champion_id ORDER BY a.policy_id
  LOOP
    unseasoned := unseasoned + CASE WHEN arm.is_seasoned THEN 0 ELSE arm.part END;
    seasoned := seasoned
      OR (arm.is_seasoned AND arm.status = 'active' AND arm.mode = 'live');
    IF reduces THEN
      PERFORM require_limit(arm.part <= arm.held, 'reduces_only',
        format('%s would grow to %s ppm', arm.name, arm.part));
      CONTINUE;
    END IF;
    IF arm.status <> 'active' OR arm.mode <> 'live' THEN
      PERFORM require_limit(arm.part = 0, 'inactive_zero',
        format('%s is %s in %s', arm.name, arm.status, arm.mode));
      CONTINUE;
    END IF;
    IF e.profile = 'seed_exact' THEN
      cap_name := 'arm_cap';
      arm_cap := 1000000 - CASE WHEN arm.is_seasoned THEN e.champion_floor_proven_ppm
                                ELSE e.champion_floor_ppm END;
    ELSE
      cap_name := 'unproven_cap';
      arm_cap := e.unproven_cap_ppm;
    END IF;
    PERFORM require_limit(arm.part <= arm_cap, cap_name,
      format('%s would hold %s ppm, limit %s', arm.name, arm.part, arm_cap));
    PERFORM require_limit(arm.part >= e.arm_minimum_ppm, 'arm_minimum',
      format('%s would hold %s ppm, limit %s', arm.name, arm.part, e.arm_minimum_ppm));
    IF kind = 'RESCALE' THEN
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
CREATE TRIGGER allocation_guard BEFORE INSERT ON allocations
  FOR EACH ROW EXECUTE FUNCTION allocation_guard();

CREATE FUNCTION allocation_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE experiments SET epoch = NEW.epoch WHERE id = NEW.experiment_id;
  UPDATE arms a SET traffic_allocation = u.part / 1000000.0
    FROM unnest(NEW.policy_ids, NEW.ppm) AS u (policy_id, part)
    WHERE a.experiment_id = NEW.experiment_id AND a.policy_id = u.policy_id;
  RETURN NULL;
END $$;
CREATE TRIGGER allocation_applied AFTER INSERT ON allocations
  FOR EACH ROW EXECUTE FUNCTION allocation_applied();
"""

# The id is a keyed hash of experiment and unit: a retry meets itself on the primary key.
ASSIGNMENTS = """
CREATE TABLE assignments (
  id                 uuid PRIMARY KEY,
  experiment_id      integer NOT NULL REFERENCES experiments,
  unit_id            unit_key NOT NULL,
  instrument         instrument_key NOT NULL,
  arm_id             bigint NOT NULL REFERENCES arms,
  mode               text NOT NULL CHECK (mode IN ('live', 'shadow', 'paper')),
  role               text NOT NULL CHECK (role IN ('champion', 'challenger')),
  allocation_version bigint NOT NULL,
  epoch              bigint NOT NULL,
  propensity         ratio NOT NULL CHECK (propensity > 0 AND propensity <= 1),
  position_id        uuid REFERENCES assignments,
  size_multiplier    ratio NOT NULL CHECK (size_multiplier >= 0 AND size_multiplier <= 1),
  confidence_bump    ratio NOT NULL CHECK (confidence_bump >= 0 AND confidence_bump <= 1),
  context            jsonb,
  proposed_actions   jsonb,
  decided_at         instant NOT NULL,
  expires_at         instant NOT NULL CHECK (expires_at > decided_at),
  UNIQUE (experiment_id, unit_id),
  FOREIGN KEY (experiment_id, allocation_version) REFERENCES allocations (experiment_id, version)
);
SELECT make_append_only('assignments');
"""

OUTCOMES = """
CREATE TABLE outcomes (
  assignment_id   uuid PRIMARY KEY REFERENCES assignments,
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
  body_hash       bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  recorded_at     instant NOT NULL,
  CONSTRAINT no_trade_earns_nothing
    CHECK (NOT no_trade OR (pnl = 0 AND return_ratio = 0 AND opened_at = closed_at)),
  CONSTRAINT one_sign CHECK (pnl * return_ratio >= 0)
);
-- Serves "the last 150 trades of this arm" and "the champion over this window" by itself.
CREATE INDEX trades_of_arm ON outcomes (arm_id, closed_at, unit_id)
  INCLUDE (return_ratio, instrument) WHERE NOT no_trade;
SELECT make_append_only('outcomes');
"""

# Sums are functions of the set of outcomes; the fold is one of the set in closing order.
STATISTICS = """
CREATE TABLE arm_statistics (
  arm_id             bigint PRIMARY KEY REFERENCES arms,
  n_outcomes         bigint NOT NULL CHECK (n_outcomes >= 0),
  n_trades           bigint NOT NULL CHECK (n_trades BETWEEN 0 AND n_outcomes),
  n_wins             bigint NOT NULL CHECK (n_wins >= 0),
  n_losses           bigint NOT NULL CHECK (n_losses >= 0 AND n_wins + n_losses <= n_trades),
  n_expired          bigint NOT NULL CHECK (n_expired BETWEEN 0 AND n_outcomes),
  gross_profit       numeric(38,8) NOT NULL CHECK (gross_profit >= 0 AND gross_profit <> 'NaN'),
  gross_loss         numeric(38,8) NOT NULL CHECK (gross_loss >= 0 AND gross_loss <> 'NaN'),
  fees               numeric(38,8) NOT NULL CHECK (fees <> 'NaN'),
  return_gain        numeric(30,12) NOT NULL CHECK (return_gain >= 0 AND return_gain <> 'NaN'),
  return_loss        numeric(30,12) NOT NULL CHECK (return_loss >= 0 AND return_loss <> 'NaN'),
  return_squares     numeric(44,24) NOT NULL
    CHECK (return_squares >= 0 AND return_squares <> 'NaN'),
  pf_short           ratio CHECK (pf_short >= 0),
  pf_short_state     text NOT NULL,
  dd_short_percent   ratio NOT NULL CHECK (dd_short_percent >= 0),
  pf_long            ratio CHECK (pf_long >= 0),
  pf_long_state      text NOT NULL,
  dd_long_percent    ratio NOT NULL CHECK (dd_long_percent >= 0),
  window_from        instant,
  last_closed_at     instant,
  last_unit_id       unit_key,
  equity             ratio NOT NULL,
  equity_peak        ratio NOT NULL,
  drawdown_max       ratio NOT NULL CHECK (drawdown_max >= 0),
  losing_streak      bigint NOT NULL CHECK (losing_streak >= 0),
  losing_streak_max  bigint NOT NULL CHECK (losing_streak_max >= losing_streak),
  winning_streak     bigint NOT NULL CHECK (winning_streak >= 0),
  winning_streak_max bigint NOT NULL CHECK (winning_streak_max >= winning_streak)
);

-- The same sums by UTC day and instrument: a window of any length costs its days, not its trades.
CREATE TABLE arm_days (
  arm_id      bigint NOT NULL REFERENCES arms,
  day         date NOT NULL,
  instrument  instrument_key NOT NULL,
  n_trades    bigint NOT NULL CHECK (n_trades > 0),
  n_wins      bigint NOT NULL CHECK (n_wins >= 0),
  n_losses    bigint NOT NULL CHECK (n_losses >= 0 AND n_wins + n_losses <= n_trades),
  pnl         numeric(38,8) NOT NULL CHECK (pnl <> 'NaN'),
  fees        numeric(38,8) NOT NULL CHECK (fees <> 'NaN'),
  return_gain numeric(30,12) NOT NULL CHECK (return_gain >= 0 AND return_gain <> 'NaN'),
  return_loss numeric(30,12) NOT NULL CHECK (return_loss >= 0 AND return_loss <> 'NaN'),
  PRIMARY KEY (arm_id, day, instrument)
);

-- Where the fold over an arm's history may be taken up again when a trade arrives late.
CREATE TABLE equity_checkpoints (
  arm_id             bigint NOT NULL REFERENCES arms,
  closed_at          instant NOT NULL,
  unit_id            unit_key NOT NULL,
  n_trades           bigint NOT NULL CHECK (n_trades > 0),
  equity             ratio NOT NULL,
  equity_peak        ratio NOT NULL,
  drawdown_max       ratio NOT NULL,
  losing_streak      bigint NOT NULL,
  losing_streak_max  bigint NOT NULL,
  winning_streak     bigint NOT NULL,
  winning_streak_max bigint NOT NULL,
  PRIMARY KEY (arm_id, closed_at, unit_id)
);
"""

AUDIT = """
CREATE TABLE audit_log (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      instant NOT NULL,
  actor   text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  action  text NOT NULL CHECK (length(action) BETWEEN 1 AND 100),
  subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
  details jsonb NOT NULL
);
SELECT make_append_only('audit_log');
"""
