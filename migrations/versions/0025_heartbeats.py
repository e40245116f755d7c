"""What bots say of themselves: the newest heartbeat of each."""

from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Make room for heartbeats."""
    for statement in (HEARTBEATS, GRANTS):
        op.execute(statement)


# State, not a fact: a newer heartbeat takes the place of an older one, and a bot can be forgotten.
# `errors` is [[time, errors told by then], ...], as long as the window needs and no longer.
HEARTBEATS = """
CREATE TABLE heartbeats (
  bot              slug PRIMARY KEY,
  account          slug,
  sent_at          instant NOT NULL,
  heard_at         instant NOT NULL,
  first_heard_at   instant NOT NULL CHECK (first_heard_at <= heard_at),
  started_at       instant NOT NULL CHECK (started_at <= sent_at),
  running          boolean NOT NULL,
  api_connected    boolean NOT NULL,
  api_errors_total bigint NOT NULL CHECK (api_errors_total BETWEEN 0 AND 1000000000),
  open_positions   bigint NOT NULL CHECK (open_positions BETWEEN 0 AND 1000000000),
  candle_seconds   integer NOT NULL CHECK (candle_seconds BETWEEN 0 AND 2678400),
  equity           amount,
  model_version    text COLLATE "C" CHECK (length(model_version) BETWEEN 1 AND 64),
  model_trained_at instant,
  last_trade_at    instant,
  candles          jsonb NOT NULL
    CHECK (jsonb_typeof(candles) = 'object' AND octet_length(candles::text) <= 8192),
  breakers         jsonb NOT NULL
    CHECK (jsonb_typeof(breakers) = 'object' AND octet_length(breakers::text) <= 8192),
  errors           jsonb NOT NULL
    CHECK (jsonb_typeof(errors) = 'array' AND jsonb_array_length(errors) BETWEEN 1 AND 100)
);

CREATE FUNCTION heartbeat_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.bot <> OLD.bot OR NEW.sent_at <= OLD.sent_at OR NEW.heard_at < OLD.heard_at
     OR NEW.first_heard_at <> OLD.first_heard_at THEN
    RAISE EXCEPTION 'a heartbeat goes forward in time' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER heartbeat_guard BEFORE UPDATE ON heartbeats
  FOR EACH ROW EXECUTE FUNCTION heartbeat_guard();
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON heartbeats TO liveops_app;
  END IF;
END $$;
"""
