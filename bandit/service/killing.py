"""Turn the kill switch of accounts, and turn it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine

from bandit.core.kill_switch import (
    DailyLossRelease,
    KillCause,
    KillEvent,
    KillKind,
    is_released_by_day,
)
from bandit.core.model import checked_instant, checked_text
from bandit.storage import accounts, audit, locks
from bandit.storage.accounts import AccountRecord
from bandit.storage.engine import snapshot, transaction

NEXT_DAY_ACTOR = "rule:next_day"


def states(engine: Engine) -> list[AccountRecord]:
    """Return every account with the state of its kill switch."""
    with snapshot(engine) as connection:
        return accounts.all_of(connection, None)


def kill(
    engine: Engine,
    names: Sequence[str] | None,
    *,
    cause: KillCause,
    reason: str,
    now: datetime,
    actor: str,
    still: Callable[[], bool] = lambda: True,
) -> list[AccountRecord]:
    """Kill these accounts, or every one: once this returns, no decision of theirs follows.

    A killed account gets another event when its cause or reason is new, so that whoever releases
    it sees them all; the same again changes nothing. What `still` denies, asked where no release
    can come in between, is not done. Raises `UnknownName`.
    """
    event = _event(KillKind.KILL, cause=cause, reason=reason, now=now, actor=actor)
    return _turn(engine, names, event, still=still)


def release(
    engine: Engine, names: Sequence[str] | None, *, reason: str, now: datetime, actor: str
) -> list[AccountRecord]:
    """Release these accounts, or every one, in the name of a person who gives a reason."""
    event = _event(KillKind.RELEASE, cause=KillCause.HAND, reason=reason, now=now, actor=actor)
    return _turn(engine, names, event)


def release_due(engine: Engine, *, rule: DailyLossRelease, now: datetime) -> list[AccountRecord]:
    """Release the accounts whose kill for the day's loss has ended with its day."""
    checked_instant(now, field="now")
    due = [a.name for a in states(engine) if is_released_by_day(a.newest, now=now, rule=rule)]
    if not due:
        return []
    with transaction(engine) as connection:
        found = accounts.all_of(connection, due)
        locks.kill_exclusive(connection, [account.id for account in found])
        # Read again behind the key: a person may have killed it meanwhile.
        for account in accounts.all_of(connection, due):
            if is_released_by_day(account.newest, now=now, rule=rule):
                event = KillEvent(
                    kind=KillKind.RELEASE,
                    cause=KillCause.NEXT_DAY,
                    at=now,
                    actor=NEXT_DAY_ACTOR,
                    reason="the day of the loss has ended",
                )
                append(connection, account, event)
        return accounts.all_of(connection, due)


def _event(
    kind: KillKind, *, cause: KillCause, reason: str, now: datetime, actor: str
) -> KillEvent:
    return KillEvent(
        kind=kind,
        cause=cause,
        at=checked_instant(now, field="now"),
        actor=checked_text(actor, field="actor", length_max=200),
        reason=checked_text(reason, field="reason", length_max=1000),
    )


def _turn(
    engine: Engine,
    names: Sequence[str] | None,
    event: KillEvent,
    *,
    still: Callable[[], bool] = lambda: True,
) -> list[AccountRecord]:
    with transaction(engine) as connection:
        found = accounts.all_of(connection, names)
        chosen = [account.name for account in found]
        locks.kill_exclusive(connection, [account.id for account in found])
        if still():
            for account in accounts.all_of(connection, chosen):
                if _is_news(account, event):
                    append(connection, account, event)
        return accounts.all_of(connection, chosen)


def _is_news(account: AccountRecord, event: KillEvent) -> bool:
    if event.kind is KillKind.RELEASE:
        return account.is_killed
    newest = account.newest
    return (
        not account.is_killed
        or newest is None
        or ((newest.cause, newest.reason) != (event.cause, event.reason))
    )


def append(
    connection: Connection,
    account: AccountRecord,
    event: KillEvent,
    *,
    reasons: Sequence[object] = (),
) -> None:
    """Turn one account's switch inside a transaction that holds its key."""
    accounts.append_kill_event(connection, account.id, event, reasons=reasons)
    audit.append(
        connection,
        now=event.at,
        actor=event.actor,
        action=event.kind.value,
        subject=account.name,
        details={"cause": event.cause.value, "reason": event.reason, "reasons": list(reasons)},
    )
