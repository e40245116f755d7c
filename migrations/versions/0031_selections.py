"""Selections: in which instruments an experiment opens positions, and since when."""

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Keep every selection that was made."""
    for statement in (SELECTIONS, GRANTS):
        op.execute(statement)


SELECTIONS = """
CREATE TABLE selections (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  experiment_id integer NOT NULL REFERENCES experiments,
  at            instant NOT NULL,
  chosen        text[] NOT NULL CHECK (cardinality(chosen) BETWEEN 1 AND 1000),
  scores        jsonb NOT NULL CHECK (jsonb_typeof(scores) = 'object'),
  actor         text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason        text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  CONSTRAINT one_selection_a_moment UNIQUE (experiment_id, at)
);
SELECT make_append_only('selections');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON selections TO liveops_app;
    GRANT USAGE ON SEQUENCE selections_id_seq TO liveops_app;
  END IF;
END $$;
"""
