"""Guards in the transaction that reveals a breach: loss limits kill, the checklist stops arms.

What a breach asks for is done behind keys: `revealing` says how a batch comes by them. The
performance guard reads the same outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine

from bandit.core import checklist
from bandit.core.account import AccountEquity, Breach, MoneyChange, folded, is_news
from bandit.core.kill_switch import KillEvent, KillKind
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import PolicyName, checked_instant
from bandit.core.outcomes import Outcome
from bandit.service import killing, scaling
from bandit.service.performance_guarding import Alert, guard_trades
from bandit.service.revealing import Keys, Revealed, guarded
from bandit.storage import account_equity, accounts, experiments, marks
from bandit.storage.assignments import AssignedUnit
from bandit.storage.experiments import WatchedArm

CHECKLIST_ACTOR = "rule:checklist"
LOSS_LIMIT_ACTOR = "rule:loss_limit"


def guard_outcomes(
    connection: Connection,
    arrived: Sequence[tuple[Outcome, AssignedUnit]],
    *,
    held: Keys,
    now: datetime,
) -> list[Alert]:
    """Hold arms and accounts against their limits, once the statistics of new outcomes are written.

    `arrived` are the outcomes in the order they came, each with its decision. Their positions are
    closed: what they were marked at leaves the unrealised money as the realised comes in. Raises
    `Revealed` when what is found needs keys that are not held. Returns whom to alert of what.
    """
    arms = {unit.arm_id: unit.experiment_id for _, unit in arrived}
    _stop_arms(connection, arms, held=held, now=now)
    equities = account_equity.locked(connection, list({unit.account_id for _, unit in arrived}))
    # Read behind the accounts' locks: marks are written behind them too.
    marked = marks.of_assignments(connection, [outcome.assignment_id for outcome, _ in arrived])
    changes: dict[int, list[MoneyChange]] = {}
    for outcome, unit in arrived:
        if not unit.moves_money:
            continue
        mark = marked.get(outcome.assignment_id) if marked else None
        unrealised = Decimal(0) if mark is None else -mark.newest.unrealised_pnl
        change = MoneyChange(realised=outcome.pnl, unrealised=unrealised)
        changes.setdefault(unit.account_id, []).append(change)
    alerts = guard_trades(connection, arrived, equities, held=held, now=now)
    move_money(connection, equities, changes, held=held, now=now)
    return alerts


def guard_revision(
    connection: Connection,
    unit: AssignedUnit,
    earned: Decimal,
    *,
    held: Keys,
    now: datetime,
) -> None:
    """Do the same for a revised outcome that `earned` so much more, or less, than was told."""
    _stop_arms(connection, {unit.arm_id: unit.experiment_id}, held=held, now=now)
    if unit.moves_money and earned:
        equities = account_equity.locked(connection, [unit.account_id])
        change = MoneyChange(realised=earned, unrealised=Decimal(0))
        move_money(connection, equities, {unit.account_id: [change]}, held=held, now=now)


def recheck(
    engine: Engine, arm_ids: Mapping[int, int], *, now: datetime
) -> list[tuple[PolicyName, ArmVerb]]:
    """Hold arms, given with their experiments, against the checklist although nothing came in.

    Its actions were taken with the outcomes; this finds what a guard that failed has left. Returns
    what was done, and to whom.
    """
    now = checked_instant(now, field="now")
    return guarded(
        engine, lambda connection, held: _stop_arms(connection, arm_ids, held=held, now=now)
    )


def _stop_arms(
    connection: Connection, arm_ids: Mapping[int, int], *, held: Keys, now: datetime
) -> list[tuple[PolicyName, ArmVerb]]:
    """Throttle and halt what the checklist flags among these arms, given with experiments."""
    done = []
    flagged = [
        arm for arm in experiments.watched(connection, list(arm_ids)) if _may_be_flagged(arm)
    ]
    for watched in flagged:
        record = experiments.load(connection, watched.experiment)
        arm = next(arm for arm in record.arms if arm.id == watched.id)
        [reading] = scaling.read_arms(connection, record, [arm])
        row = checklist.action_of(reading, watched.rule)
        if row is None:
            continue
        if watched.experiment_id not in held.experiment_ids:
            raise Revealed(Keys(experiment_ids=frozenset(arm_ids.values())))
        scaling.act(
            connection,
            watched.experiment,
            reading,
            row,
            inputs=scaling.inputs_of([reading]),
            now=now,
            actor=CHECKLIST_ACTOR,
        )
        done.append((reading.place.policy, row.action))
    return done


def _may_be_flagged(arm: WatchedArm) -> bool:
    """Say whether the arm is worth reading in full; mostly its stored numbers say no."""
    rows = checklist.judged(
        arm.pf_short,
        arm.pf_short_state,
        n=arm.n_trades,
        drawdown_percent=arm.dd_long_percent,
        rule=arm.rule,
    )
    return arm.began_anew or any(row.flagged for row in rows)


def move_money(
    connection: Connection,
    equities: Mapping[int, AccountEquity],
    changes: Mapping[int, Sequence[MoneyChange]],
    *,
    held: Keys,
    now: datetime,
) -> None:
    """Fold each account's changes in the order they arrived, and kill whom they show too far down.

    `equities` are the accounts as they were locked. Raises `Revealed` without the kill keys.
    """
    day = now.astimezone(UTC).date()
    for account_id in sorted(changes):
        state, breaches = folded(equities[account_id], changes[account_id], day=day)
        account_equity.write(connection, account_id, state)
        if breaches:
            missing = Keys(account_ids=frozenset(changes) - held.account_ids)
            _kill(connection, account_id, breaches, missing=missing, now=now)


def _kill(
    connection: Connection,
    account_id: int,
    breaches: Sequence[Breach],
    *,
    missing: Keys,
    now: datetime,
) -> None:
    account = accounts.by_id(connection, account_id)
    for breach in breaches:
        if not is_news(breach.limit, account.newest, day=now.astimezone(UTC).date()):
            continue
        if missing.account_ids:
            raise Revealed(missing)
        event = KillEvent(
            kind=KillKind.KILL,
            cause=breach.limit.cause,
            at=now,
            actor=LOSS_LIMIT_ACTOR,
            reason=breach.text,
        )
        killing.append(
            connection, account, event, reasons=[reason.to_json() for reason in breach.reasons]
        )
        account = replace(account, newest=event, is_killed=True)
