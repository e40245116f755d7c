"""A policy's drift references as two files: what there is as JSON, and its numbers as arrays.

The JSON says how many numbers of each kind there are, within bounds; every header of the arrays
follows from it, so that a reader compares and interprets nothing (learners/array_file.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners import array_file
from learners.array_file import Form
from learners.canonical_json import canonical, parsed
from learners.drift.behaviour import ConfidenceReference, ImportanceReference, PredictionReference
from learners.drift.distribution import BINS, GRID_MAX, Distribution
from learners.drift.encoder import DIMENSIONS, WIDTH_MAX, EncoderReference
from learners.drift.features import FEATURES_MAX, FeatureReference, checked_names
from learners.sealed_files import ArtifactRefused

OUTLINE, ARRAYS = "drift.json", "drift.npz"

_VERSION: Final = 1
_LENGTHS_MAX: Final = 40
_FLOAT, _WHOLE = np.dtype("<f8"), np.dtype("<i8")

_OUTLINE_MAX: Final = 65_536
_NUMBERS_MAX: Final = (
    (FEATURES_MAX + 1) * (2 * GRID_MAX + 2 * BINS + 8)
    + FEATURES_MAX * (FEATURES_MAX + 2)
    + WIDTH_MAX * (DIMENSIONS + 1)
    + 4 * _LENGTHS_MAX
    + 64
)
SIZES_MAX: Final[Mapping[str, int]] = {OUTLINE: _OUTLINE_MAX, ARRAYS: 8 * _NUMBERS_MAX + 65_536}
"""The most bytes that each file may have."""

Arrays = dict[str, NDArray[Any]]

_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "features": frozenset({"names", "grid", "edges"}),
    "encoder": frozenset({"width", "dimensions", "lengths"}),
    "importance": frozenset({"names"}),
    "confidence": frozenset({"grid", "edges"}),
    "prediction": frozenset(),
}
_ENCODER_MAX: Final = {"width": WIDTH_MAX, "dimensions": DIMENSIONS, "lengths": _LENGTHS_MAX}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftReference:
    """All that was frozen of a policy; None for what was not.

    `to_files` gives the files to store beside an artefact, `from_files` reads them back, bit for
    bit.
    """

    features: FeatureReference | None = None
    encoder: EncoderReference | None = None
    importance: ImportanceReference | None = None
    confidence: ConfidenceReference | None = None
    prediction: PredictionReference | None = None

    def to_files(self) -> dict[str, bytes]:
        """Return the two files by name; equal references give equal bytes.

        >>> reference = DriftReference(prediction=PredictionReference.of(np.arange(9.0) / 3.0))
        >>> files = reference.to_files()
        >>> sorted(files), DriftReference.from_files(files).prediction == reference.prediction
        (['drift.json', 'drift.npz'], True)
        """
        outline: dict[str, Any] = {"version": _VERSION}
        arrays: Arrays = {}
        for name in _KEYS:
            if (part := getattr(self, name)) is not None:
                outline[name], numbers = _WRITERS[name](part)
                arrays |= {f"{name}.{key}": values for key, values in numbers.items()}
        return {OUTLINE: canonical(outline), ARRAYS: array_file.encoded(arrays)}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> DriftReference:
        """Read what `to_files` wrote; raises `ArtifactRefused` for anything else."""
        if files.keys() != SIZES_MAX.keys():
            rule = f"must be {' and '.join(sorted(SIZES_MAX))}"
            raise ArtifactRefused(file="drift reference", rule=rule, found=sorted(files))
        for name, size_max in SIZES_MAX.items():
            if len(files[name]) > size_max:
                rule = f"must be at most {size_max} bytes"
                raise ArtifactRefused(file=name, rule=rule, found=len(files[name]))
        try:
            outline = _Outline(parsed(files[OUTLINE], field=OUTLINE))
        except InvalidInput as error:
            raise ArtifactRefused(file=OUTLINE, rule=error.rule, found=error.found) from error
        arrays = array_file.decoded(files[ARRAYS], outline.forms(), file=ARRAYS)
        try:
            found = outline.read(arrays)
        except InvalidInput as error:
            rule = f"{error.field} {error.rule}"
            raise ArtifactRefused(file=ARRAYS, rule=rule, found=error.found) from error
        for name, content in found.to_files().items():
            if files[name] != content:  # an archive may have something before and behind it
                rule = "must be written as this version does"
                raise ArtifactRefused(file=name, rule=rule, found="else")
        return found


class _Outline:
    """What there is, and in which shapes; every size within bounds."""

    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise _refused(f"must be a reference of version {_VERSION}", type(document).__name__)
        if not document.keys() <= _KEYS.keys() | {"version"}:
            raise _refused("must have known parts only", sorted(document.keys() - _KEYS.keys()))
        self.parts: dict[str, dict[str, Any]] = {}
        for name in sorted(document.keys() - {"version"}):
            part = document[name]
            if not isinstance(part, dict) or part.keys() != _KEYS[name]:
                raise _refused(f"{name} must have {sorted(_KEYS[name])}", part)
            if "names" in part:
                _require_names(part["names"])
            if "grid" in part:
                count = len(part.get("names", [name]))
                _require_sizes(part["grid"], count, GRID_MAX)
                _require_sizes(part["edges"], count, BINS - 1)
            for key, most in _ENCODER_MAX.items():
                if key in part:
                    _require_sizes([part[key]], 1, most, least=1)
            self.parts[name] = part

    def forms(self) -> dict[str, Form]:
        """Return the form of every array."""
        forms: dict[str, Form] = {}
        for name in ("features", "confidence"):
            if name in self.parts:
                forms |= _forms_of(name, self.parts[name])
        if "features" in self.parts:
            size = len(self.parts["features"]["names"])
            forms["features.correlation"] = Form(_FLOAT, (size, size))
        if "encoder" in self.parts:
            width, d, lengths = (
                self.parts["encoder"][k] for k in ("width", "dimensions", "lengths")
            )
            forms |= {
                "encoder.mean": Form(_FLOAT, (width,)),
                "encoder.projection": Form(_FLOAT, (width, d)),
                "encoder.null": Form(_FLOAT, (2, lengths)),
                "encoder.lengths": Form(_WHOLE, (2, lengths)),
                "encoder.numbers": Form(_FLOAT, (2,)),
                "encoder.n": Form(_WHOLE, (1,)),
            }
        if "importance" in self.parts:
            size = len(self.parts["importance"]["names"])
            forms |= {
                "importance.parts": Form(_FLOAT, (size,)),
                "importance.deviations": Form(_FLOAT, (size,)),
                "importance.numbers": Form(_FLOAT, (1,)),
                "importance.n": Form(_WHOLE, (1,)),
            }
        if "prediction" in self.parts:
            forms |= {
                "prediction.n": Form(_WHOLE, (1,)),
                "prediction.numbers": Form(_FLOAT, (3,)),
            }
        return forms

    def read(self, arrays: Mapping[str, NDArray[Any]]) -> DriftReference:
        """Return the reference of these arrays."""
        read: dict[str, Any] = {}
        if "features" in self.parts:
            read["features"] = FeatureReference(
                names=tuple(self.parts["features"]["names"]),
                distributions=_distributions("features", self.parts["features"], arrays),
                correlation=arrays["features.correlation"],
            )
        if "encoder" in self.parts:
            read["encoder"] = _encoder(arrays)
        if "importance" in self.parts:
            read["importance"] = ImportanceReference(
                names=tuple(self.parts["importance"]["names"]),
                n=int(arrays["importance.n"][0]),
                parts=arrays["importance.parts"],
                deviations=arrays["importance.deviations"],
                time=float(arrays["importance.numbers"][0]),
            )
        if "confidence" in self.parts:
            (found,) = _distributions("confidence", self.parts["confidence"], arrays)
            read["confidence"] = ConfidenceReference(distribution=found)
        if "prediction" in self.parts:
            mean, deviation, time = arrays["prediction.numbers"].tolist()
            read["prediction"] = PredictionReference(
                n=int(arrays["prediction.n"][0]), mean=mean, deviation=deviation, time=time
            )
        return DriftReference(**read)


def _write_features(held: FeatureReference) -> tuple[dict[str, Any], Arrays]:
    outline, arrays = _write_distributions(held.distributions)
    return {"names": list(held.names), **outline}, arrays | {"correlation": held.correlation}


def _write_importance(held: ImportanceReference) -> tuple[dict[str, Any], Arrays]:
    return {"names": list(held.names)}, {
        "parts": held.parts,
        "deviations": held.deviations,
        "numbers": np.array([held.time], _FLOAT),
        "n": np.array([held.n], _WHOLE),
    }


def _write_confidence(held: ConfidenceReference) -> tuple[dict[str, Any], Arrays]:
    return _write_distributions((held.distribution,))


def _write_prediction(held: PredictionReference) -> tuple[dict[str, Any], Arrays]:
    numbers = np.array([held.mean, held.deviation, held.time], _FLOAT)
    return {}, {"n": np.array([held.n], _WHOLE), "numbers": numbers}


def _write_distributions(
    distributions: tuple[Distribution, ...],
) -> tuple[dict[str, Any], Arrays]:
    """Return the sizes of some distributions, and their arrays one behind the other."""
    outline = {
        "grid": [len(each.grid) for each in distributions],
        "edges": [len(each.edges) for each in distributions],
    }
    counted = [(each.missing, each.whole) for each in distributions]
    return outline, {
        "grid": np.concatenate([each.grid for each in distributions]),
        "cumulative": np.concatenate([each.cumulative for each in distributions]),
        "edges": np.concatenate([each.edges for each in distributions]),
        "counted": np.array(counted, _WHOLE),
        "numbers": np.array([(each.minimum, each.time) for each in distributions], _FLOAT),
        "counts": np.concatenate([each.counts for each in distributions]),
    }


def _forms_of(name: str, part: Mapping[str, Any]) -> dict[str, Form]:
    grid, count = sum(part["grid"]), len(part["grid"])
    # A series without a value has neither edges nor bins.
    bins = sum(e + 1 for e, g in zip(part["edges"], part["grid"], strict=True) if g)
    return {
        f"{name}.grid": Form(_FLOAT, (grid,)),
        f"{name}.cumulative": Form(_WHOLE, (grid,)),
        f"{name}.edges": Form(_FLOAT, (sum(part["edges"]),)),
        f"{name}.counted": Form(_WHOLE, (count, 2)),
        f"{name}.numbers": Form(_FLOAT, (count, 2)),
        f"{name}.counts": Form(_WHOLE, (bins,)),
    }


def _distributions(
    name: str, part: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> tuple[Distribution, ...]:
    made: list[Distribution] = []
    at_grid = at_edge = at_bin = 0
    for i, (grid, edges) in enumerate(zip(part["grid"], part["edges"], strict=True)):
        bins = edges + 1 if grid else 0
        missing, whole = arrays[f"{name}.counted"][i].tolist()
        minimum, time = arrays[f"{name}.numbers"][i].tolist()
        if whole not in (0, 1):
            raise InvalidInput(field=f"{name}.counted", rule="must be 0 or 1", found=whole)
        made.append(
            Distribution(
                edges=arrays[f"{name}.edges"][at_edge : at_edge + edges],
                counts=arrays[f"{name}.counts"][at_bin : at_bin + bins],
                grid=arrays[f"{name}.grid"][at_grid : at_grid + grid],
                cumulative=arrays[f"{name}.cumulative"][at_grid : at_grid + grid],
                minimum=minimum,
                missing=missing,
                time=time,
                whole=bool(whole),
            )
        )
        at_grid, at_edge, at_bin = at_grid + grid, at_edge + edges, at_bin + bins
    return tuple(made)


def _write_encoder(held: EncoderReference) -> tuple[dict[str, Any], Arrays]:
    width, dimensions = held.projection.shape
    outline = {"width": width, "dimensions": dimensions, "lengths": len(held.lengths)}
    return outline, {
        "mean": held.mean,
        "projection": np.ascontiguousarray(held.projection),
        "null": np.array([held.medians, held.p99s], _FLOAT),
        "lengths": np.array([held.lengths, held.blocks], _WHOLE),
        "numbers": np.array([held.explained, held.time], _FLOAT),
        "n": np.array([held.n], _WHOLE),
    }


_WRITERS: Final[Mapping[str, Callable[[Any], tuple[dict[str, Any], Arrays]]]] = {
    "features": _write_features,
    "encoder": _write_encoder,
    "importance": _write_importance,
    "confidence": _write_confidence,
    "prediction": _write_prediction,
}


def _encoder(arrays: Mapping[str, NDArray[Any]]) -> EncoderReference:
    explained, time = arrays["encoder.numbers"].tolist()
    medians, p99s = arrays["encoder.null"]
    lengths, blocks = arrays["encoder.lengths"]
    return EncoderReference(
        n=int(arrays["encoder.n"][0]),
        mean=arrays["encoder.mean"],
        projection=arrays["encoder.projection"],
        explained=explained,
        time=time,
        lengths=lengths,
        medians=medians,
        p99s=p99s,
        blocks=blocks,
    )


def _require_names(names: Any) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _refused("names must be a list of text", names)
    checked_names(names)


def _require_sizes(sizes: Any, count: int, most: int, *, least: int = 0) -> None:
    is_list = isinstance(sizes, list) and len(sizes) == count
    if not is_list or not all(type(size) is int and least <= size <= most for size in sizes):
        raise _refused(f"must be {count} sizes in {least}..{most}", sizes)


def _refused(rule: str, found: object) -> InvalidInput:
    return InvalidInput(field=OUTLINE, rule=rule, found=found)
