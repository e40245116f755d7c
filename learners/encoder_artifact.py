"""Stored encoders: kept and read as policies are (`learners.artifact`), by the hash of all of it.

A policy names the encoder whose embeddings it sees, and its own hash is a hash of that name too. An
encoder keeps the head it was taught by, so that a refresh goes on from where it stands, and a
frozen picture of its embeddings, which those of later bars are held against (`learners.drift`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from learners.artifact_checks import require_graph, require_tensors
from learners.artifact_spec import (
    GOLDEN_MAX,
    SPEC_SIZE_MAX,
    DescribedPart,
    TrainingRecord,
    members,
    part_in,
    training_in,
)
from learners.canonical_json import canonical, parsed
from learners.fitting_plan import learned_shapes
from learners.network import ACTIONS_MAX, PARAMETERS_MAX, require_count
from learners.sealed_files import ArtifactRefused, manifest_of, seal, unseal
from learners.tensor_file import Shapes, Tensor, decoded, encoded
from learners.timesnet import BARS_MAX, WIDTH_MAX, TimesNetForm, evaluate
from learners.timesnet_graph import graph

SPEC, WEIGHTS, GRAPH = "spec.json", "weights.safetensors", "encoder.onnx"
GOLDEN = "golden.safetensors"
FORMAT = 1

_HEADERS_MAX = 65_536
SIZES_MAX: Mapping[str, int] = {
    SPEC: SPEC_SIZE_MAX,
    WEIGHTS: 4 * (PARAMETERS_MAX + ACTIONS_MAX * (WIDTH_MAX + 1)) + _HEADERS_MAX,
    GRAPH: 4 * PARAMETERS_MAX + 16 * BARS_MAX * WIDTH_MAX + _HEADERS_MAX,
    GOLDEN: 4 * GOLDEN_MAX * WIDTH_MAX * (BARS_MAX + 1) + _HEADERS_MAX,
}
"""The files of an encoder and the most bytes that each may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """An encoder but for its weights.

    `classes` are those of the head it was taught by; `features` and `scaler` say how bars become
    the rows of a window; `golden` windows and their embeddings are kept beside it.
    """

    form: TimesNetForm
    classes: int
    features: DescribedPart
    scaler: DescribedPart
    training: TrainingRecord
    golden: int

    def __post_init__(self) -> None:
        """Refuse numbers outside their bounds, and a document that is too large."""
        require_count("classes", self.classes, 2, ACTIONS_MAX)
        require_count("golden", self.golden, 1, GOLDEN_MAX)
        size = len(self.to_bytes())
        if size > SPEC_SIZE_MAX:
            rule = f"must have at most {SPEC_SIZE_MAX} bytes as JSON"
            raise InvalidInput(field="spec", rule=rule, found=size)

    @property
    def shapes(self) -> Shapes:
        """Return the shapes of what is stored, the head included."""
        return learned_shapes(self.form, self.classes)

    @property
    def golden_shapes(self) -> Shapes:
        """Return the shapes of the golden windows and of their embeddings."""
        return {
            "windows": (self.golden, self.form.bars, self.form.channels),
            "embeddings": (self.golden, self.form.embedding),
        }

    def to_bytes(self) -> bytes:
        """Return the specification as it is stored: canonical JSON."""
        return canonical(
            {
                "format": FORMAT,
                "kind": "timesnet",
                "form": self.form.to_json(),
                "classes": self.classes,
                "features": self.features.to_document(),
                "scaler": self.scaler.to_document(),
                "training": self.training.to_document(),
                "golden": self.golden,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderArtifact:
    """An encoder that passed every check of `read_encoder`; `golden` are windows and embeddings."""

    sha: PolicySha
    spec: EncoderSpec
    tensors: Mapping[str, Tensor]
    graph: bytes
    golden: Mapping[str, Tensor]
    manifest: Mapping[str, Any]


def write_encoder(
    root: Path, spec: EncoderSpec, tensors: Mapping[str, Tensor], *, windows: Tensor
) -> EncoderArtifact:
    """Store an encoder below `root` and return it as it reads back; twice stores it once.

    `tensors` are those of `spec.shapes`, `windows` (`spec.golden`, bars, channels) what it is asked
    whenever it is loaded. Raises `InvalidInput` for other shapes and values that are not finite,
    `ArtifactRefused` where something else lies under its name already.
    """
    require_tensors(tensors, spec.shapes)
    asked = np.ascontiguousarray(windows, dtype=np.float32)
    embeddings = evaluate(spec.form, _own(spec, tensors), asked).astype(np.float32)
    golden = {"windows": asked, "embeddings": embeddings}
    require_tensors(golden, spec.golden_shapes)
    files = {
        SPEC: spec.to_bytes(),
        WEIGHTS: encoded(tensors),
        GRAPH: graph(spec.form, _own(spec, tensors)),
        GOLDEN: encoded(golden),
    }
    return read_encoder(root, seal(root, files))


def read_encoder(root: Path, sha: PolicySha) -> EncoderArtifact:
    """Return the encoder `sha` below `root`, whose hash the caller brings from elsewhere.

    Raises `ArtifactRefused` with the file and the rule that it breaks.
    """
    files = unseal(root, sha, sizes_max=SIZES_MAX)
    try:
        spec = _spec(files[SPEC])
    except InvalidInput as error:
        rule = f"{error.field} {error.rule}"
        raise ArtifactRefused(file=SPEC, rule=rule, found=error.found) from error
    tensors = decoded(files[WEIGHTS], spec.shapes, file=WEIGHTS)
    require_graph(GRAPH, files[GRAPH], graph(spec.form, _own(spec, tensors)))
    return EncoderArtifact(
        sha=sha,
        spec=spec,
        tensors=tensors,
        graph=files[GRAPH],
        golden=decoded(files[GOLDEN], spec.golden_shapes, file=GOLDEN),
        manifest=json.loads(manifest_of(files)),
    )


def _own(spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the head."""
    return {name: tensors[name] for name in spec.form.shapes()}


def _spec(content: bytes) -> EncoderSpec:
    body = members(
        "spec",
        parsed(content, field="spec"),
        "format kind form classes features scaler training golden",
    )
    for name, only in (("format", FORMAT), ("kind", "timesnet")):
        if body[name] != only or isinstance(body[name], bool):
            raise InvalidInput(field=name, rule=f"must be {only}", found=body[name])
    spec = EncoderSpec(
        form=TimesNetForm.from_json(body["form"]),
        classes=body["classes"],
        features=part_in("features", body["features"]),
        scaler=part_in("scaler", body["scaler"]),
        training=training_in(body["training"]),
        golden=body["golden"],
    )
    if spec.to_bytes() != content:
        raise InvalidInput(field="spec", rule="must be written as this version does", found="else")
    return spec
