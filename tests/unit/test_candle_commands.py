"""`liveops import candles` and `liveops candles show`, on files and a local exchange."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_exchange import PAIR, FakeExchange, serving
from made_up_candles import random_walk

from learners.market.candle_store import CandleStore, SeriesName
from learners.market.candles import SHIPPED_FILE, shipped_candles
from liveops import cli

HOUR = timedelta(hours=1)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.exit_code(cli.app, [str(argument) for argument in arguments])
        written = capfd.readouterr()
        return code, written.out, written.err

    return run


def test_a_file_is_imported_once_and_shown(command: Command, tmp_path: Path) -> None:
    take = ("import", "candles", SHIPPED_FILE, "--instrument", "BTCUSD", "--source", "coinbase")
    store = CandleStore(tmp_path / "home" / "candles")
    name = SeriesName(source="coinbase", instrument="BTCUSD", interval=HOUR)

    first, again, shown = command(*take), command(*take), command("candles", "show")

    assert first[0] == again[0] == shown[0] == 0
    assert "coinbase BTCUSD 1h: 16901 new, 0 known before, 0 not closed yet\n" in first[1]
    assert "  warning: volume should not be zero, found 0 at 2017-12-01" in first[1]
    assert "0 new, 16901 known before" in again[1]
    digest = shipped_candles().digest
    assert store.load(name).digest == digest
    assert shown[1].startswith(
        "coinbase BTCUSD 1h: 16901 bars, 2017-11-12T04:00:00+00:00 to 2019-10-17T08:00:00+00:00\n"
        f"  digest {digest}\n  warning: "
    )


def test_both_commands_speak_json(command: Command) -> None:
    _, imported, _ = command("import", "candles", SHIPPED_FILE, "--instrument", "X", "--json")
    _, shown, _ = command("candles", "show", "--json")

    (told,), (stored,) = json.loads(imported), json.loads(shown)

    assert (told["source"], told["instrument"], told["interval_seconds"]) == ("file", "X", 3600.0)
    assert (told["new"], told["known"], told["unclosed"]) == (16901, 0, 0)
    assert told["digest"] == stored["digest"]
    assert told["report"] == stored["report"]


def test_nothing_stored_is_said(command: Command) -> None:
    assert command("candles", "show")[:2] == (
        0,
        "no candles yet; `liveops import candles` brings them in\n",
    )


def test_an_exchange_is_fetched_from_and_then_on_from_the_last_bar(
    command: Command, tmp_path: Path
) -> None:
    walk = random_walk(50, seed=3)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    fetch = ("import", "candles", "--exchange", "binance", "--instrument", PAIR, "--interval", "1h")
    options = tmp_path / "options.json"
    with serving(FakeExchange(candles=walk, server_time=start + 20 * HOUR)) as fake:
        options.write_text(json.dumps(fake.options))
        fetch = (*fetch, "--exchange-options", options)
        unknown = command(*fetch)
        first = command(*fetch, "--since", "2024-01-01")
        fake.server_time = start + 50 * HOUR
        rest = command(*fetch)

    assert (unknown[0], "--since: must say where a new series begins" in unknown[2]) == (2, True)
    assert "binance BTC/USDT 1h: 20 new, 0 known before" in first[1], first
    assert "binance BTC/USDT 1h: 30 new, 1 known before" in rest[1], rest
    assert "binance BTC/USDT 1h: 50 bars" in command("candles", "show")[1]


def test_bars_that_disagree_are_refused(command: Command, tmp_path: Path) -> None:
    head = "opened_at,open,high,low,close,volume\n2024-01-01T00:00:00Z,1,1,1,1,1\n"
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text(head + "2024-01-01T01:00:00Z,1,1,1,1,1\n")
    other.write_text(head + "2024-01-01T01:00:00Z,1,1,1,1,2\n")

    code, out, err = command("import", "candles", one, other, "--instrument", "X")

    assert (code, out) == (1, "file X 1h: 2 new, 0 known before, 0 not closed yet\n")
    assert err == (
        "candle_conflict: file X 1h: volume of the bar of 2024-01-01T01:00:00+00:00 is 1.0 in the "
        "store, but 2.0 was offered\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "FILES: must name a file, or --exchange"),
        ((SHIPPED_FILE, "--exchange", "binance"), "FILES: must not go with --exchange"),
        ((SHIPPED_FILE, "--since", "2024-01-01"), "--since: must go with --exchange"),
        ((SHIPPED_FILE, "--interval", "1h"), "--interval: must go with --exchange"),
        (("--exchange", "binance"), "--instrument and --interval: must be there with --exchange"),
        (
            ("--exchange", "binance", "--instrument", "X", "--interval", "1y"),
            "interval: must be a number and s, m, h, d or w, such as 5m, found 1y",
        ),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    command: Command, arguments: tuple[object, ...], message: str
) -> None:
    code, _, err = command("import", "candles", *arguments)

    assert code == 2
    assert message in err


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_exchange_options_are_a_json_object(command: Command, tmp_path: Path, text: str) -> None:
    path = tmp_path / "options.json"
    path.write_text(text)

    code, _, err = command(
        *("import", "candles", "--exchange", "binance", "--instrument", "X", "--interval", "1h"),
        *("--exchange-options", path),
    )

    assert code == 2
    assert "options.json: must be " in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--instrument", "X", "--candles", SHIPPED_FILE), "--instrument: must not go with"),
        (("--interval", "1h"), "--interval: must go with --instrument, found 1h"),
        (("--source", "own"), "--source: must go with --instrument, found own"),
        (("--instrument", "X", "--interval", "1y"), "interval: must be a number and s, m, h"),
        (
            ("--instrument", "BTCUSD", "--interval", "1h"),
            "no series of candles is registered as 'BTCUSD 1h'; known: own X 1h",
        ),
    ],
)
def test_learning_says_which_stored_candles_it_lacks(
    command: Command, arguments: tuple[object, ...], message: str
) -> None:
    command("import", "candles", SHIPPED_FILE, "--instrument", "X", "--source", "own")

    code, _, err = command("learn", "rl", "drill", *arguments)

    assert (code, message in err) == (2, True), err
