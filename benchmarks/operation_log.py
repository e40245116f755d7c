"""What clients asked of the service and what they were told, to be held against the ledger."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from time import perf_counter


class Verb(StrEnum):
    """What was asked; the key of an entry is a unit, for claims and outcomes an assignment.

    STOP and RESUME change an arm, named by its policy, or with `EVERY_ARM` all of them.
    """

    ASSIGN = "assign"
    CLAIM = "claim"
    OUTCOME = "outcome"
    STOP = "stop"
    RESUME = "resume"


class Phase(StrEnum):
    """How far it came; UNKNOWN was asked, and nobody said whether it was done."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


EVERY_ARM = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log.

    `at` is in seconds of a clock that all processes of the machine share. `answer` is the body of
    an OK; of a STOP that was acknowledged, and of a RESUME before it is asked for, it is the
    ledger's snapshot at that moment (`pg_current_snapshot()`). `is_new` marks an OK which said that
    it was the first.
    """

    operation: str
    verb: Verb
    key: str
    phase: Phase
    at: float
    answer: str = ""
    is_new: bool = False


class OperationLog:
    """Collects the entries of one process; its threads may share it."""

    def __init__(self, process: str) -> None:
        """Start empty; `process` tells its operations from those of other processes."""
        self.entries: list[Entry] = []
        self._process = process
        self._numbers = itertools.count()

    def invoked(self, verb: Verb, key: str, *, answer: str = "") -> str:
        """Note that something is about to be asked; return the name of the operation."""
        operation = f"{self._process}-{next(self._numbers)}"
        self._append(operation, verb, key, Phase.INVOKE, answer=answer)
        return operation

    def ended(
        self,
        operation: str,
        verb: Verb,
        key: str,
        phase: Phase,
        *,
        answer: str = "",
        is_new: bool = False,
    ) -> Entry:
        """Note what became of it."""
        return self._append(operation, verb, key, phase, answer=answer, is_new=is_new)

    def _append(
        self,
        operation: str,
        verb: Verb,
        key: str,
        phase: Phase,
        *,
        answer: str = "",
        is_new: bool = False,
    ) -> Entry:
        entry = Entry(
            operation=operation,
            verb=verb,
            key=key,
            phase=phase,
            at=perf_counter(),
            answer=answer,
            is_new=is_new,
        )
        self.entries.append(entry)
        return entry


def written(entries: Iterable[Entry]) -> str:
    """Return entries as lines, for another process to read."""
    return "".join(f"{json.dumps(asdict(entry))}\n" for entry in entries)


def parsed(lines: str) -> list[Entry]:
    """Return the entries that another process wrote."""
    found = []
    for line in lines.splitlines():
        values = json.loads(line)
        values |= {"verb": Verb(values["verb"]), "phase": Phase(values["phase"])}
        found.append(Entry(**values))
    return found
