"""`liveops db maintain`: what leaves, what is compared, and which tables are vacuumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aged_history import NOW, History
from api_service import application
from ledger import CHALLENGER, count, open_btc
from sqlalchemy import Engine, text

from bandit.service import experiments
from bandit.service.ledger import ledger_digest
from bandit.storage import locks, vacuuming
from bandit.storage.engine import connect, snapshot
from bandit.storage.roles import as_application
from bandit.storage.vacuuming import TableState
from liveops import cli
from liveops.archives import archives_of
from liveops.clock import VirtualClock
from liveops.maintenance import database
from liveops.wiring import App

# More than half of what it once held is dead, and the server does not look after it.
JUNK = """
CREATE TABLE junk AS SELECT generate_series(1, 6000) AS x;
ALTER TABLE junk SET (autovacuum_enabled = false);
DELETE FROM junk WHERE x % 3 > 0;
"""


@pytest.fixture
def maintain(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, dict[str, Any]]]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path / "var"))

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = cli.exit_code(cli.app, ["db", "maintain", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def junk(engine: Engine) -> TableState:
    with snapshot(engine) as connection:
        return next(t for t in vacuuming.tables(connection) if t.name == "junk")


def execute(engine: Engine, script: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(script))


def test_dead_rows_are_vacuumed_once_by_who_may(
    engine: Engine, maintain: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    open_btc(engine)
    execute(engine, JUNK)
    engine.dispose()  # a session tells its counts at its end
    assert junk(engine).why == "4000 dead rows of 6000"
    code, would = maintain("--dry-run")
    assert (code, would["dry_run"]) == (0, True)
    assert would["done"] == [
        "compare every arm's statistics with its outcomes",
        "vacuum junk: 4000 dead rows of 6000",
    ]
    assert junk(engine).dead_rows == 4000
    assert count(engine, "statistics_comparisons") == 0

    code, told = maintain()
    assert (code, told["errors"]) == (0, [])
    assert told["done"] == [
        "compared the statistics of 2 arms with their outcomes",
        "vacuumed junk: 4000 dead rows of 6000",
    ]
    after = junk(engine)
    assert (after.dead_rows, after.rows, after.why) == (0, 2000, None)
    [shown] = [row for row in told["tables"] if row["name"] == "junk"]
    assert shown == after.to_json()
    assert told["bytes"] == sum(row["table_bytes"] + row["index_bytes"] for row in told["tables"])
    code, again = maintain()
    assert (code, again["done"], again["errors"]) == (0, [], [])


@pytest.fixture
def app(history: History, tmp_path: Path) -> App:
    served = application(history.engine, clock=VirtualClock(NOW))
    ageing = served.settings.ageing.model_copy(update={"after_days": 40})
    changed = {"home": tmp_path, "ageing": ageing}
    return replace(served, settings=served.settings.model_copy(update=changed))


def upkeep(app: App, *, dry_run: bool = False) -> database.Upkeep:
    return database.maintain(app, moment=NOW, dry_run=dry_run, actor="test")


def test_old_decisions_leave_as_a_dry_run_says(app: App) -> None:
    digest = ledger_digest(app.engine)
    [leaves] = [line for line in upkeep(app, dry_run=True).done if line.startswith("age ")]
    assert ledger_digest(app.engine) == digest
    assert archives_of(app).sha256("btc-000001.parquet") is None
    [left] = [line for line in upkeep(app).done if line.startswith("aged ")]
    n_left = int(leaves.split()[2])
    assert n_left > 200
    assert leaves == f"age btc: {n_left} decisions leave for an archive"
    assert left == f"aged btc: {n_left} decisions left to btc-000001.parquet"
    assert not [line for line in upkeep(app).done if line.startswith("aged ")]


def test_an_experiment_that_somebody_is_at_does_not_keep_the_rest(app: App) -> None:
    record = experiments.load(app.engine, "btc")
    with locks.use_case(app.engine, record.id, doing="a night"):
        found = upkeep(app)
    assert found.errors == ["lock_held_elsewhere: ageing btc: another process is at it now"]
    assert "compared the statistics of 2 arms with their outcomes" in found.done


def test_what_differs_from_outcomes_is_told_the_same_day_again(app: App) -> None:
    upkeep(app)
    execute(app.engine, "UPDATE arm_statistics SET fees = fees + 1")
    app.clock.advance_to(NOW + timedelta(days=1))  # type: ignore[attr-defined]
    assert upkeep(app).errors == [
        "differs from its outcomes: btc/prod: arm_statistics.fees",
        f"differs from its outcomes: btc/{CHALLENGER}: arm_statistics.fees",
    ]
    assert upkeep(app).errors == ["2 columns differ from outcomes, as compared today"]


def test_a_table_of_somebody_else_is_told_of(engine: Engine, database_url: str) -> None:
    execute(engine, JUNK)
    engine.dispose()
    as_service = as_application(database_url)
    assert as_service is not None
    service = connect(as_service)
    found = database.Upkeep()
    database.vacuum_tables(service, found, dry_run=False)
    service.dispose()
    assert found.errors == ["junk needs a VACUUM by its owner: 4000 dead rows of 6000"]
    assert junk(engine).dead_rows == 4000
