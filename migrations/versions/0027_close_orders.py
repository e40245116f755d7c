"""Close orders: which open positions are to be closed, and what bots said when they could not."""

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Make room for orders, for the positions they concern, and for failures."""
    for statement in (ORDERS, TARGETS, FAILURES, POSITIONS, GRANTS):
        op.execute(statement)


# `decided_to` is the newest decision of the experiment by then; NULL where there was none.
ORDERS = """
CREATE TABLE close_orders (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  experiment_id integer NOT NULL REFERENCES experiments,
  at            instant NOT NULL,
  actor         text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason        text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  decided_to    instant
);
CREATE INDEX close_orders_by_experiment ON close_orders (experiment_id, id);
SELECT make_append_only('close_orders');
"""

# Only its outcome ends a target, and what has an outcome is not open: a position is the target of
# one order at most, however many are given at once. The row outlives the decision that it names,
# which leaves for an archive once it is closed.
TARGETS = """
CREATE TABLE close_targets (
  assignment_id uuid PRIMARY KEY,
  order_id      bigint NOT NULL REFERENCES close_orders,
  UNIQUE (order_id, assignment_id)
);
SELECT make_append_only('close_targets');
"""

FAILURES = """
CREATE TABLE close_failures (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  order_id      bigint NOT NULL,
  assignment_id uuid NOT NULL,
  at            instant NOT NULL,
  actor         text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason        text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  FOREIGN KEY (order_id, assignment_id) REFERENCES close_targets (order_id, assignment_id)
);
CREATE INDEX close_failures_by_target ON close_failures (assignment_id, id);
SELECT make_append_only('close_failures');
"""

POSITIONS = """
CREATE VIEW close_positions AS
SELECT o.id AS order_id, e.name AS experiment, o.reason, o.at AS since, o.decided_to,
       t.assignment_id, s.unit_id, s.instrument, p.name AS policy, s.size_multiplier,
       s.confidence_bump, s.decided_at, s.is_closed, f.at AS failed_at, f.actor AS failed_by,
       f.reason AS failure
FROM close_orders o
JOIN experiments e ON e.id = o.experiment_id
JOIN close_targets t ON t.order_id = o.id
-- By its key: joined as sets, all of history would be read.
CROSS JOIN LATERAL (
  SELECT x.unit_id, x.instrument, x.arm_id, x.size_multiplier, x.confidence_bump, x.decided_at,
         EXISTS (SELECT FROM outcomes y WHERE y.assignment_id = x.id OFFSET 0) AS is_closed
  FROM assignments x WHERE x.id = t.assignment_id
  UNION ALL
  SELECT g.unit_id, g.instrument, g.arm_id, g.size_multiplier, g.confidence_bump, g.decided_at,
         true
  FROM aged_assignments g WHERE g.id = t.assignment_id OFFSET 0) s
JOIN arms a ON a.id = s.arm_id
JOIN policies p ON p.id = a.policy_id
LEFT JOIN LATERAL (SELECT x.at, x.actor, x.reason FROM close_failures x
  WHERE x.assignment_id = t.assignment_id ORDER BY x.id DESC LIMIT 1) f ON true;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON close_orders, close_targets, close_failures TO liveops_app;
    GRANT SELECT ON close_positions TO liveops_app;
    GRANT USAGE ON SEQUENCE close_orders_id_seq, close_failures_id_seq TO liveops_app;
  END IF;
END $$;
"""
