"""Hold what bots tell against the ledger, and stop what would open where the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from bandit.core.heartbeat import HEARTBEAT_SECONDS_MAX, BotRecord
from bandit.core.model import checked_instant, checked_text
from bandit.core.reconciling import (
    Books,
    Finding,
    Reconciliation,
    ReconciliationRule,
    ReconciliationState,
    Word,
    judged,
    summary,
)
from bandit.service import accounts
from bandit.service.accounts import AccountReport
from bandit.service.revealing import Keys, Revealed
from bandit.storage import account_equity, audit, heartbeats, locks, reconciliations
from bandit.storage import accounts as stored
from bandit.storage.engine import snapshot, transaction
from bandit.storage.reconciliations import ReconciliationRecord

RULE_ACTOR = "rule:reconciliation"
_FRESH = timedelta(seconds=HEARTBEAT_SECONDS_MAX)


def judge(
    connection: Connection,
    known: BotRecord,
    *,
    before: BotRecord | None,
    rule: ReconciliationRule,
    held: Keys,
) -> None:
    """Compare the account of a bot that was just heard; `before` is what was known until then.

    Raises `Revealed` when the account is to be stopped, or let go on, and its key is not held.
    """
    beat, now = known.newest, known.heard_at
    account_id = None if beat.account is None else stored.id_of(connection, beat.account)
    if beat.account is None or account_id is None:
        return  # nobody opened it yet: there is nothing to hold against
    words = _words(heartbeats.every(connection), beat.account, now=now)
    if not _tells(words) and not reconciliations.of_accounts(connection, [account_id]):
        return
    record = reconciliations.locked(connection, account_id, now=now)
    # Again behind the lock: whoever held it has heard another bot of the account.
    words = _words(heartbeats.every(connection), beat.account, now=now)
    found = judged(
        record.reconciliation,
        words,
        _books(connection, account_id, words, now=now),
        rule,
        now=now,
        began=_began(known, before),
    )
    state = found.state(rule)
    after = replace(record, state=state, reconciliation=found, judged_at=now)
    if state is not record.state:
        if ReconciliationState.BLOCKED in (record.state, state):
            _require_key(account_id, held)
        # Of what has ended is told what differed: nothing does any more.
        what = found.in_force or record.reconciliation.in_force
        by = (RULE_ACTOR, _said(found))
        after = _changed(connection, record, after, what, name=beat.account, by=by, at=now)
    reconciliations.write(connection, after)


def _require_key(account_id: int, held: Keys) -> None:
    if account_id not in held.account_ids:
        raise Revealed(Keys(account_ids=frozenset({account_id})))


def is_blocked(engine: Engine, name: str | None) -> bool:
    """Say whether nothing new opens on an account because its bots and ledger differ."""
    if name is None:
        return False
    with snapshot(engine) as connection:
        account_id = stored.id_of(connection, name)
        found = reconciliations.of_accounts(connection, [] if account_id is None else [account_id])
        return any(record.state is ReconciliationState.BLOCKED for record in found.values())


def accept(engine: Engine, name: str, *, reason: str, now: datetime, actor: str) -> AccountReport:
    """Accept how an account differs now, in the name of a person who says why.

    Positions that nobody holds count as not held, and those that the ledger does not know as known,
    as long as they differ; the balance's difference is taken off from then on. Where nothing
    differs, nothing changes. Raises `UnknownName`.
    """
    now = checked_instant(now, field="now")
    reason = checked_text(reason, field="reason", length_max=1000)
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        [account] = stored.all_of(connection, [name])
        locks.kill_exclusive(connection, [account.id])
        if reconciliations.of_accounts(connection, [account.id]):
            record = reconciliations.locked(connection, account.id, now=now)
            found = record.reconciliation
            if found.findings:
                after = replace(
                    record,
                    state=ReconciliationState.AGREES,
                    reconciliation=found.with_accepted(),
                )
                what = found.findings
                by = (actor, reason)
                after = _changed(connection, record, after, what, name=name, by=by, at=now)
                reconciliations.write(connection, after)
    with snapshot(engine) as connection:
        [report] = accounts.read(connection, [name], day=now.astimezone(UTC).date())
        return report


def _changed(
    connection: Connection,
    before: ReconciliationRecord,
    after: ReconciliationRecord,
    what: Sequence[Finding],
    *,
    name: str,
    by: tuple[str, str],
    at: datetime,
) -> ReconciliationRecord:
    """Append the change to the ledger and the audit log, and return what follows it.

    `by` is who made it, and why.
    """
    actor, reason = by
    change_id = reconciliations.append_change(
        connection, before, after, findings=what, now=at, actor=actor, reason=reason
    )
    audit.append(
        connection,
        now=at,
        actor=actor,
        action="reconciliation",
        subject=name,
        details={
            "from": before.state.value,
            "to": after.state.value,
            "reason": reason,
            "differed": summary(what),
            "accepted_difference": f"{after.reconciliation.accepted_difference:f}",
        },
    )
    return replace(after, change_id=change_id, since=at)


def _said(found: Reconciliation) -> str:
    if not found.in_force:
        return "bots and ledger agree again"
    return summary(found.in_force, accepted_difference=found.accepted_difference)


def _words(bots: Sequence[BotRecord], account: str, *, now: datetime) -> list[Word]:
    """Return what the running bots of an account told last, but for those that are silent."""
    return [
        Word(
            bot=bot.newest.bot,
            heard_at=bot.heard_at,
            positions=None if bot.newest.positions is None else frozenset(bot.newest.positions),
            equity=bot.newest.equity,
        )
        for bot in bots
        if bot.newest.account == account and bot.newest.running and now - bot.heard_at <= _FRESH
    ]


def _tells(words: Sequence[Word]) -> bool:
    return any(word.positions is not None or word.equity is not None for word in words)


def _books(
    connection: Connection, account_id: int, words: Sequence[Word], *, now: datetime
) -> Books:
    told = {position for word in words for position in word.positions or ()}
    [equity] = account_equity.of_accounts(connection, [account_id]).values()
    return Books(
        open=reconciliations.open_positions(connection, account_id, now=now),
        told=reconciliations.standings(connection, account_id, told),
        equity=equity.equity,
    )


def _began(known: BotRecord, before: BotRecord | None) -> tuple[str, datetime] | None:
    """Return whose run tells of positions for the first time, and when it began, if one does."""
    beat = known.newest
    if beat.positions is None:
        return None
    told_before = (
        before is not None
        and before.newest.started_at == beat.started_at
        and before.newest.positions is not None
    )
    return None if told_before else (beat.bot, beat.started_at)
