"""The audit log's chain: which rows wait to be sealed, the seals, and whose chain it is."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the chain; rows from before it wait to be sealed like new ones."""
    for statement in (IDENTITY, UNSEALED, SEALS):
        op.execute(statement)


# Names the file of a ledger's anchors: a dump keeps it, a new ledger never has that of another.
IDENTITY = """
CREATE TABLE ledger_identity (id uuid PRIMARY KEY);
CREATE UNIQUE INDEX one_ledger ON ledger_identity ((true));
INSERT INTO ledger_identity (id) VALUES (gen_random_uuid());
SELECT make_append_only('ledger_identity');
"""

# Not "every id above the last sealed one": a transaction that commits late has a smaller id, and
# one that was rolled back leaves a gap. A row waits from the commit that wrote it.
UNSEALED = """
CREATE TABLE audit_unsealed (audit_id bigint PRIMARY KEY REFERENCES audit_log);

CREATE FUNCTION audit_row_waits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_unsealed (audit_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER audit_row_waits AFTER INSERT ON audit_log
  FOR EACH ROW EXECUTE FUNCTION audit_row_waits();
-- After the trigger, which keeps writers out until this commits: no row falls between the two.
INSERT INTO audit_unsealed (audit_id) SELECT id FROM audit_log;
"""

# The database holds the chain together; whether a row is still what was sealed, only the verifier
# says, which computes every hash by itself (bandit/core/audit_chain.py).
SEALS = """
CREATE TABLE audit_seals (
  sequence   bigint PRIMARY KEY CHECK (sequence >= 1),
  audit_id   bigint NOT NULL UNIQUE REFERENCES audit_log,
  row_hash   bytea NOT NULL CHECK (octet_length(row_hash) = 32),
  chain_hash bytea NOT NULL CHECK (octet_length(chain_hash) = 32),
  sealed_at  instant NOT NULL
);
SELECT make_append_only('audit_seals');

CREATE FUNCTION seal_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  before bytea := decode(repeat('00', 32), 'hex');
BEGIN
  IF NEW.sequence > 1 THEN
    SELECT s.chain_hash INTO before FROM audit_seals s WHERE s.sequence = NEW.sequence - 1;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'seal % has no seal before it', NEW.sequence
        USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  IF NEW.chain_hash IS DISTINCT FROM sha256(
       before || NEW.row_hash || int8send(NEW.sequence)
       || int8send((extract(epoch FROM NEW.sealed_at) * 1000000)::bigint)) THEN
    RAISE EXCEPTION 'seal % does not follow from the one before it', NEW.sequence
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER seal_follows BEFORE INSERT ON audit_seals
  FOR EACH ROW EXECUTE FUNCTION seal_follows();

CREATE FUNCTION sealed_row_waits_no_more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM audit_unsealed WHERE audit_id = NEW.audit_id;
  RETURN NULL;
END $$;
CREATE TRIGGER sealed_row_waits_no_more AFTER INSERT ON audit_seals
  FOR EACH ROW EXECUTE FUNCTION sealed_row_waits_no_more();

CREATE FUNCTION only_sealed_rows_stop_waiting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM audit_seals s WHERE s.audit_id = OLD.audit_id) THEN
    RAISE EXCEPTION 'audit row % waits until it is sealed', OLD.audit_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER only_sealed_rows_stop_waiting BEFORE DELETE ON audit_unsealed
  FOR EACH ROW EXECUTE FUNCTION only_sealed_rows_stop_waiting();
CREATE TRIGGER waiting_row_kept BEFORE UPDATE ON audit_unsealed
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER waiting_rows_kept BEFORE TRUNCATE ON audit_unsealed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""
