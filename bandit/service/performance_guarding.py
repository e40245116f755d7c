"""The performance guard in the transaction of the outcomes it reads (SPEC F5).

A guard is a function of the order in which trades arrived: an outcome that is revised later moves
the money of its account, and rewrites no guard. Batches of one account come one after the other,
behind the lock on its equity.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import localcontext
from typing import Any, Final

from sqlalchemy import Connection, Engine

from bandit.core.account import AccountEquity
from bandit.core.guard_rule import GuardState
from bandit.core.model import checked_instant, checked_text
from bandit.core.outcomes import Outcome
from bandit.core.performance_guard import Guard, GuardChange, GuardTrade, folded
from bandit.service.revealing import Keys, Revealed
from bandit.storage import account_equity, accounts, audit, experiments, guards
from bandit.storage.assignments import AssignedUnit
from bandit.storage.engine import snapshot, transaction
from bandit.storage.guards import GuardRecord, Scope, StoredChange
from bandit.storage.shadows import ShadowRow

ACTOR: Final = "rule:performance_guard"

# Sums of money have up to 38 digits, a return times one of them more: nothing may be rounded.
_EXACT_DIGITS: Final = 80

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A guard that changed: whose, from which state to which, and why."""

    kind: str
    name: str
    before: GuardState
    after: GuardState
    reason: str

    def log(self) -> None:
        """Say so in one line; for after the commit."""
        _log.warning(
            "[ALERT] performance guard %s",
            self.after.value,
            extra={self.kind: self.name, "before": self.before.value, "reason": self.reason},
        )


def guard_trades(
    connection: Connection,
    arrived: Sequence[tuple[Outcome, AssignedUnit]],
    equities: Mapping[int, AccountEquity],
    *,
    held: Keys,
    now: datetime,
) -> list[Alert]:
    """Fold what outcomes earned into the guards of their experiments and accounts.

    `arrived` are new outcomes in the order they came, and `equities` the accounts as they were
    locked, before these outcomes. Raises `Revealed` where a guard gets tighter, and not everybody
    who decides under it is kept out.
    """
    trades = _trades(arrived, equities)
    if not trades:
        return []
    records = guards.locked(
        connection, [s.experiment_id for s in trades if s.experiment_id is not None]
    )
    moved = _moved(records, trades)
    missing = _missing(
        [s for s, (guard, _) in moved.items() if _is_tighter(records[s], guard.state)], held
    )
    if missing != Keys():
        raise Revealed(missing)
    alerts: list[Alert] = []
    changed: list[GuardRecord] = []
    for scope, (guard, changes) in moved.items():
        record, more = _entered(connection, records[scope], changes, now=now)
        changed.append(replace(record, guard=guard))
        alerts += more
    guards.write(connection, changed)
    return alerts


def guard_on_paper(
    connection: Connection, told: Iterable[ShadowRow], *, now: datetime
) -> list[Alert]:
    """Fold what refused opportunities would have earned into the pauses that refused them.

    `told` are new results on paper in the order they came. Only that of the arm which the
    opportunity was routed to counts, at nominal size, and only as long as the same pause lasts. It
    moves no money. It can end a pause and tighten nothing, so nobody has to be kept out.
    """
    trades = [row for row in told if not row.outcome.no_trade]
    refused = guards.refusals(connection, [row.key.assignment_id for row in trades])
    refused = {
        row.key.assignment_id: found
        for row in trades
        if (found := refused.get(row.key.assignment_id)) and found.arm_id == row.key.arm_id
    }
    if not refused:
        return []
    # As with outcomes: the accounts' locks put in one order whatever moves their guards.
    equities = account_equity.locked(connection, list({r.account_id for r in refused.values()}))
    records = guards.locked(connection, {r.experiment_id for r in refused.values()})
    alerts: list[Alert] = []
    changed: dict[Scope, GuardRecord] = {}
    for row in trades:
        refusal = refused.get(row.key.assignment_id)
        if refusal is None or refusal.arm_id != row.key.arm_id:
            continue
        with localcontext(prec=_EXACT_DIGITS):
            equity = equities[refusal.account_id]
            trade = GuardTrade(
                row.outcome.return_ratio * refusal.notional, equity.capital + equity.realised
            )
        for scope in _scopes(refusal.account_id, refusal.experiment_id):
            record = records[scope]
            if refusal.refused_by(record):
                guard, changes = folded(record.guard, [trade])
                record, more = _entered(connection, record, changes, now=now)
                records[scope] = changed[scope] = replace(record, guard=guard)
                alerts += more
    guards.write(connection, changed.values())
    return alerts


