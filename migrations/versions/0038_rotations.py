"""What became of the models that were made anew."""

from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    """Make room for rotations."""
    for statement in (ROTATIONS, GRANTS):
        op.execute(statement)


# One a day and model: who asks again that day is told what was done.
ROTATIONS = """
CREATE TABLE rotations (
  day         date NOT NULL CHECK (day BETWEEN DATE '2000-01-01' AND DATE '2100-01-01'),
  policy_id   bigint NOT NULL REFERENCES policies,
  new_id      bigint NOT NULL REFERENCES policies CHECK (new_id <> policy_id),
  verdict     text COLLATE "C" NOT NULL CHECK (verdict IN ('PASS', 'FAIL', 'INCONCLUSIVE')),
  triggers    jsonb NOT NULL CHECK (jsonb_typeof(triggers) = 'array'),
  gates       jsonb NOT NULL CHECK (jsonb_typeof(gates) = 'array'),
  placings    jsonb NOT NULL CHECK (jsonb_typeof(placings) = 'object'),
  recorded_at instant NOT NULL,
  PRIMARY KEY (day, policy_id)
);
CREATE INDEX rotations_of_policy ON rotations (policy_id, day DESC);
SELECT make_append_only('rotations');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON rotations TO liveops_app;
  END IF;
END $$;
"""
