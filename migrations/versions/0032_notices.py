"""Notices to people, and what became of each on every channel."""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Make room for notices."""
    for statement in (NOTICES, DELIVERIES, STATE, GRANTS):
        op.execute(statement)


NOTICES = """
CREATE TABLE notices (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  audit_id  bigint REFERENCES audit_log,
  kind      text COLLATE "C" NOT NULL CHECK (length(kind) BETWEEN 1 AND 64),
  severity  text COLLATE "C" NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
  title     text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
  body      text NOT NULL CHECK (length(body) <= 1500),
  fields    jsonb NOT NULL CHECK (jsonb_typeof(fields) = 'array'),
  incident  text NOT NULL CHECK (length(incident) BETWEEN 1 AND 400),
  resolves  boolean NOT NULL,
  at        instant NOT NULL,
  stored_at instant NOT NULL,
  UNIQUE (audit_id, kind)
);
SELECT make_append_only('notices');
"""

# What was sent stays sent; a digest may be made, or a channel taken away, before that.
DELIVERIES = """
CREATE TABLE notice_deliveries (
  notice_id  bigint NOT NULL REFERENCES notices,
  channel    text COLLATE "C" NOT NULL CHECK (length(channel) BETWEEN 1 AND 32),
  state      text COLLATE "C" NOT NULL
    CHECK (state IN ('pending', 'held', 'sent', 'digested', 'given_up')),
  attempts   integer NOT NULL CHECK (attempts >= 0),
  next_at    instant NOT NULL,
  changed_at instant NOT NULL,
  error      text CHECK (length(error) <= 300),
  PRIMARY KEY (notice_id, channel)
);
CREATE INDEX notice_deliveries_open ON notice_deliveries (channel, notice_id)
  WHERE state IN ('pending', 'held');
CREATE INDEX notice_deliveries_recent ON notice_deliveries (channel, changed_at)
  WHERE state = 'sent';
CREATE FUNCTION require_open_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state NOT IN ('pending', 'held')
     OR (OLD.notice_id, OLD.channel) IS DISTINCT FROM (NEW.notice_id, NEW.channel) THEN
    RAISE EXCEPTION 'a notice on % is %: it stays so', OLD.channel, OLD.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER notice_deliveries_steps BEFORE UPDATE ON notice_deliveries
  FOR EACH ROW EXECUTE FUNCTION require_open_delivery();
"""

# Up to which seal the audit log was read, and which level of health was told last.
STATE = """
CREATE TABLE notifier_state (
  is_only boolean PRIMARY KEY CHECK (is_only),
  read_to bigint NOT NULL CHECK (read_to >= 0),
  health  text COLLATE "C" NOT NULL CHECK (health IN ('HEALTHY', 'DEGRADED', 'UNHEALTHY'))
);
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON notices TO liveops_app;
    GRANT SELECT, INSERT, UPDATE ON notice_deliveries, notifier_state TO liveops_app;
    GRANT USAGE ON SEQUENCE notices_id_seq TO liveops_app;
  END IF;
END $$;
"""
