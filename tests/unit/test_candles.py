"""Candle files: every layout loads to the same bars, every fault is refused by name."""

import gzip
import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bandit.core.errors import InvalidInput
from learners.market.candles import (
    SHIPPED_FILE,
    Candles,
    load_candles,
    shipped_candles,
)
from learners.market.validation import FindingKind, Severity, examine

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_btcusd_candles.py"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "candles"

HEADER = "opened_at,open,high,low,close,volume\n"
ROWS = (
    "2024-01-01T00:00:00Z,10,12,9,11,5\n",
    "2024-01-01T01:00:00Z,11,13,10,12,6\n",
    "2024-01-01T02:00:00Z,12,14,11,13,0\n",
)


def written(folder: Path, text: str, name: str = "bars.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_candles(path, **options)  # type: ignore[arg-type]  # options differ from case to case
    return str(caught.value)


def bars_closing_at(close: np.ndarray, *, late_from: int | None = None) -> Candles:
    """Hourly bars; those from `late_from` on come an hour late."""
    hours = np.arange(len(close))
    if late_from is not None:
        hours[late_from:] += 1
    return Candles(
        instrument="X",
        opened_at=np.datetime64("2024-01-01", "us") + hours.astype("timedelta64[h]"),
        open=close,
        high=close,
        low=close,
        close=close,
        volume=np.ones(len(close)),
    )


def expected_bars() -> Candles:
    return Candles(
        instrument="bars",
        opened_at=np.array(
            ["2024-01-01T00", "2024-01-01T01", "2024-01-01T02"], dtype="datetime64[us]"
        ),
        open=np.array([10.0, 11.0, 12.0]),
        high=np.array([12.0, 13.0, 14.0]),
        low=np.array([9.0, 10.0, 11.0]),
        close=np.array([11.0, 12.0, 13.0]),
        volume=np.array([5.0, 6.0, 0.0]),
    )


def test_a_csv_file_becomes_arrays_in_time_order(tmp_path: Path) -> None:
    candles = load_candles(written(tmp_path, HEADER + "".join(ROWS)))

    assert candles.instrument == "bars"
    assert candles.interval == timedelta(hours=1)
    assert candles.close.tolist() == [11.0, 12.0, 13.0]
    assert candles.opening(2) == datetime(2024, 1, 1, 2, tzinfo=UTC)
    assert candles.closing(2) == datetime(2024, 1, 1, 3, tzinfo=UTC)
    assert candles.digest == expected_bars().digest


@pytest.mark.parametrize("dtype", ["M8[h]", "M8[s]", "M8[ms]", "M8[ns]", ">M8[us]"])
def test_open_times_of_any_unit_are_the_same_bars(dtype: str) -> None:
    bars = expected_bars()
    candles = Candles(instrument="bars", opened_at=bars.opened_at.astype(dtype), **bars.numbers())

    assert candles.opened_at.dtype == np.dtype("M8[us]")
    assert candles.interval == timedelta(hours=1)
    assert candles.opening(2) == datetime(2024, 1, 1, 2, tzinfo=UTC)
    assert candles.digest == bars.digest


@pytest.mark.parametrize(
    ("times", "rule"),
    [
        (np.array([0, 1, 2]), "datetimes of a unit"),
        (np.array(["NaT"] * 3, dtype="M8"), "datetimes of a unit"),
        (np.array([0, 1, 2], dtype="M8[ns]"), "whole microseconds"),
        (np.array([0, 1, 2**60], dtype="M8[s]"), "whole microseconds"),
        (np.array([0, 1, "NaT"], dtype="M8[us]"), "whole microseconds"),
    ],
)
def test_open_times_that_are_none_are_refused(times: np.ndarray, rule: str) -> None:
    with pytest.raises(InvalidInput, match=f"opened_at: must be {rule}"):
        Candles(instrument="bars", opened_at=times, **expected_bars().numbers())


@pytest.mark.parametrize(
    ("header", "times"),
    [
        ("ts_ms", ["1704067200000", "1704070800000", "1704074400000"]),
        ("timestamp", ["1704067200", "1704070800", "1704074400"]),
        ("open_time", ["1704067200000000", "1704070800000000", "1704074400000000"]),
        ("Date", ["2024-01-01 00:00:00", "2024-01-01 01:00:00", "2024-01-01 02:00:00"]),
        ("time", ["2024-01-01T01:00+01:00", "2024-01-01T02:00+01:00", "2024-01-01T03:00+01:00"]),
        ("date", ["2024-01-01 12-AM", "2024-01-01 01-AM", "2024-01-01 02-AM"]),
    ],
)
def test_every_way_to_write_the_time_gives_the_same_bars(
    tmp_path: Path, header: str, times: list[str]
) -> None:
    rows = [time + row[row.index(",") :] for time, row in zip(times, ROWS, strict=True)]
    text = HEADER.replace("opened_at", header) + "".join(rows)

    assert load_candles(written(tmp_path, text)).digest == expected_bars().digest


def test_noon_and_midnight_are_told_apart(tmp_path: Path) -> None:
    rows = "2024-01-01 01-PM,1,1,1,1,1\n2024-01-01 12-PM,1,1,1,1,1\n2024-01-01 01-AM,1,1,1,1,1\n"
    text = HEADER.replace("opened_at", "date") + rows + "2024-01-01 12-AM,1,1,1,1,1\n"

    candles = load_candles(written(tmp_path, text), allow_gaps=True)

    assert [candles.opening(bar).hour for bar in range(4)] == [0, 1, 12, 13]


def test_newest_first_and_oldest_first_are_the_same_bars(tmp_path: Path) -> None:
    rising = load_candles(written(tmp_path, HEADER + "".join(ROWS)))
    falling = load_candles(written(tmp_path, HEADER + "".join(reversed(ROWS))))

    assert falling.digest == rising.digest
    assert falling.opening(0) == rising.opening(0)


def test_a_gzipped_file_is_the_same_bars(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "".join(ROWS)).encode()))

    assert load_candles(path).digest == expected_bars().digest


