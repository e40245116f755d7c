"""The feeds of the data pipeline, as the settings name them: files, and exchanges by ccxt."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bandit.core.errors import ExtraMissing, InvalidInput
from config.data import FeedEntry
from config.settings import Settings
from learners.market.candles import SHIPPED_FILE
from learners.market.exchange import Exchange
from learners.market.feeds import Feed, FileFeed, RawBars
from learners.market.intervals import interval_of
from learners.market.stored_series import SeriesName
from liveops.breakers import Breakers
from liveops.ledger_server import checkout

DEMO_SERIES = SeriesName(source="demo", instrument="BTCUSD", interval=timedelta(hours=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFeed:
    """The bars of an exchange; a call of it is one of the breaker `exchange.NAME`.

    A series that is not kept yet begins `history` before the night.
    """

    name: SeriesName
    exchange: str
    history: timedelta
    options: Mapping[str, Any]
    breakers: Breakers

    def bars(self, *, since: datetime | None, until: datetime) -> RawBars:
        """Fetch the bars, what fails on the way repeated with growing pauses.

        Raises `InvalidInput` for bars that are wrong in form, or none; `ExchangeUnavailable`,
        `BreakerOpen` and `ExtraMissing`.
        """
        asked = Exchange(name=self.exchange, pause=threading.Event().wait, options=self.options)
        candles = self.breakers.call(
            f"exchange.{self.exchange}",
            lambda: asked.closed_candles(
                self.name.instrument,
                interval=self.name.interval,
                since=since or until - self.history,
                server_time=until,
            ),
            answers=(InvalidInput, ExtraMissing),
        )
        return RawBars(opened_at=candles.opened_at, numbers=candles.numbers())


def feeds_of(settings: Settings, breakers: Breakers, *, demo: bool) -> tuple[Feed, ...]:
    """Return the feeds of the settings; the demo's is the file that comes with the product.

    Raises `InvalidInput` where none is named, and for options of ccxt that cannot be read.
    """
    if demo:
        return (FileFeed(name=DEMO_SERIES, pattern=SHIPPED_FILE),)
    chosen = settings.data
    if not chosen.feeds:
        rule = "must name a series that the nights bring in"
        raise InvalidInput(field="data.feeds", rule=rule, found="none")
    options = exchange_options(chosen.exchange_options_file)
    history = timedelta(days=chosen.history_days)
    return tuple(_feed(entry, options, breakers, history=history) for entry in chosen.feeds)


def exchange_options(path: Path | None) -> Mapping[str, Any]:
    """Read ccxt's options from a JSON file; raises `InvalidInput` for anything else in it.

    >>> exchange_options(None)
    {}
    """
    if path is None:
        return {}
    try:
        options = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        rule = "must be a JSON file that can be read"
        raise InvalidInput(field=str(path), rule=rule, found=error) from error
    if not isinstance(options, dict):
        raise InvalidInput(field=str(path), rule="must hold an object", found=options)
    return options


def _feed(
    entry: FeedEntry, options: Mapping[str, Any], breakers: Breakers, *, history: timedelta
) -> Feed:
    source, instrument, interval = entry.named
    name = SeriesName(source=source, instrument=instrument, interval=interval_of(interval))
    if entry.files is not None:
        files = entry.files.expanduser()
        return FileFeed(name=name, pattern=files if files.is_absolute() else checkout() / files)
    assert entry.exchange is not None
    return ExchangeFeed(
        name=name, exchange=entry.exchange, history=history, options=options, breakers=breakers
    )
