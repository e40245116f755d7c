"""A stored reference is read back bit for bit, and nothing else is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners.array_file import encoded
from learners.canonical_json import canonical, parsed
from learners.drift.behaviour import ConfidenceReference, ImportanceReference, PredictionReference
from learners.drift.encoder import EncoderReference
from learners.drift.features import FEATURES_MAX, FeatureReference
from learners.drift.reference_file import ARRAYS, OUTLINE, SIZES_MAX, DriftReference
from learners.sealed_files import ArtifactRefused

NAMES = ("rsi", "constant", "unknown", "flag")


def a_reference() -> DriftReference:
    """A reference of everything, with features of every kind."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3000, 4)) / 3.0
    rows[:, 1], rows[:, 2] = 0.1, np.nan
    rows[:, 3] = rows[:, 3] > 0.2
    return DriftReference(
        features=FeatureReference.of(rows, NAMES),
        encoder=EncoderReference.of(rng.normal(size=(2000, 12))),
        importance=ImportanceReference.of(rng.dirichlet([3.0, 2.0, 1.0, 1.0], size=300), NAMES),
        confidence=ConfidenceReference.of(rng.beta(8, 2, size=3000)),
        prediction=PredictionReference.of(rng.normal(size=100)),
    )


REFERENCE = a_reference()
FILES = REFERENCE.to_files()


def arrays_of(files: dict[str, bytes]) -> dict[str, Any]:
    import io

    with np.load(io.BytesIO(files[ARRAYS])) as loaded:
        return {name: loaded[name] for name in loaded.files}


def refused(files: dict[str, bytes], match: str) -> None:
    with pytest.raises(ArtifactRefused, match=match):
        DriftReference.from_files(files)


def test_reference_is_read_back_bit_for_bit() -> None:
    again = DriftReference.from_files(FILES)
    assert again.to_files() == FILES
    rng = np.random.default_rng(2)
    rows, embeddings = rng.normal(size=(500, 4)), rng.normal(size=(300, 12))
    for reference in (REFERENCE, again):
        assert reference.features is not None
        assert reference.encoder is not None
    assert again.features.check(rows) == REFERENCE.features.check(rows)  # type: ignore[union-attr]
    found = again.encoder.check(embeddings)  # type: ignore[union-attr]
    assert found == REFERENCE.encoder.check(embeddings)  # type: ignore[union-attr]
    assert again.prediction == REFERENCE.prediction


@pytest.mark.parametrize("part", ["features", "encoder", "importance", "confidence", "prediction"])
def test_each_part_stands_alone_or_is_missing(part: str) -> None:
    alone = DriftReference(**{part: getattr(REFERENCE, part)})
    assert DriftReference.from_files(alone.to_files()).to_files() == alone.to_files()
    without = replace(REFERENCE, **{part: None})
    again = DriftReference.from_files(without.to_files())
    assert getattr(again, part) is None
    assert again.to_files() == without.to_files()


def test_files_are_bounded_whatever_was_frozen() -> None:
    rows = np.random.default_rng(1).normal(size=(20_000, FEATURES_MAX))
    names = [f"{i:064}" for i in range(FEATURES_MAX)]
    largest = replace(REFERENCE, features=FeatureReference.of(rows, names)).to_files()
    assert all(len(largest[name]) <= size for name, size in SIZES_MAX.items())
    assert DriftReference.from_files(largest).to_files() == largest


@pytest.mark.parametrize("name", [OUTLINE, ARRAYS])
def test_files_that_are_missing_too_many_or_too_large_are_refused(name: str) -> None:
    refused({key: value for key, value in FILES.items() if key != name}, "must be drift.json and")
    refused(FILES | {"more": b""}, "must be drift.json and")
    refused(FILES | {name: bytes(SIZES_MAX[name] + 1)}, "must be at most")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("mood",), {}),
        (("features",), []),
        (("features", "names"), ["rsi", "rsi", "unknown", "flag"]),
        (("features", "names"), "rsi"),
        (("features", "grid"), [2048, 1, 0]),
        (("features", "grid"), [2048, 1, 0, 2**40]),
        (("features", "grid"), [2048, 1, 0, -2]),
        (("features", "grid"), [2048, 1, 0, True]),
        (("features", "edges"), [10, 0, 0, 1]),
        (("encoder", "width"), 2**40),
        (("encoder", "dimensions"), 0),
        (("encoder", "lengths"), 41),
        (("encoder", "more"), 1),
        (("importance", "names"), []),
    ],
)
def test_outline_that_says_anything_else_is_refused(path: tuple[str, ...], value: object) -> None:
    outline = parsed(FILES[OUTLINE], field=OUTLINE)
    holder = outline
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    refused(FILES | {OUTLINE: canonical(outline)}, OUTLINE)


def test_outline_of_other_sizes_than_the_arrays_is_refused() -> None:
    outline = parsed(FILES[OUTLINE], field=OUTLINE)
    outline["encoder"]["width"] = 11
    refused(FILES | {OUTLINE: canonical(outline)}, ARRAYS)


def test_outline_that_is_not_canonical_is_refused() -> None:
    refused(FILES | {OUTLINE: FILES[OUTLINE] + b" "}, "canonical form")


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("features.grid", 3, 1e9),
        ("features.cumulative", 0, -1),
        ("features.counts", 0, 0),
        ("features.counted", (0, 0), -1),
        ("features.counted", (0, 1), 2),
        ("features.numbers", (0, 1), 0.5),
        ("features.edges", 0, 1e9),
        ("features.correlation", (0, 3), 2.0),
        ("features.correlation", (0, 3), 0.5),
        ("encoder.null", (0, 0), 0.0),
        ("encoder.null", (1, 0), 1e-9),
        ("encoder.lengths", (0, 0), 1),
        ("encoder.lengths", (1, 0), 0),
        ("encoder.numbers", 0, 2.0),
        ("encoder.n", 0, 1),
        ("encoder.mean", 0, np.nan),
        ("importance.parts", 0, 0.9),
        ("confidence.grid", 3, 1e9),
        ("prediction.n", 0, -1),
        ("prediction.numbers", 1, -1.0),
    ],
)
def test_numbers_that_nothing_makes_are_refused(name: str, place: Any, value: float) -> None:
    arrays = arrays_of(FILES)
    arrays[name][place] = value
    refused(FILES | {ARRAYS: encoded(arrays)}, ARRAYS)


def test_arrays_of_another_type_are_refused() -> None:
    arrays = arrays_of(FILES)
    refused(FILES | {ARRAYS: encoded(arrays | {"encoder.mean": np.zeros(12, "<f4")})}, ARRAYS)
    del arrays["encoder.n"]
    refused(FILES | {ARRAYS: encoded(arrays)}, "a difference in encoder.n")
