"""Which requests may follow an answer, and what of the answer they take: the links of OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A request to the operation `to`; `body` is as much of its body as the answer knows."""

    to: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None

    def described(self) -> dict[str, Any]:
        """Return the link as OpenAPI says it.

        >>> Link(to="show_policy", parameters={"policy": "$response.body#/name"}).described()
        {'operationId': 'show_policy', 'parameters': {'policy': '$response.body#/name'}}
        """
        parts = {
            "operationId": self.to,
            "parameters": dict(self.parameters),
            "requestBody": dict(self.body),
            "description": self.description,
        }
        return {name: part for name, part in parts.items() if part}


def _to(*operations: str, **parameters: str) -> tuple[Link, ...]:
    return tuple(Link(to=operation, parameters=parameters) for operation in operations)


_ASSIGNMENT = "$response.body#/assignment_id"
_NAME = "$response.body#/name"
_POLICY = "$response.body#/policy"
_HERE = "$request.path.experiment"
_FIRST_ACCOUNT = {"accounts": ["$response.body#/0/name"]}

_NUMBERS = ("show_report", "list_allocations", "list_decisions")
_OF_EXPERIMENT = (
    *(*_NUMBERS, "add_arm", "assign", "report_fallback", "scale_experiment"),
    *("close_all", "list_close_orders"),
)

_OUTCOME = Link(to="record_outcome", body={"assignment_id": _ASSIGNMENT})
_MARK = Link(to="mark_positions", body={"assignment_id": _ASSIGNMENT})
_REVISION = Link(
    to="revise_outcome",
    parameters={"assignment": _ASSIGNMENT},
    body={"assignment_id": _ASSIGNMENT},
)
_NEXT_OF_POSITION = Link(
    to="assign",
    parameters={"experiment": _HERE},
    body={"position": _ASSIGNMENT, "instrument": "$request.body#/instrument"},
    description="The next decision of the position that this one opened.",
)

LINKS: Final[Mapping[str, tuple[Link, ...]]] = {
    "register_policy": (
        *_to("show_policy", policy=_NAME),
        Link(to="open_experiment", body={"champion": _NAME}),
    ),
    "open_experiment": _to("show_experiment", *_OF_EXPERIMENT, experiment=_NAME),
    "show_experiment": _to(*_OF_EXPERIMENT, experiment=_NAME),
    "add_arm": (
        *_to("show_policy", policy=_POLICY),
        *_to(
            *("halt_arm", "throttle_arm", "retire_arm", "promote_arm"),
            experiment=_HERE,
            policy=_POLICY,
        ),
    ),
    "promote_arm": _to("roll_back", *_NUMBERS, experiment=_HERE),
    "roll_back": _to(*_NUMBERS, experiment=_HERE),
    "halt_arm": _to("resume_arm", "retire_arm", experiment=_HERE, policy=_POLICY),
    "throttle_arm": _to("halt_arm", "resume_arm", "retire_arm", experiment=_HERE, policy=_POLICY),
    "resume_arm": _to("halt_arm", "throttle_arm", "retire_arm", experiment=_HERE, policy=_POLICY),
    "assign": (
        *_to("claim", assignment=_ASSIGNMENT),
        *(_OUTCOME, _MARK, _NEXT_OF_POSITION),
        *_to("halt_arm", experiment=_HERE, policy=_POLICY),
    ),
    "decide": (
        *_to("claim", assignment=_ASSIGNMENT),
        *(_OUTCOME, _MARK, _NEXT_OF_POSITION),
        *_to("halt_arm", experiment=_HERE, policy=_POLICY),
    ),
    "claim": (_OUTCOME, _MARK),
    "report_fallback": (_OUTCOME, _MARK),
    "record_outcome": (_REVISION,),
    "revise_outcome": (_REVISION,),
    "scale_experiment": _to(*_NUMBERS, experiment=_HERE),
    "show_report": (Link(to="kill", body={"accounts": ["$response.body#/account"]}),),
    "list_accounts": (
        Link(to="kill", body=_FIRST_ACCOUNT),
        Link(to="release", body=_FIRST_ACCOUNT),
    ),
    "kill": (Link(to="release", body=_FIRST_ACCOUNT),),
    "close_all": _to("list_close_orders", experiment=_HERE),
    "list_close_orders": (
        Link(
            to="report_close_failure",
            parameters={"order": "$response.body#/0/order_id"},
            body={"assignment_id": "$response.body#/0/assignment_id"},
        ),
    ),
}
"""What may follow an operation that did what it was asked, by its id."""


def link(paths: Mapping[str, Mapping[str, Any]]) -> None:
    """Describe at the answers of these routes where they lead, as far as that is served too."""
    routes = [route for methods in paths.values() for route in methods.values()]
    served = {route["operationId"] for route in routes}
    for route in routes:
        links = {
            made.to: made.described()
            for made in LINKS.get(route["operationId"], ())
            if made.to in served
        }
        for status, answer in route["responses"].items():
            if status.startswith("2") and links:
                answer["links"] = links