def reset(
    engine: Engine,
    *,
    experiment: str | None = None,
    account: str | None = None,
    reason: str,
    now: datetime,
    actor: str,
) -> GuardReport:
    """Let the guard of an experiment, or of an account, begin anew: NORMAL with an empty window.

    In the name of a person who gives a reason. Exactly one of the two is named. Raises
    `UnknownName` for what is not open.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = guards.locked_scope(connection, _scope_of(connection, experiment, account))
        begun, after = record.guard.anew(), GuardState.NORMAL
        change_id = _append(
            connection, record, record.guard.state, after, reason=reason, now=now, actor=actor
        )
        begun_record = replace(record, guard=begun, change_id=change_id)
        guards.write(connection, [begun_record])
        newest = guards.newest_changes(connection, [record.id])
        report = GuardReport(record=begun_record, newest=newest.get(record.id))
    Alert(
        kind=record.kind, name=record.name, before=record.guard.state, after=after, reason=reason
    ).log()
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardReport:
    """A guard with its newest change; None while it never changed."""

    record: GuardRecord
    newest: StoredChange | None

    def to_json(self) -> dict[str, Any]:
        """Return the guard as the API, the CLI and reports print it."""
        record, guard, newest = self.record, self.record.guard, self.newest
        effect = guard.rule.effect(guard.state)
        return {
            "scope": record.kind,
            "name": record.name,
            "enabled": guard.rule.enabled,
            "state": guard.state.value,
            "size_multiplier": effect.size_multiplier,
            "confidence_bump": effect.confidence_bump,
            "since": None if newest is None else newest.at.isoformat(),
            "actor": None if newest is None else newest.actor,
            "reason": None if newest is None else newest.reason,
            "trades": len(guard.trades),
            "win_rate": guard.measured.win_rate,
            "drawdown": round(guard.measured.drawdown, 12),
            "losing_streak": guard.losing_streak,
            "trades_since": guard.trades_since,
            "reasons": [check.to_json() for check in guard.reasons()],
        }


def listed(engine: Engine, experiment: str | None = None) -> list[GuardReport]:
    """Return every guard, or those of one experiment: each account's before its experiments'.

    Raises `UnknownName` for an experiment that is not open.
    """
    with snapshot(engine) as connection:
        if experiment is None:
            return _reports(connection, guards.all_of(connection))
        return of_experiment(connection, experiments.ids_of(connection, experiment)[0])


def of_experiment(connection: Connection, experiment_id: int) -> list[GuardReport]:
    """Return the guards that an experiment's decisions follow: its account's and its own."""
    return _reports(connection, guards.of_experiments(connection, [experiment_id]))


def _reports(connection: Connection, records: Sequence[GuardRecord]) -> list[GuardReport]:
    newest = guards.newest_changes(connection, [record.id for record in records])
    return [GuardReport(record=record, newest=newest.get(record.id)) for record in records]


def _scopes(account_id: int, experiment_id: int) -> tuple[Scope, Scope]:
    return (
        Scope(account_id=account_id),
        Scope(account_id=account_id, experiment_id=experiment_id),
    )


def _trades(
    arrived: Sequence[tuple[Outcome, AssignedUnit]], equities: Mapping[int, AccountEquity]
) -> dict[Scope, list[GuardTrade]]:
    """Return each guard's trades with the equity that their accounts had before each."""
    found: dict[Scope, list[GuardTrade]] = {}
    places: dict[int, tuple[list[GuardTrade], list[GuardTrade]]] = {}
    with localcontext(prec=_EXACT_DIGITS):
        funds = {key: equity.capital + equity.realised for key, equity in equities.items()}
        for outcome, unit in arrived:
            if outcome.no_trade or not unit.moves_money:
                continue
            both = places.get(unit.experiment_id)
            if both is None:
                ours, its = _scopes(unit.account_id, unit.experiment_id)
                both = found.setdefault(ours, []), found.setdefault(its, [])
                places[unit.experiment_id] = both
            before = funds[unit.account_id]
            trade = GuardTrade(outcome.pnl, before)
            both[0].append(trade)
            both[1].append(trade)
            funds[unit.account_id] = before + outcome.pnl
    return found


