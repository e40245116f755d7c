"""How spooled rows travel: which go together, and what an answer means for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never

from liveops.client.errors import Problem, RequestRefused
from liveops.client.protocol import (
    Reply,
    Request,
    assignment_of,
    parsed,
    post,
    problem_from,
    problem_of,
    report_request,
    require_granted,
)
from liveops.client.values import AssignmentId, Kind

NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A spooled row that is next in line; `turn` counts how often it was put off."""

    id: int
    kind: Kind
    unit_id: str | None
    body: str
    turn: int


class Fate(StrEnum):
    """What becomes of a row that was sent."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    PUT_OFF = "put_off"
    """Sent again by itself after the others, so that it blocks none of them."""
    KEPT = "kept"
    """Sent again as it is: what went wrong has nothing to do with the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a reply means for one row."""

    fate: Fate
    problem: Problem | None = None
    assignment_id: AssignmentId | None = None


ACKNOWLEDGED: Final = Verdict(fate=Fate.ACKNOWLEDGED)
PUT_OFF: Final = Verdict(fate=Fate.PUT_OFF)
KEPT: Final = Verdict(fate=Fate.KEPT)

# Of the sender, the route or the moment, not of the row: nothing is refused for these.
_NOT_THE_ROW: Final = frozenset({401, 403, 405, 408, 423, 425, 429})
_NOT_THE_ROW_CODES: Final = frozenset({"no_such_route", "lock_held_elsewhere"})


def delivery(experiment: str, rows: Sequence[Row]) -> tuple[Request, Sequence[Row]]:
    """Return one request for the first of `rows`, and those of them that it carries.

    Rows of one kind go together as far as their order allows. A row that was put off goes alone.
    """
    first = rows[0]
    count = 1
    if first.turn == 0 and first.kind is not Kind.FALLBACK:
        while count < len(rows) and (rows[count].kind, rows[count].turn) == (first.kind, 0):
            count += 1
    taken = rows[:count]
    match first.kind:
        case Kind.FALLBACK:
            request = report_request(experiment, first.body)
        case Kind.OUTCOME:
            request = _lines("/v1/outcomes/batch", taken)
        case Kind.PAPER:
            request = _lines("/v1/shadow-outcomes/batch", taken)
        case Kind.MARK:
            request = post("/v1/marks", f"[{','.join(row.body for row in taken)}]".encode())
        case _:
            assert_never(first.kind)
    return request, taken


def _lines(path: str, rows: Sequence[Row]) -> Request:
    body = "".join(f"{row.body}\n" for row in rows)
    return post(path, body.encode(), media_type=NDJSON)


def verdicts(rows: Sequence[Row], reply: Reply | None) -> list[Verdict]:
    """Return what a reply means for each of the rows that were sent, in their order."""
    if reply is None:
        return [KEPT] * len(rows)
    if not 200 <= reply.status < 300:
        return [_of_refusal(problem_of(reply), alone=len(rows) == 1)] * len(rows)
    match rows[0].kind:
        case Kind.FALLBACK:
            return [_of_fallback(reply)]
        case Kind.OUTCOME | Kind.PAPER:
            return _of_lines(rows, _json_lines(reply.body))
        case Kind.MARK:
            answer = parsed(reply.body)
            return _of_marks(rows, answer)
        case _:
            assert_never(rows[0].kind)


def _json_lines(body: bytes) -> list[Any]:
    return [parsed(line) for line in body.splitlines()]


def _of_refusal(problem: Problem, *, alone: bool) -> Verdict:
    is_of_row = 400 <= problem.status < 500 and problem.status not in _NOT_THE_ROW
    if problem.status >= 500:
        return PUT_OFF if problem.status == 500 else KEPT
    if not is_of_row or problem.code in _NOT_THE_ROW_CODES:
        return KEPT
    return Verdict(fate=Fate.REFUSED, problem=problem) if alone else PUT_OFF


def _of_fallback(reply: Reply) -> Verdict:
    try:
        made, _ = assignment_of(require_granted(reply))
    except RequestRefused:
        return PUT_OFF
    return Verdict(fate=Fate.ACKNOWLEDGED, assignment_id=made.id)


def _of_lines(rows: Sequence[Row], lines: Sequence[Any]) -> list[Verdict]:
    by_number = {line.get("line"): line for line in lines if isinstance(line, dict)}
    return [_of_line(by_number.get(number)) for number in range(1, len(rows) + 1)]


def _of_line(line: Mapping[str, Any] | None) -> Verdict:
    status = None if line is None else line.get("status")
    if line is None or not isinstance(status, int):
        return PUT_OFF
    if 200 <= status < 300:
        return ACKNOWLEDGED
    said = line.get("problem")
    problem = problem_from(said if isinstance(said, dict) else {}, status=status)
    return PUT_OFF if status >= 500 else _of_refusal(problem, alone=True)


def _of_marks(rows: Sequence[Row], answer: Any) -> list[Verdict]:
    # One answer for all of them, or one a mark.
    if isinstance(answer, list) and any(isinstance(e, dict) and "status" in e for e in answer):
        return _of_lines(rows, answer)
    return [ACKNOWLEDGED] * len(rows)
