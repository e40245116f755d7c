"""Import outcomes from files: each row is stored once, and what is refused is told by its line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Engine

from bandit.core.errors import BanditError, InvalidInput, UnknownName
from bandit.core.outcomes import Outcome
from bandit.service.bulk_recording import record_stream
from bandit.service.recording import BATCH_MAX
from liveops.connectors.outcome_files import FileRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a row was not stored."""

    line: int
    field: str
    rule: str
    found: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.rule}, found {self.found}"


@dataclass(slots=True, kw_only=True)
class Imported:
    """What became of the rows of a file."""

    created: int = 0
    known: int = 0
    refused: int = 0

    def to_json(self) -> dict[str, int]:
        """Return what `liveops import outcomes --json` prints."""
        return {"rows": self.created + self.known + self.refused, **asdict(self)}


def import_outcomes(
    engine: Engine,
    rows: Iterable[FileRow],
    *,
    now: datetime,
    refuse: Callable[[Refusal], None],
    advance: Callable[[float], None],
) -> Imported:
    """Store what the rows tell, in batches; rows that were stored before are known.

    `refuse` is told of each row that was not stored, in the order of the file, `advance` of the
    share of the file that is done.
    """
    imported, under_way = Imported(), deque[list[FileRow]]()

    def batches() -> Iterator[list[Outcome]]:
        left = iter(rows)
        while block := list(islice(left, BATCH_MAX)):
            under_way.append(block)
            yield [row.told for row in block if isinstance(row.told, Outcome)]

    for answers in record_stream(engine, batches(), now=now):
        block, answered = under_way.popleft(), iter(answers)
        for row in block:
            answer = row.told if isinstance(row.told, InvalidInput) else next(answered)
            if isinstance(answer, BanditError):
                imported.refused += 1
                refuse(_refusal(row, answer))
            elif answer.created:
                imported.created += 1
            else:
                imported.known += 1
        advance(block[-1].share)
    return imported


def _refusal(row: FileRow, error: BanditError) -> Refusal:
    match error:
        case InvalidInput():
            field, rule, found = error.field, error.rule, error.found
        case UnknownName():
            field, rule = "assignment_id", "must be an assignment of this ledger"
            found = error.name
        case _:
            # Only another body than the first is left.
            assert isinstance(row.told, Outcome)
            field, rule = "row", "must say the same as the outcome that is recorded"
            found = f"another body for {row.told.assignment_id}"
    return Refusal(line=row.line, field=field, rule=rule, found=found)
