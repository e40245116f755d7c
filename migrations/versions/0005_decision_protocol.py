"""The decision protocol: accounts and their kill switch, assignment and claim behind the gates."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Move what must hold on every replica into the database, under one protocol version."""
    for statement in (PROTOCOL, ACCOUNTS, KILL_SWITCH, BATCHES, ASSIGN, CLAIMS, NOTICES):
        op.execute(statement)


# Replicas that decide by different rules must not decide side by side: a process says which
# protocol it speaks, and the functions below refuse any other.
PROTOCOL = """
CREATE TABLE decision_protocol (version integer NOT NULL CHECK (version >= 1));
CREATE UNIQUE INDEX one_protocol ON decision_protocol ((true));
INSERT INTO decision_protocol (version) VALUES (1);

CREATE FUNCTION require_protocol(spoken integer) RETURNS void STABLE LANGUAGE plpgsql AS $$
DECLARE
  wanted integer;
BEGIN
  SELECT version INTO wanted FROM decision_protocol;
  IF spoken IS DISTINCT FROM wanted THEN
    RAISE EXCEPTION 'this process speaks decision protocol %, the ledger %', spoken, wanted
      USING ERRCODE = 'LB003';
  END IF;
END $$;
"""

# An account groups experiments in one currency: the kill switch and the loss limits read it whole.
ACCOUNTS = """
CREATE TABLE accounts (
  id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name      slug NOT NULL UNIQUE,
  currency  text NOT NULL CHECK (currency ~ '^[A-Z0-9]{2,10}$'),
  is_killed boolean NOT NULL,
  opened_at instant NOT NULL,
  UNIQUE (id, currency)
);
CREATE TRIGGER account_kept BEFORE DELETE ON accounts
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
INSERT INTO accounts (name, currency, is_killed, opened_at)
  SELECT lower(currency), currency, false, min(opened_at) FROM experiments GROUP BY currency;

ALTER TABLE experiments ADD COLUMN account_id integer;
UPDATE experiments e SET account_id = a.id FROM accounts a WHERE a.currency = e.currency;
ALTER TABLE experiments ALTER COLUMN account_id SET NOT NULL,
  ADD FOREIGN KEY (account_id, currency) REFERENCES accounts (id, currency);

CREATE OR REPLACE FUNCTION experiment_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.name, NEW.salt, NEW.capital, NEW.currency, NEW.account_id, NEW.opened_at)
     IS DISTINCT FROM
     (OLD.name, OLD.salt, OLD.capital, OLD.currency, OLD.account_id, OLD.opened_at) THEN
    RAISE EXCEPTION
      'name, salt, capital, currency, account and opened_at of an experiment never change'
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the epoch of an experiment never falls' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
"""

# Events are the truth; the account's flag follows them and nothing else may set it.
KILL_SWITCH = """
CREATE TABLE kill_events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id integer NOT NULL REFERENCES accounts,
  kind       text NOT NULL CHECK (kind IN ('KILL', 'RELEASE')),
  cause      text NOT NULL
             CHECK (cause IN ('hand', 'latch', 'daily_loss', 'drawdown', 'next_day')),
  at         instant NOT NULL,
  actor      text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  reasons    jsonb NOT NULL
);
CREATE INDEX kill_events_of_account ON kill_events (account_id, id);
SELECT make_append_only('kill_events');

CREATE FUNCTION kill_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE accounts SET is_killed = (NEW.kind = 'KILL') WHERE id = NEW.account_id;
  RETURN NULL;
END $$;
CREATE TRIGGER kill_applied AFTER INSERT ON kill_events
  FOR EACH ROW EXECUTE FUNCTION kill_applied();

CREATE FUNCTION require_alive(experiment experiments) RETURNS void STABLE LANGUAGE plpgsql AS $$
BEGIN
  -- Unknown is killed: only an account that is there and alive lets anything pass.
  IF NOT EXISTS (SELECT FROM accounts a WHERE a.id = experiment.account_id AND NOT a.is_killed) THEN
    RAISE EXCEPTION 'the account of experiment % is killed', experiment.name
      USING ERRCODE = 'LB002';
  END IF;
END $$;

-- While the account is killed, nothing but less traffic for challengers is lawful.
CREATE FUNCTION kill_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM require_alive(e) FROM experiments e, decisions d
    WHERE e.id = NEW.experiment_id AND d.id = NEW.decision_id
      AND d.kind NOT IN ('THROTTLE', 'HALT', 'RETIRE');
  RETURN NULL;
END $$;
CREATE TRIGGER kill_guard AFTER INSERT ON allocations
  FOR EACH ROW EXECUTE FUNCTION kill_guard();

CREATE OR REPLACE FUNCTION gate_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_trigger_depth() = 1 THEN
    PERFORM pg_advisory_xact_lock_shared(1, x.id) FROM (SELECT id FROM accounts ORDER BY id) x;
    PERFORM pg_advisory_xact_lock(3, e.id) FROM (SELECT id FROM experiments ORDER BY id) e;
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION account_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.name, NEW.currency, NEW.opened_at)
     IS DISTINCT FROM (OLD.id, OLD.name, OLD.currency, OLD.opened_at) THEN
    RAISE EXCEPTION 'an account keeps its name and currency' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.is_killed <> coalesce((SELECT k.kind = 'KILL' FROM kill_events k
                                WHERE k.account_id = NEW.id ORDER BY k.id DESC LIMIT 1), false) THEN
    RAISE EXCEPTION 'is_killed follows kill_events: append one'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER account_guard BEFORE UPDATE ON accounts
  FOR EACH ROW EXECUTE FUNCTION account_guard();
"""

