"""The schema: how it comes to be, twice or at once, and what every column of it keeps."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import CommandLine, Config
from alembic.script import ScriptDirectory
from ledger import CHALLENGER, NOON, assign, feed, open_btc, wait_until_blocked
from shadow_history import on_paper, tell
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from bandit.core.audit_chain import anchor_of
from bandit.core.errors import LedgerUnavailable
from bandit.service import auditing, rebuilding
from bandit.service.ledger import ledger_digest
from bandit.storage.engine import connect
from bandit.storage.migrate import current, head, require_head, upgrade

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "migrations"

# Everything of a schema but its data: relations, columns, constraints, triggers, code, indexes.
SCHEMA = """
SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull::text, a.attidentity::text
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
UNION ALL
SELECT 'constraint', coalesce(conrelid::regclass::text, contypid::regtype::text), conname,
       pg_get_constraintdef(oid), '', ''
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', ''
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, pg_get_functiondef(oid), '', '', ''
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'view', viewname, definition, '', '', '' FROM pg_views WHERE schemaname = 'public'
ORDER BY 1, 2, 3, 4
"""


def schema(url: str) -> list[tuple[str, ...]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(SCHEMA))]
    engine.dispose()
    return found


def config(url: str | None, *, scripts: Path = MIGRATIONS) -> Config:
    made = Config()
    made.set_main_option("script_location", str(scripts))
    if url is not None:
        made.attributes["url"] = url
    return made


def test_step_by_step_and_at_once_lead_to_the_same_schema(
    empty_url: str, database_url: str
) -> None:
    assert current(empty_url) is None
    seen = []
    while current(empty_url) != head():
        command.upgrade(config(empty_url), "+1")
        seen.append(current(empty_url))
    assert seen == sorted(set(seen))
    assert len(schema(database_url)) > 100
    assert schema(empty_url) == schema(database_url)


def test_running_twice_changes_nothing(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.001"])
    objects = text(
        "SELECT oid, xmin::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    with engine.connect() as connection:
        before = set(connection.execute(objects).all())
    digest = ledger_digest(engine)
    upgrade(database_url)
    with engine.connect() as connection:
        assert set(connection.execute(objects).all()) == before
    assert ledger_digest(engine) == digest
    assert current(database_url) == head()
    assert head() == ScriptDirectory.from_config(config(None)).get_current_head()


def test_audit_rows_of_an_older_release_wait_to_be_sealed(empty_url: str) -> None:
    command.upgrade(config(empty_url), "0003")
    engine = connect(empty_url)
    insert = (
        "INSERT INTO audit_log (at, actor, action, subject, details) "
        "VALUES (:now, 'test', 'drill', 'btc', '{}')"
    )
    with engine.begin() as connection:
        connection.execute(text(insert), [{"now": NOON}] * 3)
    upgrade(empty_url)
    head_of_chain = auditing.seal(engine, now=NOON)
    assert head_of_chain is not None
    assert head_of_chain.sequence == 3
    assert auditing.verify(engine, [anchor_of(head_of_chain)]).findings == ()
    engine.dispose()


def test_accounts_of_an_older_release_carry_on_where_their_outcomes_left_them(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    for hours, earned in ((0, "0.1"), (1, "-0.05"), (2, "0.02"), (50, "-0.2"), (51, "0.01")):
        feed(engine, "prod", [earned], now=NOON + timedelta(hours=hours), prefix=f"at-{hours}")
    with engine.connect() as connection:
        folded = connection.execute(text("SELECT * FROM account_equity")).mappings().one()
    expected = {"capital": 10_000, "realised_pnl": -120, "peak": 10_100, "day_start": 10_070}
    assert {name: folded[name] for name in expected} == expected
    before = ScriptDirectory.from_config(config(None)).get_revision("0007").down_revision
    with engine.begin() as connection:
        connection.execute(text("DROP VIEW claimed_positions"))
        connection.execute(text("DROP TABLE account_equity, marks"))
        connection.execute(text("DROP FUNCTION mark_guard"))
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": before})
    command.upgrade(config(database_url), "0007")
    with engine.connect() as connection:
        carried = connection.execute(text("SELECT * FROM account_equity")).mappings().one()
    assert carried == folded


def test_results_on_paper_of_an_older_release_are_counted_by_day(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    first = assign(engine, ["a", "b", "c"], now=NOON)
    later = assign(engine, ["d"], now=NOON + timedelta(days=1))
    earned = ["0.001", "-0.0025", None, "0.004"]
    told = [
        on_paper(made, policy, result)
        for made, result in zip((*first, *later), earned, strict=True)
        for policy in ("prod", CHALLENGER)
    ]
    tell(engine, told, now=NOON + timedelta(days=2))
    days = text("SELECT * FROM paper_days ORDER BY arm_id, day")
    with engine.connect() as connection:
        counted = connection.execute(days).mappings().all()
    assert [(row["n_trades"], row["n_losses"]) for row in counted] == [(2, 1), (1, 0)] * 2
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE paper_days, aged_paper_days"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0015'"))
    command.upgrade(config(database_url), "0016")
    with engine.connect() as connection:
        assert connection.execute(days).mappings().all() == counted
    assert rebuilding.compare(engine, now=NOON + timedelta(days=2)).mismatches == ()


def test_two_processes_that_start_at_once_both_succeed(empty_url: str) -> None:
    program = (
        "import sys; from bandit.storage.migrate import upgrade\n"
        "print('ready', flush=True); sys.stdin.readline(); upgrade(sys.argv[1])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    require_head(empty_url)


# What env.py does, seen by migrations of the test's own


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with our env.py and no versions."""
    shutil.copy(MIGRATIONS / "env.py", tmp_path)
    (tmp_path / "versions").mkdir()
    return tmp_path


