"""The newest sign of life of the monitor of each experiment."""

from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Make room for pulses."""
    for statement in (PULSES, GRANTS):
        op.execute(statement)


# State, not a fact: a pulse takes the place of the one before. `at` may go back, with the
# database's clock: a monitor that lives must not be refused for it.
PULSES = """
CREATE TABLE monitor_pulses (
  experiment_id    integer PRIMARY KEY REFERENCES experiments,
  at               instant NOT NULL,
  interval_seconds numeric NOT NULL CHECK (interval_seconds > 0 AND interval_seconds <= 86400),
  is_ended         boolean NOT NULL,
  who              text COLLATE "C" NOT NULL CHECK (length(who) BETWEEN 1 AND 200)
);
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE ON monitor_pulses TO liveops_app;
  END IF;
END $$;
"""
