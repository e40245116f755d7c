"""Account equity, its loss limits, and the marks of open positions."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Keep what the loss limits read, and carry existing ledgers over."""
    for statement in (ACCOUNT_EQUITY, MARKS, CARRY_OVER):
        op.execute(statement)


# One row an account, apart from `accounts`: every outcome updates it, and no assignment reads it.
# A low is the lowest equity since its limit was crossed, NULL while the limit holds.
ACCOUNT_EQUITY = """
CREATE TABLE account_equity (
  account_id        integer PRIMARY KEY REFERENCES accounts,
  max_daily_loss    numeric NOT NULL CHECK (max_daily_loss > 0 AND max_daily_loss <= 1),
  max_drawdown      numeric NOT NULL
    CONSTRAINT drawdown_hard_limit CHECK (max_drawdown > 0 AND max_drawdown <= 0.15),
  capital           numeric(38,8) NOT NULL CHECK (capital >= 0 AND capital <> 'NaN'),
  realised_pnl      numeric(38,8) NOT NULL CHECK (realised_pnl <> 'NaN'),
  unrealised_pnl    numeric(38,8) NOT NULL CHECK (unrealised_pnl <> 'NaN'),
  peak              numeric(38,8) NOT NULL CHECK (peak <> 'NaN'),
  trading_day       date NOT NULL,
  day_start         numeric(38,8) NOT NULL CHECK (day_start <> 'NaN'),
  daily_loss_low    numeric(38,8) CHECK (daily_loss_low <> 'NaN'),
  drawdown_low      numeric(38,8) CHECK (drawdown_low <> 'NaN'),
  hard_drawdown_low numeric(38,8) CHECK (hard_drawdown_low <> 'NaN'),
  CONSTRAINT peak_is_highest CHECK (peak >= capital + realised_pnl + unrealised_pnl)
);
"""

# The newest mark of every position that was ever marked; a closed one keeps its worst.
MARKS = """
CREATE TABLE marks (
  assignment_id  uuid PRIMARY KEY REFERENCES assignments,
  unrealised_pnl amount NOT NULL,
  marked_at      instant NOT NULL,
  worst_pnl      amount NOT NULL CHECK (worst_pnl <= unrealised_pnl),
  worst_at       instant NOT NULL CHECK (worst_at <= marked_at)
);

CREATE FUNCTION mark_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.assignment_id <> OLD.assignment_id OR NEW.marked_at <= OLD.marked_at
     OR NEW.worst_pnl > OLD.worst_pnl THEN
    RAISE EXCEPTION 'a mark goes forward in time and keeps its worst'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER mark_guard BEFORE UPDATE ON marks FOR EACH ROW EXECUTE FUNCTION mark_guard();
CREATE TRIGGER marks_kept BEFORE DELETE ON marks FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

# The limits are the documents' own; peak and day are those of the outcomes in the order of their
# arrival. A limit that is broken today speaks at the next outcome.
CARRY_OVER = """
INSERT INTO account_equity (
  account_id, max_daily_loss, max_drawdown, capital, realised_pnl, unrealised_pnl, peak,
  trading_day, day_start)
WITH earned AS (
  SELECT e.account_id, o.pnl, (o.recorded_at AT TIME ZONE 'UTC')::date AS day,
         sum(o.pnl) OVER (PARTITION BY e.account_id ORDER BY o.recorded_at, o.assignment_id) AS sum
  FROM outcomes o
  JOIN assignments s ON s.id = o.assignment_id AND s.mode = 'live'
  JOIN experiments e ON e.id = s.experiment_id
), days AS (
  SELECT account_id, max(day) AS newest, sum(pnl) AS pnl, greatest(max(sum), 0) AS most
  FROM earned GROUP BY account_id
)
SELECT a.id, 0.03, 0.10, c.capital, coalesce(d.pnl, 0), 0, c.capital + coalesce(d.most, 0),
       coalesce(d.newest, (a.opened_at AT TIME ZONE 'UTC')::date),
       c.capital + coalesce(
         (SELECT sum(t.pnl) FROM earned t WHERE t.account_id = a.id AND t.day < d.newest), 0)
FROM accounts a
JOIN LATERAL (SELECT coalesce(sum(e.capital), 0) AS capital FROM experiments e
              WHERE e.account_id = a.id) c ON true
LEFT JOIN days d ON d.account_id = a.id;
"""
