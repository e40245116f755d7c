"""What a scrape of `/metrics` costs with 50 policies: series, bytes, statements and time.

A scraper comes as Prometheus does, in its format and its rhythm. The yardsticks are the limits.
"""

from __future__ import annotations

import gzip
import threading
from datetime import timedelta
from decimal import Decimal
from statistics import median
from time import perf_counter

import httpx
import psycopg
from sqlalchemy import Engine, event

from bandit.core.account import LossLimits
from bandit.core.limits import Limits
from bandit.core.model import Experiment
from bandit.service import experiments, scaling
from bandit.service.assigning import Router
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.history import END, count_planted, plant
from benchmarks.temporary_ledger import ACTOR, CALM, OPENED, VAR, ledger, register, server_on_disk
from config.settings import Settings
from liveops.api.application import create_probe_api
from liveops.api.server import serving
from liveops.clock import SystemClock
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.latch import Latch
from liveops.wiring import App

EXPERIMENTS, POLICIES = 5, 10
TRADES = 200
SCRAPES = 8 if QUICK else 60
WARM_UP = 3  # a scraper has a rhythm from the second on
GAP_SECONDS = 1.5
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
DATABASE = "scrape"
LIMITS = {"series": 2_500.0, "bytes": 200_000.0, "statements": 1.0, "p50_ms": 10.0, "p99_ms": 30.0}


def planted(server: EmbeddedPostgres, engine: Engine) -> None:
    """Plant experiments with as many policies as there are, and let a night read each."""
    for i in range(EXPERIMENTS):
        names = [register(engine, f"reinforcement_20250707_15{i}{j:03}") for j in range(POLICIES)]
        record, _ = experiments.open_experiment(
            engine,
            Experiment(
                name=f"experiment-{i}",
                champion=names[0],
                capital=Decimal(10**12),
                currency="USD",
                equity_fraction=0.1,
            ),
            challengers=names[1:],
            salt=bytes(range(32)),
            limits=Limits(start_ppm=20_000),
            loss_limits=LossLimits(),
            rules=CALM,
            now=OPENED,
            actor=ACTOR,
        )
        with psycopg.connect(server.conninfo(DATABASE), autocommit=True) as connection:
            for arm in record.arms:
                plant(connection, arm, trades=TRADES, every=timedelta(hours=4))
    count_planted(engine)
    for i in range(EXPERIMENTS):
        scaling.scale(engine, f"experiment-{i}", now=END + timedelta(hours=3), actor=ACTOR)
    with psycopg.connect(server.conninfo(DATABASE), autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")


def scraped(engine: Engine) -> dict[str, float]:
    """Scrape a service in a steady rhythm; what one costs, by the names of `LIMITS`."""
    app = App(
        settings=Settings(),
        engine=engine,
        router=Router(engine),
        clock=SystemClock(),
        latch=Latch(VAR / "no-latch"),
        demo=False,
        revive=lambda: None,
    )
    asked: list[float] = []
    event.listen(engine, "before_cursor_execute", lambda *_: asked.append(perf_counter()))
    wait, took, meanwhile = threading.Event(), list[float](), list[int]()
    with (
        serving(app, host="127.0.0.1", port=0, make=create_probe_api) as url,
        httpx.Client(base_url=url, headers={"Accept": ACCEPT, "Accept-Encoding": "gzip"}) as client,
    ):
        begins = perf_counter()
        for n in range(WARM_UP + SCRAPES):
            wait.wait(max(begins + n * GAP_SECONDS - perf_counter(), 0.0))
            start = perf_counter()
            with client.stream("GET", "/metrics") as answer:
                sent = b"".join(answer.iter_raw())
            took.append(perf_counter() - start)
            meanwhile.append(sum(start <= at <= start + took[-1] for at in asked))
    progress(f"{len(asked) / len(took):.0f} statements a scrape, most of them ahead of it")
    text = gzip.decompress(sent)
    progress(f"{len(text)} bytes before they are packed")
    took, meanwhile = sorted(took[WARM_UP:]), meanwhile[WARM_UP:]
    return {
        "series": sum(not line.startswith(b"#") for line in text.splitlines()),
        "bytes": len(sent),
        "statements": median(meanwhile),
        "p50_ms": 1000 * median(took),
        "p99_ms": 1000 * took[-1 - len(took) // 100],
    }


def main() -> None:
    """Print the claims."""
    with server_on_disk(durable=True) as server, ledger(server, DATABASE) as engine:
        planted(server, engine)
        found = scraped(engine)
    for name, limit in LIMITS.items():
        claim(
            f"monitor.scrape.{name}",
            ours=f"{found[name]:.4g}",
            yardstick=f"{limit:g}",
            ratio=found[name] / limit,
            side=Target.AT_MOST,
            target=1.0,
        )


if __name__ == "__main__":
    main()
