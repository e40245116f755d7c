"""What a backtest promised of single trades, for live ones to be held against."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the columns; trials recorded before promise nothing, and keep NULL."""
    op.execute(PROMISE)


# Ratios of the value at entry. `trade_slippage` is what both fills of a trade were taken to lose.
PROMISE = """
ALTER TABLE backtest_trials
  ADD COLUMN n_wins         integer,
  ADD COLUMN trade_mean     ratio,
  ADD COLUMN trade_error    ratio CHECK (trade_error >= 0),
  ADD COLUMN trade_slippage ratio CHECK (trade_slippage >= 0),
  ADD CONSTRAINT wins_are_trades CHECK (n_wins BETWEEN 0 AND n_trades - n_losses),
  ADD CONSTRAINT promise_is_whole CHECK (
    CASE WHEN n_wins IS NULL OR failure IS NOT NULL
      THEN num_nonnulls(n_wins, trade_mean, trade_error, trade_slippage) = 0
      ELSE trade_slippage IS NOT NULL AND (trade_mean IS NOT NULL) = (n_trades > 0)
           AND (trade_error IS NOT NULL) = (n_trades > 1)
    END);
"""
