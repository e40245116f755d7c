"""Candles brought into the store, from files and from exchanges, and read from it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bandit.core.errors import ExtraMissing, InvalidInput
from config.settings import Settings
from learners.market.candle_store import Appended, CandleStore
from learners.market.candles import Candles, load_candles
from learners.market.exchange import Exchange
from learners.market.feature_store import require_same
from learners.market.intervals import interval_of
from learners.market.stored_series import SeriesName
from learners.market.validation import ValidationReport
from liveops.breakers import Breakers
from liveops.ledger_server import state_home


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCandles:
    """What became of the bars of one file or one exchange, and what was seen in them."""

    name: SeriesName
    appended: Appended
    report: ValidationReport

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "source": self.name.source,
            "instrument": self.name.instrument,
            "interval_seconds": self.name.interval.total_seconds(),
            "new": self.appended.new,
            "known": self.appended.known,
            "unclosed": self.appended.unclosed,
            "digest": self.appended.digest,
            "report": self.report.to_json(),
        }


def candle_store(settings: Settings, *, demo: bool = False) -> CandleStore:
    """Return the store of candles under `home`; the demo's pipeline has one of its own."""
    home = state_home(settings)
    return CandleStore((home / "demo" if demo else home) / "candles")


def import_candle_file(
    store: CandleStore,
    path: Path,
    *,
    source: str,
    instrument: str | None,
    allow_gaps: bool,
    now: datetime,
) -> ImportedCandles:
    """Append the closed bars of a file to its series; raises what `load_candles` and it raise."""
    candles = load_candles(path, instrument=instrument, allow_gaps=allow_gaps)
    name = SeriesName(source=source, instrument=candles.instrument, interval=candles.interval)
    return _stored(store, name, candles, now)


def import_from_exchange(
    store: CandleStore,
    name: SeriesName,
    *,
    since: datetime | None,
    options: Mapping[str, Any],
    breakers: Breakers,
    now: datetime,
) -> ImportedCandles:
    """Append an exchange's closed bars; without `since`, from the last bar stored.

    The fetch, which repeats what fails on the way, is one call of the breaker `exchange.NAME`.
    Raises `InvalidInput` without `since` for a series that is not stored yet, `BreakerOpen`, and
    what the exchange and the store raise.
    """
    if since is None:
        if name not in [stored.name for stored in store.series()]:
            raise InvalidInput(field="--since", rule="must say where a new series begins", found="")
        kept = store.load(name)
        since = kept.opening(len(kept) - 1)
    exchange = Exchange(name=name.source, pause=threading.Event().wait, options=options)
    begin = since
    candles = breakers.call(
        f"exchange.{name.source}",
        lambda: exchange.closed_candles(name.instrument, interval=name.interval, since=begin),
        answers=(InvalidInput, ExtraMissing),
    )
    return _stored(store, name, candles, now)


def stored_candles(
    store: CandleStore, instruments: Sequence[str], *, source: str | None, interval: str | None
) -> list[Candles]:
    """Read the series of some instruments; without source or interval, the only one there is.

    Features that the data pipeline stored of them are computed anew: whoever reads these candles
    sees the numbers that were stored. Raises what `CandleStore.find` and `load` raise,
    `InvalidInput` for no length of a bar, and `FeaturesDiffer`.
    """
    length = None if interval is None else interval_of(interval)
    names = [store.find(i, source=source, interval=length) for i in instruments]
    return [_with_same_features(store, name) for name in names]


def _with_same_features(store: CandleStore, name: SeriesName) -> Candles:
    candles, stored = store.load(name), store.stored(name)
    # What another process rolled back, or loaded, in between has other candles.
    if stored is not None and stored.digest == candles.digest:
        require_same(store.root, stored, candles)
    return candles


def _stored(
    store: CandleStore, name: SeriesName, candles: Candles, now: datetime
) -> ImportedCandles:
    appended = store.append(name, candles, now=now)
    return ImportedCandles(name=name, appended=appended, report=candles.report)
