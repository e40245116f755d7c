"""A daily-loss limit on the trades of a real bot: it kills exactly where a plain account says.

Trades that were open when the account was killed close and count; those that would have opened
while it was are refused. A kill for the day's loss ends with the UTC day.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from ledger import open_btc, record_all
from sqlalchemy import Engine

from bandit.core.account import LossLimits
from bandit.core.errors import Killed
from bandit.core.guard_rule import GuardRule
from bandit.core.kill_switch import DailyLossRelease
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import trade
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import accounts, killing
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity

TRADES = Path(__file__).resolve().parents[2].parent / "shared/data/freqtrade/trades.csv.gz"
LIMIT = Decimal("0.02")
CAPITAL = Decimal(10_000)
# The bot staked 1 % of its account in each; so that a bad day loses 2 %, as if it were a fifth.
STAKES = Decimal(20)

pytestmark = pytest.mark.skipif(
    not TRADES.is_file(), reason="the development data (../shared/data) is not beside this checkout"
)


class Trade(NamedTuple):
    number: int
    opened_at: datetime
    closed_at: datetime
    pnl: Decimal


def trades_of(arm: str, most: int) -> list[Trade]:
    with gzip.open(TRADES, "rt", newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["arm"], r["fee"]) == (arm, "0.0")]
    return [
        Trade(
            number=i,
            opened_at=datetime.fromtimestamp(int(row["open_ms"]) // 1000, UTC),
            closed_at=datetime.fromtimestamp(int(row["close_ms"]) // 1000, UTC),
            pnl=STAKES * Decimal(row["profit_abs"]).quantize(Decimal("1e-8")),
        )
        for i, row in enumerate(rows[:most])
    ]


def events_of(trades: list[Trade]) -> Iterator[tuple[datetime, bool, Trade]]:
    """Every opening and closing in order; of one moment, closings of what is open first."""
    opened = [(t.opened_at, 1, t) for t in trades]
    closed = [(t.closed_at, 0 if t.opened_at < t.closed_at else 2, t) for t in trades]
    for moment, turn, found in sorted(opened + closed, key=lambda e: (e[0], e[1], e[2].number)):
        yield moment, turn == 1, found


@dataclass
class PlainAccount:
    """An account with a daily-loss limit, as one writes it down without a thought for speed."""

    equity: Decimal = CAPITAL
    peak: Decimal = CAPITAL
    day: date = date.min
    day_start: Decimal = CAPITAL
    is_killed: bool = False

    def on(self, moment: datetime) -> None:
        if moment.date() > self.day:
            self.day, self.day_start, self.is_killed = moment.date(), self.equity, False

    def closes(self, pnl: Decimal) -> bool:
        """Whether this trade kills."""
        self.equity += pnl
        self.peak = max(self.peak, self.equity)
        assert self.equity > Decimal("0.85") * self.peak, "no other limit speaks in this drill"
        is_over = self.equity < self.day_start - LIMIT * self.day_start
        kills = is_over and not self.is_killed
        self.is_killed |= is_over
        return kills


def expected(trades: list[Trade]) -> tuple[list[int], list[int]]:
    """Numbers of the trades that kill, and of those that are refused."""
    account, kills, refused = PlainAccount(), list[int](), list[int]()
    for moment, is_opening, trade_ in events_of(trades):
        account.on(moment)
        if is_opening and account.is_killed:
            refused.append(trade_.number)
        elif not is_opening and trade_.number not in refused and account.closes(trade_.pnl):
            kills.append(trade_.number)
    return kills, refused


def lived(engine: Engine, trades: list[Trade]) -> tuple[list[int], list[int]]:
    """The same by the ledger."""
    first = trades[0].opened_at
    # Rules that stop arms for other reasons stay out of it.
    rules = Rules(checklist=ChecklistRule().silenced, guard=GuardRule(enabled=False))
    limits = LossLimits(daily_loss=LIMIT, drawdown=Decimal("0.15"))
    open_btc(engine, challengers=(), loss_limits=limits, rules=rules, now=first)
    router, made = Router(engine), dict[int, Assignment]()
    kills, refused = list[int](), list[int]()
    rule, is_killed = DailyLossRelease.NEXT_DAY, False
    for moment, is_opening, trade_ in events_of(trades):
        if is_killed:
            killing.release_due(engine, rule=rule, now=moment)
        if is_opening:
            unit = Opportunity(unit_id=UnitId(f"t{trade_.number}"), instrument="BTCUSD")
            try:
                [made[trade_.number]] = router.assign("btc", [unit], now=moment)
            except Killed:
                refused.append(trade_.number)
        elif trade_.number in made:
            outcome = trade(
                made[trade_.number].id,
                pnl=trade_.pnl,
                return_ratio=trade_.pnl / CAPITAL,
                opened_at=trade_.opened_at,
                closed_at=trade_.closed_at,
            )
            record_all(engine, [outcome], now=moment)
        before = is_killed
        [account] = accounts.listed(engine, now=moment)
        is_killed = account.record.is_killed
        if is_killed and not before:
            kills.append(trade_.number)
    return kills, refused


@pytest.mark.parametrize(
    ("arm", "most"),
    [
        ("ArmCoin", 150),
        ("ArmTrendEma", 150),
        pytest.param("ArmTrendEma", 3_000, marks=pytest.mark.slow),
    ],
)
def test_the_limit_kills_where_a_plain_account_says_and_nowhere_else(
    engine: Engine, arm: str, most: int
) -> None:
    trades = trades_of(arm, most)
    kills, refused = expected(trades)
    assert kills, "a drill in which nothing happens shows nothing"
    assert refused
    assert lived(engine, trades) == (kills, refused)
