"""Trade logs as people have them: what is read, and what is refused with which words."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandit.core.errors import InvalidInput
from liveops.connectors import logged_trade, trade_logs
from liveops.connectors.trade_logs import LoggedTrade, load_trades

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NOON_MS = 1767355200000


def written(folder: Path, text: str, *, name: str = "trades.csv") -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return path


def refusal(path: Path) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        load_trades(path)
    return refused.value


def test_full_csv_row_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "opened_at,closed_at,instrument,pnl,return,fees,policy,"
        "worst_excursion,entry_value,forced_exit\n"
        "2026-01-02T09:00:00Z,2026-01-02T13:00:00+01:00,BTC/USDT,-1.10,-0.011,0.20,arm-a,"
        "0.03,100.00,true\n",
    )
    log = load_trades(path)
    assert log.trades == (
        LoggedTrade(
            row=1,
            closed_at=NOON,
            pnl=Decimal("-1.10"),
            opened_at=datetime(2026, 1, 2, 9, tzinfo=UTC),
            instrument="BTC/USDT",
            return_ratio=-0.011,
            fees=Decimal("0.20"),
            policy="arm-a",
            worst_excursion=0.03,
            entry_value=Decimal(100),
            forced_exit=True,
        ),
    )
    assert log.starting_capital is None


@pytest.mark.parametrize("name", ["trades.csv", "trades.csv.gz", "TRADES.CSV"])
def test_required_columns_are_enough_in_any_order_and_with_a_byte_order_mark(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, f"\ufeffpnl, closed_at\r\n+.5,{NOON_MS}\r\n\r\n", name=name)
    assert [(t.closed_at, t.pnl) for t in load_trades(path).trades] == [(NOON, Decimal("0.5"))]


def test_money_is_exact(tmp_path: Path) -> None:
    path = written(tmp_path, f"closed_at,pnl\n{NOON_MS},0.1\n{NOON_MS},0.2\n")
    assert sum(trade.pnl for trade in load_trades(path).trades) == Decimal("0.3")


def test_duplicate_and_unsorted_rows_all_count_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = f"{NOON_MS},3\n{NOON_MS - 1},1\n{NOON_MS},3\n"
    trades = load_trades(written(tmp_path, f"closed_at,pnl\n{rows}")).trades
    assert [(trade.row, trade.pnl) for trade in trades] == [(1, 3), (2, 1), (3, 3)]


def test_empty_optional_cells_are_unknown(tmp_path: Path) -> None:
    path = written(tmp_path, f"closed_at,pnl,policy,return\n{NOON_MS},1,, \n")
    (trade,) = load_trades(path).trades
    assert (trade.policy, trade.return_ratio) == (None, None)


def test_columns_without_a_meaning_are_named(tmp_path: Path) -> None:
    log = load_trades(written(tmp_path, f"closed_at,pnl,fee,note\n{NOON_MS},1,2,x\n"))
    assert log.ignored_columns == ("fee", "note")
    assert log.trades[0].fees is None


def test_header_alone_is_a_log_without_trades(tmp_path: Path) -> None:
    assert load_trades(written(tmp_path, "closed_at,pnl\n")).trades == ()


@pytest.mark.parametrize(
    ("row", "field", "rule"),
    [
        ("NaN", "pnl", "finite number"),
        ("inf", "pnl", "finite number"),
        ("-Infinity", "pnl", "finite number"),
        ("1_000", "pnl", "finite number"),
        ("1,5", "line 3", "2 cells"),
        ("12 USD", "pnl", "finite number"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "pnl", "finite number"),
        ("1e16", "pnl", "below 10000000000000000"),
        ("1e-41", "pnl", "at most 40 decimals"),
        ("", "pnl", "must be given"),
    ],
)
def test_bad_amount_is_refused_by_line_field_and_rule(
    tmp_path: Path, row: str, field: str, rule: str
) -> None:
    path = written(tmp_path, f"closed_at,pnl\n{NOON_MS},1\n{NOON_MS},{row}\n")
    error = refusal(path)
    assert error.field.startswith("line 3")
    assert error.field.endswith(field)
    assert rule in error.rule


@pytest.mark.parametrize(
    ("time", "rule"),
    [
        ("2026-01-02T12:00:00", "offset or Z"),
        ("2026-01-02", "offset or Z"),
        ("yesterday", "offset or Z"),
        ("1767355200000.0", "offset or Z"),
        ("1767355200", "years 2000 and 2100"),
        ("9999999999999", "years 2000 and 2100"),
        ("1999-12-31T23:59:59Z", "years 2000 and 2100"),
        ("0001-01-01T00:00:00+23:59", "years 2000 and 2100"),
        ("", "must be given"),
    ],
)
def test_bad_time_is_refused_by_line_field_and_rule(tmp_path: Path, time: str, rule: str) -> None:
    error = refusal(written(tmp_path, f"closed_at,pnl\n{time},1\n"))
    assert error.field == "line 2, closed_at"
    assert rule in error.rule


@pytest.mark.parametrize(
    ("column", "cell", "rule"),
    [
        ("opened_at", f"{NOON_MS + 1}", "must not be after"),
        ("return", "nan", "finite number"),
        ("return", "1e17", "at most 1e+16"),
        ("fees", "free", "finite number"),
        ("policy", "a\x1b[31m", "printable"),
        ("instrument", "x" * 256, "at most 255"),
        ("worst_excursion", "-0.01", "must not be negative"),
        ("worst_excursion", "nan", "finite number"),
        ("entry_value", "0", "must be positive"),
        ("entry_value", "-5", "must be positive"),
        ("forced_exit", "1", "true or false"),
    ],
)
def test_bad_optional_cell_is_refused(tmp_path: Path, column: str, cell: str, rule: str) -> None:
    error = refusal(written(tmp_path, f"closed_at,pnl,{column}\n{NOON_MS},1,{cell}\n"))
    assert error.field == f"line 2, {column}"
    assert rule in error.rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must have the columns closed_at and pnl"),
        ("closed_at,profit\n", "must have the columns closed_at and pnl"),
        ("closed_at,pnl,pnl\n", "no column twice"),
    ],
)
def test_bad_header_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    error = refusal(written(tmp_path, text))
    assert error.field == "header"
    assert rule in error.rule


def test_broken_quoting_names_its_line(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, f'closed_at,pnl\n{NOON_MS},"1"x\n')).field == "line 2"


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("trades.xlsx", b"", "must end in"),
        ("trades.csv", b"closed_at,pnl\n\xff", "UTF-8"),
        ("trades.csv.gz", b"not gzip", "readable file"),
        ("trades.csv.gz", gzip.compress(b"closed_at,pnl\n" * 99, mtime=0)[:-9], "readable file"),
        ("result.json", b"{", "must be JSON"),
        ("result.json", b"[" * 100_000, "must be JSON"),
        ("result.json", b"[1]", "freqtrade backtest result"),
        ("result.json", b'{"strategy": {}}', "freqtrade backtest result"),
        ("result.json", b'{"strategy": {"A": {"trades": 1}}}', "list of trades"),
        ("result.json", b'{"strategy": {"A": {"trades": [1]}}}', "must be an object"),
        ("result.zip", b"PK", "readable zip"),
        ("trades.parquet", b"PAR1", "must be Parquet"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, name: str, data: bytes, rule: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert rule in refusal(path).rule


@pytest.mark.parametrize("name", ["none.csv", "none.zip", "none.parquet", "none.json.gz"])
def test_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path / name).rule == "must be a readable file"


def test_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trade_logs, "FILE_BYTES_MAX", 1000)
    assert "must not exceed" in refusal(written(tmp_path, "x" * 1001, name="t.csv.gz")).rule
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", " " * 600)
        archive.writestr("b.json", " " * 600)
    assert "must not exceed" in refusal(bomb).rule


def test_more_trades_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logged_trade, "TRADES_MAX", 2)
    monkeypatch.setattr(trade_logs, "TRADES_MAX", 2)
    row = f"{NOON_MS},1\n"
    assert refusal(written(tmp_path, "closed_at,pnl\n" + row * 3)).rule == "must be at most 2"
    path = tmp_path / "trades.parquet"
    pq.write_table(pa.table({"closed_at": [NOON_MS] * 3, "pnl": [1.0] * 3}), path)
    assert refusal(path).rule == "must be at most 2"


@pytest.mark.parametrize(
    "times",
    [
        pa.array([NOON], pa.timestamp("ns", "UTC")),
        pa.array([NOON], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([NOON_MS], pa.int64()),
        pa.array(["2026-01-02T12:00:00Z"]),
    ],
)
@pytest.mark.parametrize(
    "amounts",
    [pa.array([0.1]), pa.array(["0.1"]), pa.array([Decimal("0.10")], pa.decimal128(24, 8))],
)
def test_parquet_gives_the_same_trade_from_every_usual_type(
    tmp_path: Path, times: pa.Array, amounts: pa.Array
) -> None:
    path = tmp_path / "trades.parquet"
    nothing = pa.array([None], pa.string())
    pq.write_table(
        pa.table({"closed_at": times, "pnl": amounts, "policy": nothing, "note": nothing}), path
    )
    log = load_trades(path)
    assert log.trades == (LoggedTrade(row=1, closed_at=NOON, pnl=Decimal("0.1")),)
    assert log.ignored_columns == ("note",)


def since_1970(count: int, unit: str, zone: str = "UTC") -> pa.Array:
    """Two times so many units after 1970, whether Python has a name for them or not."""
    return pa.array([count] * 2, pa.int64()).cast(pa.timestamp(unit, zone))


YEAR_294247 = 9_223_371_331_200_000_000


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("closed_at", pa.array([NOON.replace(tzinfo=None)] * 2), "offset or Z"),
        ("closed_at", since_1970(YEAR_294247, "us"), "offset or Z"),
        ("closed_at", since_1970(253_402_300_800, "s"), "offset or Z"),
        # A thousand of these are, in 64 bits, the microseconds of an hour in 2026.
        ("closed_at", since_1970(2_305_844_776_568_893_952, "ms"), "offset or Z"),
        ("closed_at", since_1970(NOON_MS, "ms", zone="Nowhere/Land"), "offset or Z"),
        ("closed_at", pa.array([2**31 - 1] * 2, pa.int32()).cast(pa.date32()), "offset or Z"),
        ("pnl", pa.array([1.0, float("nan")]), "finite number"),
        ("pnl", pa.array([1.0, None]), "must be given"),
        ("pnl", pa.array([True, True]), "finite number"),
    ],
)
def test_bad_parquet_cell_is_refused_by_row(
    tmp_path: Path, column: str, value: pa.Array, rule: str
) -> None:
    good = {"closed_at": pa.array([NOON_MS] * 2), "pnl": pa.array([1.0, 1.0])}
    path = tmp_path / "trades.parquet"
    pq.write_table(pa.table(good | {column: value}), path)
    error = refusal(path)
    assert error.field in (f"row 1, {column}", f"row 2, {column}")
    assert rule in error.rule


def order(*, entry: bool) -> dict[str, object]:
    return {"ft_is_entry": entry, "amount": 2.0}


def freqtrade_trade(**changes: object) -> dict[str, object]:
    """Buys 2 at 100 and sells at 110 with 0.1 % fees: 20 - (0.20 + 0.22) = 19.58.

    At worst it stood at 90: closing there would have paid 179.82 for what cost 200.20, 10.19 % of
    200 less.
    """
    trade: dict[str, object] = {
        "pair": "BTC/USDT",
        "open_timestamp": NOON_MS - 60_000,
        "close_timestamp": NOON_MS,
        "profit_abs": 19.58,
        "profit_ratio": 0.0978,
        "amount": 2.0,
        "open_rate": 100.0,
        "close_rate": 110.0,
        "fee_open": 0.001,
        "fee_close": 0.001,
        "min_rate": 90.0,
        "max_rate": 112.0,
        "is_short": False,
        "leverage": 1.0,
        "max_stake_amount": 200.0,
        "exit_reason": "roi",
        "orders": [order(entry=True), order(entry=False)],
    }
    return trade | changes


def freqtrade_result(**strategies: list[dict[str, object]]) -> str:
    return json.dumps(
        {
            "strategy": {
                name: {"starting_balance": 1000, "profit_factor": float("nan"), "trades": trades}
                for name, trades in strategies.items()
            },
            "strategy_comparison": [],
        }
    )


@pytest.mark.parametrize("name", ["result.json", "result.json.gz"])
def test_freqtrade_result_gives_trades_and_starting_capital(tmp_path: Path, name: str) -> None:
    log = load_trades(written(tmp_path, freqtrade_result(Arm=[freqtrade_trade()]), name=name))
    assert log.starting_capital == 1000
    assert log.trades == (
        LoggedTrade(
            row=1,
            closed_at=NOON,
            pnl=Decimal("19.58"),
            opened_at=datetime(2026, 1, 2, 11, 59, tzinfo=UTC),
            instrument="BTC/USDT",
            return_ratio=0.0978,
            fees=Decimal("0.42"),
            policy="Arm",
            worst_excursion=0.1019,
            entry_value=Decimal(200),
        ),
    )


def test_each_strategy_of_a_result_is_an_account(tmp_path: Path) -> None:
    text = freqtrade_result(A=[freqtrade_trade()], B=[])
    log = load_trades(written(tmp_path, text, name="result.json"))
    assert [len(account.trades) for account in log.accounts] == [1, 0]
    assert log.starting_capital == 2000


def test_capital_is_unknown_when_one_account_does_not_say(tmp_path: Path) -> None:
    content = json.loads(freqtrade_result(A=[], B=[]))
    del content["strategy"]["B"]["starting_balance"]
    log = load_trades(written(tmp_path, json.dumps(content), name="result.json"))
    assert log.starting_capital is None


def test_position_closed_by_the_end_of_a_backtest_is_marked(tmp_path: Path) -> None:
    text = freqtrade_result(Arm=[freqtrade_trade(exit_reason="force_exit")])
    (trade,) = load_trades(written(tmp_path, text, name="result.json")).trades
    assert trade.forced_exit


@pytest.mark.parametrize(
    "changes",
    [
        {"orders": None},
        {"orders": [order(entry=True), order(entry=False), order(entry=False)]},
        {"fee_close": None},
    ],
)
def test_fees_are_unknown_rather_than_guessed(tmp_path: Path, changes: dict[str, object]) -> None:
    text = freqtrade_result(Arm=[freqtrade_trade(**changes)])
    (trade,) = load_trades(written(tmp_path, text, name="result.json")).trades
    assert trade.fees is None


def test_fees_of_several_entries_and_one_exit_are_known(tmp_path: Path) -> None:
    orders = [order(entry=True), order(entry=True), order(entry=False)]
    text = freqtrade_result(Arm=[freqtrade_trade(orders=orders)])
    (trade,) = load_trades(written(tmp_path, text, name="result.json")).trades
    assert trade.fees == Decimal("0.42")


def freqtrade_loaded(folder: Path, **changes: object) -> LoggedTrade:
    text = freqtrade_result(Arm=[freqtrade_trade(**changes)])
    (trade,) = load_trades(written(folder, text, name="result.json")).trades
    return trade


def test_short_position_stands_worst_at_the_highest_price(tmp_path: Path) -> None:
    # Owed 112 · 1.001 for what brought 100 · 0.999: 12.212 % of 100.
    trade = freqtrade_loaded(tmp_path, is_short=True)
    assert trade.worst_excursion == pytest.approx(0.12212, rel=1e-12)


def test_position_that_never_stood_to_lose_has_no_excursion(tmp_path: Path) -> None:
    assert freqtrade_loaded(tmp_path, min_rate=101.0).worst_excursion == 0.0


def test_entry_value_is_all_that_was_staked_times_leverage(tmp_path: Path) -> None:
    # Half was sold on the way: `amount` and `stake_amount` are only what was left.
    changes = {"max_stake_amount": 400.0, "stake_amount": 200.0, "leverage": 3.0}
    assert freqtrade_loaded(tmp_path, **changes).entry_value == Decimal(1200)


@pytest.mark.parametrize("key", ["min_rate", "max_rate", "open_rate", "fee_close", "is_short"])
def test_excursion_is_unknown_rather_than_guessed(tmp_path: Path, key: str) -> None:
    assert freqtrade_loaded(tmp_path, **{key: None}).worst_excursion is None


@pytest.mark.parametrize("key", ["max_stake_amount", "leverage"])
@pytest.mark.parametrize("value", [None, 0.0])
def test_entry_value_is_unknown_rather_than_guessed(
    tmp_path: Path, key: str, value: float | None
) -> None:
    assert freqtrade_loaded(tmp_path, **{key: value}).entry_value is None


def test_bad_freqtrade_trade_is_named(tmp_path: Path) -> None:
    trades = [freqtrade_trade(), freqtrade_trade(profit_abs=float("nan"))]
    error = refusal(written(tmp_path, freqtrade_result(Arm=trades), name="result.json"))
    assert error.field == "strategy Arm, trade 2, pnl"
    assert error.found == "NaN"


def test_zip_gives_its_result_and_not_the_configuration_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "backtest-result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("backtest-result_config.json", '{"strategy": "Arm"}')
        archive.writestr("backtest-result_market_change.feather", b"\x00")
        archive.writestr("../backtest-result.json", freqtrade_result(Arm=[freqtrade_trade()]))
    assert len(load_trades(path).trades) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["backtest-result.zip"]


@pytest.mark.parametrize("count", [0, 2])
def test_zip_holds_one_result(tmp_path: Path, count: int) -> None:
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            archive.writestr(f"{index}.json", freqtrade_result(Arm=[]))
    assert refusal(path).found == str(count)


def test_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("result.json", "{}")
    data = bytearray(path.read_bytes())
    # Bit 0 of the flags says "encrypted": offset 6 of the local header, 8 of the central one.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert refusal(path).rule == "must be a readable zip"
