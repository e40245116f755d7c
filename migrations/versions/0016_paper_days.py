"""Results on paper by day."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Make room for sums of results on paper, and count those that are in the ledger."""
    for statement in (DAYS, GRANTS, COUNT):
        op.execute(statement)


# Trades on paper of an arm by the UTC day of the decision, exact as in arm_days.
DAYS = """
CREATE TABLE paper_days (
  arm_id         bigint NOT NULL REFERENCES arms,
  day            date NOT NULL,
  n_trades       bigint NOT NULL CHECK (n_trades > 0),
  n_losses       bigint NOT NULL CHECK (n_losses BETWEEN 0 AND n_trades),
  return_sum     numeric(30,12) NOT NULL CHECK (return_sum <> 'NaN'),
  return_squares numeric(44,24) NOT NULL
    CHECK (return_squares >= 0 AND return_squares <> 'NaN'),
  return_gain    numeric(30,12) NOT NULL CHECK (return_gain >= 0 AND return_gain <> 'NaN'),
  return_loss    numeric(30,12) NOT NULL CHECK (return_loss >= 0 AND return_loss <> 'NaN'),
  PRIMARY KEY (arm_id, day),
  CONSTRAINT sum_is_gain_less_loss CHECK (return_sum = return_gain - return_loss)
);

CREATE TABLE aged_paper_days (LIKE paper_days INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE aged_paper_days ADD FOREIGN KEY (arm_id) REFERENCES arms;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON paper_days TO liveops_app;
    GRANT SELECT ON aged_paper_days TO liveops_app;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    GRANT SELECT ON paper_days TO liveops_archivist;
    GRANT SELECT, INSERT, UPDATE ON aged_paper_days TO liveops_archivist;
  END IF;
END $$;
"""

# Nothing may be told between the count and its commit. What has left keeps no return here, so that
# a day counts from where the ledger begins.
COUNT = """
LOCK TABLE shadow_outcomes IN SHARE MODE;
INSERT INTO paper_days
  SELECT h.arm_id, (s.decided_at AT TIME ZONE 'UTC')::date, count(*),
         count(*) FILTER (WHERE h.return_ratio < 0), sum(h.return_ratio),
         sum(h.return_ratio * h.return_ratio), sum(greatest(h.return_ratio, 0)),
         -sum(least(h.return_ratio, 0))
  FROM shadow_outcomes h JOIN assignments s ON s.id = h.assignment_id
  WHERE NOT h.no_trade GROUP BY 1, 2;
"""
