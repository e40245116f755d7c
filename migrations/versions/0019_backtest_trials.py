"""Every policy that was ever made and measured: what the deflated Sharpe ratio counts."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Make room for the record of backtest trials."""
    for statement in (TRIALS, GRANTS):
        op.execute(statement)


# Returns by period and by trade are ratios, so that nothing here is money. A trial either failed or
# has metrics; what has no spread has neither skew nor a Sharpe ratio.
TRIALS = """
CREATE TABLE backtest_trials (
  id                   text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9a-f]{64}$'),
  ordinal              bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  family               slug NOT NULL,
  kind                 text NOT NULL
    CHECK (kind IN ('production', 'reinforcement', 'tabnet', 'ensemble', 'external')),
  spec                 text COLLATE "C" NOT NULL CHECK (spec ~ '^[0-9a-f]{64}$'),
  data                 text COLLATE "C" NOT NULL CHECK (data ~ '^[0-9a-f]{64}$'),
  features             text COLLATE "C" NOT NULL CHECK (features ~ '^[0-9a-f]{64}$'),
  window_first         instant NOT NULL,
  window_last          instant NOT NULL CHECK (window_last >= window_first),
  seed                 bigint NOT NULL CHECK (seed >= 0),
  steps                bigint NOT NULL CHECK (steps >= 0),
  started_at           instant NOT NULL,
  finished_at          instant NOT NULL CHECK (finished_at >= started_at),
  n_periods            integer CHECK (n_periods >= 0),
  mean                 ratio,
  variance             ratio CHECK (variance >= 0),
  skew                 ratio,
  kurtosis             ratio,
  sharpe               ratio,
  periods_per_year     ratio CHECK (periods_per_year > 0),
  n_trades             integer CHECK (n_trades >= 0),
  n_losses             integer CHECK (n_losses BETWEEN 0 AND n_trades),
  gross_profit         ratio CHECK (gross_profit >= 0),
  gross_loss           ratio CHECK (gross_loss >= 0),
  total_return         ratio CHECK (total_return >= -1),
  drawdown_max_percent ratio CHECK (drawdown_max_percent BETWEEN 0 AND 100),
  verdict              text NOT NULL CHECK (verdict IN ('PASS', 'FAIL', 'INCONCLUSIVE')),
  failure              text CHECK (length(failure) BETWEEN 1 AND 1000),
  recorded_at          instant NOT NULL,
  CONSTRAINT failed_or_measured CHECK (
    num_nonnulls(n_periods, periods_per_year, n_trades, n_losses, gross_profit, gross_loss,
                 total_return, drawdown_max_percent)
    = CASE WHEN failure IS NULL THEN 8 ELSE 0 END),
  CONSTRAINT failure_measures_nothing CHECK (
    failure IS NULL OR num_nonnulls(mean, variance, skew, kurtosis, sharpe) = 0),
  CONSTRAINT failure_is_no_pass CHECK (failure IS NULL OR verdict = 'FAIL'),
  CONSTRAINT sharpe_needs_spread CHECK ((sharpe IS NOT NULL) = (coalesce(variance, 0) > 0))
);
SELECT make_append_only('backtest_trials');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON backtest_trials TO liveops_app;
    GRANT USAGE ON SEQUENCE backtest_trials_ordinal_seq TO liveops_app;
  END IF;
END $$;
"""
