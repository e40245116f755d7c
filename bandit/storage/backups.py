"""Backups that were taken, the drills of restoring them, and what a restore does at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from psycopg import sql
from sqlalchemy import Connection, text

from bandit.core.backups import BackupKind, BackupRecord, RestoreDrill, Unarchived
from bandit.storage.engine import one, rows, run
from bandit.storage.roles import APPLICATION_ROLE

RESTORED = "restore_began"
"""Action of the row that says: this ledger came out of a backup; its subject is the backup."""

FINISHED = "restore_finished"
"""Action of the row that says: everything was held against the backup, and stopped that must be."""

_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY 1, 2
"""


def insert(connection: Connection, record: BackupRecord) -> None:
    """Write a backup down; again changes nothing."""
    run(
        connection,
        "INSERT INTO backups (kind, name, taken_at, size_bytes) "
        "VALUES (:kind, :name, :taken_at, :size_bytes) ON CONFLICT (name) DO NOTHING",
        kind=record.kind.value,
        name=record.name,
        taken_at=record.taken_at,
        size_bytes=record.size_bytes,
    )


def newest(connection: Connection) -> dict[BackupKind, BackupRecord]:
    """Return the newest backup of each kind of which there is one."""
    found = rows(
        connection,
        "SELECT DISTINCT ON (kind) kind, name, taken_at, size_bytes FROM backups "
        "ORDER BY kind, taken_at DESC",
    )
    records = (BackupRecord(**(row | {"kind": BackupKind(row["kind"])})) for row in found)
    return {record.kind: record for record in records}


def insert_drill(connection: Connection, drill: RestoreDrill) -> None:
    """Write down how a drill went."""
    run(
        connection,
        "INSERT INTO restore_drills (began_at, backup, rows, rpo_seconds, rto_seconds, failure) "
        "VALUES (:began_at, :backup, :rows, :rpo_seconds, :rto_seconds, :failure)",
        began_at=drill.began_at,
        backup=drill.backup,
        rows=drill.rows,
        rpo_seconds=drill.rpo_seconds,
        rto_seconds=drill.rto_seconds,
        failure=drill.failure,
    )


def newest_passed_drill(connection: Connection) -> RestoreDrill | None:
    """Return the newest drill that passed; None where none did."""
    found = one(
        connection,
        "SELECT began_at, backup, rows, rpo_seconds, rto_seconds, failure FROM restore_drills "
        "WHERE failure IS NULL ORDER BY began_at DESC LIMIT 1",
    )
    return None if found is None else RestoreDrill(**found)


def unarchived(connection: Connection) -> Unarchived | None:
    """Return what the server tries in vain to archive; None where it does not, or need not."""
    found = one(
        connection,
        "SELECT last_failed_wal AS file, last_failed_time AS failed_at, "
        "last_archived_time AS archived_at FROM pg_stat_archiver "
        "WHERE current_setting('archive_mode') <> 'off' "
        "AND last_failed_time > COALESCE(last_archived_time, '-infinity')",
    )
    return None if found is None else Unarchived(**found)


def exported(connection: Connection) -> str:
    """Return a name under which other sessions see what this transaction sees, while it lasts."""
    # Whoever uses it may take long, and nothing is said here meanwhile.
    run(connection, "SET LOCAL idle_in_transaction_session_timeout = 0")
    found: str = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
    return found


def tables(connection: Connection) -> list[tuple[str, str]]:
    """Return schema and name of every table that is not the server's own."""
    return [(schema, name) for schema, name in connection.execute(text(_TABLES))]


