"""Loads of the data pipeline taken back: to the byte, and on where it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_nights import (
    app_of,
    contents,
    forget_facts,
    grow,
    night,
    run,
    series,
)
from sqlalchemy import Engine, text

from bandit.core.data_runs import NIGHT, ROLLBACK, DataStage
from bandit.core.errors import DataPaused, UnknownName
from bandit.core.model import Verdict
from bandit.service import data_runs
from learners.market.store_switch import versions
from learners.market.stored_series import DamagedSeries
from liveops import data_rollback
from liveops.candle_import import candle_store
from liveops.data_rollback import roll_back
from liveops.data_validation import validated, verdict_of
from liveops.wiring import App


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    grow(tmp_path / "files", days=20)
    return app_of(engine, tmp_path)


def back(app: App, n: int) -> data_rollback.RolledBack:
    return roll_back(app, night(n), reason="drill", actor="test")


def three_nights(app: App, folder: Path) -> dict[str, bytes]:
    """Load three nights; return what the store held after the first."""
    run(app, 0)
    before = contents(candle_store(app.settings))
    for n in (1, 2):
        grow(folder / "files", days=20 + n)
        run(app, n)
    return before


def test_a_rollback_restores_the_very_bytes_and_the_night_can_be_done_anew(
    app: App, tmp_path: Path
) -> None:
    store = candle_store(app.settings)
    before = three_nights(app, tmp_path)
    loaded = contents(store)
    assert data_rollback.planned(app, night(1))["series"]["file/AAA/1h"] == {
        "bars": 22 * 24,
        "would_be": 20 * 24,
    }

    done = back(app, 1)

    assert (done.done, done.undone) == (ROLLBACK, (night(1), night(2)))
    assert contents(store) == before
    assert data_runs.paused(app.engine) is None
    assert back(app, 1).done == ()
    assert verdict_of(validated(app, night(0))) is Verdict.PASS
    # Both nights are open again; the second brings in what both had.
    assert run(app, 2).reports["load"]["new"]["file AAA 1h"] == 48
    assert run(app, 1).done == NIGHT
    assert {p: c for p, c in contents(store).items() if "2024-01." in p} == {
        p: c for p, c in loaded.items() if "2024-01." in p
    }
    with app.engine.connect() as connection:
        told = connection.execute(
            text("SELECT details->>'reason' FROM audit_log WHERE action = 'data_restore'")
        ).scalars()
        assert list(told) == ["drill", "drill"]


def test_going_back_to_before_the_first_load_leaves_no_series(app: App) -> None:
    run(app, 0)
    back(app, 0)
    assert candle_store(app.settings).series() == ()


def test_a_load_that_is_not_kept_cannot_be_rolled_back(app: App) -> None:
    run(app, 0)
    with pytest.raises(UnknownName, match="known: 2024-01-21"):
        back(app, 1)
    assert data_runs.paused(app.engine) is None


def test_a_rollback_to_files_that_are_damaged_is_refused_before_anything_is_paused(
    app: App, tmp_path: Path
) -> None:
    run(app, 0)
    store = candle_store(app.settings)
    stored = store.stored(series("AAA"))
    grow(tmp_path / "files", days=21)
    run(app, 1)
    assert stored is not None
    old = [name for name in stored.files if name.startswith("2024-01")]
    (store.root / series("AAA").folder / old[0]).write_bytes(b"PAR1")

    with pytest.raises(DamagedSeries, match="is not the file that was written"):
        back(app, 1)

    assert data_runs.paused(app.engine) is None
    assert len(store.load(series("AAA"))) == 21 * 24


@pytest.mark.parametrize("killed", [*ROLLBACK[1:], "forget"])
def test_a_rollback_that_was_killed_is_paused_and_goes_on(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    run(app, 0)
    store = candle_store(app.settings)
    before = contents(store)
    grow(tmp_path / "files", days=21)
    run(app, 1)

    class Killed(BaseException):
        """What no code catches, as no code goes on after a kill."""

    def dies(*_arguments: object, **_options: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if killed == "forget":
            patched.setattr(data_rollback, "forget", dies)
        else:
            real = data_runs.record

            def records(engine: Engine, facts: list, **options: object) -> None:
                if facts[0].stage == killed:
                    raise Killed  # the work is done, the fact is not
                real(engine, facts, **options)  # type: ignore[arg-type]

            patched.setattr(data_rollback.data_runs, "record", records)
        with pytest.raises(Killed):
            back(app, 1)

    is_over = killed == DataStage.VERIFY
    assert (data_runs.paused(app.engine) is None) == is_over
    if not is_over:
        with pytest.raises(DataPaused, match="liveops data rollback 2024-01-22"):
            run(app, 1)
        with pytest.raises(DataPaused):
            back(app, 2)

    went_on = back(app, 1)

    assert went_on.done
    assert went_on.before + went_on.done == ROLLBACK
    assert went_on.undone == (night(1),)
    assert contents(store) == before
    assert data_runs.paused(app.engine) is None
    assert [version.day for version in versions(store.root)] == [night(0)]
    assert run(app, 1).attempt == 2


def cut_off(app: App, n: int, monkeypatch: pytest.MonkeyPatch, *, before: DataStage) -> None:
    """Begin a rollback, and be killed before a stage of it is recorded."""

    class Killed(BaseException):
        """What no code catches, as no code goes on after a kill."""

    real = data_runs.record

    def records(engine: Engine, facts: list, **options: object) -> None:
        if facts[0].stage == before:
            raise Killed
        real(engine, facts, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(data_rollback.data_runs, "record", records)
        with pytest.raises(Killed):
            back(app, n)


def test_what_nights_loaded_after_a_rollback_was_cut_off_unverified_is_rolled_back_anew(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(app, 0)
    store = candle_store(app.settings)
    before = contents(store)
    grow(tmp_path / "files", days=21)
    run(app, 1)
    cut_off(app, 1, monkeypatch, before=DataStage.VERIFY)
    assert data_runs.paused(app.engine) is None
    run(app, 1)
    grow(tmp_path / "files", days=22)
    run(app, 2)

    assert data_rollback.planned(app, night(1))["would_do"] == list(ROLLBACK)
    done = back(app, 1)

    assert (done.done, done.before, done.undone) == (ROLLBACK, (), (night(1), night(2)))
    assert contents(store) == before
    assert [version.day for version in versions(store.root)] == [night(0)]
    assert back(app, 1).done == ()


@pytest.mark.parametrize("cut", [DataStage.REVALIDATE, DataStage.RESUME])
def test_a_ledger_that_was_restored_from_before_the_resume_keeps_the_loads_since(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: DataStage
) -> None:
    run(app, 0)
    store = candle_store(app.settings)
    grow(tmp_path / "files", days=21)
    run(app, 1)
    cut_off(app, 1, monkeypatch, before=cut)
    backup = [fact for n in (0, 1) for fact in data_runs.of_date(app.engine, night(n))]
    back(app, 1)
    run(app, 1)
    first = contents(store)
    grow(tmp_path / "files", days=22)
    run(app, 2)
    loaded = contents(store)
    forget_facts(app.engine)
    data_runs.record(app.engine, backup, now=app.clock.now(), actor="test")

    went_on = back(app, 1)

    assert went_on.done == ROLLBACK[ROLLBACK.index(cut) :]
    assert went_on.undone == (night(1),)
    assert data_runs.paused(app.engine) is None
    assert contents(store) == loaded
    assert [version.day for version in versions(store.root)] == [night(0), night(1), night(2)]
    assert back(app, 2).undone == (night(2),)
    assert contents(store) == first


def test_bars_of_a_later_night_are_never_said_to_be_rolled_back(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(app, 0)
    grow(tmp_path / "files", days=21)
    run(app, 1)
    cut_off(app, 1, monkeypatch, before=DataStage.VERIFY)
    grow(tmp_path / "files", days=22)
    run(app, 2)  # brings in what the night before would have, too

    with pytest.raises(UnknownName, match="known: 2024-01-21, 2024-01-23"):
        back(app, 1)

    store = candle_store(app.settings)
    assert [version.day for version in versions(store.root)] == [night(0), night(2)]
    assert back(app, 2).done == ROLLBACK
    assert len(store.load(series("AAA"))) == 20 * 24


def test_a_damaged_series_that_no_load_changed_refuses_before_anything_is_paused(
    app: App, engine: Engine, tmp_path: Path
) -> None:
    run(app, 0)
    grow(tmp_path / "files", days=21, only=["AAA"])
    source = str(tmp_path / "files" / "AAA.csv")
    app = app_of(engine, tmp_path, feeds=[{"instrument": "AAA", "interval": "1h", "files": source}])
    run(app, 1)
    store = candle_store(app.settings)
    other = store.stored(series("BBB"))
    assert other is not None
    (store.root / series("BBB").folder / min(other.files)).write_bytes(b"PAR1")

    with pytest.raises(DamagedSeries, match="file/BBB/1h"):
        back(app, 1)

    assert data_runs.paused(engine) is None
    assert [version.day for version in versions(store.root)] == [night(0), night(1)]
    grow(tmp_path / "files", days=22, only=["AAA"])
    assert run(app, 2).done == NIGHT
    # Before the night that wrote the damaged file there was none.
    assert back(app, 0).done == ROLLBACK
    assert store.series() == ()


@pytest.mark.parametrize("cut", [DataStage.RESTORE, DataStage.REVALIDATE, DataStage.RESUME])
def test_an_earlier_date_takes_a_standing_pause_over(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: DataStage
) -> None:
    store = candle_store(app.settings)
    before = three_nights(app, tmp_path)
    cut_off(app, 2, monkeypatch, before=cut)
    assert data_runs.paused(app.engine) is not None

    assert data_rollback.planned(app, night(1))["would_do"] == list(ROLLBACK)
    assert back(app, 1).done == ROLLBACK

    assert data_runs.paused(app.engine) is None
    assert contents(store) == before
    # What was taken over is done: its night is open, and goes back anew.
    assert run(app, 2).done == NIGHT
    assert len(store.load(series("AAA"))) == 22 * 24
    assert back(app, 2).done == ROLLBACK
    assert contents(store) == before
