"""A week is told of once."""

from alembic import op

revision = "0042"
down_revision = "0040"


def upgrade() -> None:
    """Keep one notice of each week's report."""
    op.execute(ONCE)


ONCE = """
CREATE UNIQUE INDEX notices_once_a_week ON notices (incident) WHERE kind = 'WEEKLY_REPORT';
"""
