"""Splits: train on the past, test on what came after it, and let nothing leak between the two."""

from __future__ import annotations

from typing import NamedTuple

from bandit.core.errors import InvalidInput


class Split(NamedTuple):
    """A fold: bars to train on, and later bars to test on; what lies between is left out."""

    train: range
    test: range


def walking_splits(
    bars: int,
    *,
    train_bars: int,
    test_bars: int,
    reach_bars: int,
    embargo_bars: int = 0,
    first_bar: int = 0,
    anchored: bool = False,
) -> tuple[Split, ...]:
    """Split bars `first_bar` up to `bars` into folds whose tests follow one another, side by side.

    Purged, after López de Prado (Advances in Financial Machine Learning, 2018, chapter 7): the
    label of a row reads up to `reach_bars` bars after it (`Labels.reach_bars`), and every label of
    the training rows ends before the `embargo_bars` in front of the test. A rolling fold trains on
    `train_bars` rows; an `anchored` one on all rows from the first, the first fold on `train_bars`.
    Folds are counted from the first bar, so that later bars add folds and move none; a test that is
    not full yet is left out. Raises `InvalidInput` for counts that are too small and when not one
    fold fits.

    >>> for fold in walking_splits(20, train_bars=8, test_bars=4, reach_bars=2, embargo_bars=1):
    ...     print(fold.train, fold.test)
    range(0, 8) range(11, 15)
    range(4, 12) range(15, 19)
    """
    counts = {
        "train_bars": (train_bars, 1),
        "test_bars": (test_bars, 1),
        "reach_bars": (reach_bars, 1),
        "embargo_bars": (embargo_bars, 0),
        "first_bar": (first_bar, 0),
    }
    for name, (count, least) in counts.items():
        if count < least:
            raise InvalidInput(field=name, rule=f"must be {least} or more", found=count)
    apart = reach_bars + embargo_bars
    first_test = first_bar + train_bars + apart
    if first_test + test_bars > bars:
        rule = f"must be {first_test + test_bars} or more for one fold"
        raise InvalidInput(field="bars", rule=rule, found=bars)
    folds = []
    for test in range(first_test, bars - test_bars + 1, test_bars):
        stop = test - apart
        start = first_bar if anchored else stop - train_bars
        folds.append(Split(train=range(start, stop), test=range(test, test + test_bars)))
    return tuple(folds)
