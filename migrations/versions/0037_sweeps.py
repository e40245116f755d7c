"""Sweeps: what each was asked and how far it is, and a schema of its own for Optuna."""

from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Complete the runs of sweeps, let the history of parameters hold theirs, and make room."""
    for statement in (RUNS, LAWFUL_STEPS, HISTORY, SCHEMA, GRANTS):
        op.execute(statement)


# Nothing wrote a run before. `timestamp` is when it began; `trials` how many it is to have.
RUNS = """
ALTER TABLE optimization_runs
  ADD COLUMN changed_at      instant NOT NULL,
  ADD COLUMN asked           jsonb NOT NULL
    CHECK (jsonb_typeof(asked) = 'object' AND octet_length(asked::text) <= 65536),
  ADD COLUMN trials_complete integer NOT NULL CHECK (trials_complete >= 0),
  ADD COLUMN trials_pruned   integer NOT NULL CHECK (trials_pruned >= 0),
  ADD COLUMN trials_failed   integer NOT NULL CHECK (trials_failed >= 0),
  ADD COLUMN policy_id       bigint REFERENCES policies,
  ADD CONSTRAINT optimization_runs_study UNIQUE (study),
  ADD CONSTRAINT no_more_trials_than_asked
    CHECK (trials_complete + trials_pruned + trials_failed <= trials),
  ADD CONSTRAINT complete_with_a_policy
    CHECK (state <> 'complete' OR num_nonnulls(policy_id, best_value) = 2);
"""

# What was asked stays as it was asked; what ended stays ended.
LAWFUL_STEPS = """
CREATE FUNCTION require_lawful_sweep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.id, OLD.timestamp, OLD.study, OLD.trials, OLD.asked)
     IS DISTINCT FROM (NEW.id, NEW.timestamp, NEW.study, NEW.trials, NEW.asked) THEN
    RAISE EXCEPTION 'a sweep stays what was asked for' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.state <> 'running' THEN
    RAISE EXCEPTION 'sweep % is %: it stays so', OLD.study, OLD.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER optimization_runs_steps BEFORE UPDATE ON optimization_runs
  FOR EACH ROW EXECUTE FUNCTION require_lawful_sweep();
"""

# A parameter is an experiment's, or what a sweep found.
HISTORY = """
ALTER TABLE parameter_history
  ALTER COLUMN experiment_id DROP NOT NULL,
  ADD COLUMN study text REFERENCES optimization_runs (study),
  ADD CONSTRAINT of_an_experiment_or_a_study CHECK (num_nonnulls(experiment_id, study) = 1);
"""

# Optuna makes and migrates its own tables, and calls one of them alembic_version, as we do: in one
# schema neither could start. The service's role may do there what it likes, and only there.
SCHEMA = """
DO $$
BEGIN
  CREATE SCHEMA IF NOT EXISTS optuna;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT USAGE, CREATE ON SCHEMA optuna TO liveops_app;
  END IF;
EXCEPTION
  -- A user who may not make schemas: without one there are no sweeps, and all else goes on.
  WHEN insufficient_privilege THEN NULL;
END $$;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT, UPDATE ON optimization_runs TO liveops_app;
  END IF;
END $$;
"""