def test_a_file_from_a_spreadsheet_is_the_same_bars(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + "".join(ROWS)).replace("\n", "\r\n").encode())

    assert load_candles(path).digest == expected_bars().digest


def test_parquet_and_feather_are_the_same_bars(tmp_path: Path) -> None:
    frame = pd.read_csv(written(tmp_path, HEADER + "".join(ROWS)))
    frame["opened_at"] = pd.to_datetime(frame["opened_at"])
    frame.to_parquet(tmp_path / "bars.parquet")
    frame.to_feather(tmp_path / "bars.feather")
    frame.set_index("opened_at").to_parquet(tmp_path / "bars.indexed.parquet")

    digests = {
        load_candles(tmp_path / name).digest
        for name in ("bars.parquet", "bars.feather", "bars.indexed.parquet")
    }

    assert digests == {expected_bars().digest}


def test_the_volume_of_the_base_currency_wins_over_the_turnover(tmp_path: Path) -> None:
    text = (
        "Timestamps are UTC timezone,https://example.org\n"
        "Date,Symbol,Open,High,Low,Close,Volume BTC,Volume\n"
        "2024-01-01 01-AM,BTCUSD,11,13,10,12,6,72\n"
        "2024-01-01 12-AM,BTCUSD,10,12,9,11,5,55\n"
    )

    candles = load_candles(written(tmp_path, text))

    assert candles.instrument == "BTCUSD"
    assert candles.volume.tolist() == [5.0, 6.0]


def test_gaps_pass_where_they_are_allowed_and_nothing_is_filled_in(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "".join(ROWS) + "2024-01-01T05:00:00Z,13,15,12,14,7\n")

    candles = load_candles(path, allow_gaps=True)

    assert len(candles) == 4
    assert candles.interval == timedelta(hours=1)
    assert candles.closing(2) == datetime(2024, 1, 1, 3, tzinfo=UTC)
    assert candles.opening(3) == datetime(2024, 1, 1, 5, tzinfo=UTC)


