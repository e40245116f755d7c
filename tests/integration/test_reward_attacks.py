"""A client that lies about what its arm earned: what that wins, and what stops it (B1 to B4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from ledger import (
    BEST,
    BETTER,
    CHALLENGER,
    EVEN,
    NIGHT,
    NOON,
    POOR,
    SALT,
    assign,
    assign_to,
    closed,
    feed,
    market,
    open_btc,
    record_all,
    scale,
    traffic,
)
from sqlalchemy import Engine, text

from bandit.core.errors import Killed
from bandit.core.kill_switch import KillCause
from bandit.core.marks import Mark
from bandit.core.model import WHOLE_PPM, DecisionKind, Profile, UnitId
from bandit.core.routing import BUCKET_BITS, bucket_of
from bandit.service import accounts, marking, reporting

TENTH = 100_000
LATER = NOON + timedelta(hours=2)


def told(engine: Engine, results: Sequence[tuple[str, str]], *, prefix: str = "c") -> None:
    """Let the challenger report trades of these returns and this money, minute by minute."""
    made = assign_to(engine, CHALLENGER, len(results), prefix=prefix)
    trades = [
        closed(assignment, earned, minutes=minute, pnl=money)
        for minute, (assignment, (earned, money)) in enumerate(
            zip(made, results, strict=True), start=1
        )
    ]
    record_all(engine, trades, now=LATER)


def nights(engine: Engine, count: int) -> list[int]:
    """Decide so many nights; return what the challenger holds after each."""
    held = []
    for day in range(count):
        scale(engine, now=NIGHT + timedelta(days=day))
        held.append(traffic(engine).get(CHALLENGER, 0))
    return held


# B1: a reward out of all proportion


@pytest.mark.parametrize("reward", ["10", "999.999999"])
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (Profile.GUARDED, [150_000, 225_000, 250_000, 250_000]),
        (Profile.SEED_EXACT, [150_000, 225_000, 337_500, 506_250, 600_000, 600_000]),
    ],
)
def test_reward_of_any_size_buys_one_step_a_night_up_to_the_cap(
    engine: Engine, profile: Profile, expected: list[int], reward: str
) -> None:
    open_btc(engine, profile=profile)
    market(engine, BEST)
    feed(engine, CHALLENGER, [*BETTER, reward], prefix="c")
    assert nights(engine, len(expected)) == expected


def test_without_that_reward_the_arm_steps_down(engine: Engine) -> None:
    """The control: the same trades, told as they were."""
    open_btc(engine)
    market(engine, BEST)
    feed(engine, CHALLENGER, BETTER, prefix="c")
    assert nights(engine, 2) == [66_666, 44_444]


def test_reward_does_not_hide_the_drawdown_that_came_before_it(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, ["-0.41", *["10"] * 29], prefix="c")
    assert traffic(engine) == {"prod": WHOLE_PPM, CHALLENGER: 0}


# B2: opportunities that a client makes up


def would_hit(salt: bytes, unit: str) -> bool:
    """Whether the unit would go to the challenger, who holds the last tenth, under this salt."""
    bucket = bucket_of(salt, experiment="btc", unit=UnitId(unit))
    return (bucket * WHOLE_PPM) >> BUCKET_BITS >= WHOLE_PPM - TENTH


def hits_of(engine: Engine, units: Sequence[str]) -> int:
    made = [m for i in range(0, len(units), 1000) for m in assign(engine, units[i : i + 1000])]
    return sum(m.policy == CHALLENGER for m in made)


CHOSEN = 3000
# Of 3000 fair draws of a tenth, 300 with a standard deviation of 16.4: six of them are exceeded,
# on either side, with probability 2e-9. The salt is fixed, so the verdict is always the same.
TOLERANCE = 99


def by_a_guessed_salt(_: Engine) -> list[str]:
    guess = bytes(32)
    found = (unit for unit in (f"g-{i}" for i in range(10**6)) if would_hit(guess, unit))
    return [next(found) for _ in range(CHOSEN)]


def by_the_best_prefix(engine: Engine) -> list[str]:
    tried = {f"p{n:02}": hits_of(engine, [f"p{n:02}-{i}" for i in range(100)]) for n in range(30)}
    best = max(tried, key=tried.__getitem__)
    assert tried[best] > 10, "no prefix did better than its share"
    return [f"{best}-{i}" for i in range(1000, 1000 + CHOSEN)]


def by_the_neighbours_of_hits(engine: Engine) -> list[str]:
    made = assign(engine, [f"n-{i}" for i in range(1000)])
    winners = [m.unit_id for m in made if m.policy == CHALLENGER]
    return [f"{winners[i % len(winners)]}{i}" for i in range(CHOSEN)]


@pytest.mark.parametrize(
    "choose", [by_a_guessed_salt, by_the_best_prefix, by_the_neighbours_of_hits]
)
def test_chosen_units_do_not_choose_their_arm(
    engine: Engine, choose: Callable[[Engine], list[str]]
) -> None:
    open_btc(engine)
    units = choose(engine)
    assert len(set(units)) == CHOSEN
    assert abs(hits_of(engine, units) - CHOSEN // 10) <= TOLERANCE


def test_whoever_knows_the_salt_chooses_the_arm(engine: Engine) -> None:
    """The control: what the salt's secrecy is worth."""
    open_btc(engine)
    found = (unit for unit in (f"k-{i}" for i in range(10**6)) if would_hit(SALT, unit))
    assert hits_of(engine, [next(found) for _ in range(1000)]) == 1000


