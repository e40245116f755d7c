"""What the monitor and the status of a service read again and again, as one piece of work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine

from bandit.service.assigning import Router
from benchmarks.history import END
from benchmarks.temporary_ledger import EXPERIMENT, VAR
from config.settings import Settings
from liveops import health
from liveops.clock import VirtualClock
from liveops.health import status_json
from liveops.latch import Latch
from liveops.monitoring import Monitor
from liveops.wiring import App

TARGET = 1.10


def refreshing(engine: Engine) -> Callable[[], None]:
    """Do a round of `--mode continuous`, and what `/status` and the status file tell beside it."""
    app = App(
        settings=Settings(),
        engine=engine,
        router=Router(engine),
        clock=VirtualClock(END + timedelta(days=1)),
        latch=Latch(VAR / "no-latch"),
        demo=False,
        revive=lambda: None,
    )
    monitor = Monitor(app=app, policy="challenger", learner=None, is_dry=False)

    def refresh() -> None:
        assert monitor.look().to_json()["experiments"] == [EXPERIMENT]
        assert status_json(health.look(app))["trading"]["recent_trades"]

    return refresh