BAD_TABLES = {
    "no time column": (
        "when,open,high,low,close,volume\n",
        "bars.csv: columns: must name the time (opened_at|open_time|ts_ms|timestamp|unix|date|time)"
        ", found when, open, high, low, close, volume",
    ),
    "no close and volume": (
        "time,open,high,low\n2024-01-01,1,1,1\n",
        "bars.csv: columns: must include close, volume, found time, open, high, low",
    ),
    "a column twice": (
        "time,open,high,low,close,volume,Open\n2024-01-01,1,1,1,1,1,1\n",
        "bars.csv: columns: must each appear once, found open",
    ),
    "an empty file": (
        "",
        "bars.csv: file: must be a CSV table, found No columns to parse from file",
    ),
    "one field too many in every line": (
        HEADER + "2024-01-01T00:00:00Z,1,1,1,1,1,1\n2024-01-01T01:00:00Z,1,1,1,1,1,1\n",
        "bars.csv: file: must have as many fields in a line as in the header, found more",
    ),
    "one field too many in one line": (
        HEADER + ROWS[0] + "2024-01-01T01:00:00Z,1,1,1,1,1,1\n",
        "bars.csv: file: must be a CSV table, found Error tokenizing data. C error: "
        "Expected 6 fields in line 3, saw 7",
    ),
    "two instruments": (
        "time,symbol,open,high,low,close,volume\n"
        "2024-01-01,ETH,1,1,1,1,1\n2024-01-02,BTC,1,1,1,1,1\n",
        "bars.csv: symbol: must be one instrument a file, found BTC, ETH",
    ),
    "a word for a price": (
        HEADER + ROWS[0] + "2024-01-01T01:00:00Z,11,high,10,12,6\n",
        "bars.csv: high: must be a number, found 'high' in data row 2",
    ),
    "a time that is none": (
        HEADER + ROWS[0] + "yesterday,11,13,10,12,6\n",
        "bars.csv: opened_at: must be ISO 8601, epoch s, ms or us, or `2019-10-17 09-AM`, "
        "found 'yesterday' in data row 2",
    ),
    "an empty time": (
        HEADER + ROWS[0] + ",11,13,10,12,6\n",
        "bars.csv: opened_at: must be a time, found an empty cell in data row 2",
    ),
    "offsets in some rows": (
        HEADER + ROWS[0] + "2024-01-01T01:00:00,11,13,10,12,6\n",
        "bars.csv: opened_at: must have a UTC offset in every row or in none, "
        "found 2024-01-01T01:00:00",
    ),
    "seconds and milliseconds mixed": (
        HEADER + "1704067200,1,1,1,1,1\n1704070800000,1,1,1,1,1\n",
        "bars.csv: opened_at: must be epoch s, ms or us of 2000 to 2100, one unit a file, "
        "found 1704067200 to 1704070800000",
    ),
}

