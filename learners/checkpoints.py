"""Checkpoints of a training: each written whole or not at all, the newest two kept, none believed.

A checkpoint is a sealed directory below the number of steps it was taken after: counters in JSON,
float32 tensors in safetensors, all other arrays in npz. What reads one knows the shapes beforehand.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from learners import array_file, tensor_file
from learners.array_file import Arrays, Form
from learners.canonical_json import canonical, parsed
from learners.network import require_count
from learners.sealed_files import ArtifactRefused, seal, unseal
from learners.tensor_file import Shapes, Tensor
from learners.training_plan import STEPS_MAX

COUNTERS, TENSORS, ARRAYS = "checkpoint.json", "tensors.safetensors", "arrays.npz"
KEPT = 2
FORMAT = 1

_COUNTERS_SIZE_MAX = 4_096
_STEPS = re.compile(r"[0-9]{12}")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """How far a training is: steps and updates so far, and the rows of its replay buffer.

    `run` names the training (plan, data, versions); `remembered` rows are filled and `next_row` is
    written next, both 0 where nothing is replayed.
    """

    run: str
    steps: int
    updates: int
    remembered: int
    next_row: int

    def __post_init__(self) -> None:
        """Refuse what no training counts."""
        if not isinstance(self.run, str) or _SHA.fullmatch(self.run) is None:
            raise InvalidInput(field="run", rule=f"must match {_SHA.pattern}", found=self.run)
        require_count("steps", self.steps, 1, 2 * STEPS_MAX)
        require_count("updates", self.updates, 0, 2 * STEPS_MAX)
        require_count("remembered", self.remembered, 0, 2 * STEPS_MAX)
        require_count("next_row", self.next_row, 0, self.remembered)

    def to_bytes(self) -> bytes:
        """Return the counters as they are stored: canonical JSON."""
        body = {field.name: getattr(self, field.name) for field in fields(self)}
        return canonical({"format": FORMAT, **body})


class Contents(NamedTuple):
    """What a checkpoint with given counters has to hold: tensors by shape, arrays by form."""

    tensors: Shapes
    arrays: Mapping[str, Form]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """The whole state of a training between two rounds of learning."""

    counters: Counters
    tensors: Mapping[str, Tensor]
    arrays: Arrays


def write_checkpoint(root: Path, checkpoint: Checkpoint) -> PolicySha:
    """Store a checkpoint below `root`, drop all but the newest two, and return its hash."""
    files = {
        COUNTERS: checkpoint.counters.to_bytes(),
        TENSORS: tensor_file.encoded(checkpoint.tensors),
        ARRAYS: array_file.encoded(checkpoint.arrays),
    }
    sha = seal(root / f"{checkpoint.counters.steps:012d}", files)
    for old in stored_steps(root)[KEPT:]:
        shutil.rmtree(root / old)
    return sha


def stored_steps(root: Path) -> list[str]:
    """Return the names of what is stored below `root`, the newest first."""
    if not root.is_dir():
        return []
    return sorted((p.name for p in root.iterdir() if _STEPS.fullmatch(p.name)), reverse=True)


def read_checkpoint(
    root: Path,
    name: str,
    *,
    run: str,
    contents: Callable[[Counters], Contents],
    sizes_max: Mapping[str, int],
) -> Checkpoint:
    """Return the checkpoint `name` of `stored_steps`; `contents` says what it has to hold.

    `sizes_max` bounds the bytes of `TENSORS` and `ARRAYS`: nothing larger is read.

    Raises `ArtifactRefused` with the file and the rule that it breaks.
    """
    held = sorted(p.name for p in (root / name).iterdir() if _SHA.fullmatch(p.name))
    if len(held) != 1:
        rule, found = "must hold one whole checkpoint", f"{len(held)}"
        raise ArtifactRefused(file="directory", rule=rule, found=found)
    sha = PolicySha(held[0])
    files = unseal(root / name, sha, sizes_max={COUNTERS: _COUNTERS_SIZE_MAX, **sizes_max})
    counters = _counters(files[COUNTERS])
    if counters.run != run or counters.steps != int(name):
        rule = f"must be of the run {run[:12]} after {int(name)} steps"
        found = f"{counters.run[:12]} after {counters.steps}"
        raise ArtifactRefused(file=COUNTERS, rule=rule, found=found)
    try:
        expected = contents(counters)
    except InvalidInput as error:
        raise _refused(COUNTERS, error) from error
    return Checkpoint(
        counters=counters,
        tensors=tensor_file.decoded(files[TENSORS], expected.tensors, file=TENSORS),
        arrays=array_file.decoded(files[ARRAYS], expected.arrays, file=ARRAYS),
    )


def set_aside(root: Path, name: str) -> None:
    """Rename what was refused, so that it neither blocks its name nor counts as a checkpoint."""
    aside = root / f"refused-{name}"
    shutil.rmtree(aside, ignore_errors=True)
    (root / name).rename(aside)


def _counters(content: bytes) -> Counters:
    try:
        return _counters_in(parsed(content, field=COUNTERS))
    except InvalidInput as error:
        raise _refused(COUNTERS, error) from error


def _counters_in(body: Any) -> Counters:
    names = {"format", *(field.name for field in fields(Counters))}
    if not isinstance(body, dict) or body.keys() != names or body.pop("format") != FORMAT:
        rule = f"must have {', '.join(sorted(names))}, format {FORMAT}"
        raise InvalidInput(field=COUNTERS, rule=rule, found=body)
    return Counters(**body)


def _refused(file: str, error: InvalidInput) -> ArtifactRefused:
    rule = error.rule if error.field == file else f"{error.field} {error.rule}"
    return ArtifactRefused(file=file, rule=rule, found=error.found)
