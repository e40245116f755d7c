"""What a bot is to close, and the commands with which a program stops trading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from liveops.client.errors import InvalidInput
from liveops.client.protocol import Request, checked_id, encoded, post, unexpected
from liveops.client.values import AssignmentId

REASON_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOrder:
    """A position that a person wants closed, and why.

    `assignment_id` is the service's id of the decision that opened it, also where the bot took that
    alone: the `unit_id` is the one that the bot asked with. Only its outcome ends the order.
    """

    order_id: int
    reason: str
    since: datetime
    assignment_id: AssignmentId
    unit_id: str
    instrument: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingAll:
    """What `close_all_positions` ordered.

    `waiting` positions are to be closed, those of earlier orders too. Unless the account is
    `killed`, new ones may open all the same.
    """

    order_id: int
    positions: tuple[CloseOrder, ...]
    waiting: int
    killed: bool


def close_orders_request(experiment: str) -> Request:
    """Return the question what is to be closed."""
    return Request(method="GET", path=f"/v1/experiments/{experiment}/close-orders")


def close_all_request(experiment: str, reason: str) -> Request:
    """Return the order to close what is open."""
    body = encoded({"reason": checked_reason(reason)})
    return post(f"/v1/experiments/{experiment}/close-all", body)


def halt_request(experiment: str, reason: str) -> Request:
    """Return the order to kill the account of an experiment."""
    return post("/v1/kill", encoded({"reason": checked_reason(reason), "experiment": experiment}))


def close_failed_request(order: CloseOrder, reason: str) -> Request:
    """Return the word that a position could not be closed."""
    told = {
        "assignment_id": checked_id(order.assignment_id),
        "reason": checked_reason(reason),
    }
    return post(f"/v1/close-orders/{order.order_id}/failures", encoded(told))


def checked_reason(reason: str) -> str:
    """Return why something is done, which has to say something.

    >>> checked_reason(" ")
    Traceback (most recent call last):
    liveops.client.errors.InvalidInput: reason: must be 1 to 1000 characters, found ' '
    """
    if not 1 <= len(reason.strip()) <= REASON_MAX:
        rule = f"must be 1 to {REASON_MAX} characters"
        raise InvalidInput(field="reason", rule=rule, found=repr(reason))
    return reason


def close_orders_of(answer: Any) -> list[CloseOrder]:
    """Return what is to be closed, as the service says it."""
    try:
        return [_close_order(each) for each in answer]
    except (KeyError, TypeError, ValueError) as error:
        raise unexpected("close orders") from error


def closing_all_of(answer: Any) -> ClosingAll:
    """Return what was ordered, as the service says it."""
    try:
        return ClosingAll(
            order_id=int(answer["order_id"]),
            positions=tuple(_close_order(each) for each in answer["positions"]),
            waiting=int(answer["waiting"]),
            killed=bool(answer["killed"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise unexpected("a close order") from error


def _close_order(told: Mapping[str, Any]) -> CloseOrder:
    return CloseOrder(
        order_id=int(told["order_id"]),
        reason=str(told["reason"]),
        since=datetime.fromisoformat(told["since"]),
        assignment_id=AssignmentId(str(told["assignment_id"])),
        unit_id=str(told["unit_id"]),
        instrument=str(told["instrument"]),
        policy=str(told["policy"]),
    )