BAD_BARS = {
    "one bar": (
        ROWS[:1],
        "bars.csv: bars: must be at least 2, found 1",
    ),
    "no bar": (
        (),
        "bars.csv: bars: must be at least 2, found 0",
    ),
    "a repeated bar": (
        (*ROWS, ROWS[1], ROWS[1]),
        "bars.csv: time: must not repeat (2 bars too many), found 2024-01-01T01:00:00Z 3 times",
    ),
    "disorder": (
        (ROWS[0], ROWS[2], ROWS[1]),
        "bars.csv: time: must rise or fall throughout, "
        "found 2024-01-01T01:00:00Z after 2024-01-01T02:00:00Z",
    ),
    "a bar off the grid": (
        (*ROWS, "2024-01-01T03:30:00Z,13,15,12,14,7\n"),
        "bars.csv: time: must be whole multiples of 1:00:00 apart, "
        "found 2024-01-01T02:00:00Z then 2024-01-01T03:30:00Z",
    ),
    "two gaps": (
        (*ROWS, "2024-01-01T05:00:00Z,1,1,1,1,1\n", "2024-01-01T07:00:00Z,1,1,1,1,1\n"),
        "bars.csv: time: must have a bar every 1:00:00 (2 gaps, 3 bars), "
        "found no bar from 2024-01-01T03:00:00Z to 2024-01-01T04:00:00Z",
    ),
    "a price that is missing": (
        (ROWS[0], "2024-01-01T01:00:00Z,11,13,10,,6\n"),
        "bars.csv: close: must be finite, found nan at 2024-01-01T01:00:00Z, 1 of 2 bars",
    ),
    "an endless volume": (
        (ROWS[0], "2024-01-01T01:00:00Z,11,13,10,12,inf\n"),
        "bars.csv: volume: must be finite, found inf at 2024-01-01T01:00:00Z, 1 of 2 bars",
    ),
    "a price of zero": (
        (ROWS[0], "2024-01-01T01:00:00Z,11,13,0,12,6\n"),
        "bars.csv: low: must be above zero, found 0 at 2024-01-01T01:00:00Z, 1 of 2 bars",
    ),
    "a negative volume": (
        (ROWS[0], "2024-01-01T01:00:00Z,11,13,10,12,-6\n"),
        "bars.csv: volume: must not be negative, found -6 at 2024-01-01T01:00:00Z, 1 of 2 bars",
    ),
    "high below low": (
        (ROWS[0], "2024-01-01T01:00:00Z,11,10,13,12,6\n", "2024-01-01T02:00:00Z,1,1,2,1,6\n"),
        "bars.csv: high: must not be below low, found 10 at 2024-01-01T01:00:00Z, 2 of 3 bars",
    ),
    "open above high": (
        (ROWS[0], "2024-01-01T01:00:00Z,14,13,10,12,6\n"),
        "bars.csv: open: must lie between low and high, "
        "found 14 at 2024-01-01T01:00:00Z, 1 of 2 bars",
    ),
    "close below low": (
        (ROWS[0], "2024-01-01T01:00:00Z,11,13,10,9.5,6\n"),
        "bars.csv: close: must lie between low and high, "
        "found 9.5 at 2024-01-01T01:00:00Z, 1 of 2 bars",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_table_that_is_not_candles_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(written(tmp_path, text)) == message


@pytest.mark.parametrize(("rows", "message"), BAD_BARS.values(), ids=BAD_BARS.keys())
def test_a_faulty_series_is_refused(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    assert refusal(written(tmp_path, HEADER + "".join(rows))) == message


def test_a_file_shorter_than_the_caller_needs_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "".join(ROWS))

    assert refusal(path, bars_min=200) == "bars.csv: bars: must be at least 200, found 3"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "absent.csv: file: must be readable, found FileNotFoundError" in refusal(
        tmp_path / "absent.csv"
    )
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress((HEADER + "".join(ROWS)).encode())[:-12])
    assert "cut.csv.gz: file: must be readable, found EOFError" in refusal(cut)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "binary.csv: file: must be readable, found UnicodeDecodeError" in refusal(binary)
    for name in ("text.parquet", "text.feather"):
        assert f"{name}: file: must be readable, found Arrow" in refusal(
            written(tmp_path, HEADER, name)
        )
    assert refusal(written(tmp_path, HEADER, "bars.xlsx")) == (
        "bars.xlsx: name: must end in .csv, .csv.gz, .parquet or .feather, found bars.xlsx"
    )


def test_the_report_counts_every_kind_of_fault() -> None:
    hours = np.datetime64("2024-01-01", "us") + np.array([0, 1, 1, 4], dtype="timedelta64[h]")
    numbers = {name: np.ones(4) for name in ("open", "high", "low", "volume")}
    numbers["close"] = np.array([1.0, 2.0, np.nan, 0.0])

    report = examine(hours, numbers)

    assert (report.bars, report.interval) == (4, timedelta(hours=1))
    assert report.last == datetime(2024, 1, 1, 4, tzinfo=UTC)
    assert [(found.kind, found.column, found.count) for found in report.findings] == [
        (FindingKind.DUPLICATE, "time", 1),
        (FindingKind.GAP, "time", 2),
        (FindingKind.NOT_FINITE, "close", 1),
        (FindingKind.NOT_POSITIVE, "close", 1),
        (FindingKind.OUTSIDE_BAR, "close", 2),
    ]


def test_a_leap_that_comes_back_is_a_warning_and_one_that_stays_is_none() -> None:
    calm = 100 + np.array([0.0, 0.1, 0.0, -0.1] * 10)
    back, stays = calm.copy(), calm.copy()
    back[20] = 150.0
    stays[20:] += 50.0

    (finding,) = bars_closing_at(back).report.findings

    assert (finding.kind, finding.severity) == (FindingKind.OUTLIER, Severity.WARNING)
    # The median move is that from 99.9 to 100: ln(150 / 99.9) / (1.4826 x ln(100 / 99.9)) is 274.0.
    assert finding.found == "150 at 2024-01-01T20:00:00Z, 274.0 usual moves, 1 of 40 bars"
    assert bars_closing_at(stays).report.findings == ()
    assert bars_closing_at(np.full(40, 100.0)).report.findings == ()


def test_a_leap_into_a_gap_is_no_outlier() -> None:
    close = 100 + np.array([0.0, 0.1, 0.0, -0.1] * 10)
    close[20] = 150.0

    candles = bars_closing_at(close, late_from=21)

    assert [finding.kind for finding in candles.report.findings] == [FindingKind.GAP]


def test_bars_without_trades_are_a_warning(tmp_path: Path) -> None:
    candles = load_candles(written(tmp_path, HEADER + "".join(ROWS)))

    assert [finding.to_json() for finding in candles.report.findings] == [
        {
            "kind": "zero_volume",
            "severity": "warning",
            "column": "volume",
            "rule": "should not be zero",
            "found": "0 at 2024-01-01T02:00:00Z, 1 of 3 bars",
            "count": 1,
        }
    ]
    assert candles.report.to_json() | {"findings": []} == {
        "bars": 3,
        "first": "2024-01-01T00:00:00+00:00",
        "last": "2024-01-01T02:00:00+00:00",
        "interval_seconds": 3600.0,
        "findings": [],
    }


def test_a_known_interval_makes_one_bar_enough_and_a_wide_step_a_gap() -> None:
    def bars(*hours: int, interval: timedelta | None) -> Candles:
        count = len(hours)
        return Candles(
            instrument="X",
            opened_at=np.datetime64("2024-01-01", "us") + np.array(hours, dtype="timedelta64[h]"),
            bar_interval=interval,
            **{name: np.ones(count) for name in ("open", "high", "low", "close", "volume")},
        )

    assert bars(0, interval=timedelta(hours=1)).interval == timedelta(hours=1)
    two = bars(0, 3, interval=timedelta(hours=1))
    assert [finding.kind for finding in two.report.findings] == [FindingKind.GAP]
    assert bars(0, 3, interval=None).interval == timedelta(hours=3)
    with pytest.raises(InvalidInput, match="bars: must be at least 2"):
        bars(0, interval=None)
    with pytest.raises(InvalidInput, match="must be whole multiples of 2:00:00 apart"):
        bars(0, 3, interval=timedelta(hours=2))


def test_candles_made_by_hand_are_checked_and_cannot_be_changed() -> None:
    candles = expected_bars()
    prices = {name: np.array([1.0, 1.0]) for name in ("open", "high", "low", "close", "volume")}

    with pytest.raises(ValueError, match="read-only"):
        candles.close[0] = 1.0
    with pytest.raises(InvalidInput, match="X: time: must not repeat"):
        Candles(
            instrument="X",
            opened_at=np.array(["2024-01-01", "2024-01-01"], dtype="datetime64[us]"),
            **prices,
        )


def test_the_digest_tells_instruments_and_prices_apart(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "".join(ROWS))
    dearer = written(tmp_path, HEADER + "".join(ROWS).replace("11,13", "11,13.01"), "bars.2.csv")

    digests = {
        load_candles(path).digest,
        load_candles(path, instrument="BTCUSD").digest,
        load_candles(dearer).digest,
    }

    assert len(digests) == 3


def test_the_last_nights_are_whole_days_before_the_end() -> None:
    candles = shipped_candles()

    bars = candles.last_nights(120)

    assert len(bars) == 120 * 24
    assert candles.opening(bars[0]) == datetime(2019, 6, 19, 9, tzinfo=UTC)
    assert bars[-1] == len(candles) - 1
    assert candles.last_nights(10_000) == range(len(candles))


def test_the_shipped_file_is_small_and_has_every_hour() -> None:
    candles = shipped_candles()

    assert candles.instrument == "BTCUSD"
    assert candles.opening(0) == datetime(2017, 11, 12, 4, tzinfo=UTC)
    assert candles.closing(len(candles) - 1) == datetime(2019, 10, 17, 9, tzinfo=UTC)
    # 704 days and 5 hours, no hour missing
    assert len(candles) == 704 * 24 + 5
    assert int((candles.volume == 0).sum()) == 26


def test_the_source_file_is_refused_at_its_seam_and_agrees_after_it(tmp_path: Path) -> None:
    source = SHARED / "Coinbase_BTCUSD_1h.csv.gz"
    if not source.exists():
        pytest.skip("the folder of development data is not beside this checkout")
    lines = gzip.decompress(source.read_bytes()).decode().splitlines(keepends=True)
    seam = next(i for i, line in enumerate(lines) if line.startswith("2017-11-12 09-AM"))
    # from the first bar after the seam to the last complete one
    after_seam = written(tmp_path, "".join(lines[:2] + lines[3 : seam + 1]), "after.csv")

    shipped = shipped_candles()
    loaded = load_candles(after_seam)

    assert refusal(source) == (
        "Coinbase_BTCUSD_1h.csv.gz: time: must rise or fall throughout, "
        "found 2017-11-11T23:00:00Z after 2017-11-12T04:00:00Z"
    )
    assert loaded.instrument == "BTCUSD"
    assert loaded.opening(0) == datetime(2017, 11, 12, 9, tzinfo=UTC)
    for name, values in loaded.numbers().items():
        np.testing.assert_array_equal(values, shipped.numbers()[name][5:])


def test_the_script_makes_the_shipped_file_from_its_source() -> None:
    source = SHARED / "Coinbase_BTCUSD_1h.csv.gz"
    if not source.exists():
        pytest.skip("the folder of development data is not beside this checkout")
    script = runpy.run_path(str(SCRIPT))

    text = script["bars"](gzip.decompress(source.read_bytes()).decode())

    # compared unpacked: another zlib may pack the same text into other bytes
    assert text == gzip.decompress(SHIPPED_FILE.read_bytes()).decode()
    assert script["gzipped"](text) == script["gzipped"](text)


@pytest.mark.parametrize("pair", ["BTC", "ETH", "SOL"])
def test_five_minute_candles_of_an_exchange_load_as_they_are(pair: str) -> None:
    path = SHARED / f"{pair}_USDT-5m.csv.gz"
    if not path.exists():
        pytest.skip("the folder of development data is not beside this checkout")

    candles = load_candles(path)

    assert (len(candles), candles.interval) == (43_776, timedelta(minutes=5))
    assert candles.instrument == f"{pair}_USDT-5m"
    assert candles.opening(0) == datetime(2024, 1, 1, tzinfo=UTC)
