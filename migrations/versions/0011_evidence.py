"""Evidence: what bets are laid on, and what they have won, by the day of the decision."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make room for terms and cohorts; decisions from before the first terms are no evidence."""
    for statement in (ADDED, TERMS, COHORTS, GRANTS):
        op.execute(statement)


# Element by element: log-factors of a set of decisions, in whole steps.
ADDED = """
CREATE FUNCTION added(a numeric[], b numeric[]) RETURNS numeric[]
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT array_agg(x + y ORDER BY place) FROM unnest(a, b) WITH ORDINALITY t(x, y, place)
$$;
"""

TERMS = """
CREATE TABLE evidence_terms (
  experiment_id integer NOT NULL REFERENCES experiments,
  fixed_at      instant NOT NULL,
  unit          ratio NOT NULL CHECK (unit > 0),
  units         jsonb NOT NULL CHECK (jsonb_typeof(units) = 'object'),
  baseline      ratio NOT NULL CHECK (baseline BETWEEN -1 AND 1),
  profit_factor ratio NOT NULL CHECK (profit_factor BETWEEN 0.8 AND 3),
  PRIMARY KEY (experiment_id, fixed_at)
);
SELECT make_append_only('evidence_terms');
"""

COHORTS = """
CREATE TABLE evidence_cohorts (
  arm_id       bigint NOT NULL REFERENCES arms,
  champion_id  bigint NOT NULL REFERENCES arms CHECK (champion_id <> arm_id),
  day          date NOT NULL,
  n_challenger bigint NOT NULL CHECK (n_challenger >= 0),
  n_champion   bigint NOT NULL CHECK (n_champion >= 0),
  scores       numeric[] NOT NULL CHECK (cardinality(scores) = 2),
  wealth       numeric[] NOT NULL CHECK (cardinality(wealth) = 20),
  PRIMARY KEY (arm_id, champion_id, day)
);
-- The part of the cohorts whose outcomes have left for an archive.
CREATE TABLE aged_cohorts (LIKE evidence_cohorts INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE aged_cohorts ADD FOREIGN KEY (arm_id) REFERENCES arms,
  ADD FOREIGN KEY (champion_id) REFERENCES arms;
"""

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_app') THEN
    GRANT SELECT, INSERT ON evidence_terms TO liveops_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON evidence_cohorts TO liveops_app;
    GRANT SELECT ON aged_cohorts TO liveops_app;
    GRANT EXECUTE ON FUNCTION added TO liveops_app;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'liveops_archivist') THEN
    GRANT SELECT ON evidence_terms, evidence_cohorts TO liveops_archivist;
    GRANT SELECT, INSERT, UPDATE ON aged_cohorts TO liveops_archivist;
    GRANT EXECUTE ON FUNCTION added TO liveops_archivist;
  END IF;
END $$;
"""