# Every batch of assignments enters the audit log as one digest, so that the sealed log also
# answers for rows that nobody decided by hand.
BATCHES = """
ALTER TABLE assignments
  ADD COLUMN is_fallback boolean NOT NULL DEFAULT false, ADD COLUMN audit_id bigint;
ALTER TABLE assignments ALTER COLUMN is_fallback DROP DEFAULT;
CREATE INDEX assignments_by_batch ON assignments (audit_id);

-- What is digested of a row, the same for ever: no column that a later release adds, and nothing
-- that depends on a session's settings. Documents enter by their hashes, so that a row can do
-- without them and still be held against its digest.
CREATE FUNCTION sha256_of(document jsonb) RETURNS bytea IMMUTABLE LANGUAGE sql AS $$
  SELECT sha256(convert_to(document::text, 'UTF8'))
$$;
CREATE FUNCTION digested_line(
    id uuid, experiment_id integer, unit_id text, instrument text, arm_id bigint, mode text,
    role text, allocation_version bigint, epoch bigint, propensity double precision,
    position_id uuid, is_fallback boolean, size_multiplier double precision,
    confidence_bump double precision, context_sha256 bytea, proposed_actions_sha256 bytea,
    decided_at timestamptz, expires_at timestamptz)
  RETURNS text STABLE LANGUAGE sql AS $$
  SELECT json_build_array(
    id, experiment_id, unit_id, instrument, arm_id, mode, role, allocation_version, epoch,
    encode(float8send(propensity), 'hex'), position_id, is_fallback,
    encode(float8send(size_multiplier), 'hex'), encode(float8send(confidence_bump), 'hex'),
    encode(context_sha256, 'hex'), encode(proposed_actions_sha256, 'hex'),
    (extract(epoch FROM decided_at) * 1000000)::bigint,
    (extract(epoch FROM expires_at) * 1000000)::bigint)::text
$$;
CREATE FUNCTION digested(s assignments) RETURNS text STABLE LANGUAGE sql AS $$
  SELECT digested_line(
    s.id, s.experiment_id, s.unit_id, s.instrument, s.arm_id, s.mode, s.role,
    s.allocation_version, s.epoch, s.propensity, s.position_id, s.is_fallback, s.size_multiplier,
    s.confidence_bump, sha256_of(s.context), sha256_of(s.proposed_actions), s.decided_at,
    s.expires_at)
$$;
"""

