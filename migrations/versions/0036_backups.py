"""Backups that were taken, and drills of restoring them."""

from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Keep what was taken when, and how each drill went."""
    for statement in (BACKUPS, DRILLS, GRANTS):
        op.execute(statement)


# What every replica knows of them; the files may lie on another machine.
BACKUPS = """
CREATE TABLE backups (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind        text COLLATE "C" NOT NULL CHECK (kind IN ('state', 'database', 'base')),
  name        text COLLATE "C" NOT NULL CHECK (name ~ '^[a-z]+_backup_[0-9]{8}_[0-9]{6}$'),
  taken_at    instant NOT NULL,
  size_bytes  bigint NOT NULL CHECK (size_bytes >= 0),
  CONSTRAINT backed_up_once UNIQUE (name)
);
CREATE INDEX backups_by_time ON backups (kind, taken_at);
SELECT make_append_only('backups');
"""

DRILLS = """
CREATE TABLE restore_drills (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  began_at    instant NOT NULL,
  backup      text COLLATE "C" NOT NULL CHECK (backup ~ '^[a-z]+_backup_[0-9]{8}_[0-9]{6}$'),
  rows        bigint NOT NULL CHECK (rows >= 0),
  rpo_seconds ratio NOT NULL CHECK (rpo_seconds >= 0),
  rto_seconds ratio CHECK (rto_seconds >= 0),
  failure     text CHECK (length(failure) BETWEEN 1 AND 1000),
  CONSTRAINT passed_is_timed CHECK (failure IS NOT NULL OR rto_seconds IS NOT NULL)
);
SELECT make_append_only('restore_drills');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON backups, restore_drills TO liveops_app;
    GRANT USAGE ON SEQUENCE backups_id_seq, restore_drills_id_seq TO liveops_app;
  END IF;
END $$;
"""
