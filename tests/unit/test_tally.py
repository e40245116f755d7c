"""Sums of a set of outcomes, and the fold of it in closing order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from bandit.core.outcomes import Flags, Outcome, declined, trade
from bandit.core.performance import ClosedTrade
from bandit.core.profit_factor import ProfitFactorState
from bandit.core.tally import CHECKPOINT_EVERY, Fold, Sums, folded, is_checkpoint

START = datetime(2026, 3, 1, tzinfo=UTC)


def outcome(result: str, pnl: str, *, fees: str | None = None) -> Outcome:
    return trade(
        UUID(int=1),
        pnl=Decimal(pnl),
        return_ratio=Decimal(result),
        opened_at=START,
        closed_at=START,
        fees=None if fees is None else Decimal(fees),
    )


def closed(minute: int, result: float, unit: str = "u") -> ClosedTrade:
    return ClosedTrade(closed_at=START + timedelta(minutes=minute), unit=unit, result=result)


def total(*outcomes: Outcome) -> Sums:
    sums = Sums()
    for one in outcomes:
        sums = sums.plus(one, Flags())
    return sums


def test_sums_of_two_wins_a_loss_a_draw_and_a_declined_decision() -> None:
    sums = total(
        outcome("0.2", "20.5", fees="0.25"),
        outcome("-0.1", "-10", fees="0.25"),
        outcome("0.1", "0.00000001"),
        outcome("0", "0"),
    ).plus(declined(UUID(int=1)), Flags(expired=True, unclaimed=True))
    assert (sums.n_outcomes, sums.n_trades, sums.n_wins, sums.n_losses) == (5, 4, 2, 1)
    assert (sums.n_expired, sums.n_unclaimed) == (1, 1)
    assert (sums.gross_profit, sums.gross_loss) == (Decimal("20.50000001"), 10)
    assert (sums.pnl, sums.fees) == (Decimal("10.50000001"), Decimal("0.5"))
    assert (sums.return_gain, sums.return_loss) == (Decimal("0.3"), Decimal("0.1"))
    assert sums.return_squares == Decimal("0.06")
    assert sums.profit_factor.value == pytest.approx(3.0, rel=1e-15)


def test_no_trade_is_no_trade() -> None:
    assert total(declined(UUID(int=1))).profit_factor.state is ProfitFactorState.NO_TRADES


def test_sums_are_exact_for_the_largest_and_smallest_numbers_together() -> None:
    large = outcome("999.999999999999", "9999999999999999.99999999")
    small = outcome("0.000000000001", "0.00000001")
    sums = total(large, small, large)
    assert sums.gross_profit == Decimal("19999999999999999.99999999")
    # (10^3 - 10^-12)^2 = 10^6 - 2 * 10^-9 + 10^-24, twice, and 10^-24 once.
    assert sums.return_squares == Decimal("1999999.999999996000000000000003")
    assert sums == total(small, large, large)


def test_fold_counts_equity_drawdown_and_streaks_at_nominal_size() -> None:
    trades = [closed(1, 0.5), closed(2, -0.5), closed(3, -0.25), closed(4, 0.0)]
    # Equity in steps of a tenth: 1.05, 1.00, 0.975, 0.975.
    *_, last = folded(Fold(), trades, equity_fraction=0.1)
    assert last.n == 4
    assert last.equity.equity == pytest.approx(0.975, rel=1e-15)
    assert last.equity.high_water_mark == 1.05
    assert last.equity.drawdown_max_percent == pytest.approx(100 * 0.075 / 1.05, rel=1e-14)
    assert (last.streaks.longest_losing, last.streaks.current_losing) == (2, 0)
    assert (last.streaks.longest_winning, last.streaks.current_winning) == (1, 0)
    assert last.last == (START + timedelta(minutes=4), "u")


def test_fold_goes_on_where_it_was_left() -> None:
    trades = [closed(minute, 0.1 if minute % 3 else -0.2) for minute in range(20)]
    *_, whole = folded(Fold(), trades, equity_fraction=0.3)
    *_, half = folded(Fold(), trades[:11], equity_fraction=0.3)
    *_, rest = folded(half, trades[11:], equity_fraction=0.3)
    assert rest == whole


def test_later_trades_continue_and_earlier_ones_do_not() -> None:
    *_, fold = folded(Fold(), [closed(5, 0.1, unit="m")], equity_fraction=0.1)
    assert Fold().continues_with([closed(0, 0.1)])
    assert fold.continues_with([closed(6, 0.1), closed(5, 0.1, unit="n")])
    assert not fold.continues_with([closed(6, 0.1), closed(5, 0.1, unit="l")])
    assert not fold.continues_with([closed(5, 0.1, unit="m")])


def test_fold_refuses_to_run_backwards() -> None:
    with pytest.raises(AssertionError):
        list(folded(Fold(), [closed(2, 0.1), closed(1, 0.1)], equity_fraction=0.1))


def test_a_checkpoint_comes_with_every_256th_trade() -> None:
    folds = folded(Fold(), [closed(m, 0.0) for m in range(600)], equity_fraction=0.1)
    assert [fold.n for fold in folds if is_checkpoint(fold)] == [256, 512]
    assert CHECKPOINT_EVERY == 256
