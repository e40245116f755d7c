"""Feeds of files, and what is asked of the bars they bring."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from data_nights import named, series, write_csv
from made_up_candles import HOUR, part, random_walk
from pydantic import ValidationError

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from config.data import Data
from config.settings import Settings
from learners.market.bar_checks import BarCheckKind, check_bars, new_bars
from learners.market.candles import Candles
from learners.market.feeds import FileFeed, RawBars
from liveops.breakers import Breakers
from liveops.data_feeds import ExchangeFeed, exchange_options, feeds_of

NAME = series("AAA")
WALK = named(random_walk(100, seed=1), "AAA")
START = datetime(2024, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=30)


def raw(candles: Candles) -> RawBars:
    return RawBars(opened_at=candles.opened_at, numbers=candles.numbers())


def test_a_file_a_pattern_and_a_directory_bring_the_same(tmp_path: Path) -> None:
    write_csv(tmp_path / "AAA-1.csv", part(WALK, 0, 60))
    # Ten bars more than once, and the newest first: both are how exchanges write files.
    newest_first = part(WALK, 50, 100)
    write_csv(tmp_path / "AAA-2.csv", newest_first)
    lines = (tmp_path / "AAA-2.csv").read_text().splitlines()
    (tmp_path / "AAA-2.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    (tmp_path / "README.md").write_text("not a candle")
    write_csv(tmp_path / "one.csv", WALK)

    found = {
        what: FileFeed(name=NAME, pattern=tmp_path / what).bars(since=None, until=LATER)
        for what in ("AAA-*.csv", "one.csv", "")
    }

    for bars in found.values():
        assert np.array_equal(bars.opened_at, WALK.opened_at)
        assert np.array_equal(bars.numbers["close"], WALK.close)


def test_only_bars_that_are_closed_and_wanted_come(tmp_path: Path) -> None:
    write_csv(tmp_path / "one.csv", WALK)
    feed = FileFeed(name=NAME, pattern=tmp_path / "one.csv")
    bars = feed.bars(since=START + 10 * HOUR, until=START + 20 * HOUR)
    # Bar 19 closes at the twentieth hour, bar 20 a whole hour later.
    assert np.array_equal(bars.opened_at, WALK.opened_at[10:20])


def test_files_that_disagree_hold_a_bar_twice(tmp_path: Path) -> None:
    write_csv(tmp_path / "1.csv", part(WALK, 0, 60))
    write_csv(tmp_path / "2.csv", part(WALK, 59, 100), volume=[7.0] * 41)
    bars = FileFeed(name=NAME, pattern=tmp_path).bars(since=None, until=LATER)
    checks = check_bars(NAME, bars, None, until=START + 100 * HOUR, missing_max=0.0)
    assert {c.kind for c in checks if c.verdict is Verdict.FAIL} == {BarCheckKind.DUPLICATES}


def test_a_pattern_that_names_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="must name a file that ends in"):
        FileFeed(name=NAME, pattern=tmp_path / "*.csv").bars(since=None, until=LATER)


def checked(bars: RawBars | str, kept: Candles | None, *, hours: int = 100, missing: float = 0.1):  # type: ignore[no-untyped-def]
    checks = check_bars(NAME, bars, kept, until=START + hours * HOUR, missing_max=missing)
    assert [check.kind for check in checks] == list(BarCheckKind)
    return {check.kind: (check.verdict, check.value) for check in checks}


def test_whole_bars_pass_every_check() -> None:
    kept = part(WALK, 0, 76)
    told = checked(raw(part(WALK, 52, 100)), kept)
    assert set(told.values()) == {(Verdict.PASS, 0.0)}
    assert len(new_bars(raw(part(WALK, 52, 100)), kept)) == 24


@pytest.mark.parametrize(
    ("lacking", "verdict"), [(0, Verdict.PASS), (2, Verdict.PASS), (3, Verdict.FAIL)]
)
def test_completeness_is_at_its_limit_and_beyond(lacking: int, verdict: Verdict) -> None:
    # Of twenty bars due two may be missing.
    told = checked(raw(part(WALK, 70, 100 - lacking)), part(WALK, 0, 80))
    assert told[BarCheckKind.COMPLETENESS] == (verdict, pytest.approx(lacking / 20))


def test_nothing_due_is_no_fault_and_nothing_ever_is_one() -> None:
    nothing = raw(WALK).where(np.zeros(100, dtype=bool))
    assert checked(nothing, WALK)[BarCheckKind.COMPLETENESS] == (Verdict.PASS, 0.0)
    assert checked(nothing, None)[BarCheckKind.COMPLETENESS] == (Verdict.FAIL, 1.0)
    assert checked(nothing, part(WALK, 0, 50))[BarCheckKind.COMPLETENESS] == (Verdict.FAIL, 1.0)


def test_what_could_not_be_read_fails_and_leaves_the_rest_open() -> None:
    told = checked("no such column", None)
    assert told.pop(BarCheckKind.SCHEMA) == (Verdict.FAIL, 1.0)
    assert set(told.values()) == {(Verdict.INCONCLUSIVE, None)}


def revised(bars: RawBars) -> None:
    bars.numbers["volume"] = bars.numbers["volume"] + np.eye(1, len(bars), 3)[0]


def not_a_number(bars: RawBars) -> None:
    bars.numbers["close"] = np.where(np.arange(len(bars)) == 47, np.nan, bars.numbers["close"])


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(revised, BarCheckKind.AGREEMENT), (not_a_number, BarCheckKind.VALUES)],
)
def test_each_fault_is_told_by_its_own_check(
    spoil: Callable[[RawBars], None], kind: BarCheckKind
) -> None:
    bars = raw(part(WALK, 52, 100))
    spoil(bars)
    told = checked(bars, part(WALK, 0, 76))
    assert {k for k, (verdict, _) in told.items() if verdict is Verdict.FAIL} == {kind}
    assert told[kind][1] == 1.0


def test_a_bar_that_the_store_lacks_is_a_disagreement() -> None:
    there = np.arange(100) != 60
    lacking = RawBars(opened_at=WALK.opened_at, numbers=WALK.numbers()).where(there)
    kept = Candles(
        instrument="AAA", opened_at=lacking.opened_at, bar_interval=HOUR, **lacking.numbers
    )
    told = checked(raw(part(WALK, 52, 100)), part(kept, 0, 75))
    assert told[BarCheckKind.AGREEMENT] == (Verdict.FAIL, 1.0)


def settings_of(*feeds: dict[str, object], **more: object) -> Settings:
    return Settings.model_validate({"data": {"feeds": list(feeds), **more}})


def test_settings_name_feeds(tmp_path: Path) -> None:
    options = tmp_path / "options.json"
    options.write_text('{"proxies": {}}')
    settings = settings_of(
        {"instrument": "BTC/USDT", "interval": "5m", "exchange": "binance"},
        {"instrument": "ETH/USDT", "files": "/data/*.csv", "source": "own"},
        exchange_options_file=str(options),
        history_days=10,
    )

    exchange, files = feeds_of(settings, Breakers(), demo=False)
    (demo,) = feeds_of(settings, Breakers(), demo=True)

    assert isinstance(exchange, ExchangeFeed)
    assert (str(exchange.name), exchange.history) == ("binance BTC/USDT 5m", timedelta(days=10))
    assert exchange.options == {"proxies": {}}
    assert files == FileFeed(name=files.name, pattern=Path("/data/*.csv"))
    assert (str(files.name), str(demo.name)) == ("own ETH/USDT 1h", "demo BTCUSD 1h")


def test_no_feed_is_refused_where_one_is_needed() -> None:
    with pytest.raises(InvalidInput, match="must name a series"):
        feeds_of(Settings(), Breakers(), demo=False)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ([{"instrument": "A"}], "must have either files or exchange"),
        ([{"instrument": "A", "files": "x", "exchange": "binance"}], "either files or exchange"),
        ([{"instrument": "A", "files": "x"}] * 2, "must name each series once"),
        ([{"instrument": "../A", "files": "x"}], "instrument"),
        ([{"instrument": "A", "files": "x", "interval": "1 h"}], "interval"),
    ],
)
def test_feeds_that_make_no_sense_are_refused(feeds: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Data.model_validate({"feeds": feeds})


@pytest.mark.parametrize("content", ["[]", "{", None])
def test_options_of_an_exchange_that_are_none_are_refused(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "options.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInput, match="options"):
        exchange_options(path)
