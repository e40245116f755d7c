"""How large the ledger's tables are, which a VACUUM would help, and that VACUUM."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine

from bandit.storage.engine import rows, run, translated

DEAD_ROWS_MIN: Final = 1_000
DEAD_SHARE_MIN: Final = 0.05
"""From so many dead rows on, and so large a share of all, a VACUUM helps: a quarter of what makes
the server's own do it, which has weekdays to come."""

CHANGED_ROWS_MIN: Final = 1_000
CHANGED_SHARE_MIN: Final = 0.05
"""From so many rows changed since the last ANALYZE on the planner's numbers are stale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """A table: its rows and bytes, and what the server has counted since it was last looked after.

    `ours` says whether the session's user may VACUUM it; `analyzed` whether it ever was.
    """

    name: str
    rows: int
    dead_rows: int
    changed_rows: int
    analyzed: bool
    table_bytes: int
    index_bytes: int
    ours: bool

    @property
    def why(self) -> str | None:
        """Why a VACUUM (ANALYZE) helps; None where it would not.

        >>> state = {"name": "marks", "table_bytes": 0, "index_bytes": 0, "ours": True}
        >>> TableState(rows=9_000, dead_rows=1_000, changed_rows=0, analyzed=True, **state).why
        '1000 dead rows of 10000'
        >>> TableState(rows=9_000, dead_rows=10, changed_rows=10, analyzed=True, **state).why
        """
        total = self.rows + self.dead_rows
        if self.dead_rows >= max(DEAD_ROWS_MIN, DEAD_SHARE_MIN * total):
            return f"{self.dead_rows} dead rows of {total}"
        if self.changed_rows >= max(CHANGED_ROWS_MIN, CHANGED_SHARE_MIN * total):
            return f"{self.changed_rows} rows changed since it was analyzed"
        if self.rows >= CHANGED_ROWS_MIN and not self.analyzed:
            return "it was never analyzed"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return it as `liveops db maintain --json` prints it."""
        return asdict(self)


def tables(connection: Connection) -> list[TableState]:
    """Return every table of the ledger, the largest first."""
    found = rows(
        connection,
        """
        SELECT s.relname AS name, s.n_live_tup AS rows, s.n_dead_tup AS dead_rows,
               s.n_mod_since_analyze AS changed_rows,
               s.last_analyze IS NOT NULL OR s.last_autoanalyze IS NOT NULL AS analyzed,
               pg_table_size(s.relid) AS table_bytes, pg_indexes_size(s.relid) AS index_bytes,
               pg_has_role(c.relowner, 'USAGE') AS ours
        FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
        WHERE s.schemaname = current_schema()
        ORDER BY pg_total_relation_size(s.relid) DESC, s.relname
        """,
    )
    return [TableState(**row) for row in found]


def vacuum(engine: Engine, table: str) -> None:
    """Free the dead rows of a table and count it anew; readers and writers go on meanwhile.

    Raises `LedgerUnavailable` where that takes longer than a statement of `engine` may.
    """
    with translated(), engine.connect() as raw:
        connection = raw.execution_options(isolation_level="AUTOCOMMIT")
        name = connection.dialect.identifier_preparer.quote(table)
        run(connection, f"VACUUM (ANALYZE) {name}")
