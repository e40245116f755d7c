"""Rungs: how much has been shown for an arm, which says how far it may rise."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Start every arm on the first rung, where the limits held all of them so far."""
    op.execute("""
ALTER TABLE arms ADD COLUMN rung text NOT NULL DEFAULT 'unproven'
  CHECK (rung IN ('unproven', 'proven', 'eligible'));
ALTER TABLE arms ALTER COLUMN rung DROP DEFAULT;
""")