def row_counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has, by `schema.table`."""
    counts = {}
    for schema, name in tables(connection):
        statement = f"SELECT count(*) FROM ONLY {_quoted(schema, name)}"  # noqa: S608 - a name
        counts[f"{schema}.{name}"] = int(connection.execute(text(statement)).scalar_one())
    return counts


def is_empty(connection: Connection) -> bool:
    """Say whether a database holds nothing that a restore could meet."""
    # Also what no table is: a type or a function of the same name would be in the way.
    found = one(
        connection,
        "SELECT count(*) AS n FROM (SELECT relnamespace AS place FROM pg_class UNION ALL "
        "SELECT pronamespace FROM pg_proc UNION ALL SELECT typnamespace FROM pg_type UNION ALL "
        "SELECT oid FROM pg_namespace WHERE nspname <> 'public') held "
        "JOIN pg_namespace n ON n.oid = held.place "
        "WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'",
    )
    assert found is not None
    return int(found["n"]) == 0


def server_major(connection: Connection) -> int:
    """Return the major version of the server."""
    found = one(connection, "SELECT current_setting('server_version_num')::integer / 10000 AS n")
    assert found is not None
    return int(found["n"])


def ending_script(
    counts: Mapping[str, int], *, backup: str, reason: str, now: datetime, actor: str
) -> str:
    """Return what ends the transaction of a restore: SQL for psql, after the tables are filled.

    It fails where a table has other rows than it had, and kills every account. So nobody ever sees
    a restored ledger that may decide. What Optuna keeps belongs to a service's role again, where
    there is one: that made it, and its newer release alters it.
    """
    checks = sql.SQL("\n").join(_count_check(name, n) for name, n in sorted(counts.items()))
    details = json.dumps({"reason": reason}, sort_keys=True)
    statements = sql.SQL(_ENDING).format(
        checks=checks,
        now=sql.Literal(now.isoformat()),
        actor=sql.Literal(actor),
        reason=sql.Literal(reason),
        backup=sql.Literal(backup),
        details=sql.Literal(details),
        began=sql.Literal(RESTORED),
        service=sql.Literal(APPLICATION_ROLE),
    )
    return statements.as_string(None)


_ENDING = """
RESET search_path;
DO $restore$
BEGIN
{checks}
END $restore$;
DO $restore$
DECLARE
  found regclass;
  kind regtype;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {service}
                 AND pg_has_role(oid, 'SET')
                 AND has_schema_privilege(oid, to_regnamespace('optuna'), 'CREATE')) THEN
    RETURN;
  END IF;
  -- With a table go its sequences and indexes.
  FOR found IN SELECT oid FROM pg_class
               WHERE relnamespace = to_regnamespace('optuna') AND relkind IN ('r', 'p') LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO %I', found, {service});
  END LOOP;
  FOR kind IN SELECT oid FROM pg_type
              WHERE typnamespace = to_regnamespace('optuna') AND typtype IN ('e', 'd') LOOP
    EXECUTE format('ALTER TYPE %s OWNER TO %I', kind, {service});
  END LOOP;
END $restore$;
INSERT INTO kill_events (account_id, kind, cause, at, actor, reason, reasons)
  SELECT id, 'KILL', 'hand', {now}, {actor}, {reason}, '[]' FROM accounts ORDER BY id;
INSERT INTO audit_log (at, actor, action, subject, details)
  SELECT {now}, {actor}, 'KILL', name, jsonb_build_object('cause', 'hand', 'reason', {reason},
         'reasons', '[]'::jsonb) FROM accounts ORDER BY id;
INSERT INTO audit_log (at, actor, action, subject, details)
  VALUES ({now}, {actor}, {began}, {backup}, CAST({details} AS jsonb));
COMMIT;
"""

_COUNT_CHECK = """
  IF (SELECT count(*) FROM ONLY {table}) <> {n} THEN
    RAISE EXCEPTION 'the restored table % has other rows than the % that were backed up',
      {name}, {n};
  END IF;
"""


def _count_check(name: str, n: int) -> sql.Composed:
    schema, _, table = name.partition(".")
    return sql.SQL(_COUNT_CHECK).format(
        table=sql.Identifier(schema, table), name=sql.Literal(name), n=sql.Literal(n)
    )


def _quoted(schema: str, name: str) -> str:
    # A colon would be taken for a parameter.
    return sql.Identifier(schema, name).as_string(None).replace(":", r"\:")
