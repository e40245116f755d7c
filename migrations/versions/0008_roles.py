"""The role of a running service: no DDL, no UPDATE or DELETE of facts."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the role where the server lets us, and say what it may do."""
    op.execute(END_HOLDERS)
    op.execute(MAKE_ROLE)
    op.execute(GRANTS)


# The one thing a service does to other sessions: end writers that keep a halt waiting. With its
# owner's rights, as nobody may end sessions of a mightier user.
END_HOLDERS = """
CREATE OR REPLACE FUNCTION end_holders(lock_class integer, lock_key integer) RETURNS bigint
  VOLATILE SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS $$
  SELECT count(pg_terminate_backend(l.pid))
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
  WHERE l.locktype = 'advisory' AND l.classid = lock_class::oid AND l.objid = lock_key::oid
    AND l.granted AND l.mode = 'ShareLock' AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND a.application_name = 'liveops-writer'
$$;
REVOKE ALL ON FUNCTION end_holders FROM PUBLIC;
"""

MAKE_ROLE = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    CREATE ROLE liveops_app NOLOGIN;
  END IF;
  IF NOT pg_has_role(current_user, 'liveops_app', 'SET') THEN
    EXECUTE format('GRANT liveops_app TO %I', current_user);
  END IF;
EXCEPTION
  -- A user who may not make roles, or another ledger of this server that makes it just now.
  WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
END $$;
"""

# A later migration that adds a table says here-like what the role may do with it; a test asks.
GRANTS = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    RETURN;
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO liveops_app', current_schema());
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO liveops_app', current_schema());
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO liveops_app', current_schema());
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO liveops_app', current_schema());
  -- Facts: appended, never touched again.
  GRANT INSERT ON policies, decisions, allocations, assignments, outcomes, outcome_revisions,
    claims, kill_events, audit_log, audit_seals, parameter_history, optimization_runs,
    statistics_comparisons TO liveops_app;
  -- State: follows the facts, guarded by triggers.
  GRANT INSERT, UPDATE ON accounts, account_equity, experiments, arms, bandit_arms,
    arm_statistics, arm_days, marks TO liveops_app;
  GRANT INSERT ON equity_checkpoints, audit_unsealed TO liveops_app;
  -- What can be made again.
  GRANT DELETE ON arm_days, equity_checkpoints, marks, audit_unsealed TO liveops_app;
END $$;
"""