# B3: losers that are not told of


def test_arm_that_tells_of_no_loser_does_not_grow(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, [won for won in POOR * 2 if not won.startswith("-")], prefix="c")
    assert nights(engine, 2) == [TENTH, TENTH]
    (decision,) = reporting.decision_history(engine, "btc", newest=1)
    assert decision.kind is DecisionKind.HOLD
    check = next(r for r in decision.reasons[CHALLENGER] if r["check"] == "pf_150 >= pf_prod")
    assert check["verdict"] == "INCONCLUSIVE"


def test_arm_that_tells_of_few_losers_gains_no_more_than_a_step_a_night(engine: Engine) -> None:
    """What withholding does win, and what bounds it: as for a reward of any size."""
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, [*[won for won in POOR * 2 if won == "0.003"], "-0.002"], prefix="c")
    assert nights(engine, 4) == [150_000, 225_000, 250_000, 250_000]


def test_all_of_its_trades_would_have_stopped_that_arm(engine: Engine) -> None:
    """The control: the withheld losers told as well."""
    open_btc(engine)
    market(engine, EVEN)
    feed(engine, CHALLENGER, POOR * 2, prefix="c")
    assert traffic(engine) == {"prod": WHOLE_PPM, CHALLENGER: 0}


@pytest.mark.parametrize(("marked", "killed"), [("-300.01", False), ("-300.02", True)])
def test_loser_that_stays_open_counts_by_its_mark(
    engine: Engine, marked: str, killed: bool
) -> None:
    open_btc(engine)
    won, held = assign_to(engine, CHALLENGER, 2)
    record_all(engine, [closed(won, "0.001", pnl="0.01")], now=LATER)
    at = NOON + timedelta(minutes=1)
    loser = Mark(assignment_id=held.id, unrealised_pnl=Decimal(marked), marked_at=at)
    marking.mark(engine, [loser], now=LATER)
    account = accounts.named(engine, "usd", now=LATER)
    # One cent was won, and 3 % of 10,000 may be lost on a day.
    assert account.record.is_killed is killed


# B4: wins without size


TINY_WINS = [("0.01", "0.00000001")] * 28
BIG_LOSSES = [("-0.001", "-200.00")] * 2
FAIR_LOSSES = [("-0.001", "-0.10")] * 2


def test_money_stops_what_returns_praise(engine: Engine) -> None:
    open_btc(engine)
    market(engine, EVEN)
    told(engine, [*TINY_WINS, *BIG_LOSSES])
    report = reporting.report(engine, "btc").to_json()
    arm = next(a for a in report["arms"] if a["policy"] == CHALLENGER)
    assert arm["pf_150"]["value"] == pytest.approx(140)
    assert not any(row["flagged"] for row in arm["checklist"])
    # An operator sees the money beside it.
    assert Decimal(arm["pnl"]) == Decimal("-399.99999972")
    assert report["killed"] is True
    with engine.connect() as connection:
        causes = connection.execute(text("SELECT cause FROM kill_events")).scalars().all()
    assert causes == [KillCause.DAILY_LOSS]
    with pytest.raises(Killed):
        assign(engine, ["next"])
    assert nights(engine, 1) == [TENTH]


def test_same_returns_with_money_within_the_limits_take_a_step(engine: Engine) -> None:
    """The control, and what is open: only money over the account's limits stops tiny wins."""
    open_btc(engine)
    market(engine, EVEN)
    told(engine, [*TINY_WINS, *FAIR_LOSSES])
    assert nights(engine, 4) == [150_000, 225_000, 250_000, 250_000]
