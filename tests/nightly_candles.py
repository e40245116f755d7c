"""Candles, settings and nights of the data pipeline as the playbooks name them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
from api_service import application
from data_nights import write_csv
from made_up_candles import HOUR, random_walk
from sqlalchemy import Engine

from learners.market.candles import Candles
from liveops.clock import SystemClock
from liveops.data_night import DataRefused
from liveops.data_pipeline import run_night

PAGES: Final = (
    "DataAnomalyFound",
    "DataPipelineCompleted",
    "DataPipelineFailed",
    "DataPipelineLate",
    "data-pipeline",
)
LEAPS: Final = {"DataPipelineFailed": 100.0, "DataAnomalyFound": 1.25}
"""By how much the price leaps in the last hours before the second of March."""


def stage(engine: Engine, home: Path, page: str) -> None:
    """Write 31 days of hours up to the third of March, and run the nights of the first two."""
    walk = random_walk(31 * 24, seed=4)
    start = np.datetime64("2026-01-31", "us")
    times = start + np.arange(len(walk)) * np.timedelta64(HOUR, "us")
    last = times >= np.datetime64("2026-03-01T20:00", "us")
    far = np.where(last, LEAPS.get(page, 1.0), 1.0)
    numbers = {name: values * far for name, values in walk.numbers().items() if name != "volume"}
    candles = Candles(
        instrument="BTCUSD", opened_at=times, bar_interval=HOUR, **numbers, volume=walk.volume
    )
    write_csv(home / "BTCUSD.csv", candles)
    feed = {"instrument": "BTCUSD", "interval": "1h", "files": str(home / "BTCUSD.csv")}
    config = home / "config" / "config.yaml"
    config.parent.mkdir()
    lines = "".join(f"\n      {name}: {value}" for name, value in feed.items())
    config.write_text(f"data:\n  feeds:\n    -{lines.removeprefix(chr(10) + '     ')}\n")
    settings = {"home": str(home), "data": {"feeds": [feed]}}
    app = application(engine, clock=SystemClock(), settings=settings)
    for day in (date(2026, 3, 1), date(2026, 3, 2)):
        try:
            run_night(app, day, accepted=None, actor="test")
        except DataRefused:
            assert page == "DataPipelineFailed"
