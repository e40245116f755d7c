"""Domains, policies, experiments and arms."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what an experiment is made of."""
    for statement in (DOMAINS, APPEND_ONLY, POLICIES, EXPERIMENTS, ARMS, ARM_TRANSITIONS):
        op.execute(statement)


# CHECK (x >= 0) lets NaN and Infinity pass, and so does numeric: the domains do not. Money is not
# numeric(24,8), which would round a ninth decimal silently, but its values are the same.
DOMAINS = """
CREATE DOMAIN instant AS timestamptz
  CHECK (VALUE >= '2000-01-01 00:00:00+00' AND VALUE < '2100-01-01 00:00:00+00');
CREATE DOMAIN ratio AS double precision CHECK (VALUE > '-Infinity' AND VALUE < 'Infinity');
CREATE DOMAIN amount AS numeric
  CHECK (abs(VALUE) < 10000000000000000 AND VALUE = round(VALUE, 8));
CREATE DOMAIN trade_return AS numeric(20,12) CHECK (abs(VALUE) < 1000);
CREATE DOMAIN slug AS text COLLATE "C" CHECK (VALUE ~ '^[a-z0-9][a-z0-9_.-]{0,62}$');
CREATE DOMAIN unit_key AS text COLLATE "C" CHECK (VALUE ~ '^[!-~]{1,128}$');
CREATE DOMAIN instrument_key AS text COLLATE "C"
  CHECK (VALUE ~ '^[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}$');
CREATE DOMAIN parts AS integer CHECK (VALUE BETWEEN 0 AND 1000000);
"""

APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION make_append_only(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %s
                  FOR EACH ROW EXECUTE FUNCTION refuse_change()', target);
  EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s
                  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', target);
END $$;
"""

POLICIES = """
CREATE TABLE policies (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          slug NOT NULL UNIQUE,
  kind          text NOT NULL
                CHECK (kind IN ('production', 'reinforcement', 'tabnet', 'ensemble', 'external')),
  sha           text COLLATE "C" NOT NULL UNIQUE CHECK (sha ~ '^[0-9a-f]{8,64}$'),
  data_cutoff   instant,
  parent_id     bigint REFERENCES policies,
  metadata      jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
  registered_at instant NOT NULL
);
SELECT make_append_only('policies');
"""

EXPERIMENTS = """
CREATE TABLE experiments (
  id                        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name                      slug NOT NULL UNIQUE,
  champion_id               bigint NOT NULL REFERENCES policies,
  capital                   amount NOT NULL CHECK (capital > 0),
  currency                  text NOT NULL CHECK (currency ~ '^[A-Z0-9]{2,10}$'),
  equity_fraction           ratio NOT NULL CHECK (equity_fraction > 0 AND equity_fraction <= 1),
  profile                   text NOT NULL CHECK (profile IN ('seed_exact', 'guarded', 'observe')),
  strategy                  text NOT NULL CHECK (strategy IN ('ramp')),
  decision_seconds_valid    ratio NOT NULL
    CHECK (decision_seconds_valid >= 0.001 AND decision_seconds_valid <= 86400),
  salt                      bytea NOT NULL CHECK (octet_length(salt) = 32),
  epoch                     bigint NOT NULL CHECK (epoch >= 0),
  champion_floor_ppm        parts NOT NULL,
  champion_floor_proven_ppm parts NOT NULL CHECK (champion_floor_proven_ppm <= champion_floor_ppm),
  proven_trades             integer NOT NULL CHECK (proven_trades >= 1),
  unproven_cap_ppm          parts NOT NULL,
  arm_minimum_ppm           parts NOT NULL,
  start_ppm                 parts NOT NULL
    CHECK (start_ppm BETWEEN arm_minimum_ppm AND unproven_cap_ppm),
  step_up                   ratio NOT NULL CHECK (step_up >= 1 AND step_up <= 10),
  rules                     jsonb NOT NULL CHECK (jsonb_typeof(rules) = 'object'),
  opened_at                 instant NOT NULL
);

CREATE FUNCTION experiment_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.name, NEW.salt, NEW.capital, NEW.currency, NEW.opened_at)
     IS DISTINCT FROM (OLD.name, OLD.salt, OLD.capital, OLD.currency, OLD.opened_at) THEN
    RAISE EXCEPTION 'name, salt, capital, currency and opened_at of an experiment never change'
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the epoch of an experiment never falls' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER experiment_guard BEFORE UPDATE ON experiments
  FOR EACH ROW EXECUTE FUNCTION experiment_guard();
CREATE TRIGGER experiment_kept BEFORE DELETE ON experiments
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

ARMS = """
CREATE TABLE arms (
  id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  experiment_id      integer NOT NULL REFERENCES experiments,
  policy_id          bigint NOT NULL REFERENCES policies,
  status             text NOT NULL CHECK (status IN ('active', 'throttled', 'halted', 'retired')),
  status_reason      text NOT NULL CHECK (length(status_reason) BETWEEN 1 AND 1000),
  mode               text NOT NULL CHECK (mode IN ('live', 'shadow', 'paper')),
  traffic_allocation numeric(7,6) NOT NULL CHECK (traffic_allocation BETWEEN 0 AND 1),
  joined_at          instant NOT NULL,
  UNIQUE (experiment_id, policy_id),
  CONSTRAINT inactive_zero
    CHECK (traffic_allocation = 0 OR (status = 'active' AND mode = 'live'))
);
"""

ARM_TRANSITIONS = """
CREATE FUNCTION arm_joins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.traffic_allocation <> 0 THEN
    RAISE EXCEPTION 'an arm joins without traffic' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER arm_joins BEFORE INSERT ON arms FOR EACH ROW EXECUTE FUNCTION arm_joins();

CREATE FUNCTION arm_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.experiment_id, NEW.policy_id, NEW.joined_at)
     IS DISTINCT FROM (OLD.id, OLD.experiment_id, OLD.policy_id, OLD.joined_at) THEN
    RAISE EXCEPTION 'an arm keeps its experiment, policy and time of joining'
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status = OLD.status THEN
    RETURN NEW;
  END IF;
  IF EXISTS (SELECT FROM experiments e
             WHERE e.id = OLD.experiment_id AND e.champion_id = OLD.policy_id) THEN
    RAISE EXCEPTION 'the champion cannot become %', NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NOT (OLD.status, NEW.status) IN (
       ('active', 'throttled'), ('active', 'halted'), ('active', 'retired'),
       ('throttled', 'halted'), ('throttled', 'active'), ('throttled', 'retired'),
       ('halted', 'active'), ('halted', 'retired')) THEN
    RAISE EXCEPTION 'an arm cannot go from % to %', OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER arm_guard BEFORE UPDATE ON arms FOR EACH ROW EXECUTE FUNCTION arm_guard();
CREATE TRIGGER arm_kept BEFORE DELETE ON arms FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""
