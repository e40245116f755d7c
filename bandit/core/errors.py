"""One tree of errors; names say what happened, messages say what was expected and found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID


class BanditError(Exception):
    """Root of every error the product raises on purpose.

    `code` is stable: HTTP problem documents, exit codes and logs carry it.

    >>> BanditError("no").code
    'bandit_error'
    """

    code = "bandit_error"


class InvalidInput(BanditError):
    """A value from outside breaks a rule of its field; nothing was stored.

    >>> str(InvalidInput(field="pnl", rule="must be finite", found="NaN"))
    'pnl: must be finite, found NaN'
    """

    code = "invalid_input"

    def __init__(self, *, field: str, rule: str, found: object) -> None:
        shown = str(found)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{field}: {rule}, found {shown}")
        self.field = field
        self.rule = rule
        self.found = shown


class UnknownName(BanditError):
    """Nothing is registered under this name."""

    code = "unknown_name"

    def __init__(self, *, kind: str, name: str, known: Sequence[str] = ()) -> None:
        hint = f"; known: {', '.join(known)}" if known else ""
        super().__init__(f"no {kind} is registered as {name!r}{hint}")
        self.kind = kind
        self.name = name
        self.known = tuple(known)


class AmbiguousName(BanditError):
    """A prefix fits more than one policy, or whatever else `kind` names."""

    code = "ambiguous_name"

    def __init__(self, *, name: str, candidates: Sequence[str], kind: str = "policies") -> None:
        super().__init__(f"{name!r} fits {len(candidates)} {kind}: {', '.join(candidates)}")
        self.name = name
        self.candidates = tuple(candidates)


class Conflict(BanditError):
    """The same key was used before with another body; the first one stands."""

    code = "conflict"


class InvalidTransition(BanditError):
    """The arm or experiment cannot go from its state to the one asked for."""

    code = "invalid_transition"


class InvalidAllocation(BanditError):
    """An allocation breaks a limit; `limit` names it.

    >>> InvalidAllocation("weights must sum to 1, were 0.9", limit="sum").limit
    'sum'
    """

    code = "invalid_allocation"

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class StaleEpoch(BanditError):
    """The experiment changed between reading it and writing; read again."""

    code = "stale_epoch"


class BudgetSpent(BanditError):
    """The exploration budget has no room for all of a batch, only for `room` of its decisions."""

    code = "budget_spent"

    def __init__(self, message: str, *, room: int) -> None:
        super().__init__(message)
        self.room = room


class Killed(BanditError):
    """The kill switch of the account is on: no new decision until a person releases it."""

    code = "killed"


class Unreconciled(BanditError):
    """What bots hold differs from the ledger: nothing new opens until they agree, or a person acts.

    The message says what differs.
    """

    code = "unreconciled"


class ForeignProtocol(BanditError):
    """This process decides by another protocol than the ledger: update the older of the two."""

    code = "foreign_protocol"


class LockHeldElsewhere(BanditError):
    """Another process runs this use case for this experiment now."""

    code = "lock_held_elsewhere"


class FenceLost(BanditError):
    """Another process claimed this slot of a scheduled job since; nothing was written."""

    code = "fence_lost"


class LedgerUnavailable(BanditError):
    """The database cannot be reached, is not ready, or was lost on the way: ask again, the same."""

    code = "ledger_unavailable"


class Overloaded(BanditError):
    """More is waiting to be stored than the service takes on; nothing of this was stored."""

    code = "overloaded"


class Paused(BanditError):
    """A performance guard lets nothing new open; the opportunity may be followed on paper.

    `scope` says whose guard it is, `experiment` or `account`, and `reason` why since `since`. What
    `policy` would have earned on `assignment_id` helps to end the pause, where that refused it.
    """

    code = "paused"

    def __init__(
        self,
        *,
        experiment: str,
        scope: str,
        since: datetime,
        reason: str,
        assignment_id: UUID,
        policy: str,
    ) -> None:
        whose = "its account is" if scope == "account" else "it is"
        super().__init__(
            f"nothing new opens in {experiment}: {whose} PAUSED since {since.isoformat()} "
            f"({reason}); tell on paper what {policy} would have earned on {assignment_id}"
        )
        self.experiment = experiment
        self.scope = scope
        self.since = since
        self.reason = reason
        self.assignment_id = assignment_id
        self.policy = policy


class NotSelected(BanditError):
    """The experiment opens positions in other instruments now; nothing was stored."""

    code = "not_selected"


class Revoked(BanditError):
    """The arm may no longer act on this decision: halted, replaced or out of traffic since."""

    code = "revoked"


class Expired(BanditError):
    """The decision was not claimed in time."""

    code = "expired"


class PositionLimit(BanditError):
    """As many positions are open in the account as the experiment's rule lets be; none was claimed.

    `open` names the longest open ones: assignment, experiment, instrument and when it was claimed.
    """

    code = "position_limit"

    def __init__(self, *, limit: int, found: int, open: Sequence[Mapping[str, str]]) -> None:
        named = ", ".join(
            f"{each['instrument']} of {each['experiment']} since {each['claimed_at']} "
            f"({each['assignment_id']})"
            for each in open
        )
        super().__init__(f"{found} positions are open in the account, and {limit} may be: {named}")
        self.limit = limit
        self.found = found
        self.open = tuple(open)


class SizeLimit(BanditError):
    """The position that was to open is over a limit; nothing was claimed.

    `field` is `position_size`, `leverage` or `symbol_share`: all that would be open in the
    instrument.

    >>> str(SizeLimit(field="leverage", limit=2.0, found=3.0))
    'leverage is 3, at most 2 is allowed'
    """

    code = "size_limit"

    def __init__(self, *, field: str, limit: float, found: float) -> None:
        super().__init__(f"{field} is {found:g}, at most {limit:g} is allowed")
        self.field = field
        self.limit = limit
        self.found = found


class ExtraMissing(BanditError):
    """A package that only some installations have is needed for this; the message says how."""

    code = "extra_missing"


class DataPaused(BanditError):
    """A load of candles is being taken back: nothing is trained on them until that is done."""

    code = "data_paused"

    def __init__(self, *, date: str, since: str) -> None:
        super().__init__(
            f"the candles are being rolled back to before {date} since {since}: "
            f"finish that with `liveops data rollback {date} --reason ...`"
        )
        self.date = date
        self.since = since
