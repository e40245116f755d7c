"""What the nightly data pipeline did, stage by stage, and when its loads were taken back."""

from alembic import op

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    """Keep every stage that ended."""
    for statement in (RUNS, GRANTS):
        op.execute(statement)


# A stage is done once in an attempt, and may fail before it as often as it is tried.
RUNS = """
CREATE TABLE data_runs (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  date           date NOT NULL CHECK (date >= date '2000-01-01' AND date < date '2100-01-01'),
  attempt        integer NOT NULL CHECK (attempt >= 1),
  stage          text COLLATE "C" NOT NULL CHECK (stage IN
    ('extract', 'validate', 'anomalies', 'transform', 'load', 'archive', 'health',
     'pause', 'restore', 'revalidate', 'resume', 'verify')),
  state          text COLLATE "C" NOT NULL CHECK (state IN ('done', 'failed')),
  rows_in        bigint NOT NULL CHECK (rows_in >= 0),
  rows_out       bigint NOT NULL CHECK (rows_out >= 0),
  report         jsonb NOT NULL
    CHECK (jsonb_typeof(report) = 'object' AND octet_length(report::text) <= 1048576),
  report_digest  text COLLATE "C" NOT NULL CHECK (report_digest ~ '^[0-9a-f]{64}$'),
  version_before text COLLATE "C" CHECK (version_before ~ '^[0-9a-f]{64}$'),
  version_after  text COLLATE "C" CHECK (version_after ~ '^[0-9a-f]{64}$'),
  began_at       instant NOT NULL,
  ended_at       instant NOT NULL CHECK (ended_at >= began_at),
  actor          text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  CONSTRAINT both_versions_or_none CHECK (num_nulls(version_before, version_after) IN (0, 2))
);
CREATE UNIQUE INDEX data_stage_done_once ON data_runs (date, attempt, stage) WHERE state = 'done';
CREATE INDEX data_runs_of_a_stage ON data_runs (stage, id);
SELECT make_append_only('data_runs');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON data_runs TO liveops_app;
    GRANT USAGE ON SEQUENCE data_runs_id_seq TO liveops_app;
  END IF;
END $$;
"""
