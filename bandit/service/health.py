"""Hear what bots say of themselves, and read what the ledger knows of everybody's health."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.health import AccountState, Vitals
from bandit.core.heartbeat import BotRecord, Heartbeat, check_past, heard
from bandit.core.model import checked_instant, checked_text
from bandit.core.reconciling import ReconciliationRule, ReconciliationState
from bandit.service import accounts, reconciling
from bandit.service.accounts import AccountReport
from bandit.service.revealing import Keys, guarded
from bandit.storage import (
    audit,
    backups,
    closing,
    experiments,
    guards,
    heartbeats,
    locks,
    pulses,
    trades,
)
from bandit.storage.engine import require_protocol, snapshot, transaction
from bandit.storage.trades import ClosedTrade

BOTS_MAX = 32
RECENT_TRADES = 5
_RECONCILES = ReconciliationRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the ledger knew at one moment: everything a level is made of, and what is shown."""

    vitals: Vitals
    accounts: tuple[AccountReport, ...]
    experiments: tuple[str, ...]
    recent_trades: tuple[ClosedTrade, ...]


def hear(
    engine: Engine,
    beat: Heartbeat,
    *,
    now: datetime,
    window: timedelta,
    rule: ReconciliationRule = _RECONCILES,
) -> BotRecord:
    """Store a heartbeat, hold it against the ledger, and return what is known of its bot then.

    One that is no later than the newest changes nothing, whichever replica hears it, unless the
    clock was set back since. Once this returns, nothing opens on an account that it showed to
    differ. Raises `InvalidInput` for a time of the future, and for one bot more than `BOTS_MAX`.
    """
    check_past(beat, now=checked_instant(now, field="now"))

    def work(connection: Connection, keys: Keys) -> BotRecord:
        held = _locked(connection, beat.bot)
        known = heard(held, beat, now=now, window=window)
        if known is not held:
            if held is not None and known.heard_at < held.heard_at:
                # The clock was set back. Rows only go forward, so another one takes its place.
                heartbeats.delete(connection, beat.bot)
            heartbeats.write(connection, known)
            reconciling.judge(connection, known, before=held, rule=rule, held=keys)
        return known

    return guarded(engine, work)


def _locked(connection: Connection, bot: str) -> BotRecord | None:
    held = heartbeats.locked(connection, bot)
    if held is None:
        locks.newcomer(connection)
        # Again behind the lock: another replica may have heard it first.
        held = heartbeats.locked(connection, bot)
        if held is None and heartbeats.count(connection) >= BOTS_MAX:
            rule = f"must be one of {BOTS_MAX} at most: forget one that is gone"
            raise InvalidInput(field="bot", rule=rule, found=bot)
    return held


def forget(engine: Engine, bot: str, *, reason: str, now: datetime, actor: str) -> None:
    """Expect a bot no more, in the name of a person who says why; raises `UnknownName`."""
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        if not heartbeats.delete(connection, bot):
            known = [record.newest.bot for record in heartbeats.every(connection)]
            raise UnknownName(kind="bot", name=bot, known=known)
        audit.append(
            connection,
            now=checked_instant(now, field="now"),
            actor=checked_text(actor, field="actor", length_max=200),
            action="forget_bot",
            subject=bot,
            details={"reason": reason},
        )


def known_bots(engine: Engine) -> list[BotRecord]:
    """Return what is known of every bot, in the order of their names."""
    with snapshot(engine) as connection:
        return heartbeats.every(connection)


def read(engine: Engine, *, now: datetime) -> Reading:
    """Return what the ledger knows at one moment.

    Raises `LedgerUnavailable`, and `ForeignProtocol` where it decides by other rules than ours.
    """
    checked_instant(now, field="now")
    with snapshot(engine) as connection:
        require_protocol(connection)
        reports = tuple(accounts.read(connection, None, day=now.astimezone(UTC).date()))
        recent = tuple(trades.newest(connection, most=RECENT_TRADES))
        return Reading(
            vitals=Vitals(
                now=now,
                guard=_guard(connection),
                accounts=tuple(map(_state, reports)),
                bots=tuple(heartbeats.every(connection)),
                closing=tuple(closing.waiting_by_experiment(connection)),
                last_trade_at=recent[0].closed_at if recent else None,
                pulses=tuple(pulses.every(connection)),
                backups={k: b.taken_at for k, b in backups.newest(connection).items()},
                unarchived=backups.unarchived(connection),
            ),
            accounts=reports,
            experiments=tuple(experiments.names(connection)),
            recent_trades=recent,
        )


def _guard(connection: Connection) -> str | None:
    """Return the strictest state of any performance guard; None where nothing is guarded yet."""
    states = [record.guard.state for record in guards.all_of(connection)]
    return max(states, key=lambda state: state.severity).value if states else None


def _state(report: AccountReport) -> AccountState:
    record = report.record
    kill = record.newest if record.is_killed else None
    told = report.reconciliation
    return AccountState(
        name=record.name,
        equity=report.equity,
        kill=kill,
        reconciliation=None if told is None else told.reconciliation,
        is_blocked=told is not None and told.state is ReconciliationState.BLOCKED,
    )