def _moved(
    records: Mapping[Scope, GuardRecord], trades: Mapping[Scope, list[GuardTrade]]
) -> dict[Scope, tuple[Guard, list[GuardChange]]]:
    """Fold each guard's trades; what an account has in common with its only experiment, once."""
    found: dict[Scope, tuple[Guard, list[GuardChange]]] = {}
    for scope, told in trades.items():
        guard = records[scope].guard
        twin = next((s for s in found if trades[s] == told and records[s].guard == guard), None)
        found[scope] = folded(guard, told) if twin is None else found[twin]
    return found


def _is_tighter(record: GuardRecord, state: GuardState) -> bool:
    return state.severity > record.guard.state.severity


def _missing(tighter: Sequence[Scope], held: Keys) -> Keys:
    """Return what keeps out who decides under these guards, and is not held.

    For an account that is its kill key: it keeps out every experiment, and those that open now.
    """
    account_ids = {s.account_id for s in tighter if s.experiment_id is None}
    experiment_ids = {s.experiment_id for s in tighter if s.experiment_id is not None}
    return Keys(
        account_ids=frozenset(account_ids) - held.account_ids,
        experiment_ids=frozenset(experiment_ids) - held.experiment_ids,
    )


def _entered(
    connection: Connection, record: GuardRecord, changes: Sequence[GuardChange], *, now: datetime
) -> tuple[GuardRecord, list[Alert]]:
    """Append the changes of a guard; return it with the id of the newest, and what to alert."""
    alerts = []
    for change in changes:
        change_id = _append(
            connection,
            record,
            change.before,
            change.after,
            reason=change.text,
            reasons=[reason.to_json() for reason in change.reasons],
            now=now,
            actor=ACTOR,
        )
        record = replace(record, change_id=change_id)
        alerts.append(
            Alert(
                kind=record.kind,
                name=record.name,
                before=change.before,
                after=change.after,
                reason=change.text,
            )
        )
    return record, alerts


def _append(
    connection: Connection,
    record: GuardRecord,
    before: GuardState,
    after: GuardState,
    *,
    reason: str,
    reasons: Sequence[object] = (),
    now: datetime,
    actor: str,
) -> int:
    change_id = guards.append_change(
        connection,
        record.id,
        before=before,
        after=after,
        now=now,
        actor=actor,
        reason=reason,
        reasons=reasons,
    )
    told = {"before": before.value, "after": after.value, "change": change_id, "reason": reason}
    audit.append(
        connection,
        now=now,
        actor=actor,
        action="performance_guard",
        subject=f"{record.kind} {record.name}",
        details=told | {"reasons": list(reasons)},
    )
    return change_id


def _scope_of(connection: Connection, experiment: str | None, account: str | None) -> Scope:
    assert (experiment is None) != (account is None)
    if account is not None:
        (found,) = accounts.all_of(connection, [account])
        return Scope(account_id=found.id)
    assert experiment is not None
    experiment_id, account_id = experiments.ids_of(connection, experiment)
    return Scope(account_id=account_id, experiment_id=experiment_id)
