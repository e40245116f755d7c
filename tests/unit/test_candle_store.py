"""The candle store: closed bars only ever grow, agree with what was stored, and survive a crash."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_candles import part, random_walk

from bandit.core.errors import InvalidInput, LockHeldElsewhere, UnknownName
from learners.market.candle_store import (
    CandleConflict,
    CandleStore,
    DamagedSeries,
    SeriesName,
)
from learners.market.candles import Candles
from learners.market.validation import FindingKind

NAME = SeriesName(source="binance", instrument="BTCUSD", interval=timedelta(hours=1))
LATER = datetime(2030, 1, 1, tzinfo=UTC)
# 75 days of hours: January, February and March 2024
WALK = random_walk(75 * 24, seed=1)


def with_value(candles: Candles, column: str, bar: int, value: float) -> Candles:
    numbers = {name: values.copy() for name, values in candles.numbers().items()}
    numbers[column][bar] = value
    return Candles(instrument=candles.instrument, opened_at=candles.opened_at, **numbers)


def folder_of(store: CandleStore) -> Path:
    return store.root / "binance" / "BTCUSD" / "1h"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in folder.glob("*.parquet*"))


def test_what_was_stored_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    store = CandleStore(tmp_path / "candles")

    appended = store.append(NAME, WALK, now=LATER)

    assert (appended.new, appended.known, appended.unclosed) == (1800, 0, 0)
    assert appended.digest == store.load(NAME).digest == WALK.digest
    assert names_in(folder_of(store)) == ["2024-01", "2024-02", "2024-03"]


def test_a_month_can_be_read_by_any_reader_of_parquet(tmp_path: Path) -> None:
    import pandas as pd

    CandleStore(tmp_path).append(NAME, WALK, now=LATER)
    (path,) = tmp_path.glob("binance/BTCUSD/1h/2024-02.*.parquet")

    frame = pd.read_parquet(path)

    assert len(frame) == 29 * 24
    assert frame["opened_at"].iloc[0] == pd.Timestamp("2024-02-01", tz="UTC")
    assert frame["close"].tolist() == WALK.close[31 * 24 : 60 * 24].tolist()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 1799), max_size=4), overlap=st.integers(0, 100))
def test_in_pieces_it_is_the_same_as_at_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], overlap: int
) -> None:
    store = CandleStore(tmp_path_factory.mktemp("candles"))
    ends = [*sorted(set(cuts)), 1800]

    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        store.append(NAME, part(WALK, max(start - overlap, 0), end), now=LATER)

    assert store.load(NAME).digest == WALK.digest
    assert len(names_in(folder_of(store))) <= 3 + 3  # those named, and at most those before


def test_the_same_bars_again_change_nothing(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, WALK, now=LATER)
    before = {path: path.read_bytes() for path in folder_of(store).iterdir()}

    again = store.append(NAME, part(WALK, 100, 200), now=LATER)

    assert (again.new, again.known, again.digest) == (0, 100, WALK.digest)
    assert {path: path.read_bytes() for path in folder_of(store).iterdir()} == before


def test_only_closed_bars_are_stored(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    # the third bar opens at 02:00 and is closed at 03:00, not a moment before
    just_before = datetime(2024, 1, 1, 2, 59, 59, 999_999, tzinfo=UTC)

    first = store.append(NAME, part(WALK, 0, 5), now=just_before)
    second = store.append(NAME, part(WALK, 0, 5), now=datetime(2024, 1, 1, 3, tzinfo=UTC))

    assert (first.new, first.known, first.unclosed) == (2, 0, 3)
    assert (second.new, second.known, second.unclosed) == (1, 2, 2)
    assert len(store.load(NAME)) == 3


def test_nothing_closed_is_nothing_stored(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)

    appended = store.append(NAME, part(WALK, 0, 5), now=datetime(2024, 1, 1, tzinfo=UTC))

    assert (appended.new, appended.unclosed, appended.digest) == (0, 5, None)
    assert store.series() == ()


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_bar_that_differs_is_refused_by_name(tmp_path: Path, column: str) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, part(WALK, 0, 100), now=LATER)
    kept = float(getattr(WALK, column)[70])
    # a price that stays within its bar
    other = {"low": kept * 0.99, "high": kept * 1.01, "volume": kept + 1}.get(
        column, float(WALK.low[70])
    )

    with pytest.raises(CandleConflict) as caught:
        store.append(NAME, with_value(part(WALK, 50, 150), column, 20, other), now=LATER)

    assert str(caught.value) == (
        f"binance BTCUSD 1h: {column} of the bar of 2024-01-03T22:00:00+00:00 is {kept!r} "
        f"in the store, but {other!r} was offered"
    )
    assert (caught.value.bar, caught.value.column) == (
        datetime(2024, 1, 3, 22, tzinfo=UTC),
        column,
    )
    assert len(store.load(NAME)) == 100


def test_a_bar_before_the_last_one_that_the_store_lacks_is_refused(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, random_walk(100, seed=1, skip=(40,)), now=LATER)

    with pytest.raises(CandleConflict, match="time of the bar of 2024-01-02T16:00:00"):
        store.append(NAME, part(WALK, 30, 150), now=LATER)


def test_a_gap_is_stored_and_reported(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, part(WALK, 0, 100), now=LATER)

    store.append(NAME, part(WALK, 110, 200), now=LATER)

    (stored,) = store.series()
    (gap,) = (found for found in stored.report["findings"] if found["kind"] == "gap")
    assert (gap["severity"], gap["count"]) == ("error", 10)
    assert gap["found"] == "no bar from 2024-01-05T04:00:00Z to 2024-01-05T13:00:00Z"
    assert FindingKind.GAP in [finding.kind for finding in store.load(NAME).report.findings]


def test_the_store_says_what_it_has(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    other = SeriesName(source="own", instrument="BTC/USDT:USDT", interval=timedelta(hours=1))
    pair = Candles(instrument="BTC/USDT:USDT", opened_at=WALK.opened_at, **WALK.numbers())
    store.append(other, pair, now=LATER)
    store.append(NAME, WALK, now=LATER)

    binance, own = store.series()

    assert (binance.name, own.name) == (NAME, other)
    assert (tmp_path / "own" / "BTC%2FUSDT%3AUSDT" / "1h" / "series.json").is_file()
    assert (binance.bars, binance.digest) == (1800, WALK.digest)
    assert binance.report == WALK.report.to_json()
    written = json.loads((folder_of(store) / "series.json").read_text())
    assert written == binance.to_json()
    assert list(written["months"]) == ["2024-01", "2024-02", "2024-03"]


def test_another_instrument_or_length_is_refused(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    minutes = random_walk(10, seed=1, interval=timedelta(minutes=5))
    ether = Candles(instrument="ETHUSD", opened_at=WALK.opened_at, **WALK.numbers())

    with pytest.raises(InvalidInput, match="binance BTCUSD 1h: must have a bar every 1:00:00"):
        store.append(NAME, minutes, now=LATER)
    with pytest.raises(InvalidInput, match="must be of this instrument, found ETHUSD"):
        store.append(NAME, ether, now=LATER)
    with pytest.raises(InvalidInput, match="now: must have a UTC offset"):
        store.append(NAME, WALK, now=datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "instrument"),
    [("..", "BTC"), ("binance", ".."), ("binance", "../../etc"), ("a/b", "BTC"), ("", "BTC")],
)
def test_a_name_leads_nowhere_else(source: str, instrument: str) -> None:
    with pytest.raises(InvalidInput, match="must match"):
        SeriesName(source=source, instrument=instrument, interval=timedelta(hours=1))


def test_a_series_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, WALK, now=LATER)
    daily = SeriesName(source="binance", instrument="BTCUSD", interval=timedelta(days=1))

    with pytest.raises(UnknownName, match="'binance BTCUSD 1d'; known: binance BTCUSD 1h"):
        store.load(daily)


def test_a_series_is_found_by_as_much_of_its_name_as_it_takes(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    with pytest.raises(UnknownName, match="'BTCUSD'"):
        store.find("BTCUSD", source=None, interval=None)
    store.append(NAME, WALK, now=LATER)
    other = SeriesName(source="own", instrument="BTCUSD", interval=timedelta(hours=1))
    assert store.find("BTCUSD", source=None, interval=None) == NAME
    store.append(other, WALK, now=LATER)
    daily = timedelta(days=1)
    days = SeriesName(source="own", instrument="BTCUSD", interval=daily)
    store.append(days, random_walk(30, seed=1, interval=daily), now=LATER)

    assert store.find("BTCUSD", source="binance", interval=None) == NAME
    assert store.find("BTCUSD", source=None, interval=daily) == days
    assert store.find("BTCUSD", source="own", interval=timedelta(hours=1)) == other
    with pytest.raises(InvalidInput, match=r"one series of the store.*binance BTCUSD 1h, own"):
        store.find("BTCUSD", source=None, interval=timedelta(hours=1))
    with pytest.raises(UnknownName, match="'binance BTCUSD 1d'; known: binance BTCUSD 1h, own"):
        store.find("BTCUSD", source="binance", interval=daily)


def test_a_second_writer_is_turned_away_while_the_first_writes(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, part(WALK, 0, 100), now=LATER)

    with (folder_of(store) / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LockHeldElsewhere, match="appending to binance BTCUSD 1h"):
            store.append(NAME, WALK, now=LATER)
        assert len(store.load(NAME)) == 100  # reading goes on

    assert store.append(NAME, WALK, now=LATER).new == 1700


def test_writers_and_readers_at_once_lose_and_tear_nothing(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    ends = range(100, 1801, 100)
    prefixes = {part(WALK, 0, end).digest for end in ends}
    store.append(NAME, part(WALK, 0, 100), now=LATER)
    done, seen, failures = threading.Event(), set(), []

    def write() -> None:
        for end in ends:
            while True:
                try:
                    store.append(NAME, part(WALK, max(0, end - 150), end), now=LATER)
                    break
                except LockHeldElsewhere:
                    pass
                except CandleConflict as error:  # the other writer is further, and that is all
                    failures.append(error)

    def read() -> None:
        while not done.is_set():
            seen.add(store.load(NAME).digest)

    writers = [threading.Thread(target=write) for _ in range(2)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()

    assert not failures
    assert seen <= prefixes
    assert store.load(NAME).digest == WALK.digest


DAMAGES = {
    "a month is missing": lambda folder: next(folder.glob("2024-02*")).unlink(),
    "a month was changed": lambda folder: next(folder.glob("2024-02*")).write_bytes(b"PAR1"),
    "the manifest was cut": lambda folder: (folder / "series.json").write_text('{"format": 1'),
    "the manifest lacks a key": lambda folder: (folder / "series.json").write_text('{"format": 1}'),
    "the manifest is of another format": lambda folder: rewrite(folder, format=2),
    "the digest is another": lambda folder: rewrite(folder, digest="0" * 64),
    "a name leads away": lambda folder: rewrite(folder, instrument="../BTC"),
}


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "series.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_told_not_read_over(tmp_path: Path, damage: object) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, WALK, now=LATER)
    damage(folder_of(store))  # type: ignore[operator]

    with pytest.raises(DamagedSeries):
        store.load(NAME)
    with pytest.raises(DamagedSeries):
        store.append(NAME, WALK, now=LATER)


# Each child is killed as it begins its n-th operation that touches the disk.
CRASHES = """
import os, shutil, signal, sys
from pathlib import Path
from datetime import UTC, datetime, timedelta

