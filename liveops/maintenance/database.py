"""What keeps the ledger's database fit: ageing, the nightly comparison, VACUUM; and its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from bandit.core.errors import BanditError
from bandit.service import ageing, experiments, rebuilding
from bandit.storage import roles, vacuuming
from bandit.storage.engine import connect, snapshot
from bandit.storage.vacuuming import TableState
from liveops.archives import age_experiments
from liveops.wiring import App

VACUUM_SECONDS_MAX: Final = 1800
"""How long one table may take."""


@dataclass(slots=True)
class Upkeep:
    """What was done, or would be, what went wrong, and how large every table was afterwards."""

    done: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    tables: list[TableState] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as `liveops db maintain --json` prints it."""
        return {
            "done": self.done,
            "errors": self.errors,
            "bytes": sum(table.table_bytes + table.index_bytes for table in self.tables),
            "tables": [table.to_json() for table in self.tables],
        }


def maintain(app: App, *, moment: datetime, dry_run: bool, actor: str) -> Upkeep:
    """Age decisions, compare statistics with outcomes, VACUUM what it helps; each is tried.

    Again finds nothing more to age, and no table that a VACUUM would help.
    """
    upkeep = Upkeep()
    _age(app, upkeep, moment=moment, dry_run=dry_run, actor=actor)
    _compare(app, upkeep, dry_run=dry_run)
    with _owner(app) as engine:
        vacuum_tables(engine, upkeep, dry_run=dry_run)
        with snapshot(engine) as connection:
            upkeep.tables = vacuuming.tables(connection)
    return upkeep


def _age(app: App, upkeep: Upkeep, *, moment: datetime, dry_run: bool, actor: str) -> None:
    days = app.settings.ageing.after_days
    before = moment - timedelta(days=days)
    if dry_run:
        for name in experiments.listed(app.engine):
            leaving = ageing.would_age(app.engine, name, before=before)
            if leaving:
                upkeep.done.append(f"age {name}: {leaving} decisions leave for an archive")
        return
    for name, aged in age_experiments(app, [], before=before, actor=actor):
        if isinstance(aged, BanditError):
            upkeep.errors.append(f"{aged.code}: {aged}")
        elif aged.assignments:
            files = ", ".join(aged.archives)
            upkeep.done.append(f"aged {name}: {aged.assignments} decisions left to {files}")


def _compare(app: App, upkeep: Upkeep, *, dry_run: bool) -> None:
    if dry_run:
        upkeep.done.append("compare every arm's statistics with its outcomes")
        return
    found = rebuilding.compare_once_a_day(app.engine, now=app.clock.now())
    if found is None:
        differing = rebuilding.newest_mismatches(app.engine)
        if differing:
            upkeep.errors.append(f"{differing} columns differ from outcomes, as compared today")
        return
    upkeep.done.append(f"compared the statistics of {found.arms} arms with their outcomes")
    upkeep.errors += [f"differs from its outcomes: {wrong}" for wrong in found.mismatches]


def vacuum_tables(engine: Engine, upkeep: Upkeep, *, dry_run: bool) -> None:
    """VACUUM the tables that it helps; one that the session's user may not is an error."""
    with snapshot(engine) as connection:
        found = vacuuming.tables(connection)
    for table in found:
        if table.why is None:
            continue
        if not table.ours:
            upkeep.errors.append(f"{table.name} needs a VACUUM by its owner: {table.why}")
        elif dry_run:
            upkeep.done.append(f"vacuum {table.name}: {table.why}")
        else:
            try:
                vacuuming.vacuum(engine, table.name)
            except BanditError as error:
                upkeep.errors.append(f"VACUUM of {table.name}: {error}")
            else:
                upkeep.done.append(f"vacuumed {table.name}: {table.why}")


@contextmanager
def _owner(app: App) -> Iterator[Engine]:
    """Yield an engine with the rights of the user who logs in: a service's role owns no table."""
    url = app.engine.url.render_as_string(hide_password=False)
    engine = connect(roles.as_owner(url), pool_size=1, statement_seconds=VACUUM_SECONDS_MAX)
    try:
        yield engine
    finally:
        engine.dispose()