# One batch, one statement, one commit. In a volatile function every statement has a snapshot of
# its own, so what follows the locks sees whatever committed before they were granted.
#
# Rows without position_id go to the arm that the caller chose on the epoch it names; rows with one
# go to the arm that opened that position, if it is still open. Returned are the rows that the
# caller cannot know: those of other batches, and those of positions. A position that is not open
# gives no row.
ASSIGN = """
CREATE FUNCTION commit_assignments(
    spoken integer, experiment integer, at_epoch bigint, at_version bigint,
    decided timestamptz, expires timestamptz, are_facts boolean, batch json)
  RETURNS SETOF assignments VOLATILE LANGUAGE plpgsql AS $$
DECLARE
  e          experiments%ROWTYPE;
  batch_id   bigint := nextval(pg_get_serial_sequence('audit_log', 'id'));
  n_inserted bigint;
  n_known    bigint;
  digest     text;
BEGIN
  PERFORM require_protocol(spoken);
  PERFORM pg_advisory_xact_lock_shared(1, x.account_id) FROM experiments x WHERE x.id = experiment;
  PERFORM pg_advisory_xact_lock_shared(3, experiment);
  SELECT * INTO e FROM experiments x WHERE x.id = experiment;
  IF NOT are_facts THEN
    PERFORM require_alive(e);
  END IF;
  IF e.epoch IS DISTINCT FROM at_epoch THEN
    RAISE EXCEPTION 'experiment % is in epoch %, not %', e.name, e.epoch, at_epoch
      USING ERRCODE = 'LB001';
  END IF;
  WITH made AS (
    INSERT INTO assignments AS s (
      id, experiment_id, unit_id, instrument, arm_id, mode, role, allocation_version, epoch,
      propensity, position_id, is_fallback, size_multiplier, confidence_bump, context,
      proposed_actions, decided_at, expires_at, audit_id)
    SELECT r.id, e.id, r.unit_id, r.instrument, a.id, a.mode,
           CASE WHEN a.policy_id = e.champion_id THEN 'champion' ELSE 'challenger' END,
           at_version, e.epoch, r.propensity, r.position_id, coalesce(r.is_fallback, false), 1, 0,
           r.context, r.proposed_actions, coalesce(r.decided_at, decided),
           coalesce(r.decided_at + (expires - decided), expires), batch_id
    FROM json_to_recordset(batch) AS r (
      id uuid, unit_id text, instrument text, arm_id bigint, propensity double precision,
      position_id uuid, is_fallback boolean, context jsonb, proposed_actions jsonb,
      decided_at timestamptz)
    LEFT JOIN LATERAL (
      SELECT o.arm_id FROM assignments o
      WHERE r.position_id IS NOT NULL AND o.id = r.position_id AND o.experiment_id = e.id
        AND NOT EXISTS (SELECT FROM outcomes t WHERE t.assignment_id = o.id)) opened ON true
    JOIN arms a
      ON a.id = CASE WHEN r.position_id IS NULL THEN r.arm_id ELSE opened.arm_id END
      AND a.experiment_id = e.id
      -- The epoch says so too; who is not to be routed to is refused twice.
      AND (r.position_id IS NOT NULL OR (a.status = 'active' AND a.mode = 'live'))
    -- Sorted, so that two batches never wait for each other in a circle.
    ORDER BY r.id
    ON CONFLICT DO NOTHING
    RETURNING s.id, s.position_id, digested(s) AS line
  )
  SELECT count(*), count(*) FILTER (WHERE made.position_id IS NULL),
         encode(sha256(convert_to(
           string_agg(made.line, chr(10) ORDER BY made.id), 'UTF8')), 'hex')
    INTO n_inserted, n_known, digest FROM made;
  IF n_inserted > 0 THEN
    INSERT INTO audit_log (id, at, actor, action, subject, details) OVERRIDING SYSTEM VALUE
      VALUES (batch_id, decided, 'router', 'assignments', e.name,
              jsonb_build_object('rows', n_inserted, 'sha256', digest));
  END IF;
  IF n_known < json_array_length(batch) THEN
    -- A snapshot of its own: it sees the twin of a row that this batch lost to.
    IF EXISTS (SELECT FROM json_to_recordset(batch) AS r (id uuid, position_id uuid)
               WHERE r.position_id IS NULL
                 AND NOT EXISTS (SELECT FROM assignments s WHERE s.id = r.id)) THEN
      RAISE EXCEPTION 'a unit of % was routed to an arm that takes no traffic', e.name
        USING ERRCODE = 'LB001';
    END IF;
    RETURN QUERY SELECT s.* FROM assignments s
      WHERE s.id IN (SELECT r.id FROM json_to_recordset(batch) AS r (id uuid))
        AND (s.audit_id IS DISTINCT FROM batch_id OR s.position_id IS NOT NULL);
  END IF;
END $$;
"""

