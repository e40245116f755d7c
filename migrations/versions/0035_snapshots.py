"""Snapshots of models, policies and configuration: what happened to each, in which store."""

from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    """Keep what happened to snapshots."""
    for statement in (SNAPSHOTS, GRANTS):
        op.execute(statement)


# Facts: a snapshot is stored once in a store, and removed from it once; it is looked at often.
SNAPSHOTS = """
CREATE TABLE snapshots (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  snapshot_date   date NOT NULL CHECK (snapshot_date BETWEEN '2000-01-01' AND '9999-12-31'),
  store           text COLLATE "C" NOT NULL CHECK (store IN ('local', 's3')),
  event           text COLLATE "C" NOT NULL
    CHECK (event IN ('stored', 'verified', 'damaged', 'pruned')),
  manifest_sha256 bytea NOT NULL CHECK (octet_length(manifest_sha256) = 32),
  size_bytes      bigint NOT NULL CHECK (size_bytes >= 0),
  recorded_at     instant NOT NULL
);
CREATE UNIQUE INDEX snapshots_once ON snapshots (snapshot_date, store, event)
  WHERE event IN ('stored', 'pruned');
CREATE INDEX snapshots_newest ON snapshots (store, event, snapshot_date DESC);
SELECT make_append_only('snapshots');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON snapshots TO liveops_app;
    GRANT USAGE ON SEQUENCE snapshots_id_seq TO liveops_app;
  END IF;
END $$;
"""
