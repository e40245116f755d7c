"""What holds for every way to split: nothing overlaps, nothing leaks, later bars move no fold."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.errors import InvalidInput
from learners.market.splits import Split, walking_splits

WAYS = {
    "train_bars": st.integers(1, 60),
    "test_bars": st.integers(1, 40),
    "reach_bars": st.integers(1, 30),
    "embargo_bars": st.integers(0, 30),
    "first_bar": st.integers(0, 50),
    "anchored": st.booleans(),
}
ways = st.fixed_dictionaries(WAYS)
Way = dict[str, int]


def least(way: Way) -> int:
    counted = ("train_bars", "test_bars", "reach_bars", "embargo_bars", "first_bar")
    return sum(way[name] for name in counted)


@given(ways, st.integers(0, 300))
def test_no_label_of_a_training_row_touches_the_embargo_or_the_test(way: Way, more: int) -> None:
    for fold in walking_splits(least(way) + more, **way):
        read = {row + way["reach_bars"] for row in fold.train} | set(fold.train)
        assert max(read) < fold.test.start - way["embargo_bars"]
        # nor is there room for one more training row
        assert max(read) == fold.test.start - way["embargo_bars"] - 1


@given(ways, st.integers(0, 300))
def test_tests_follow_one_another_and_none_that_fits_is_missing(way: Way, more: int) -> None:
    bars = least(way) + more
    folds = walking_splits(bars, **way)

    assert folds[0].train.start == way["first_bar"]
    assert all(len(fold.test) == way["test_bars"] for fold in folds)
    assert all(later.test.start == fold.test.stop for fold, later in pairwise(folds))
    assert bars - way["test_bars"] < folds[-1].test.stop <= bars


@given(ways, st.integers(0, 300))
def test_rolling_folds_are_of_one_size_and_anchored_ones_grow(way: Way, more: int) -> None:
    for place, fold in enumerate(walking_splits(least(way) + more, **way)):
        grown = place * way["test_bars"] if way["anchored"] else 0
        assert len(fold.train) == way["train_bars"] + grown


@given(ways, st.integers(0, 200), st.integers(0, 200))
def test_later_bars_add_folds_and_move_none(way: Way, bars: int, more: int) -> None:
    before = walking_splits(least(way) + bars, **way)
    after = walking_splits(least(way) + bars + more, **way)

    assert after[: len(before)] == before


@given(ways)
def test_one_bar_too_few_is_refused(way: Way) -> None:
    assert len(walking_splits(least(way), **way)) == 1
    with pytest.raises(InvalidInput, match="bars: must be"):
        walking_splits(least(way) - 1, **way)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("train_bars", 0),
        ("test_bars", 0),
        ("reach_bars", 0),
        ("embargo_bars", -1),
        ("first_bar", -1),
    ],
)
def test_counts_that_are_too_small_are_refused(name: str, count: int) -> None:
    way = {"train_bars": 5, "test_bars": 5, "reach_bars": 1} | {name: count}

    with pytest.raises(InvalidInput, match=f"{name}: must be"):
        walking_splits(100, **way)


def test_an_anchored_split_as_worked_out_by_hand() -> None:
    folds = walking_splits(
        30, train_bars=10, test_bars=5, reach_bars=3, embargo_bars=2, first_bar=1, anchored=True
    )

    # first test at 1 + 10 + 3 + 2 = 16; the test from 26 would need bar 30
    assert folds == (
        Split(train=range(1, 11), test=range(16, 21)),
        Split(train=range(1, 16), test=range(21, 26)),
    )