# Just before the order: whoever was halted, killed or replaced since the decision is refused.
CLAIMS = """
CREATE TABLE claims (
  assignment_id uuid PRIMARY KEY REFERENCES assignments,
  claimed_at    instant NOT NULL
);
SELECT make_append_only('claims');

-- A trade of a decision that nobody claimed counts, and shows. Older ones could not be claimed.
ALTER TABLE outcomes ADD COLUMN unclaimed boolean NOT NULL DEFAULT false;
ALTER TABLE outcomes ALTER COLUMN unclaimed DROP DEFAULT;
ALTER TABLE arm_statistics ADD COLUMN n_unclaimed bigint NOT NULL DEFAULT 0
  CHECK (n_unclaimed BETWEEN 0 AND n_trades);
ALTER TABLE arm_statistics ALTER COLUMN n_unclaimed DROP DEFAULT;

CREATE VIEW claim_verdicts AS
SELECT s.id AS assignment_id, s.expires_at,
       CASE WHEN acc.is_killed IS NOT FALSE THEN 'killed'
            -- A position's own arm may always act on it.
            WHEN s.position_id IS NULL AND NOT (
              a.status = 'active' AND a.mode = s.mode AND a.traffic_allocation > 0
              AND (s.role = 'champion') = (a.policy_id = e.champion_id)) THEN 'revoked'
       END AS refusal
FROM assignments s
JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id
LEFT JOIN accounts acc ON acc.id = e.account_id;

CREATE FUNCTION commit_claims(spoken integer, claimed timestamptz, ids uuid[])
  RETURNS TABLE (id uuid, verdict text, claimed_at timestamptz, expires_at timestamptz)
  VOLATILE LANGUAGE plpgsql AS $$
BEGIN
  PERFORM require_protocol(spoken);
  PERFORM pg_advisory_xact_lock_shared(1, x.account_id) FROM (
    SELECT DISTINCT e.account_id FROM assignments s JOIN experiments e ON e.id = s.experiment_id
    WHERE s.id = ANY (ids) ORDER BY 1) x;
  PERFORM pg_advisory_xact_lock_shared(3, x.experiment_id) FROM (
    SELECT DISTINCT s.experiment_id FROM assignments s WHERE s.id = ANY (ids) ORDER BY 1) x;
  INSERT INTO claims (assignment_id, claimed_at)
    SELECT v.assignment_id, claimed FROM claim_verdicts v
    WHERE v.assignment_id = ANY (ids) AND v.refusal IS NULL AND v.expires_at >= claimed
    ORDER BY v.assignment_id
    ON CONFLICT DO NOTHING;
  -- A snapshot of its own: the later of two claims at once answers with the earlier one's time.
  RETURN QUERY SELECT v.assignment_id, coalesce(v.refusal,
      CASE WHEN c.claimed_at IS NULL THEN 'expired' ELSE 'claimed' END),
      c.claimed_at::timestamptz, v.expires_at::timestamptz
    FROM claim_verdicts v LEFT JOIN claims c ON c.assignment_id = v.assignment_id
    WHERE v.assignment_id = ANY (ids);
END $$;
"""

# A word to listening replicas that something they remember has passed. Only changes of who may be
# routed to are told: in every insert it would cost most of the throughput.
NOTICES = """
CREATE OR REPLACE FUNCTION allocation_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE experiments SET epoch = NEW.epoch WHERE id = NEW.experiment_id;
  UPDATE arms a SET traffic_allocation = u.part / 1000000.0
    FROM unnest(NEW.policy_ids, NEW.ppm) AS u (policy_id, part)
    WHERE a.experiment_id = NEW.experiment_id AND a.policy_id = u.policy_id;
  PERFORM pg_notify('liveops_epoch', e.name || ' ' || NEW.epoch)
    FROM experiments e WHERE e.id = NEW.experiment_id;
  RETURN NULL;
END $$;
"""
