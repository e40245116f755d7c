"""An arm's statistics are a function of the set of its outcomes, whatever way they came in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from ledger import CHALLENGER, NOON, open_btc
from sqlalchemy import Engine, text

from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import Outcome, declined, trade
from bandit.core.tally import CHECKPOINT_EVERY
from bandit.service import recording
from bandit.service.assigning import Router
from bandit.service.ledger import ledger_digest
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage import experiments, outcomes

SEED = 20261120
COUNT = 720
LATER = NOON + timedelta(days=30)
FRACTION = 0.1
INSTRUMENTS = ["BTCUSD", "ETHUSD", "SOLUSD"]


def random_outcomes(rng: np.random.Generator, made: Sequence[Assignment]) -> list[Outcome]:
    """Wins, losses, draws and declined decisions over five days; some expired, many in ties."""
    found = []
    for assignment in made:
        if rng.random() < 0.1:
            found.append(declined(assignment.id))
            continue
        size = int(rng.choice([10**6, 10**9, 10**12, 10**14]))
        result = Decimal(int(rng.integers(-size, size + 1))).scaleb(-12)
        opened = NOON + timedelta(seconds=int(rng.choice([0, 3600], p=[0.8, 0.2])))
        found.append(
            trade(
                assignment.id,
                pnl=Decimal(0 if not result else int(rng.integers(1, 10**15))).scaleb(-8)
                * (1 if result > 0 else -1),
                return_ratio=result,
                opened_at=opened,
                closed_at=NOON + timedelta(hours=2, minutes=15 * int(rng.integers(COUNT // 2))),
                fees=Decimal(int(rng.integers(0, 10**9))).scaleb(-8),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """An experiment with assigned units, whose outcomes can be taken back."""

    engine: Engine
    assignments: list[Assignment]
    outcomes: list[Outcome]

    def forget_outcomes(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("DELETE FROM outcomes"))
            connection.execute(text("DELETE FROM equity_checkpoints"))
            connection.execute(text("DELETE FROM arm_days"))
            connection.execute(text("DELETE FROM arm_statistics"))
            connection.execute(text("INSERT INTO arm_statistics SELECT * FROM empty_statistics"))

    def record(self, batches: Sequence[Sequence[Outcome]]) -> None:
        for batch in batches:
            for answer in recording.record(self.engine, batch, now=LATER):
                assert isinstance(answer, Recorded), answer

    def rows(self, table: str) -> list[str]:
        statement = text(f"SELECT t::text FROM {table} t ORDER BY t::text")
        with self.engine.connect() as connection:
            return list(connection.execute(statement).scalars())


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Ledger]:
    open_btc(engine, equity_fraction=FRACTION)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE empty_statistics AS SELECT * FROM arm_statistics"))
    units = [
        Opportunity(unit_id=UnitId(f"unit-{i:04}"), instrument=INSTRUMENTS[i % 3])
        for i in range(COUNT)
    ]
    made = Router(engine).assign("btc", units, now=NOON)
    rng = np.random.default_rng(SEED)
    return Ledger(engine=engine, assignments=made, outcomes=random_outcomes(rng, made))


def in_batches(
    rng: np.random.Generator, outcomes: Sequence[Outcome], *, largest: int
) -> list[list[Outcome]]:
    batches, start = [], 0
    while start < len(outcomes):
        stop = start + int(rng.integers(1, largest + 1))
        batches.append(list(outcomes[start:stop]))
        start = stop
    return batches


def shuffled(rng: np.random.Generator, outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcomes[i] for i in rng.permutation(len(outcomes))]


def with_duplicates(
    rng: np.random.Generator, batches: Sequence[Sequence[Outcome]]
) -> list[list[Outcome]]:
    """Every batch also brings again some of what it or earlier ones held."""
    said: list[Outcome] = []
    found = []
    for batch in batches:
        said += batch
        again = [said[int(i)] for i in rng.integers(len(said), size=len(batch) // 3)]
        found.append(shuffled(rng, [*batch, *again]))
    return found


def test_every_order_split_and_repetition_gives_the_same_bytes(ledger: Ledger) -> None:
    rng = np.random.default_rng(SEED + 1)
    by_closing = sorted(ledger.outcomes, key=lambda o: o.closed_at or NOON)
    ways = {
        "in closing order": in_batches(rng, by_closing, largest=100),
        "at once": [by_closing],
        "newest first": in_batches(rng, by_closing[::-1], largest=60),
        "one by one, then at once": [*([o] for o in by_closing[:40]), by_closing[40:]],
        "shuffled": in_batches(rng, shuffled(rng, by_closing), largest=60),
        "shuffled otherwise": in_batches(rng, shuffled(rng, by_closing), largest=300),
        "all but the first, then the first": [by_closing[1:], by_closing[:1]],
        "repeated": with_duplicates(rng, in_batches(rng, shuffled(rng, by_closing), largest=90)),
        "twice": [by_closing, by_closing],
    }
    found = {}
    for way, batches in ways.items():
        ledger.record(batches)
        found[way] = (
            ledger.rows("arm_statistics"),
            ledger.rows("equity_checkpoints"),
            ledger.rows("arm_days"),
            ledger_digest(ledger.engine),
        )
        ledger.forget_outcomes()
    # The champion's history is long enough for checkpoints, and they are the same too.
    assert len(found["at once"][1]) >= 2
    for way, rows in found.items():
        assert rows == found["at once"], way


def naive_drawdown(results: Sequence[float]) -> float:
    equity = peak = 1.0
    deepest = 0.0
    for result in results:
        equity += FRACTION * result
        peak = max(peak, equity)
        deepest = max(deepest, 100 * (peak - equity) / peak)
    return deepest


def naive_factor(results: Sequence[Decimal]) -> float | None:
    gain = sum((Fraction(r) for r in results if r > 0), Fraction(0))
    loss = -sum((Fraction(r) for r in results if r < 0), Fraction(0))
    return float(gain / loss) if loss else None


def longest_run(signs: Sequence[bool]) -> int:
    return max((len(run) for run in "".join("x" if s else " " for s in signs).split()), default=0)


def test_statistics_equal_a_recomputation_from_the_outcomes(ledger: Ledger) -> None:
    rng = np.random.default_rng(SEED + 2)
    ledger.record(in_batches(rng, shuffled(rng, ledger.outcomes), largest=80))
    by_id = {o.assignment_id: o for o in ledger.outcomes}
    statement = text(
        "SELECT s.*, p.name FROM arm_statistics s JOIN arms a ON a.id = s.arm_id"
        " JOIN policies p ON p.id = a.policy_id"
    )
    with ledger.engine.connect() as connection:
        arms = connection.execute(statement).all()
    assert len(arms) == 2
    for arm in arms:
        mine = [(by_id[a.id], a) for a in ledger.assignments if a.policy == arm.name]
        trades = sorted(
            ((o, a) for o, a in mine if not o.no_trade),
            key=lambda pair: (pair[0].closed_at, pair[1].unit_id),
        )
        returns = [o.return_ratio for o, _ in trades]
        money = [o.pnl for o, _ in trades]
        results = [float(r) for r in returns]
        assert (arm.n_outcomes, arm.n_trades) == (len(mine), len(trades))
        assert arm.n_wins == sum(r > 0 for r in returns)
        assert arm.n_losses == sum(r < 0 for r in returns)
        assert arm.n_expired == sum(
            o.opened_at is not None and o.opened_at > a.expires_at for o, a in mine
        )
        assert arm.n_unclaimed == len(trades)
        assert Fraction(arm.gross_profit) == sum(Fraction(m) for m in money if m > 0)
        assert Fraction(arm.gross_loss) == -sum(Fraction(m) for m in money if m < 0)
        assert Fraction(arm.fees) == sum(Fraction(o.fees or 0) for o, _ in mine)
        assert Fraction(arm.return_gain) == sum(Fraction(r) for r in returns if r > 0)
        assert Fraction(arm.return_loss) == -sum(Fraction(r) for r in returns if r < 0)
        assert Fraction(arm.return_squares) == sum(Fraction(r) ** 2 for r in returns)
        assert arm.pf_short == pytest.approx(naive_factor(returns[-30:]), rel=1e-14)
        assert arm.pf_long == pytest.approx(naive_factor(returns[-150:]), rel=1e-14)
        assert arm.dd_short_percent == pytest.approx(naive_drawdown(results[-30:]), rel=1e-9)
        assert arm.dd_long_percent == pytest.approx(naive_drawdown(results[-150:]), rel=1e-9)
        assert arm.drawdown_max == pytest.approx(naive_drawdown(results), rel=1e-9)
        assert arm.equity == pytest.approx(1 + FRACTION * sum(results), rel=1e-9)
        assert arm.losing_streak_max == longest_run([r < 0 for r in results])
        assert arm.winning_streak_max == longest_run([r > 0 for r in results])
        newest = trades[-1]
        assert (arm.last_closed_at, arm.last_unit_id) == (newest[0].closed_at, newest[1].unit_id)
        assert arm.window_from == trades[-min(150, len(trades))][0].closed_at
    assert max(arm.n_trades for arm in arms) > 2 * CHECKPOINT_EVERY


LATER_WINDOW = NOON + timedelta(days=2, hours=7)


def test_days_and_the_champions_window_equal_a_recomputation(ledger: Ledger) -> None:
    rng = np.random.default_rng(SEED + 3)
    made = {a.id: a for a in ledger.assignments}
    # The challenger traded two of the three instruments.
    kept = [o for o in ledger.outcomes if not is_eth_of_challenger(made[o.assignment_id])]
    ledger.record(in_batches(rng, shuffled(rng, kept), largest=70))
    trades = [(o, made[o.assignment_id]) for o in kept if not o.no_trade]
    mine = [o.closed_at for o, a in trades if a.policy == CHALLENGER]
    assert 30 < len(mine) <= 150
    check_champion(ledger.engine, trades, min(mine))
    move_window(ledger.engine, LATER_WINDOW)
    check_champion(ledger.engine, trades, LATER_WINDOW)
    with ledger.engine.connect() as connection:
        statement = text("SELECT date, policy, trades, wins, pnl, fees FROM performance_metrics")
        days = {tuple(row)[:2]: tuple(row)[2:] for row in connection.execute(statement)}
    assert len(days) >= 8
    for (day, policy), (n, wins, pnl, fees) in days.items():
        of_day = [o for o, a in trades if a.policy == policy and o.closed_at.date() == day]
        assert (n, wins) == (len(of_day), sum(o.return_ratio > 0 for o in of_day))
        assert Fraction(pnl) == sum(Fraction(o.pnl) for o in of_day)
        assert Fraction(fees) == sum(Fraction(o.fees or 0) for o in of_day)


def is_eth_of_challenger(assignment: Assignment) -> bool:
    return assignment.policy == CHALLENGER and assignment.instrument == "ETHUSD"


def check_champion(
    engine: Engine, trades: Sequence[tuple[Outcome, Assignment]], window_from: datetime
) -> None:
    expected = [
        o.return_ratio
        for o, a in trades
        if a.policy == "prod" and a.instrument != "ETHUSD" and o.closed_at >= window_from
    ]
    with engine.connect() as connection:
        arm = experiments.load(connection, "btc").arm_of(CHALLENGER)
        found = outcomes.champion_over_windows(connection, [arm.id])[arm.id]
    assert (found.n, found.n_losses) == (len(expected), sum(r < 0 for r in expected))
    assert found.value == pytest.approx(naive_factor(expected), rel=1e-14)


def move_window(engine: Engine, moment: datetime) -> None:
    statement = text(
        "UPDATE arm_statistics SET window_from = :moment WHERE arm_id IN ("
        "SELECT a.id FROM arms a JOIN policies p ON p.id = a.policy_id WHERE p.name = :name)"
    )
    with engine.begin() as connection:
        connection.execute(statement, {"moment": moment, "name": CHALLENGER})
