"""Nights of the data pipeline: from files to the store, once, checked, and taken back whole."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from data_nights import (
    BARS,
    START,
    app_of,
    contents,
    grow,
    named,
    night,
    run,
    series,
    write_csv,
)
from fake_exchange import PAIR, FakeExchange, serving
from made_up_candles import HOUR, part, random_walk
from sqlalchemy import Engine, text

from bandit.core.data_runs import NIGHT, DataStage, DataState
from bandit.core.errors import InvalidInput, LockHeldElsewhere
from bandit.core.model import Verdict
from bandit.service import data_runs
from learners.market.feature_store import FeaturesDiffer, require_same
from learners.market.features import FeatureSpec, features_of
from learners.market.store_switch import versions
from learners.market.stored_series import SeriesName
from liveops import data_rollback
from liveops.breakers import BreakerOpen
from liveops.candle_import import candle_store, stored_candles
from liveops.clock import monotonic
from liveops.data_night import DataRefused
from liveops.data_pipeline import night_of, planned
from liveops.data_rollback import roll_back
from liveops.data_validation import validated, verdict_of
from liveops.wiring import App

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "candles"


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    grow(tmp_path / "files", days=20)
    return app_of(engine, tmp_path)


def back(app: App, n: int) -> data_rollback.RolledBack:
    return roll_back(app, night(n), reason="drill", actor="test")


def test_a_night_brings_in_what_closed_by_midnight_and_does_so_once(
    app: App, tmp_path: Path
) -> None:
    grow(tmp_path / "files", days=21)
    store = candle_store(app.settings)

    first, before = run(app, 0), contents(store)
    again = run(app, 0)

    assert first.done == NIGHT
    assert first.reports["load"]["new"] == {"file AAA 1h": 480, "file BBB 1h": 480}
    assert store.load(series("AAA")).digest == named(part(BARS["AAA"], 0, 480), "AAA").digest
    assert (again.done, again.before, again.version) == ((), NIGHT, first.version)
    assert contents(store) == before
    assert not list((tmp_path / "data" / "staging").iterdir())


def test_a_later_night_adds_and_facts_and_audit_tell_of_it(app: App, tmp_path: Path) -> None:
    first = run(app, 0)
    grow(tmp_path / "files", days=21)

    second = run(app, 1)

    assert second.reports["load"]["new"] == {"file AAA 1h": 24, "file BBB 1h": 24}
    facts = data_runs.of_date(app.engine, night(1))
    assert [(fact.stage, fact.state, fact.attempt) for fact in facts] == [
        (stage, DataState.DONE, 1) for stage in NIGHT
    ]
    # What comes reaches a day back into what is kept: 24 known and 24 new bars of two series.
    rows = {fact.stage: (fact.rows_in, fact.rows_out) for fact in facts}
    assert rows[DataStage.EXTRACT] == (98, 98)
    assert rows[DataStage.VALIDATE] == (98, 48)
    assert rows[DataStage.TRANSFORM] == (48, 48)
    assert rows[DataStage.LOAD] == (98, 48)
    [loaded] = [fact for fact in facts if fact.stage is DataStage.LOAD]
    assert (loaded.version_before, loaded.version_after) == (first.version, second.version)
    with app.engine.connect() as connection:
        told = connection.execute(
            text("SELECT action FROM audit_log WHERE subject = :date ORDER BY id"),
            {"date": str(night(1))},
        ).scalars()
        assert list(told) == [f"data_{stage.value}" for stage in NIGHT]


def test_features_are_those_of_any_later_computation_and_do_not_look_ahead(
    app: App, tmp_path: Path
) -> None:
    for n in range(4):
        grow(tmp_path / "files", days=20 + n)
        run(app, n)
    store = candle_store(app.settings)
    stored = store.stored(series("AAA"))
    assert stored is not None

    # Of 23 days in four parts, each computed when nothing later was there.
    assert [part["rows"] for part in stored.features[FeatureSpec().digest].values()] == [
        480,
        24,
        24,
        24,
    ]
    assert require_same(store.root, stored, store.load(series("AAA"))) == 23 * 24
    # All 30 days give the same rows: what came later changes nothing.
    assert require_same(store.root, stored, named(BARS["AAA"], "AAA")) == 23 * 24
    other = features_of(named(random_walk(30 * 24, seed=9), "AAA"), FeatureSpec())
    assert other.spec_digest == FeatureSpec().digest
    with pytest.raises(FeaturesDiffer, match="file AAA 1h: return_1 of the bar of 2024-01-01T01"):
        require_same(store.root, stored, named(random_walk(30 * 24, seed=9), "AAA"))


def test_a_training_reads_the_numbers_that_were_stored(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(app, 0)
    store = candle_store(app.settings)
    [read] = stored_candles(store, ["AAA"], source=None, interval=None)
    assert read.digest == named(part(BARS["AAA"], 0, 480), "AAA").digest

    # Code that computes something else under the same name is found out.
    monkeypatch.setattr("learners.market.features.lagged", lambda x, bars: x - bars)
    with pytest.raises(FeaturesDiffer):
        stored_candles(store, ["AAA"], source=None, interval=None)


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda lines: lines[:-6], "completeness 0.25 > 0.05"),
        (lambda lines: [*lines, lines[-1]], "duplicates 1 > 0"),
        (lambda lines: [*lines[:-1], lines[-1].replace(",", ",-", 1)], "values"),
        (lambda lines: [*lines[:-2], lines[-1].replace("Z,", ":30Z,", 1)], "schema 1 > 0"),
        (lambda lines: [*lines[:-2], lines[-2].replace(":00:00Z", ":30:00Z"), lines[-1]], "grid"),
        (lambda lines: [lines[0].replace("close", "klose"), *lines[1:]], "schema 1 > 0"),
        (lambda lines: [*lines[:-30], _other_volume(lines[-30]), *lines[-29:]], "agreement 1 > 0"),
        (lambda lines: [*lines[:-2], lines[-1], lines[-2]], "order 1 > 0"),
    ],
    ids=["missing", "twice", "negative", "no time", "off grid", "no column", "revised", "disorder"],
)
def test_a_damaged_day_is_refused_and_what_was_loaded_stays(
    app: App, tmp_path: Path, spoil: object, check: str
) -> None:
    run(app, 0)
    store = candle_store(app.settings)
    before = contents(store)
    grow(tmp_path / "files", days=21)
    path = tmp_path / "files" / "AAA.csv"
    path.write_text("\n".join(spoil(path.read_text().splitlines())) + "\n")  # type: ignore[operator]

    with pytest.raises(DataRefused, match=r"nothing of 2024-01-22 was loaded") as refused:
        run(app, 1)

    assert f"file AAA 1h {check}" in str(refused.value)
    assert "liveops data run --date 2024-01-22" in str(refused.value)
    assert contents(store) == before
    [failed] = [f for f in data_runs.of_date(app.engine, night(1)) if f.state is DataState.FAILED]
    assert failed.stage is DataStage.VALIDATE
    # The other series is in order, and is not loaded either.
    told = {(c["series"], c["check"]): c["verdict"] for c in failed.report["checks"]}
    assert told["file BBB 1h", "completeness"] == "PASS"

    grow(tmp_path / "files", days=21)
    mended = run(app, 1)
    assert (mended.attempt, mended.done) == (2, NIGHT)


def _other_volume(line: str) -> str:
    return ",".join([*line.split(",")[:-1], "77.7"])


def test_nothing_at_all_is_a_failure_not_an_empty_night(app: App, tmp_path: Path) -> None:
    (tmp_path / "files" / "BBB.csv").unlink()

    with pytest.raises(DataRefused, match=r"file BBB 1h schema 1 > 0 .*must name a file"):
        run(app, 0)

    assert candle_store(app.settings).series() == ()


def test_a_leap_stops_the_load_until_somebody_says_why_it_is_right(
    app: App, tmp_path: Path
) -> None:
    run(app, 0)
    grow(tmp_path / "files", days=21)
    leap = part(BARS["AAA"], 0, 21 * 24)
    far = np.where(np.arange(len(leap)) >= 20 * 24 + 6, 100.0, 1.0)  # as cents for euros
    numbers = {name: getattr(leap, name) * far for name in ("open", "high", "low", "close")}
    numbers["volume"] = leap.volume
    write_csv(tmp_path / "files" / "AAA.csv", leap, **numbers)

    with pytest.raises(DataRefused, match=r"1 anomalies stop the load: file AAA 1h return \d+"):
        run(app, 1)
    accepted = run(app, 1, accepted="the token was split")

    report = accepted.reports["anomalies"]
    assert report["accepted"] == "the token was split"
    assert {(a["series"], a["severity"]) for a in report["anomalies"] if a["kind"] == "return"} == {
        ("file AAA 1h", "critical")
    }
    assert accepted.reports["health"]["anomalies"]["critical"] == 1


def test_a_night_to_come_and_no_feeds_are_refused(app: App, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--date: must not be after 2024-01-30 UTC"):
        night_of(app, night(10))
    none = app_of(engine, tmp_path, feeds=[{"instrument": "AAA", "files": "/nowhere/*.csv"}])
    with pytest.raises(DataRefused, match="must name a file"):
        run(none, 0)


def test_a_dry_run_says_what_is_left_and_writes_nothing(app: App, tmp_path: Path) -> None:
    told = planned(app, night(0))
    assert told["would_do"] == [stage.value for stage in NIGHT]
    assert told["series"]["file AAA 1h"] == {
        "newest": None,
        "until": "2024-01-21T00:00:00+00:00",
        "bars_due": None,
    }
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "candles").exists()

    run(app, 0)

    assert planned(app, night(0))["would_do"] == []
    assert planned(app, night(2))["series"]["file AAA 1h"]["bars_due"] == 48


def test_one_process_at_a_time(app: App) -> None:
    with data_runs.alone(app.engine, doing="something else"):
        with pytest.raises(LockHeldElsewhere):
            run(app, 0)
        with pytest.raises(LockHeldElsewhere):
            back(app, 0)


def test_what_came_is_archived_with_its_hashes_and_let_go_in_time(
    engine: Engine, tmp_path: Path
) -> None:
    app = app_of(engine, tmp_path, archive_days=1, rollback_days=1)
    for n in range(3):
        grow(tmp_path / "files", days=20 + n)
        run(app, n)

    archive = tmp_path / "data" / "archive"
    assert sorted(path.name for path in archive.iterdir()) == [str(night(1)), str(night(2))]
    manifest = json.loads((archive / str(night(2)) / "1" / "manifest.json").read_text())
    assert len(manifest["files"]) == 2
    assert manifest["series"]["file AAA 1h"]["rows"] == 49
    kept = [version.day for version in versions(candle_store(app.settings).root)]
    assert kept == [night(1), night(2)]
    assert verdict_of(validated(app, night(2))) is Verdict.PASS

    raw = next((archive / str(night(2)) / "1").glob("raw.*"))
    raw.write_bytes(raw.read_bytes()[:-1] + b"x")
    [wrong] = [check for check in validated(app, night(2)) if check.verdict is Verdict.FAIL]
    assert (wrong.check, wrong.value) == ("hashes", 1.0)


def test_validation_looks_at_what_is_stored_of_a_day(app: App, tmp_path: Path) -> None:
    assert verdict_of(validated(app, night(0))) is Verdict.INCONCLUSIVE
    run(app, 0)
    told = {(c.subject, c.check): (c.verdict, c.value) for c in validated(app, night(0))}
    assert told["file AAA 1h", "completeness"] == (Verdict.PASS, 0.0)
    assert verdict_of(validated(app, night(3))) is Verdict.INCONCLUSIVE
    later = {(c.subject, c.check): c.verdict for c in validated(app, night(3))}
    assert later["file AAA 1h", "completeness"] is Verdict.INCONCLUSIVE
    assert later["file AAA 1h", "files"] is Verdict.PASS

    month = next((tmp_path / "candles" / "file" / "AAA" / "1h").glob("2024-01.*.parquet"))
    month.write_bytes(b"PAR1")
    [wrong] = [check for check in validated(app, night(0)) if check.verdict is Verdict.FAIL]
    assert (wrong.subject, wrong.check) == ("file AAA 1h", "files")


def test_candles_of_an_exchange_come_by_the_same_road(engine: Engine, tmp_path: Path) -> None:
    name = SeriesName(source="binance", instrument=PAIR, interval=HOUR)
    options = tmp_path / "options.json"
    feeds = [{"instrument": PAIR, "interval": "1h", "exchange": "binance"}]
    walk = random_walk(30 * 24, seed=3)
    with serving(FakeExchange(candles=walk, server_time=START + timedelta(days=29))) as fake:
        options.write_text(json.dumps(fake.options))
        app = app_of(engine, tmp_path, feeds=feeds, exchange_options_file=options, history_days=365)
        run(app, 0)
        fake.faults = [503]  # one fault on the way is asked again
        second = run(app, 1)
        kept = contents(candle_store(app.settings))
        for _ in range(3):
            app.breakers.of("exchange.binance").failed(at=monotonic())
        with pytest.raises(BreakerOpen):
            run(app, 2)
        assert contents(candle_store(app.settings)) == kept
        app.breakers.reset("exchange.binance")
        third = run(app, 2)

    assert second.reports["load"]["new"] == {f"binance {PAIR} 1h": 24}
    assert (third.attempt, third.done) == (2, NIGHT)
    found = candle_store(app.settings).load(name)
    assert found.digest == named(part(walk, 0, 22 * 24), PAIR).digest
    [failed] = [f for f in data_runs.of_date(engine, night(2)) if f.state is DataState.FAILED]
    assert (failed.stage, failed.attempt) == (DataStage.EXTRACT, 1)


def test_real_candles_of_two_instruments_go_through_night_after_night(
    engine: Engine, tmp_path: Path
) -> None:
    if not REAL.exists():
        pytest.skip("the data are not beside this checkout")
    feeds = [
        {"instrument": f"{coin}_USDT", "interval": "5m", "files": str(REAL / f"{coin}*5m.csv.gz")}
        for coin in ("BTC", "ETH")
    ]
    app = app_of(engine, tmp_path, feeds=feeds)

    first, second = run(app, 0), run(app, 1)

    assert first.reports["load"]["new"]["file BTC_USDT 5m"] == 20 * 288
    assert second.reports["load"]["new"] == {"file BTC_USDT 5m": 288, "file ETH_USDT 5m": 288}
    assert second.reports["health"]["healthy"]
    assert second.reports["health"]["series"]["file ETH_USDT 5m"]["features_checked"] == 21 * 288
    assert verdict_of(validated(app, night(1))) is Verdict.PASS
