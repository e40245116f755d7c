"""The newest units of an experiment, found without reading all."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Index when units were decided; they are stored in that order, so that summaries do."""
    op.execute(
        "CREATE INDEX assignments_by_time ON assignments USING brin (decided_at)"
        " WITH (pages_per_range = 32, autosummarize = on)"
    )
