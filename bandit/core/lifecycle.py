"""The states of an arm and the verbs that move it between them."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from bandit.core.errors import InvalidTransition
from bandit.core.model import ArmRole, ArmStatus, DecisionKind


class ArmVerb(StrEnum):
    """What an operator, a guard or a rule may ask of an arm."""

    THROTTLE = "throttle"
    HALT = "halt"
    RESUME = "resume"
    RETIRE = "retire"


_LAWFUL: dict[ArmVerb, tuple[frozenset[ArmStatus], ArmStatus]] = {
    ArmVerb.THROTTLE: (frozenset({ArmStatus.ACTIVE}), ArmStatus.THROTTLED),
    ArmVerb.HALT: (frozenset({ArmStatus.ACTIVE, ArmStatus.THROTTLED}), ArmStatus.HALTED),
    ArmVerb.RESUME: (frozenset({ArmStatus.THROTTLED, ArmStatus.HALTED}), ArmStatus.ACTIVE),
    ArmVerb.RETIRE: (
        frozenset({ArmStatus.ACTIVE, ArmStatus.THROTTLED, ArmStatus.HALTED}),
        ArmStatus.RETIRED,
    ),
}


def after(verb: ArmVerb, *, status: ArmStatus, role: ArmRole) -> ArmStatus:
    """Return the status `verb` leads to; the status itself when it is already there.

    >>> after(ArmVerb.HALT, status=ArmStatus.THROTTLED, role=ArmRole.CHALLENGER)
    <ArmStatus.HALTED: 'halted'>

    Raises `InvalidTransition` for the champion, which carries what challengers give up and so
    has nowhere to send its traffic, and for any way out of retirement.
    """
    if role is ArmRole.CHAMPION:
        raise InvalidTransition(
            f"cannot {verb} the champion: it carries what the challengers give up; stop the bot"
        )
    sources, target = _LAWFUL[verb]
    if status is target:
        return target
    if status not in sources:
        expected = ", ".join(sorted(sources))
        raise InvalidTransition(f"cannot {verb} an arm that is {status}: expected {expected}")
    return target


def decision_of(verb: ArmVerb) -> DecisionKind:
    """Return the kind of decision that records `verb`."""
    match verb:
        case ArmVerb.THROTTLE:
            return DecisionKind.THROTTLE
        case ArmVerb.HALT:
            return DecisionKind.HALT
        case ArmVerb.RESUME:
            return DecisionKind.RESUME
        case ArmVerb.RETIRE:
            return DecisionKind.RETIRE
        case _:
            assert_never(verb)
