"""Policies that were put away, and taken back again."""

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    """Keep each time a policy was archived or restored."""
    for statement in (ARCHIVALS, ARMS, GRANTS):
        op.execute(statement)


# Odd ones archive, even ones restore: of two who do the same at once, one finds its number taken.
ARCHIVALS = """
CREATE TABLE policy_archivals (
  policy_id bigint NOT NULL REFERENCES policies,
  n         integer NOT NULL CHECK (n >= 1),
  archived  boolean NOT NULL CHECK (archived = (n % 2 = 1)),
  at        instant NOT NULL,
  actor     text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason    text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  PRIMARY KEY (policy_id, n)
);
SELECT make_append_only('policy_archivals');
"""

# No archived policy has an arm that stands. Whoever lets a policy join shares it, whoever archives
# it has it alone: one of two waits for the other, and then sees what it did. With the owner's
# rights, as a service may not lock what it may not change.
ARMS = """
CREATE FUNCTION hold_policy() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  EXECUTE format('SELECT FROM %I.policies WHERE id = $1 FOR %s', TG_TABLE_SCHEMA, TG_ARGV[0])
    USING NEW.policy_id;
  RETURN NEW;
END $$;

CREATE FUNCTION require_kept_policy() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  last record;
BEGIN
  SELECT p.name, a.archived, a.at, a.reason INTO last
  FROM policy_archivals a JOIN policies p ON p.id = a.policy_id
  WHERE a.policy_id = NEW.policy_id ORDER BY a.n DESC LIMIT 1;
  IF last.archived THEN
    RAISE EXCEPTION 'policy % is archived since % (%); take it back: liveops policy restore %',
      last.name, to_char(last.at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), last.reason, last.name
      USING ERRCODE = 'LB040';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION require_no_arm() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  standing text;
BEGIN
  SELECT e.name INTO standing FROM arms a JOIN experiments e ON e.id = a.experiment_id
  WHERE a.policy_id = NEW.policy_id AND a.status <> 'retired' ORDER BY e.id LIMIT 1;
  IF NEW.archived AND standing IS NOT NULL THEN
    RAISE EXCEPTION 'policy % has an arm in % and cannot be archived',
      (SELECT p.name FROM policies p WHERE p.id = NEW.policy_id), standing
      USING ERRCODE = 'LB040';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER archival_1_hold BEFORE INSERT ON arms
  FOR EACH ROW EXECUTE FUNCTION hold_policy('KEY SHARE');
CREATE TRIGGER archival_2_kept BEFORE INSERT ON arms
  FOR EACH ROW EXECUTE FUNCTION require_kept_policy();
CREATE TRIGGER archival_1_hold BEFORE INSERT ON policy_archivals
  FOR EACH ROW EXECUTE FUNCTION hold_policy('UPDATE');
CREATE TRIGGER archival_2_no_arm BEFORE INSERT ON policy_archivals
  FOR EACH ROW EXECUTE FUNCTION require_no_arm();
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON policy_archivals TO liveops_app;
  END IF;
END $$;
"""
