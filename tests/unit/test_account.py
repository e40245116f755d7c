"""An account's equity worked out by hand: levels, limits at their edge, and who speaks when."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from bandit.core.account import (
    DRAWDOWN_HARD_LIMIT,
    AccountEquity,
    LossLimit,
    LossLimits,
    MoneyChange,
    is_news,
)
from bandit.core.errors import InvalidInput
from bandit.core.kill_switch import KillCause, KillEvent, KillKind

TODAY = date(2026, 3, 1)
TOMORROW = TODAY + timedelta(days=1)
CENT = Decimal("0.00000001")


def account(**limits: str) -> AccountEquity:
    """An account of 10,000."""
    chosen = LossLimits(**{name: Decimal(value) for name, value in limits.items()})
    return AccountEquity.opened(day=TODAY, limits=chosen).with_capital(Decimal(10_000), day=TODAY)


def earn(
    held: AccountEquity, *results: str | Decimal, day: date = TODAY
) -> tuple[AccountEquity, list[str]]:
    """The account after these results, and the limits that spoke."""
    spoken = []
    for result in results:
        held, breaches = held.after(MoneyChange(realised=Decimal(result)), day=day)
        spoken += [breach.limit.value for breach in breaches]
    return held, spoken


def mark(held: AccountEquity, moved: str) -> tuple[AccountEquity, list[str]]:
    held, breaches = held.after(MoneyChange(unrealised=Decimal(moved)), day=TODAY)
    return held, [breach.limit.value for breach in breaches]


def test_levels_by_hand() -> None:
    held, _ = earn(account(), "500", "-210")
    held, _ = mark(held, "-105")
    assert (held.equity, held.peak, held.day_start) == (10_185, 10_500, 10_000)
    assert held.drawdown_percent == 3.0
    assert held.daily_loss_percent == 0.0
    held, _ = earn(held, "-285")
    assert held.daily_loss_percent == 1.0


def test_new_day_begins_with_what_there_is_and_none_comes_back() -> None:
    held, _ = earn(account(), "-200")
    held, _ = earn(held, "-98", day=TOMORROW)
    assert (held.day, held.day_start, held.daily_loss_percent) == (TOMORROW, 9_800, 1.0)
    late, _ = earn(held, "-98", day=TODAY)
    assert (late.day, late.day_start, late.daily_loss_percent) == (TOMORROW, 9_800, 2.0)


def test_capital_is_neither_profit_nor_does_it_hide_a_loss() -> None:
    held, _ = earn(account(), "-200")
    grown = held.with_capital(Decimal(10_000), day=TODAY)
    assert (grown.equity, grown.peak, grown.day_start) == (19_800, 20_000, 20_000)
    assert grown.daily_loss_percent == 1.0
    # The day begins before the capital comes.
    later = held.with_capital(Decimal(10_000), day=TOMORROW)
    assert (later.day_start, later.daily_loss_percent, later.drawdown_percent) == (19_800, 0.0, 1.0)


@pytest.mark.parametrize(
    ("lost", "spoken"),
    [
        (Decimal(300) - CENT, []),
        (Decimal(300), []),
        (Decimal(300) + CENT, ["daily_loss"]),
        (Decimal(1000), ["daily_loss"]),
        (Decimal(1000) + CENT, ["daily_loss", "drawdown"]),
        (Decimal(1500), ["daily_loss", "drawdown"]),
        (Decimal(1500) + CENT, ["daily_loss", "drawdown", "hard_drawdown"]),
        (Decimal(20_000), ["daily_loss", "drawdown", "hard_drawdown"]),
    ],
)
def test_limit_speaks_above_and_not_at_it(lost: Decimal, spoken: list[str]) -> None:
    assert earn(account(), -lost)[1] == spoken
    assert earn(account(), -lost)[0].limits == LossLimits()


def test_hundred_millionths_are_told_apart_where_percentages_are_equal() -> None:
    held = account().with_capital(Decimal(10) ** 15 - 10_000, day=TODAY)
    limit = Decimal(10) ** 15 * 3 / 100
    assert earn(held, -limit)[1] == []
    over, spoken = earn(held, -limit - CENT)
    assert spoken == ["daily_loss"]
    assert over.daily_loss_percent == 3.0
    assert [reason.verdict.value for reason in over.reasons()] == ["FAIL", "PASS", "PASS"]


def test_unrealised_loss_speaks_as_a_realised_one_does() -> None:
    held, spoken = mark(account(), "-300")
    assert spoken == []
    held, spoken = mark(held, "-0.01")
    assert spoken == ["daily_loss"]
    # Closed at its mark, nothing has happened.
    change = MoneyChange(realised=Decimal("-300.01"), unrealised=Decimal("300.01"))
    assert held.after(change, day=TODAY)[1] == ()


def test_no_setting_allows_more_than_the_hard_limit() -> None:
    assert LossLimits(drawdown=DRAWDOWN_HARD_LIMIT).drawdown == Decimal("0.15")
    for name, value in (("drawdown", "0.1500001"), ("drawdown", "0"), ("daily_loss", "1.1")):
        with pytest.raises(InvalidInput, match=f"^{name}: must be above 0 and at most"):
            LossLimits(**{name: Decimal(value)})


# Which evidence is new


def test_broken_limit_speaks_again_at_a_new_low_only() -> None:
    held, spoken = earn(account(), "-400")
    assert spoken == ["daily_loss"]
    held, spoken = earn(held, "50", "-50", "20", "-19")
    assert spoken == []
    held, spoken = earn(held, "-2")
    assert spoken == ["daily_loss"]


def test_limit_that_held_again_speaks_when_it_is_crossed_again() -> None:
    held, spoken = earn(account(), "-400", "100")
    assert spoken == ["daily_loss"]
    assert held.lows == {}
    # 9,690 is above the low of 9,600: the crossing is what counts.
    assert earn(held, "-10")[1] == ["daily_loss"]


def test_each_day_has_its_own_loss_and_the_drawdown_goes_on() -> None:
    held, spoken = earn(account(), "-1100")
    assert spoken == ["daily_loss", "drawdown"]
    # 8,900 begin the day: 267 are its 3 %, and every loss is a new low under the peak.
    held, spoken = earn(held, "-267", day=TOMORROW)
    assert spoken == ["drawdown"]
    assert earn(held, "-0.01", day=TOMORROW)[1] == ["daily_loss", "drawdown"]


def test_low_moves_with_capital() -> None:
    held, _ = earn(account(), "-400")
    grown = held.with_capital(Decimal(1_000), day=TODAY)
    assert grown.lows == {LossLimit.DAILY_LOSS: 10_600}
    assert earn(grown, "-1")[1] == ["daily_loss"]
    assert earn(grown, "1")[1] == []


def event(cause: KillCause, kind: KillKind = KillKind.KILL) -> KillEvent:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    return KillEvent(kind=kind, cause=cause, at=noon, actor="x", reason="y")


@pytest.mark.parametrize(
    ("limit", "newest", "day", "expected"),
    [
        (LossLimit.DAILY_LOSS, None, TODAY, True),
        (LossLimit.DRAWDOWN, event(KillCause.HAND, KillKind.RELEASE), TODAY, True),
        (LossLimit.DAILY_LOSS, event(KillCause.DAILY_LOSS), TODAY, False),
        # The end of the first day must not release the second day's loss.
        (LossLimit.DAILY_LOSS, event(KillCause.DAILY_LOSS), TOMORROW, True),
        # Nor may a cause that ends by itself hide one that does not.
        (LossLimit.DAILY_LOSS, event(KillCause.HAND), TOMORROW, False),
        (LossLimit.DAILY_LOSS, event(KillCause.DRAWDOWN), TOMORROW, False),
        (LossLimit.DRAWDOWN, event(KillCause.DAILY_LOSS), TODAY, True),
        (LossLimit.DRAWDOWN, event(KillCause.HAND), TODAY, True),
        (LossLimit.DRAWDOWN, event(KillCause.DRAWDOWN), TOMORROW, False),
        (LossLimit.HARD_DRAWDOWN, event(KillCause.DRAWDOWN), TODAY, False),
    ],
)
def test_killed_account_gets_another_event_only_for_a_graver_cause(
    limit: LossLimit, newest: KillEvent | None, day: date, expected: bool
) -> None:
    assert is_news(limit, newest, day=day) is expected
