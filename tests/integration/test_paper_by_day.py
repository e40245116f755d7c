"""Results on paper by the UTC day of the decision: plain sums of what was told."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from ledger import (
    CHALLENGER,
    assign,
    assign_to,
    closed,
    join,
    open_btc,
    record_all,
    register,
    together,
)
from shadow_history import LATER, NEXT_DAY, arm_ids, on_paper, paper_days, tell
from sqlalchemy import Engine

from bandit.core.errors import BanditError
from bandit.core.model import ArmMode, Assignment
from bandit.core.outcomes import declined
from bandit.core.paper_days import PaperSums
from bandit.service import pairing, revising, shadowing
from bandit.storage.engine import snapshot

WATCHER = "watcher"


@pytest.fixture
def btc(engine: Engine) -> Engine:
    """`btc` with a live challenger and one that only watches, before any terms."""
    open_btc(engine)
    join(engine, register(engine, WATCHER, "bbbbbbbb"), ArmMode.SHADOW)
    return engine


def taken_by(engine: Engine, policy: str, n: int, prefix: str = "u") -> list[Assignment]:
    return assign_to(engine, policy, n, now=LATER, prefix=prefix)


def sums(*earned: str) -> PaperSums:
    return PaperSums.of(map(Decimal, earned))


def test_results_are_summed_by_the_day_of_the_decision_whoever_took_it(btc: Engine) -> None:
    mine, others = taken_by(btc, CHALLENGER, 2), taken_by(btc, "prod", 2, prefix="v")
    following = assign_to(btc, "prod", 1, now=NEXT_DAY, prefix="w")
    for policy in ("prod", CHALLENGER, WATCHER):
        tell(
            btc,
            [
                on_paper(mine[0], policy, "0.003"),
                on_paper(mine[1], policy, None),  # declined: no trade
                on_paper(others[0], policy, "-0.001"),
                on_paper(others[1], policy, "0"),
                # It closes on the day after the next.
                on_paper(following[0], policy, "0.002", minutes=24 * 60),
            ],
            now=NEXT_DAY + timedelta(days=3),
        )
        assert paper_days(btc, policy) == {
            "2026-03-01": sums("0.003", "-0.001", "0"),
            "2026-03-02": sums("0.002"),
        }


def test_a_result_told_again_is_counted_once(btc: Engine) -> None:
    [made] = assign(btc, ["a"], now=LATER)
    for body in (on_paper(made, WATCHER, "0.001"), on_paper(made, WATCHER, "0.002")):
        shadowing.record(btc, [body, body], now=NEXT_DAY)
    assert paper_days(btc, WATCHER) == {"2026-03-01": sums("0.001")}


def test_what_is_earned_live_changes_nothing_of_a_day_on_paper(btc: Engine) -> None:
    made = taken_by(btc, "prod", 5)
    tell(btc, [on_paper(a, "prod", "0.002") for a in made])
    record_all(btc, [closed(a, "-0.005") for a in made], now=NEXT_DAY)
    revising.revise(btc, declined(made[0].id), reason="fill", now=NEXT_DAY, actor="test")
    assert paper_days(btc, "prod") == {"2026-03-01": sums(*["0.002"] * 5)}


def test_batches_that_come_at_once_are_all_counted(btc: Engine) -> None:
    # Of both takers, so that no lock on statistics keeps them apart.
    mine, others = taken_by(btc, CHALLENGER, 40), taken_by(btc, "prod", 40, prefix="v")

    def one_by_one(batch: list[Assignment]) -> None:
        for a in batch:
            tell(btc, [on_paper(a, policy, "0.001") for policy in (WATCHER, CHALLENGER, "prod")])

    found = together(
        lambda: one_by_one(mine),
        lambda: one_by_one(others),
        lambda: one_by_one(mine[::-1]),
        lambda: one_by_one(others[::-1]),
    )
    assert [answer for answer in found if isinstance(answer, BanditError)] == []
    for policy in ("prod", CHALLENGER, WATCHER):
        assert paper_days(btc, policy) == {"2026-03-01": sums(*["0.001"] * 80)}


def test_the_newest_profit_factor_on_paper_takes_days_whole(btc: Engine) -> None:
    for days, earned in ((0, ["0.009"]), (1, ["0.001", "-0.002"]), (2, ["0.003", "-0.001"])):
        now = LATER + timedelta(days=days)
        made = assign(btc, [f"{days}-{i}" for i in range(len(earned))], now=now)
        told = [on_paper(a, WATCHER, r) for a, r in zip(made, earned, strict=True)]
        tell(btc, told, now=now + timedelta(days=1))
    watcher, last = arm_ids(btc)[WATCHER], LATER.date() + timedelta(days=2)
    with snapshot(btc) as connection:
        factors = [
            pairing.paper_factor(connection, watcher, window=window, reaching=day)
            for window, day in ((2, last), (3, last), (5, last), (6, last), (2, date.max))
        ]
    assert [None if f is None else (f.n, f.value) for f in factors] == [
        (2, 3.0),
        (4, pytest.approx(4 / 3)),
        (5, pytest.approx(13 / 3)),
        None,
        None,
    ]
