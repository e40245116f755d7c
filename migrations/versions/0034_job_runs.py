"""Runs of what is scheduled: each slot of a job once, whoever begins it."""

from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    """Make room for the runs of jobs."""
    for statement in (RUNS, LAWFUL_STEPS, GRANTS):
        op.execute(statement)


RUNS = """
CREATE TABLE job_runs (
  job        slug NOT NULL,
  slot       instant NOT NULL,
  fence      bigint NOT NULL CHECK (fence >= 1),
  state      text COLLATE "C" NOT NULL CHECK (state IN ('running', 'done', 'failed')),
  attempts   integer NOT NULL CHECK (attempts >= 1),
  began_at   instant NOT NULL,
  changed_at instant NOT NULL,
  actor      text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  result     text CHECK (length(result) BETWEEN 1 AND 1000),
  PRIMARY KEY (job, slot),
  CONSTRAINT ended_with_a_result CHECK ((state = 'running') = (result IS NULL))
);
"""

# Begun again with the next fence, or ended by who holds the present one.
LAWFUL_STEPS = """
CREATE FUNCTION require_lawful_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.job, NEW.slot) IS DISTINCT FROM (OLD.job, OLD.slot) THEN
    RAISE EXCEPTION 'a run stays that of its slot' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.state = 'done' THEN
    RAISE EXCEPTION 'slot % of % is done: it stays so', OLD.slot, OLD.job
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.state = 'running' THEN
    IF (NEW.fence, NEW.attempts) IS DISTINCT FROM (OLD.fence + 1, OLD.attempts + 1) THEN
      RAISE EXCEPTION 'a run is begun again with the fence after %', OLD.fence
        USING ERRCODE = 'restrict_violation';
    END IF;
  ELSIF OLD.state <> 'running' OR (NEW.fence, NEW.attempts, NEW.began_at)
        IS DISTINCT FROM (OLD.fence, OLD.attempts, OLD.began_at) THEN
    RAISE EXCEPTION 'a run is ended by who holds its fence %', OLD.fence
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER job_runs_steps BEFORE UPDATE ON job_runs
  FOR EACH ROW EXECUTE FUNCTION require_lawful_run();
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE ON job_runs TO liveops_app;
  END IF;
END $$;
"""
