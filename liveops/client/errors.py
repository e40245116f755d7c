"""What a bot has to know of: each error says what was expected and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from liveops.client.values import Assignment, AssignmentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why the service refused something, as its `application/problem+json` says it."""

    status: int
    code: str
    detail: str
    field: str | None = None
    rule: str | None = None
    paused: Mapping[str, str] | None = None
    limit: float | None = None
    found: float | None = None
    open: Sequence[Mapping[str, str]] | None = None


class ClientError(Exception):
    """Root of every error the SDK raises on purpose, but `TypeError`."""


class InvalidInput(ClientError, ValueError):
    """A value breaks a rule of its field; nothing was sent and nothing was spooled.

    >>> str(InvalidInput(field="closed_at", rule="must be aware", found="2026-03-01T12:00:00"))
    'closed_at: must be aware, found 2026-03-01T12:00:00'
    """

    def __init__(self, *, field: str, rule: str, found: object) -> None:
        super().__init__(f"{field}: {rule}, found {str(found)[:80]}")
        self.field = field
        self.rule = rule


class NoOrder(ClientError):
    """Place no order: whatever the reason is, it is one of the errors below.

    Where a decision was made, tell `no_trade` of it: its claim may count although its answer was
    lost, and would take the place of another position.
    """


class RequestRefused(ClientError):
    """The service answered, and said no.

    >>> refused = RequestRefused(Problem(status=404, code="unknown_name", detail="no experiment"))
    >>> (str(refused), refused.code)
    ('no experiment', 'unknown_name')
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def code(self) -> str:
        """What programs branch on."""
        return self.problem.code

    @property
    def field(self) -> str | None:
        """The field that breaks `rule`."""
        return self.problem.field

    @property
    def rule(self) -> str | None:
        """What the field has to obey."""
        return self.problem.rule


class Killed(RequestRefused, NoOrder):
    """Trading is killed: place no order until a later answer says otherwise."""


class Unreconciled(RequestRefused, NoOrder):
    """What bots hold differs from the service's ledger: open nothing new; what is open goes on.

    The message says what differs. It ends when a heartbeat agrees, or a person accepts it.
    """


class Paused(RequestRefused, NoOrder):
    """A performance guard lets nothing new open: place no order.

    What `policy` would have earned on `assignment_id`, told by `on_paper`, helps to end the pause.
    All of these are None where the service is away and was paused when it was last heard of.

    >>> told = {"assignment_id": "0198c5d2-0000-8000-8000-000000000000", "policy": "champion",
    ...         "scope": "account", "since": "2026-03-01T12:00:00+00:00", "reason": "losing_streak"}
    >>> paused = Paused(Problem(status=409, code="paused", detail="no", paused=told))
    >>> paused.policy, paused.scope, paused.since.year
    ('champion', 'account', 2026)
    """

    @property
    def assignment_id(self) -> AssignmentId | None:
        """What the refused opportunity is stored as."""
        return cast("AssignmentId | None", self._told("assignment_id"))

    @property
    def policy(self) -> str | None:
        """The policy it was routed to."""
        return self._told("policy")

    @property
    def scope(self) -> str | None:
        """Whose guard it is: `experiment` or `account`."""
        return self._told("scope")

    @property
    def since(self) -> datetime | None:
        """When the pause began."""
        since = self._told("since")
        return None if since is None else datetime.fromisoformat(since)

    @property
    def reason(self) -> str | None:
        """Why."""
        return self._told("reason")

    def _told(self, name: str) -> str | None:
        return None if self.problem.paused is None else self.problem.paused.get(name)


class NotSelected(RequestRefused, NoOrder):
    """Nothing new opens in this instrument now: place no order, and go on with the next one."""


class Revoked(RequestRefused, NoOrder):
    """The decision was taken back after it was made: place no order on it."""


class Expired(RequestRefused, NoOrder):
    """The decision is too old to be acted on: ask for another opportunity."""


class Unwatched(NoOrder):
    """The monitor of the experiment has been silent for too long: open nothing new.

    `assignment` is the decision that is not to be acted on, where one was made: tell of it by
    `no_trade`, so that nothing is held aside for it. Closing what is open is never refused.
    """

    def __init__(self, assignment: Assignment | None) -> None:
        super().__init__("the monitor has been silent for too long: open nothing new")
        self.assignment = assignment


class PositionLimit(RequestRefused, NoOrder):
    """As many positions are open in the account as may be: place no order, tell `no_trade`.

    >>> told = {"assignment_id": "0198c5d2-0000-8000-8000-000000000000", "instrument": "BTCUSD"}
    >>> full = PositionLimit(Problem(status=409, code="position_limit", detail="no", limit=1.0,
    ...                              found=1.0, open=(told,)))
    >>> full.limit, full.open[0]["instrument"]
    (1, 'BTCUSD')
    """

    @property
    def limit(self) -> int | None:
        """How many may be open."""
        return None if self.problem.limit is None else int(self.problem.limit)

    @property
    def open(self) -> Sequence[Mapping[str, str]]:
        """The oldest open ones: assignment_id, experiment, instrument and claimed_at."""
        return self.problem.open or ()


class SizeLimit(RequestRefused, NoOrder):
    """The position would be over a limit: place no order of this size.

    `field` says over which: `position_size`, `leverage`, or `symbol_share` of all in an instrument.
    A smaller claim of the same decision may be granted.
    """

    @property
    def limit(self) -> float | None:
        """The largest that is allowed."""
        return self.problem.limit

    @property
    def found(self) -> float | None:
        """What was told, or what would be open."""
        return self.problem.found


class ServiceUnavailable(NoOrder):
    """The service cannot be reached, and nothing may be decided without it."""


class SpoolError(ClientError):
    """The spool did not take a row: what the call was to report is not stored anywhere."""


class SpoolFull(SpoolError):
    """As many rows as allowed wait for the service, or the disk is full."""


class SpoolUnusable(SpoolError):
    """The spool file cannot be read or written, or belongs to something else."""


class ClientClosed(ClientError):
    """The client was closed; make another one."""
