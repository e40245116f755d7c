"""Keep an arm's statistics in step with its outcomes, in the transaction that writes those."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from bandit.core.outcomes import Outcome
from bandit.core.performance import ClosedTrade, in_closing_order, window_numbers
from bandit.core.tally import Fold, Sums, by_day, folded, is_checkpoint
from bandit.storage import bases, outcomes, statistics
from bandit.storage.outcomes import OutcomeRow
from bandit.storage.statistics import ArmStatistics, ArmTerms, ArmWindows, CountedArm


def count(connection: Connection, created: Iterable[OutcomeRow]) -> None:
    """Count outcomes that were just stored; their arms are locked in ascending order."""
    by_arm: dict[int, list[OutcomeRow]] = {}
    for row in created:
        by_arm.setdefault(row.arm_id, []).append(row)
    for arm_id, arm in statistics.locked(connection, by_arm).items():
        rows = by_arm[arm_id]
        _add_days(connection, arm_id, rows)
        trades = _trades(rows)
        _write(
            connection,
            arm,
            sums=arm.statistics.sums.plus_all((row.outcome, row.flags) for row in rows),
            fold=_continued(connection, arm, trades),
        )


def recount(
    connection: Connection, arm: CountedArm, *, before: OutcomeRow, after: OutcomeRow
) -> None:
    """Count a revised outcome as `after` instead of `before`; its arm must be locked."""
    arm_id, kept = arm.terms.arm_id, arm.statistics
    # The new one first: a day that loses its only trade and gets it back never has none.
    _add_days(connection, arm_id, [after])
    for (day, instrument), of_day in by_day(_by_instrument([before])).items():
        statistics.take_from_day(connection, arm_id, day, instrument, of_day)
    sums = kept.sums.minus(before.outcome, before.flags)
    sums = sums.plus(after.outcome, after.flags)
    fold, gone = kept.fold, _trades([before])
    if gone:
        first = min((trade.closed_at, trade.unit) for trade in (*gone, *_trades([after])))
        fold = _refolded(connection, arm, first)
    else:
        fold = _continued(connection, arm, _trades([after]))
    _write(connection, arm, sums=sums, fold=fold)


def windows_of(terms: ArmTerms, newest: Sequence[ClosedTrade]) -> ArmWindows:
    """Return the windows over an arm's newest trades, which must be as many as the long one."""
    fraction, (short, long) = terms.equity_fraction, terms.windows
    return ArmWindows(
        short=window_numbers(newest, window=short, nominal_fraction=fraction),
        long=window_numbers(newest, window=long, nominal_fraction=fraction),
        since=newest[0].closed_at if newest else None,
    )


def _write(connection: Connection, arm: CountedArm, *, sums: Sums, fold: Fold) -> None:
    arm_id = arm.terms.arm_id
    newest = outcomes.newest_trades(connection, arm_id, max(arm.terms.windows))
    statistics.write(
        connection,
        ArmStatistics(arm_id=arm_id, sums=sums, fold=fold),
        windows_of(arm.terms, newest),
    )


def _continued(connection: Connection, arm: CountedArm, new: Sequence[ClosedTrade]) -> Fold:
    """Fold on where the history ends, or take it up again before the earliest late trade."""
    start = arm.statistics.fold
    if not new:
        return start
    if start.continues_with(new):
        return _kept(connection, arm, start, new)
    return _refolded(connection, arm, (new[0].closed_at, new[0].unit))


def _refolded(connection: Connection, arm: CountedArm, place: tuple[datetime, str]) -> Fold:
    """Fold again from the newest checkpoint before `place`, or from the arm's base, to the end."""
    arm_id = arm.terms.arm_id
    start = statistics.checkpoint_before(connection, arm_id, place)
    if start is None:
        start = bases.of_arm(connection, arm_id).fold
    return _kept(connection, arm, start, outcomes.trades_after(connection, arm_id, start.last))


def _kept(
    connection: Connection, arm: CountedArm, start: Fold, trades: Iterable[ClosedTrade]
) -> Fold:
    state, passed = start, []
    for state in folded(start, trades, equity_fraction=arm.terms.equity_fraction):
        if is_checkpoint(state):
            passed.append(state)
    statistics.add_checkpoints(connection, arm.terms.arm_id, passed)
    return state


def _trades(rows: Iterable[OutcomeRow]) -> list[ClosedTrade]:
    return in_closing_order(trade for row in rows if (trade := row.trade) is not None)


def _add_days(connection: Connection, arm_id: int, rows: Iterable[OutcomeRow]) -> None:
    days = by_day(_by_instrument(rows))
    if days:
        statistics.add_days(connection, arm_id, days)


def _by_instrument(rows: Iterable[OutcomeRow]) -> list[tuple[Outcome, str]]:
    return [(row.outcome, row.instrument) for row in rows if not row.outcome.no_trade]
