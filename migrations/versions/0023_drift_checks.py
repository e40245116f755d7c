"""What was found when features, embeddings and predictions were held against their reference."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Make room for drift checks."""
    for statement in (CHECKS, GRANTS):
        op.execute(statement)


# One row a check. The window that was checked names the run, so that the same again is known; what
# is not known has no value, and is neither a PASS nor a FAIL. The application takes 4096 bytes of a
# detail; jsonb writes 5e-324 in full, so that the same may be 64 times as long here.
CHECKS = """
CREATE TABLE drift_checks (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id      text COLLATE "C" NOT NULL CHECK (run_id ~ '^[0-9a-f]{64}$'),
  sha         text COLLATE "C" NOT NULL CHECK (sha ~ '^[0-9a-f]{8,64}$'),
  metric      text COLLATE "C" NOT NULL
    CHECK (metric IN ('encoder_kl', 'psi', 'ks', 'missing', 'out_of_range', 'correlation',
                      'importance', 'confidence', 'prediction')),
  subject     text COLLATE "C" NOT NULL CHECK (length(subject) BETWEEN 1 AND 128),
  value       ratio,
  limit_value ratio,
  p_value     ratio CHECK (p_value BETWEEN 0 AND 1),
  verdict     text NOT NULL CHECK (verdict IN ('PASS', 'FAIL', 'INCONCLUSIVE')),
  n           bigint NOT NULL CHECK (n >= 0),
  n_effective ratio CHECK (n_effective >= 0),
  window_from instant NOT NULL,
  window_to   instant NOT NULL CHECK (window_to >= window_from),
  checked_at  instant NOT NULL,
  detail      jsonb NOT NULL
    CHECK (jsonb_typeof(detail) = 'object' AND octet_length(detail::text) <= 262144),
  UNIQUE (sha, window_from, window_to, metric, subject),
  CONSTRAINT unknown_is_inconclusive
    CHECK (verdict = 'INCONCLUSIVE' OR num_nulls(value, limit_value) = 0)
);
CREATE INDEX drift_checks_newest ON drift_checks (sha, window_to DESC, id DESC);
SELECT make_append_only('drift_checks');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON drift_checks TO liveops_app;
    GRANT USAGE ON SEQUENCE drift_checks_id_seq TO liveops_app;
  END IF;
END $$;
"""
