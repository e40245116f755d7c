"""Strategies beside the ramp."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Let experiments be opened with any of them."""
    op.execute("""
ALTER TABLE experiments DROP CONSTRAINT experiments_strategy_check;
ALTER TABLE experiments ADD CONSTRAINT experiments_strategy_check CHECK (strategy IN
  ('ramp', 'thompson', 'discounted_thompson', 'sliding_window_thompson', 'ucb', 'epsilon_greedy',
   'fixed'));
""")