sys.path.insert(0, sys.argv[1])
from learners.market.candle_store import CandleStore, SeriesName
from made_up_candles import random_walk

name = SeriesName(source="binance", instrument="BTCUSD", interval=timedelta(hours=1))
walk = random_walk(75 * 24, seed=1)

def die_at(last):
    left = [last]
    def counted(function):
        def call(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return call
    os.fsync, Path.replace, Path.open = map(counted, (os.fsync, Path.replace, Path.open))
    Path.unlink = counted(Path.unlink)

root = Path(sys.argv[2])
for last in range(1, 100):
    shutil.copytree(root / "seed", root / str(last))
    child = os.fork()
    if child == 0:
        die_at(last)
        CandleStore(root / str(last)).append(name, walk, now=datetime(2030, 1, 1, tzinfo=UTC))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        print(last)
        sys.exit(os.WEXITSTATUS(status))
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes a forked copy of itself")
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path) -> None:
    half = part(WALK, 0, 1000)
    CandleStore(tmp_path / "seed").append(NAME, part(WALK, 0, 900), now=LATER)
    CandleStore(tmp_path / "seed").append(NAME, half, now=LATER)

    crashed = subprocess.run(
        [sys.executable, "-c", CRASHES, Path(__file__).parents[1], tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )

    assert crashed.returncode == 0, crashed.stderr
    found = []
    for last in range(1, int(crashed.stdout)):
        store = CandleStore(tmp_path / str(last))
        found.append({half.digest: "half", WALK.digest: "all"}[store.load(NAME).digest])
        assert store.append(NAME, WALK, now=LATER).digest == WALK.digest
        assert store.load(NAME).digest == WALK.digest
    # One month is written anew, one is added, then what names them is replaced: each is opened,
    # synced, renamed and its folder synced.
    assert found.count("half") >= 11
    assert found.count("all") >= 1


def test_what_a_crash_left_is_cleared_by_the_next_append(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, part(WALK, 0, 1000), now=LATER)
    for name in ("2024-02.0123456789abcdef.parquet", "series.json.part"):
        (folder_of(store) / name).write_bytes(b"half")

    store.append(NAME, WALK, now=LATER)

    assert "half" not in {path.read_text(errors="replace") for path in folder_of(store).iterdir()}


def test_the_months_before_are_not_written_again(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(NAME, part(WALK, 0, 1500), now=LATER)
    january = next(folder_of(store).glob("2024-01*")).stat()

    store.append(NAME, WALK, now=LATER)

    now = next(folder_of(store).glob("2024-01*")).stat()
    assert (now.st_ino, now.st_mtime_ns) == (january.st_ino, january.st_mtime_ns)
    assert np.array_equal(store.load(NAME).close, WALK.close)
