"""Work that a learner is asked for, and how a policy was asked for in the first place."""

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Make room for jobs and recipes."""
    for statement in (JOBS, LAWFUL_STEPS, RECIPES, GRANTS):
        op.execute(statement)


JOBS = """
CREATE TABLE learner_jobs (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  policy_id    bigint NOT NULL REFERENCES policies,
  action       text COLLATE "C" NOT NULL CHECK (action IN ('refresh_encoder')),
  cause        text COLLATE "C" NOT NULL CHECK (length(cause) BETWEEN 1 AND 200),
  reason       text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  actor        text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  requested_at instant NOT NULL,
  due_at       instant NOT NULL,
  state        text COLLATE "C" NOT NULL
    CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  attempts     integer NOT NULL CHECK (attempts BETWEEN 0 AND 100),
  changed_at   instant NOT NULL,
  result       text CHECK (length(result) <= 1000),
  UNIQUE (policy_id, action, cause),
  CONSTRAINT ended_with_a_result CHECK (state IN ('waiting', 'running') OR result IS NOT NULL)
);
CREATE UNIQUE INDEX learner_jobs_one_open ON learner_jobs (policy_id, action)
  WHERE state IN ('waiting', 'running');
CREATE INDEX learner_jobs_due ON learner_jobs (due_at, id) WHERE state IN ('waiting', 'running');
"""

# What was asked for stays as it was asked; what ended stays ended.
LAWFUL_STEPS = """
CREATE FUNCTION require_lawful_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.id, OLD.policy_id, OLD.action, OLD.cause, OLD.reason, OLD.actor, OLD.requested_at)
     IS DISTINCT FROM
     (NEW.id, NEW.policy_id, NEW.action, NEW.cause, NEW.reason, NEW.actor, NEW.requested_at) THEN
    RAISE EXCEPTION 'a job stays what was asked for' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.state IN ('done', 'failed') THEN
    RAISE EXCEPTION 'job % is %: it stays so', OLD.id, OLD.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER learner_jobs_steps BEFORE UPDATE ON learner_jobs
  FOR EACH ROW EXECUTE FUNCTION require_lawful_step();
"""

RECIPES = """
CREATE TABLE policy_recipes (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  policy_id   bigint NOT NULL REFERENCES policies,
  recipe      jsonb NOT NULL
    CHECK (jsonb_typeof(recipe) = 'object' AND octet_length(recipe::text) <= 65536),
  recorded_at instant NOT NULL
);
CREATE INDEX policy_recipes_newest ON policy_recipes (policy_id, id DESC);
SELECT make_append_only('policy_recipes');
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE ON learner_jobs TO liveops_app;
    GRANT SELECT, INSERT ON policy_recipes TO liveops_app;
    GRANT USAGE ON SEQUENCE learner_jobs_id_seq, policy_recipes_id_seq TO liveops_app;
  END IF;
END $$;
"""
