"""Policies that were put away, and taken back again."""

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    """Keep each time a policy was archived or restored."""
    for statement in (ARCHIVALS, GRANTS):
        op.execute(statement)


# Odd ones archive, even ones restore: of two who do the same at once, one finds its number taken.
ARCHIVALS = """
CREATE TABLE policy_archivals (
  policy_id bigint NOT NULL REFERENCES policies,
  n         integer NOT NULL CHECK (n >= 1),
  archived  boolean NOT NULL CHECK (archived = (n % 2 = 1)),
  at        instant NOT NULL,
  actor     text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason    text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  PRIMARY KEY (policy_id, n)
);
SELECT make_append_only('policy_archivals');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON policy_archivals TO liveops_app;
  END IF;
END $$;
"""
