"""Loads of several series: seen all at once or not at all, and taken back to the byte."""

from __future__ import annotations

import fcntl
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_candles import HOUR, part, random_walk

from bandit.core.errors import LockHeldElsewhere, UnknownName
from learners.durable_files import write_durably
from learners.market.candle_store import CandleConflict, CandleStore
from learners.market.candles import Candles
from learners.market.store_switch import SWITCH, pending, version_digest, versions
from learners.market.store_versions import Offer, forget, load, restore, undone_by
from learners.market.stored_series import DamagedSeries, SeriesName, encoded

LATER = datetime(2030, 1, 1, tzinfo=UTC)
WALK = random_walk(75 * 24, seed=1)  # January, February and March 2024
FIRST = date(2024, 1, 10)


def name(instrument: str) -> SeriesName:
    return SeriesName(source="own", instrument=instrument, interval=HOUR)


def bars(instrument: str, start: int, stop: int) -> Candles:
    cut = part(WALK, start, stop)
    return Candles(
        instrument=instrument, opened_at=cut.opened_at, bar_interval=HOUR, **cut.numbers()
    )


def offer(instrument: str, start: int, stop: int) -> Offer:
    return Offer(name=name(instrument), candles=bars(instrument, start, stop), features=None)


def seen(store: CandleStore) -> dict[str, int]:
    return {stored.name.instrument: len(store.load(stored.name)) for stored in store.series()}


def named_bytes(store: CandleStore) -> dict[str, bytes]:
    found = {}
    for stored in store.series():
        folder = store.root / stored.name.folder
        for file in ("series.json", *stored.files):
            found[f"{stored.name}/{file}"] = (folder / file).read_bytes()
    return found


def test_a_load_brings_every_series_and_says_what_was_new(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    empty = version_digest(tmp_path)

    first = load(store, FIRST, [offer("A", 0, 100), offer("B", 0, 50)], now=LATER)
    again = load(store, FIRST, [offer("A", 0, 100), offer("B", 0, 50)], now=LATER)

    assert seen(store) == {"A": 100, "B": 50}
    assert dict(first.new) == {"own A 1h": 100, "own B 1h": 50}
    assert (first.before, first.after) == (empty, version_digest(tmp_path))
    assert again == first


def test_nothing_of_a_load_is_there_where_one_series_is_refused(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    load(store, FIRST, [offer("A", 0, 100), offer("B", 0, 100)], now=LATER)
    other = part(random_walk(75 * 24, seed=2), 90, 120)
    wrong = Candles(instrument="B", opened_at=other.opened_at, bar_interval=HOUR, **other.numbers())
    before = version_digest(tmp_path)

    with pytest.raises(CandleConflict):
        load(
            store,
            FIRST + timedelta(days=1),
            [offer("A", 90, 120), Offer(name=name("B"), candles=wrong, features=None)],
            now=LATER,
        )

    assert seen(store) == {"A": 100, "B": 100}
    assert version_digest(tmp_path) == before
    assert [version.day for version in versions(tmp_path)] == [FIRST]


def test_between_switch_and_replacement_readers_see_all_of_it(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    load(store, FIRST, [offer("A", 0, 100), offer("B", 0, 100)], now=LATER)
    [version] = versions(tmp_path)
    # As a process left it that was killed while it went back to before the load.
    write_durably(tmp_path / SWITCH, encoded(version.before))

    assert seen(store) == {}
    with pytest.raises(UnknownName):
        store.load(name("A"))

    # Whoever writes next finishes it, whatever series that is about.
    store.append(name("C"), bars("C", 0, 10), now=LATER)
    assert not (tmp_path / SWITCH).exists()
    assert seen(store) == {"C": 10}
    assert not (tmp_path / name("A").folder / "series.json").exists()


def test_a_switch_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / SWITCH).write_text("[]")
    with pytest.raises(DamagedSeries, match="holds no object"):
        pending(tmp_path)
    (tmp_path / SWITCH).write_text("{")
    with pytest.raises(DamagedSeries, match="cannot be read"):
        CandleStore(tmp_path).series()


@settings(max_examples=20, deadline=None)
@given(
    ends=st.lists(st.integers(1, 1800), min_size=1, max_size=5, unique=True).map(sorted),
    back=st.integers(0, 4),
    which=st.lists(st.sampled_from(["A", "B", "AB"]), min_size=5, max_size=5),
)
def test_going_back_before_any_load_gives_the_bytes_of_then(
    tmp_path_factory: pytest.TempPathFactory, ends: list[int], back: int, which: list[str]
) -> None:
    store = CandleStore(tmp_path_factory.mktemp("candles"))
    states = []
    for night, end in enumerate(ends):
        states.append(named_bytes(store))
        offers = [offer(instrument, 0, end) for instrument in which[night]]
        load(store, FIRST + timedelta(days=night), offers, now=LATER)
    target = min(back, len(ends) - 1)

    undone = undone_by(store.root, FIRST + timedelta(days=target))
    restore(store, undone)
    restore(store, undone)  # as somebody does who was killed
    forget(store.root, undone)

    assert named_bytes(store) == states[target]
    assert len(versions(store.root)) == target


def test_files_of_a_version_stay_until_it_is_forgotten(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    for night in range(4):
        load(store, FIRST + timedelta(days=night), [offer("A", 0, 100 + night)], now=LATER)
    folder = tmp_path / name("A").folder
    assert len(list(folder.glob("2024-01.*"))) == 4

    forget(tmp_path, versions(tmp_path)[:3])
    store.append(name("A"), bars("A", 0, 104), now=LATER)

    # Those before and after the load that is kept, and the newest.
    assert len(list(folder.glob("2024-01.*"))) == 3


def test_bars_that_were_appended_since_go_with_the_load(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    load(store, FIRST, [offer("A", 0, 100)], now=LATER)
    load(store, FIRST + timedelta(days=1), [offer("A", 0, 124)], now=LATER)
    store.append(name("A"), bars("A", 0, 130), now=LATER)
    store.append(name("C"), bars("C", 0, 10), now=LATER)

    restore(store, undone_by(tmp_path, FIRST + timedelta(days=1)))

    assert seen(store) == {"A": 100, "C": 10}


def test_a_load_and_an_append_of_one_series_exclude_each_other(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    load(store, FIRST, [offer("A", 0, 100)], now=LATER)
    with (tmp_path / name("A").folder / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockHeldElsewhere, match="own A 1h"):
            load(store, FIRST, [offer("B", 0, 9), offer("A", 0, 110)], now=LATER)
        with pytest.raises(LockHeldElsewhere):
            restore(store, undone_by(tmp_path, FIRST))
    with (tmp_path / ".switch.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockHeldElsewhere, match="is switching"):
            restore(store, undone_by(tmp_path, FIRST))
    assert seen(store) == {"A": 100}


def test_a_version_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    load(store, FIRST, [offer("A", 0, 100)], now=LATER)
    (tmp_path / "versions" / f"{FIRST}.json").write_text("{}")
    with pytest.raises(DamagedSeries, match="cannot be read: KeyError"):
        undone_by(tmp_path, FIRST)
