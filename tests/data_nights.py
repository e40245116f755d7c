"""Nights of the data pipeline for tests: files of candles that grow, and an App that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from api_service import application
from made_up_candles import HOUR, part, random_walk
from sqlalchemy import Engine, text

from learners.market.candle_store import CandleStore
from learners.market.candles import Candles
from learners.market.store_switch import SWITCH, documents
from learners.market.stored_series import MANIFEST, SeriesName
from liveops.clock import VirtualClock
from liveops.data_pipeline import NightReport, run_night
from liveops.wiring import App

START = datetime(2024, 1, 1, tzinfo=UTC)
FIRST = date(2024, 1, 21)
"""The first night: twenty days of hours are there."""

BARS = {"AAA": random_walk(30 * 24, seed=1), "BBB": random_walk(30 * 24, seed=2)}


def series(instrument: str) -> SeriesName:
    return SeriesName(source="file", instrument=instrument, interval=HOUR)


def night(n: int) -> date:
    """The n-th night; the first is 0."""
    return FIRST + timedelta(days=n)


def named(candles: Candles, instrument: str) -> Candles:
    return Candles(
        instrument=instrument,
        opened_at=candles.opened_at,
        bar_interval=candles.interval,
        **candles.numbers(),
    )


def write_csv(path: Path, candles: Candles, **columns: Sequence[float]) -> None:
    """Write candles as an exchange gives them; `columns` stand in for their own."""
    numbers = {**candles.numbers(), **columns}
    lines = ["opened_at,open,high,low,close,volume"]
    for bar, opened in enumerate(candles.opened_at):
        cells = [f"{np.datetime_as_string(opened, unit='s')}Z"]
        cells += [repr(float(numbers[name][bar])) for name in numbers]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")


def grow(folder: Path, *, days: int, only: Sequence[str] = tuple(BARS)) -> None:
    """Let the files hold so many days of hours."""
    folder.mkdir(exist_ok=True)
    for instrument in only:
        write_csv(folder / f"{instrument}.csv", part(BARS[instrument], 0, days * 24))


def app_of(
    engine: Engine, home: Path, *, feeds: Sequence[Mapping[str, Any]] = (), **data: Any
) -> App:
    """An App at 02:00 of the 22nd of January 2024 that reads the files below `home`."""
    files = [
        {"instrument": name, "interval": "1h", "files": str(home / "files" / f"{name}.csv")}
        for name in BARS
    ]
    told = {"home": str(home), "data": {"feeds": list(feeds) or files, **data}}
    clock = VirtualClock(START + timedelta(days=29, hours=2))
    return application(engine, clock=clock, settings=told)


def run(app: App, n: int, **changes: Any) -> NightReport:
    return run_night(app, night(n), **{"accepted": None, "actor": "test", **changes})


def contents(store: CandleStore) -> dict[str, bytes]:
    """Every file of the store that is named, by its path: the same again, the same bytes."""
    assert not (store.root / SWITCH).exists()
    found = {}
    for stored in store.series():
        folder = store.root / stored.name.folder
        for name in (MANIFEST, *stored.files):
            found[str((folder / name).relative_to(store.root))] = (folder / name).read_bytes()
    assert {str(Path(path).parent) for path in found} == set(documents(store.root))
    return found


def forget_facts(engine: Engine) -> None:
    """Empty the ledger of what nights did, for the next try at the same night."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("TRUNCATE data_runs"))