def add_version(scripts: Path, revision: str, down: str | None, statement: str) -> None:
    (scripts / "versions" / f"{revision}.py").write_text(
        f"from alembic import op\nrevision = {revision!r}\ndown_revision = {down!r}\n"
        f"def upgrade():\n    op.execute({statement!r})\n"
    )


def read(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return found


def test_migrations_run_with_limits_on_locks_and_statements(scripts: Path, empty_url: str) -> None:
    limits = "current_setting('lock_timeout') AS a, current_setting('statement_timeout') AS b"
    add_version(scripts, "a", None, f"CREATE TABLE seen AS SELECT {limits}")
    command.upgrade(config(empty_url, scripts=scripts), "head")
    assert read(empty_url, "SELECT * FROM seen") == [("5s", "5min")]


def test_failed_step_leaves_nothing_of_the_steps_before_it(scripts: Path, empty_url: str) -> None:
    add_version(scripts, "a", None, "CREATE TABLE first (id integer)")
    add_version(scripts, "b", "a", "SELECT 1 / 0")
    with pytest.raises(DBAPIError, match="division by zero"):
        command.upgrade(config(empty_url, scripts=scripts), "head")
    assert current(empty_url) is None
    assert read(empty_url, "SELECT to_regclass('first')") == [(None,)]


def test_waiting_for_another_process_is_not_cut_short_by_the_limit_on_locks(
    scripts: Path, empty_url: str
) -> None:
    environment = scripts / "env.py"
    source = environment.read_text()
    assert "LOCK_SECONDS = 5\n" in source
    environment.write_text(source.replace("LOCK_SECONDS = 5\n", "LOCK_SECONDS = 0.05\n"))
    add_version(scripts, "a", None, "CREATE TABLE first (id integer)")
    engine = create_engine(empty_url)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(0, 0)"))
            waiting = pool.submit(command.upgrade, config(empty_url, scripts=scripts), "head")
            wait_until_blocked(engine, waiting)
            threading.Event().wait(0.3)
        waiting.result(timeout=60)
    assert current(empty_url) == "a"
    engine.dispose()


def test_migrating_without_a_database_says_how(scripts: Path) -> None:
    with pytest.raises(SystemExit, match="say which database: `liveops db upgrade`"):
        command.upgrade(config(None), "head")


def test_alembic_by_hand_takes_the_url(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    CommandLine().main(["-x", f"url={empty_url}", "upgrade", "head"])
    require_head(empty_url)


def test_ledger_of_another_schema_is_refused_with_what_to_do(empty_url: str) -> None:
    advice = f"this release needs {head()}: run `liveops db upgrade`"
    with pytest.raises(LedgerUnavailable, match=f"the ledger is empty, {advice}"):
        require_head(empty_url)
    command.upgrade(config(empty_url), "+1")
    with pytest.raises(LedgerUnavailable, match=f"the ledger has schema 0001, {advice}"):
        require_head(empty_url)
    upgrade(empty_url)
    require_head(empty_url)


def test_server_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://nobody@/nowhere?host={tmp_path}"
    for ask in (upgrade, current, require_head):
        with pytest.raises(LedgerUnavailable, match="the ledger did not answer: "):
            ask(url)
    engine = connect(url)
    with pytest.raises(LedgerUnavailable):
        ledger_digest(engine)
    engine.dispose()


# What every column keeps

COLUMNS = """
SELECT c.table_name || '.' || c.column_name, c.data_type, c.domain_name
FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'
  AND t.table_name <> 'alembic_version'
"""
MONEY = {
    "heartbeats.equity",
    "experiments.capital",
    "outcomes.pnl",
    "outcomes.fees",
    "outcomes.slippage",
    "outcomes.size",
    "outcome_revisions.pnl",
    "outcome_revisions.fees",
    "outcome_revisions.slippage",
    "outcome_revisions.size",
    "arm_statistics.gross_profit",
    "arm_statistics.gross_loss",
    "arm_statistics.fees",
    "arm_days.pnl",
    "arm_days.fees",
    "account_equity.capital",
    "account_equity.realised_pnl",
    "account_equity.unrealised_pnl",
    "account_equity.peak",
    "account_equity.day_start",
    "marks.unrealised_pnl",
    "marks.worst_pnl",
    "exploration_budgets.amount",
    "exploration_budgets.at_risk",
    "exploration_budgets.expected",
    "reservations.at_risk",
    "reservations.expected",
    "explored_opened.charged",
    "explored_told.released",
    "explored_told.spent",
    "aged_explored.released",
    "aged_explored.spent",
}
NUMERIC_CHECKS = """
SELECT c.oid::regclass || '.' || a.attname, string_agg(pg_get_constraintdef(k.oid), ' ')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY (k.conkey)
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
  AND a.atttypid = 'numeric'::regtype
GROUP BY 1
"""


def test_no_column_fills_itself_in(database_url: str) -> None:
    # Above all not with now(): time is always handed over. What only says what another column of
    # its row says is generated, and cannot ask for the time.
    defaults = (
        "SELECT d.adrelid::regclass, pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d"
        " JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
        " WHERE a.attgenerated = ''"
    )
    assert read(database_url, defaults) == []


def test_every_moment_is_an_instant(database_url: str) -> None:
    moments = [
        (name, kind, domain)
        for name, kind, domain in read(database_url, COLUMNS)
        if "time" in str(kind) or kind == "date"
    ]
    assert len(moments) >= 15
    others = {name for name, kind, domain in moments if domain != "instant"}
    assert others == {
        "decisions.trading_day",
        "arm_days.day",
        "aged_days.day",
        "account_equity.trading_day",
        "evidence_cohorts.day",
        "aged_cohorts.day",
        "paired_cohorts.day",
        "aged_paired_cohorts.day",
        "paper_days.day",
        "aged_paper_days.day",
        "snapshots.snapshot_date",
        "data_runs.date",
        "rotations.day",
    }
    assert {kind for _, kind, domain in moments if domain} == {"timestamp with time zone"}


def test_money_is_never_a_float_and_floats_are_never_bare(database_url: str) -> None:
    found = {name: (kind, domain) for name, kind, domain in read(database_url, COLUMNS)}
    assert {found[name][0] for name in MONEY} == {"numeric"}
    named = {name for name, (_, domain) in found.items() if domain == "amount"}
    assert named <= MONEY
    kinds = ("real", "double precision")
    floats = {name: domain for name, (kind, domain) in found.items() if kind in kinds}
    assert set(floats.values()) == {"ratio"}


def test_exact_numbers_outside_a_domain_refuse_nan_by_themselves(database_url: str) -> None:
    # `CHECK (x >= 0)` lets NaN pass, an upper bound does not.
    checks = dict(read(database_url, NUMERIC_CHECKS))
    assert len(checks) >= 10
    for name, definition in checks.items():
        assert "'NaN'" in str(definition) or "<= " in str(definition), name


@pytest.mark.parametrize(
    "path", [*sorted((MIGRATIONS / "versions").glob("*.py")), MIGRATIONS / "env.py"]
)
def test_migrations_import_nothing_of_the_application(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names <= {"alembic", "sqlalchemy"}
