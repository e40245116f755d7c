"""Alerts that were heard from outside: what each said, and what was done about it."""

from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Keep every alert that was heard, once, and count how often any was."""
    for statement in (NOTICES, COUNTS, GRANTS):
        op.execute(statement)


# Labels as they are shown, at most 200 characters of each: not what an arm is found by.
NOTICES = """
CREATE TABLE alert_notices (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  received_at instant NOT NULL,
  fingerprint text COLLATE "C" NOT NULL CHECK (fingerprint ~ '^[0-9a-zA-Z]{1,64}$'),
  starts_at   instant NOT NULL,
  status      text COLLATE "C" NOT NULL CHECK (status IN ('firing', 'resolved')),
  alertname   text NOT NULL CHECK (length(alertname) <= 200),
  experiment  text NOT NULL CHECK (length(experiment) <= 200),
  policy      text NOT NULL CHECK (length(policy) <= 200),
  action      text NOT NULL CHECK (length(action) <= 200),
  receiver    text NOT NULL CHECK (length(receiver) <= 200),
  result      text COLLATE "C" NOT NULL CHECK (result IN
    ('halted', 'throttled', 'already', 'resumed_since', 'no_action', 'unknown_arm', 'resolved')),
  decision_id bigint REFERENCES decisions,
  CONSTRAINT heard_once UNIQUE (fingerprint, starts_at, status),
  CONSTRAINT who_acts_decides
    CHECK ((result IN ('halted', 'throttled')) = (decision_id IS NOT NULL))
);
SELECT make_append_only('alert_notices');
"""

# What comes again is counted and not kept: Alertmanager repeats itself for ever.
COUNTS = """
CREATE TABLE alert_counts (
  result text COLLATE "C" PRIMARY KEY,
  n      bigint NOT NULL CHECK (n >= 0)
);
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON alert_notices TO liveops_app;
    GRANT SELECT, INSERT, UPDATE ON alert_counts TO liveops_app;
    GRANT USAGE ON SEQUENCE alert_notices_id_seq TO liveops_app;
  END IF;
END $$;
"""
