"""Stored policies: a specification, weights, the graph that serves them, and golden answers.

`write` gives a policy its `PolicySha`; `read` takes that hash from its caller, who has it from the
ledger, and refuses everything that is not to the byte what `write` would have written:

- nothing is parsed before its SHA-256 was compared, and what is parsed is what was hashed;
- `spec.json` is canonical JSON with closed keys and bounded sizes;
- headers of `weights.safetensors` and `golden.safetensors` follow from it and are only compared;
- `policy.onnx` follows from both: it is written again and compared, never interpreted here.

So no format that can hold code is read at all, pickle included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from learners.artifact_checks import require_graph, require_tensors
from learners.artifact_spec import GOLDEN_MAX, SPEC_SIZE_MAX, PolicyArtifactSpec, spec_from_bytes
from learners.drift import reference_file
from learners.drift.reference_file import DriftReference
from learners.encoder_artifact import EncoderArtifact, read_encoder
from learners.ensemble import Ensemble
from learners.models import evaluate, graph, require_sound
from learners.network import ACTIONS_MAX, PARAMETERS_MAX, WIDTH_MAX
from learners.sealed_files import ArtifactRefused, manifest_of, seal, unseal
from learners.tensor_file import Shapes, Tensor, decoded, encoded

SPEC, WEIGHTS, GRAPH = "spec.json", "weights.safetensors", "policy.onnx"
GOLDEN = "golden.safetensors"

MAGNITUDE_MAX = 5e4
"""The most `Evaluation.magnitude` of a classifier: golden answers are met within 0.05 then."""

_HEADERS_MAX = 65_536
SIZES_MAX: Mapping[str, int] = {
    SPEC: SPEC_SIZE_MAX,
    WEIGHTS: 4 * PARAMETERS_MAX + _HEADERS_MAX,
    GRAPH: 4 * PARAMETERS_MAX + _HEADERS_MAX,
    GOLDEN: 4 * GOLDEN_MAX * (WIDTH_MAX + 2 * ACTIONS_MAX) + _HEADERS_MAX,
}
"""The files of an artefact and the most bytes that each may have."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """Observations (n, inputs) and what the network says of them (n, actions), all float32."""

    observations: Tensor
    scores: Tensor
    probabilities: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artifact:
    """A policy that passed every check of `read`.

    `graph` is its ONNX model, `tensors` are its weights by name, `manifest` is what its hash is
    the hash of: the size and SHA-256 of each file. `encoder` is the one whose embeddings it sees,
    `reference` what was frozen of the bars it was made from, if anything was.
    """

    sha: PolicySha
    spec: PolicyArtifactSpec
    tensors: Mapping[str, Tensor]
    graph: bytes
    golden: Golden
    manifest: Mapping[str, Any]
    encoder: EncoderArtifact | None
    reference: DriftReference | None


def write(
    root: Path,
    spec: PolicyArtifactSpec,
    tensors: Mapping[str, Tensor],
    *,
    observations: NDArray[np.floating],
    reference: DriftReference | None = None,
) -> Artifact:
    """Store a policy below `root` and return it as it reads back; twice stores it once.

    An encoder that it names must be stored there before. A classifier has a `reference`.
    `tensors` are float32 in the shapes of `spec.network`; `observations` of shape (`spec.golden`,
    inputs) are what it is asked whenever it is loaded, best drawn from the data it was trained on.
    Raises `InvalidInput` for other shapes and values that are not finite, `ArtifactRefused` where
    something else lies under its name already.
    """
    if reference is None and isinstance(spec.network, Ensemble):
        raise InvalidInput(field="reference", rule="must go with a classifier", found=None)
    require_tensors(tensors, spec.network.shapes())
    asked = np.ascontiguousarray(observations, dtype=np.float32)
    require_tensors({"observations": asked}, {"observations": _golden_shapes(spec)["observations"]})
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, by name
        answers = evaluate(spec.network, tensors, asked)
        golden = {
            "observations": asked,
            "scores": answers.scores.astype(np.float32),
            "probabilities": answers.probabilities.astype(np.float32),
        }
    require_tensors(golden, _golden_shapes(spec))
    _require_steady(spec, answers.magnitude)
    files = {
        SPEC: spec.to_bytes(),
        WEIGHTS: encoded(tensors),
        GRAPH: graph(spec.network, tensors),
        GOLDEN: encoded(golden),
        **({} if reference is None else reference.to_files()),
    }
    return read(root, seal(root, files))


def read(root: Path, sha: PolicySha) -> Artifact:
    """Return the policy `sha` below `root`, whose hash the caller brings from the ledger.

    Raises `ArtifactRefused` with the file and the rule that it breaks.
    """
    has_reference = os.path.lexists(root / sha / reference_file.OUTLINE)
    sizes_max = {**SIZES_MAX, **reference_file.SIZES_MAX} if has_reference else SIZES_MAX
    files = unseal(root, sha, sizes_max=sizes_max)
    try:
        spec = spec_from_bytes(files[SPEC])
    except InvalidInput as error:
        raise ArtifactRefused(
            file=SPEC, rule=f"{error.field} {error.rule}", found=error.found
        ) from error
    if not has_reference and isinstance(spec.network, Ensemble):
        rule = "must go with a classifier"
        raise ArtifactRefused(file=reference_file.OUTLINE, rule=rule, found=None)
    tensors = decoded(files[WEIGHTS], spec.network.shapes(), file=WEIGHTS)
    try:
        require_sound(spec.network, tensors)
    except InvalidInput as error:
        rule = f"{error.field} {error.rule}"
        raise ArtifactRefused(file=WEIGHTS, rule=rule, found=error.found) from error
    require_graph(GRAPH, files[GRAPH], graph(spec.network, tensors))
    golden = decoded(files[GOLDEN], _golden_shapes(spec), file=GOLDEN)
    return Artifact(
        sha=sha,
        spec=spec,
        tensors=tensors,
        graph=files[GRAPH],
        golden=Golden(**golden),
        manifest=json.loads(manifest_of(files)),
        reference=_reference(files) if has_reference else None,
        encoder=None if spec.encoder is None else read_encoder(root, spec.encoder),
    )


def _reference(files: Mapping[str, bytes]) -> DriftReference:
    return DriftReference.from_files({name: files[name] for name in reference_file.SIZES_MAX})


def _require_steady(spec: PolicyArtifactSpec, magnitude: float) -> None:
    """Refuse a classifier whose answers rounding moves so far that no machine could be held to it.

    Its scores lie within a score of numbers; a perceptron's grow with what is summed up.
    """
    if isinstance(spec.network, Ensemble) and not magnitude <= MAGNITUDE_MAX:
        rule = f"must move by rounding less than {MAGNITUDE_MAX:g} times as far as a sum of ones"
        raise InvalidInput(field="tensors", rule=rule, found=f"{magnitude:g}")


def _golden_shapes(spec: PolicyArtifactSpec) -> Shapes:
    answers = (spec.golden, spec.network.actions)
    return {
        "observations": (spec.golden, spec.network.inputs),
        "scores": answers,
        "probabilities": answers,
    }
