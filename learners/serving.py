"""A stored policy that decides: ONNX Runtime on one thread, asked once before it may.

choice = ServedPolicy(read(root, sha)).choose(observation)
action = acted(choice, held=…, regime=…, rules=…)     # bandit/core/acting.py
"""

from __future__ import annotations

from math import isfinite

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bandit.core.acting import Choice
from bandit.core.errors import InvalidInput
from learners.artifact import GOLDEN, Artifact
from learners.models import evaluate
from learners.onnx_graph import ACTION, INPUT, PROBABILITIES, SCORES
from learners.sealed_files import ArtifactRefused

GOLDEN_TOLERANCE = 1e-6
"""Largest difference from a golden answer, times the size of what was summed up, if that is > 1."""


class ServedPolicy:
    """A policy in memory, ready to be asked; safe to share between threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Build the session and ask the golden observations.

        Raises `ArtifactRefused` where this machine's answers are not the stored ones.
        """
        self._session = session_of(artifact.graph)
        self._shape = (artifact.spec.network.inputs,)
        self._actions = [(a.name, a.position) for a in artifact.spec.actions]
        self.sha = artifact.sha
        self._require_golden(artifact)

    def choose(self, observation: NDArray[np.floating]) -> Choice:
        """Return what the policy wants, given one observation: a vector of `inputs` numbers.

        Raises `InvalidInput` for another shape and for numbers that are not finite in float32, and
        where the network's own numbers grew beyond that.
        """
        row = np.asarray(observation, dtype=np.float32)
        if row.shape != self._shape:
            rule = f"must have the shape {self._shape}"
            raise InvalidInput(field="observation", rule=rule, found=row.shape)
        # A sum of doubles over float32 cannot overflow: it is finite where they all are.
        if not isfinite(np.add.reduce(row, dtype=np.float64)):
            raise InvalidInput(field="observation", rule="must be finite", found="NaN or infinite")
        actions, probabilities = self._session.run([ACTION, PROBABILITIES], {INPUT: row[None]})
        index = actions.item()
        name, position = self._actions[index]
        # Rounding may leave the softmax a hair above one; the 1 last, or NaN would become sure.
        confidence = min(probabilities.item(index), 1.0)
        return Choice(name=name, position=position, confidence=confidence)

    def _require_golden(self, artifact: Artifact) -> None:
        golden, network = artifact.golden, artifact.spec.network
        scores, probabilities, actions = self._session.run(
            [SCORES, PROBABILITIES, ACTION], {INPUT: golden.observations}
        )
        summed = evaluate(network, artifact.tensors, golden.observations).magnitude
        tolerance = GOLDEN_TOLERANCE * max(1.0, summed)
        require_close("scores", scores, golden.scores, tolerance)
        tolerance /= min(1.0, network.temperature)
        require_close("probabilities", probabilities, golden.probabilities, tolerance)
        assert np.array_equal(actions, scores.argmax(axis=1))


def session_of(graph: bytes) -> onnxruntime.InferenceSession:
    """Return a session that works on the thread that asks, and on no other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(
        graph, sess_options=options, providers=["CPUExecutionProvider"]
    )


def require_close(
    name: str, found: NDArray[np.float32], stored: NDArray[np.float32], tolerance: float
) -> None:
    """Raise `ArtifactRefused` where an answer is further from the stored one than `tolerance`."""
    difference = np.abs(found.astype(np.float64) - stored)
    worst = float(difference.max())
    if not worst <= tolerance:  # NaN too
        rule = f"{name} must be met within {tolerance:.1e}"
        raise ArtifactRefused(file=GOLDEN, rule=rule, found=f"{worst:.3g} off")
