"""Candles from an exchange: ccxt itself, against one on this machine that speaks Binance."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fake_exchange import PAIR, FakeExchange, serving
from made_up_candles import part, random_walk

from bandit.core.errors import InvalidInput
from learners.market.candle_store import CandleStore, SeriesName
from learners.market.candles import Candles
from learners.market.exchange import Exchange, ExchangeUnavailable, ExtraMissing

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
WALK = random_walk(250, seed=3)


def as_pair(candles: Candles) -> Candles:
    return Candles(
        instrument=PAIR,
        opened_at=candles.opened_at,
        bar_interval=candles.interval,
        **candles.numbers(),
    )


@pytest.fixture
def fake() -> Iterator[FakeExchange]:
    """At the close of bar 239, half an hour on: bar 240 is not closed."""
    exchange = FakeExchange(candles=WALK, server_time=START + 240 * HOUR + HOUR / 2, page_bars=100)
    with serving(exchange):
        yield exchange


def client(fake: FakeExchange, pauses: list[float] | None = None) -> Exchange:
    return Exchange(
        name="binance",
        pause=(pauses if pauses is not None else []).append,
        options=fake.options,
    )


def test_every_closed_bar_comes_page_by_page_and_none_that_is_open(fake: FakeExchange) -> None:
    candles = client(fake).closed_candles(PAIR, interval=HOUR, since=START)

    assert candles.digest == as_pair(part(WALK, 0, 240)).digest
    assert candles.closing(len(candles) - 1) <= fake.server_time
    # 100, 100, and 50 of which the last ten are not closed
    assert fake.pages() == 3


def test_from_a_later_bar_on(fake: FakeExchange) -> None:
    candles = client(fake).closed_candles(PAIR, interval=HOUR, since=START + 200 * HOUR)

    assert candles.digest == as_pair(part(WALK, 200, 240)).digest
    assert fake.pages() == 1


def test_the_time_can_be_given_instead_of_asked_for(fake: FakeExchange) -> None:
    candles = client(fake).closed_candles(
        PAIR, interval=HOUR, since=START, server_time=START + 3 * HOUR
    )

    assert len(candles) == 3
    assert "/api/v3/time" not in {path for path, _ in fake.asked}


def test_a_pause_of_the_market_is_a_gap_not_the_end() -> None:
    walk = random_walk(250, seed=3, skip=tuple(range(90, 130)))
    with serving(
        FakeExchange(candles=walk, server_time=START + 300 * HOUR, page_bars=60)
    ) as exchange:
        candles = client(exchange).closed_candles(PAIR, interval=HOUR, since=START)

    assert candles.digest == as_pair(walk).digest
    assert "gap" in [finding.kind.value for finding in candles.report.findings]


@pytest.mark.parametrize("fault", [429, 418, 500, 503])
def test_a_fault_on_the_way_is_asked_again(fake: FakeExchange, fault: int) -> None:
    pauses: list[float] = []
    fake.faults = [fault] * 4

    candles = client(fake, pauses).closed_candles(PAIR, interval=HOUR, since=START)

    assert len(candles) == 240
    assert pauses == [1.0, 2.0, 4.0, 8.0]


def test_an_exchange_that_stays_away_is_given_up(fake: FakeExchange) -> None:
    pauses: list[float] = []
    fake.faults = [503] * 100

    with pytest.raises(ExchangeUnavailable, match="binance: ExchangeNotAvailable"):
        client(fake, pauses).closed_candles(PAIR, interval=HOUR, since=START)

    assert len(pauses) == 4
    assert len(fake.asked) == 5


def test_an_exchange_that_is_not_there_is_given_up() -> None:
    absent = FakeExchange(candles=WALK, server_time=START, port=9)

    with pytest.raises(ExchangeUnavailable, match="binance: "):
        client(absent).closed_candles(PAIR, interval=HOUR, since=START)


@pytest.mark.parametrize(
    ("name", "instrument", "interval", "message"),
    [
        ("binance", "XRP/USDT", HOUR, "instrument: must be one of binance"),
        ("binance", PAIR, timedelta(minutes=7), "interval: must be one of binance: 1s, 1m.* 7m"),
        ("nowhere", PAIR, HOUR, "exchange: must be one ccxt knows, found nowhere"),
    ],
)
def test_what_there_is_not_is_refused(
    fake: FakeExchange, name: str, instrument: str, interval: timedelta, message: str
) -> None:
    exchange = Exchange(name=name, pause=[].append, options=fake.options)

    with pytest.raises(InvalidInput, match=message):
        exchange.closed_candles(instrument, interval=interval, since=START)


def test_no_closed_bar_is_refused(fake: FakeExchange) -> None:
    with pytest.raises(InvalidInput, match="BTC/USDT: bars: must be at least 1, found 0"):
        client(fake).closed_candles(PAIR, interval=HOUR, since=START + 240 * HOUR)
    with pytest.raises(InvalidInput, match="since: must have a UTC offset"):
        client(fake).closed_candles(PAIR, interval=HOUR, since=datetime(2024, 1, 1))  # noqa: DTZ001


def test_without_ccxt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)

    with pytest.raises(ExtraMissing, match="pip install ccxt"):
        Exchange(name="binance", pause=[].append, options={}).closed_candles(
            PAIR, interval=HOUR, since=START
        )


def test_fetching_on_from_the_last_bar_stored_grows_the_same_series(
    fake: FakeExchange, tmp_path: Path
) -> None:
    store = CandleStore(tmp_path)
    name = SeriesName(source="binance", instrument=PAIR, interval=HOUR)
    fake.server_time = START + 100 * HOUR
    first = client(fake).closed_candles(PAIR, interval=HOUR, since=START)
    store.append(name, first, now=fake.server_time)
    fake.server_time = START + 240 * HOUR
    last = store.load(name)

    rest = client(fake).closed_candles(PAIR, interval=HOUR, since=last.opening(len(last) - 1))
    appended = store.append(name, rest, now=fake.server_time)

    assert (appended.new, appended.known) == (140, 1)
    assert store.load(name).digest == as_pair(part(WALK, 0, 240)).digest
    assert np.array_equal(store.load(name).volume, WALK.volume[:240])
