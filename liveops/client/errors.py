"""What a bot has to know of: each error says what was expected and what was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why the service refused something, as its `application/problem+json` says it."""

    status: int
    code: str
    detail: str
    field: str | None = None
    rule: str | None = None


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


class Killed(RequestRefused):
    """Trading is killed: place no order until a later answer says otherwise."""


class Paused(RequestRefused):
    """The experiment is paused: it takes no decisions now."""


class Revoked(RequestRefused):
    """The decision was taken back after it was made: place no order on it."""


class Expired(RequestRefused):
    """The decision is too old to be acted on: ask for another opportunity."""


class ServiceUnavailable(ClientError):
    """The service cannot be reached, and nothing may be decided without it."""


class SpoolError(ClientError):
    """The spool did not take a row: what the call was to report is not stored anywhere."""


class SpoolFull(SpoolError):
    """As many rows as allowed wait for the service, or the disk is full."""


class SpoolUnusable(SpoolError):
    """The spool file cannot be read or written, or belongs to something else."""


class ClientClosed(ClientError):
    """The client was closed; make another one."""
