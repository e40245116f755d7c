"""A backup of 10^6 outcomes, and the drill that restores it: equal, how old, how long.

The yardsticks are the targets themselves: a ledger that lost at most a minute, and a service on the
restored ledger that is ready within five. The digest is that of the backup's moment: the ledger
goes on deciding while it is backed up, and what it decides then must not be in the backup.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import psycopg
from sqlalchemy import Engine

from bandit.core.backups import BackupKind, RestoreDrill
from bandit.core.model import UnitId
from bandit.service.assigning import Router
from bandit.service.ledger import ledger_digest
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.history import count_planted, plant
from benchmarks.temporary_ledger import (
    ACTOR,
    CALM,
    EXPERIMENT,
    INSTRUMENT,
    VAR,
    ledger,
    open_experiment,
    server_on_disk,
)
from config.settings import Settings
from liveops import backups, restore_drill
from liveops.breakers import Breakers
from liveops.clock import SystemClock
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.latch import Latch
from liveops.wiring import App
from snapshots.backup_files import Backup

OUTCOMES = 10**4 if QUICK else 10**6
YEARS = 2
RPO_SECONDS, RTO_SECONDS = 60.0, 300.0


def planted(server: EmbeddedPostgres, engine: Engine) -> None:
    """Fill the ledger with settled decisions, four fifths of them the champion's."""
    start = perf_counter()
    champion, challenger = open_experiment(engine, challenger_ppm=200_000, rules=CALM).arms
    every = timedelta(days=365 * YEARS) / OUTCOMES
    with psycopg.connect(server.conninfo("liveops"), autocommit=True) as connection:
        plant(connection, champion, trades=OUTCOMES * 4 // 5, every=every * 5 / 4)
        plant(connection, challenger, trades=OUTCOMES // 5, every=every * 5)
        count_planted(engine)
        connection.execute("VACUUM (ANALYZE)")
    progress(f"planted {OUTCOMES} outcomes in {perf_counter() - start:.0f} s")


def app_of(engine: Engine, home: Path) -> App:
    """An App on the ledger, with its backups and its scratch server in `home`."""
    return App(
        settings=Settings(home=home),
        engine=engine,
        router=Router(engine),
        clock=SystemClock(),
        latch=Latch(home / "KILLED"),
        demo=False,
        revive=lambda: None,
        breakers=Breakers(),
    )


def backed_up(app: App) -> Backup:
    """Take a backup while the ledger decides, and say how long it takes."""
    now = app.clock.now()

    def decide(line: str) -> None:
        progress(f"backup: {line}")
        if not line.startswith(("dumping", "counting")):
            return  # before, it would be in the backup
        unit = Opportunity(unit_id=UnitId(f"meanwhile-{line[:7]}"), instrument=INSTRUMENT)
        app.router.assign(EXPERIMENT, [unit], now=now)

    start = perf_counter()
    made = backups.take(app, BackupKind.DATABASE, say=decide)
    assert made is not None
    seconds = perf_counter() - start
    progress(f"backup of {made.size_bytes / 1e6:.0f} MB in {seconds:.1f} s, read back")
    return made


def exercised(app: App) -> RestoreDrill:
    """Run the drill, and say how long all of it takes."""
    start = perf_counter()
    drill = restore_drill.exercise(
        app, actor=ACTOR, say=lambda line: progress(f"{perf_counter() - start:6.1f} s {line}")
    )
    progress(f"drill with its comparison in {perf_counter() - start:.1f} s: {drill.to_json()}")
    return drill


def main() -> None:
    """Plant, back up, exercise, claim."""
    with (
        server_on_disk(durable=True) as server,
        ledger(server, "liveops") as engine,
        tempfile.TemporaryDirectory(dir=VAR, prefix="benchmark-") as home,
    ):
        Path(home).chmod(0o711)  # for root, whose server may have to run as another user
        planted(server, engine)
        app = app_of(connect(server.url("liveops"), statement_seconds=1800), Path(home))
        before = ledger_digest(app.engine)
        made = backed_up(app)
        drill = exercised(app)
        app.engine.dispose()
    same = made.metadata["digest"] == before and drill.passed
    claim(
        "maintenance.restore_drill.same_digest_rows_and_numbers",
        ours=f"{drill.rows}_rows",
        yardstick=f"{sum(made.metadata['rows'].values())}_rows",
        ratio=float(same),
        side=Target.AT_LEAST,
        target=1,
    )
    for name, seconds, limit in (
        ("maintenance.restore_drill.recovery_point", drill.rpo_seconds, RPO_SECONDS),
        ("maintenance.restore_drill.recovery_time", drill.rto_seconds or float("inf"), RTO_SECONDS),
    ):
        claim(
            name,
            ours=f"{seconds:.1f}s",
            yardstick=f"{limit:.0f}s",
            ratio=seconds / limit,
            side=Target.AT_MOST,
            target=1,
        )


if __name__ == "__main__":
    main()
