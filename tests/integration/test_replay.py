"""The main job on a real ledger: resumable, reproducible, and a function of what was recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import numpy as np
import pytest
from ledger import count, record_all
from made_up_policy import trading
from postgres_server import PostgresServer
from sqlalchemy import Engine, text

from bandit.core.account import LossLimits
from bandit.core.acting import ActingRules
from bandit.core.guard_rule import GuardRule
from bandit.core.limits import Limits
from bandit.core.model import DecisionKind, Policy, PolicyKind, PolicyName, Profile, UnitId
from bandit.core.outcomes import Outcome, declined, trade
from bandit.core.reading import Rules
from bandit.core.sizing import SizingRule
from bandit.service import accounts, experiments, ledger, policies, reporting
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from learners.market.candles import shipped_candles
from learners.market.features import FeatureSpec, features_of
from learners.market.paper_market import open_position, settle
from learners.market.scaler import Scaler
from learners.opportunities import OpportunityTaker
from liveops.connectors.rules import CHALLENGERS, CHAMPION
from liveops.learning import ENVIRONMENT
from liveops.replay import is_complete, replay
from liveops.replay_arms import LearnedArm
from liveops.replay_plan import CAPITAL, Plan, demo_rules

NIGHTS = 20


def plan(
    *,
    profile: Profile = Profile.GUARDED,
    nights: int = NIGHTS,
    seed: int = 7,
    loss_limits: LossLimits | None = None,
    learned: LearnedArm | None = None,
) -> Plan:
    candles = shipped_candles()
    return Plan(
        candles=candles,
        bars=candles.last_nights(nights),
        seed=seed,
        experiment="demo",
        profile=profile,
        limits=Limits(),
        loss_limits=loss_limits or LossLimits(),
        rules=demo_rules(Rules()),
        learned=() if learned is None else (learned,),
    )


@contextmanager
def ledgers(server: PostgresServer, count: int) -> Iterator[list[Engine]]:
    """Open several empty ledgers at once."""
    if count == 0:
        yield []
        return
    with server.database() as url, ledgers(server, count - 1) as others:
        engine = connect(url)
        try:
            yield [engine, *others]
        finally:
            engine.dispose()


def statistics(engine: Engine) -> list[tuple[object, ...]]:
    columns = (
        "n_outcomes, n_trades, n_wins, n_losses, n_expired, n_unclaimed, gross_profit, gross_loss,"
        " fees, return_gain, return_loss, return_squares, pf_short, pf_short_state,"
        " dd_short_percent,"
        " pf_long, pf_long_state, dd_long_percent, window_from, last_closed_at, last_unit_id,"
        " equity, equity_peak, drawdown_max, losing_streak, losing_streak_max, winning_streak,"
        " winning_streak_max"
    )
    statement = (
        f"SELECT p.name, {columns} FROM arm_statistics s JOIN arms a ON a.id = s.arm_id"
        " JOIN policies p ON p.id = a.policy_id ORDER BY p.name"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_same_seed_gives_the_same_digest_and_another_seed_another(
    postgres_server: PostgresServer,
) -> None:
    with ledgers(postgres_server, 3) as (first, second, other):
        for engine, seed in ((first, 7), (second, 7), (other, 8)):
            assert list(replay(engine, plan(seed=seed)))[-1].done == NIGHTS * 24
        assert ledger.ledger_digest(first) == ledger.ledger_digest(second)
        assert ledger.ledger_digest(first) != ledger.ledger_digest(other)


def test_replay_that_was_cut_off_ends_where_an_unbroken_one_does(
    postgres_server: PostgresServer,
) -> None:
    with ledgers(postgres_server, 2) as (unbroken, cut):
        for _ in replay(unbroken, plan(nights=8)):
            pass
        for stop in (50, 130):
            list(itertools.islice(replay(cut, plan(nights=8)), stop))
        assert not is_complete(cut, plan(nights=8))
        for _ in replay(cut, plan(nights=8)):
            pass
        assert is_complete(cut, plan(nights=8))
        assert ledger.ledger_digest(cut) == ledger.ledger_digest(unbroken)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> LearnedArm:
    candles, features = shipped_candles(), FeatureSpec()
    scaler = Scaler.fit(features_of(candles, features).values[:5_000])
    environment = replace(ENVIRONMENT, funding_ratio=0.0)
    artifact = trading(tmp_path_factory.mktemp("artifacts"), features, scaler, environment)
    policy = Policy(
        name=PolicyName("learned"), kind=PolicyKind.REINFORCEMENT, sha=artifact.sha, metadata={}
    )
    rules = ActingRules(confidence_min=0.3)
    return LearnedArm(policy=policy, taker=OpportunityTaker(artifact, candles, rules=rules))


def test_a_learned_challenger_trades_what_its_policy_decides(
    engine: Engine, learned: LearnedArm
) -> None:
    chosen = plan(nights=8, learned=learned)
    for _ in replay(engine, chosen):
        pass
    statement = text(
        "SELECT o.*, s.size_multiplier, s.confidence_bump FROM outcomes o"
        " JOIN assignments s ON s.id = o.assignment_id JOIN arms a ON a.id = o.arm_id"
        " JOIN policies p ON p.id = a.policy_id WHERE p.name = 'learned' AND s.mode = 'live'"
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).all()
    bars = {chosen.candles.closing(bar): bar for bar in chosen.bars}
    left = 0
    for row in rows:
        bar = bars[datetime.strptime(row.unit_id, "%Y%m%dT%H%M%S%z")]
        found = learned.taker.intention(
            bar,
            size_multiplier=float(row.size_multiplier),
            confidence_bump=float(row.confidence_bump),
        )
        assert row.no_trade == (found is None)
        if found is not None:
            left += found.left_at is not None
            notional = CAPITAL * Decimal(str(chosen.equity_fraction)) * Decimal(str(found.share))
            position = open_position(
                chosen.candles,
                bar=bar,
                proposal=found.proposal,
                notional=notional,
                costs=chosen.costs,
            )
            assert position is not None
            closed = settle(chosen.candles, position, left_at=found.left_at)
            assert closed is not None
            assert (row.pnl, row.closed_at) == (closed.pnl, closed.closed_at)
    assert len(rows) > 5
    assert left > 0, "some are left by decision"


def test_a_replay_with_a_learned_challenger_can_be_cut_off(
    postgres_server: PostgresServer, learned: LearnedArm
) -> None:
    chosen = plan(nights=4, learned=learned)
    with ledgers(postgres_server, 2) as (unbroken, cut):
        for _ in replay(unbroken, chosen):
            pass
        list(itertools.islice(replay(cut, chosen), 50))
        for _ in replay(cut, chosen):
            pass
        assert ledger.ledger_digest(cut) == ledger.ledger_digest(unbroken)


def test_what_guards_refuse_is_followed_on_paper_also_by_a_replay_that_was_cut_off(
    postgres_server: PostgresServer,
) -> None:
    # The documents' own limits, under which hourly rules pause again and again.
    chosen = replace(plan(nights=8), rules=replace(demo_rules(Rules()), guard=GuardRule()))
    with ledgers(postgres_server, 2) as (unbroken, cut):
        *_, last = replay(unbroken, chosen)
        for stop in (60, 150):
            list(itertools.islice(replay(cut, chosen), stop))
        *_, again = replay(cut, chosen)
        assert 50 < last.refused == again.refused == count(unbroken, "refusals")
        assert ledger.ledger_digest(cut) == ledger.ledger_digest(unbroken)
        with unbroken.connect() as connection:
            ended = connection.execute(
                text(
                    "SELECT count(*) FROM guard_changes"
                    " WHERE from_state = 'PAUSED' AND to_state = 'NORMAL'"
                    " AND actor = 'rule:performance_guard'"
                )
            ).scalar_one()
    assert ended > 0, "pauses end by what was refused"


def test_wishes_that_find_no_place_are_declined_also_by_a_replay_that_was_cut_off(
    postgres_server: PostgresServer,
) -> None:
    rules = replace(demo_rules(Rules()), sizing=SizingRule(max_open_positions=5))
    chosen = replace(plan(nights=4), rules=rules)
    with ledgers(postgres_server, 2) as (unbroken, cut):
        *_, last = replay(unbroken, chosen)
        for stop in (30, 70):
            list(itertools.islice(replay(cut, chosen), stop))
        *_, again = replay(cut, chosen)
        assert 5 < last.full == again.full
        assert ledger.ledger_digest(cut) == ledger.ledger_digest(unbroken)
        with unbroken.connect() as connection:
            declined = connection.execute(
                text(
                    "SELECT count(*) FROM outcomes o WHERE o.no_trade AND NOT EXISTS"
                    " (SELECT FROM claims c WHERE c.assignment_id = o.assignment_id)"
                )
            ).scalar_one()
    assert declined >= last.full


def test_nights_are_decided_once_each_and_explained(engine: Engine) -> None:
    nights = [step.night for step in replay(engine, plan()) if step.night is not None]
    assert len(nights) == NIGHTS
    decided = reporting.decision_history(engine, "demo")
    scaling = [d for d in decided if d.trading_day is not None]
    assert len({d.trading_day for d in scaling}) == len(scaling) == NIGHTS
    moved = [d for d in scaling if d.kind is DecisionKind.RESCALE]
    assert moved, "twenty nights of the demo move traffic"
    for decision in moved:
        for policy, before in decision.inputs["before"].items():
            if policy != CHAMPION.name and decision.inputs["proposed"][policy] != before:
                verdicts = {r["check"]: r["verdict"] for r in decision.reasons[policy]}
                assert verdicts["trades"] == "PASS"
                # The demo reports what it claims; on the first nights nothing is due yet.
                assert verdicts.pop("unreported claims", "PASS") == "PASS"
                assert set(verdicts) == {
                    "trades",
                    "pf_150 >= pf_prod",
                    "dd_150 percent",
                    "traffic_allocation",
                    "evidence against",
                    "decay",
                    "evidence of the mean",
                    "evidence of the profit factor",
                    "trades to be eligible",
                    "days with decisions",
                    "worst of 6 blocks",
                }


def test_stops_are_told_once_at_the_night_after_them(engine: Engine) -> None:
    told = [stop for step in replay(engine, plan(nights=60)) for stop in step.stops]
    made = reporting.decision_history(engine, "demo")
    stopped = [d for d in reversed(made) if d.kind in (DecisionKind.THROTTLE, DecisionKind.HALT)]
    assert stopped, "sixty nights of the demo stop an arm"
    assert told == stopped


def test_market_whose_account_is_killed_is_over(engine: Engine) -> None:
    tight = plan(loss_limits=LossLimits(daily_loss=Decimal("0.002")))
    steps = list(replay(engine, tight))
    assert steps[-1].done < NIGHTS * 24
    assert is_complete(engine, tight)
    account = accounts.named(engine, "demo", now=steps[-1].at)
    assert account.record.is_killed
    assert account.record.newest is not None
    assert account.record.newest.actor == "rule:loss_limit"
    # What was open when it was killed has been reported all the same.
    assert account.equity.day >= account.record.newest.at.date()
    # Another market's money is its own.
    other = replace(plan(nights=2), experiment="another")
    assert list(replay(engine, other))[-1].done == 2 * 24
    assert accounts.named(engine, "another", now=steps[-1].at).equity.capital == CAPITAL


def recorded(engine: Engine) -> list[tuple[str, Outcome]]:
    statement = text("SELECT * FROM outcomes ORDER BY unit_id")
    with engine.connect() as connection:
        rows = [row._mapping for row in connection.execute(statement)]
    return [
        (
            row["unit_id"],
            declined(row["assignment_id"])
            if row["no_trade"]
            else trade(
                row["assignment_id"],
                pnl=row["pnl"],
                return_ratio=row["return_ratio"],
                opened_at=row["opened_at"],
                closed_at=row["closed_at"],
                fees=row["fees"],
                slippage=row["slippage"],
                size=row["size"],
                r_multiple=row["r_multiple"],
                worst_excursion=row["worst_excursion"],
            ),
        )
        for row in rows
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_shuffled_outcomes_give_the_same_statistics(
    postgres_server: PostgresServer, seed: int
) -> None:
    # `observe` changes nothing: scaling and guards off, so that both ledgers route alike.
    chosen = plan(profile=Profile.OBSERVE)
    with ledgers(postgres_server, 2) as (original, again):
        for _ in replay(original, chosen):
            pass
        outcomes = recorded(original)
        assert len(outcomes) > 300
        _reopen(again, original)
        now = chosen.candles.closing(chosen.bars.stop - 1)
        router = Router(again)
        for unit, outcome in outcomes:
            at = datetime.strptime(unit, "%Y%m%dT%H%M%S%z")
            opportunity = Opportunity(unit_id=UnitId(unit), instrument="BTCUSD")
            (made,) = router.assign("demo", [opportunity], now=at)
            assert made.id == outcome.assignment_id
            if not outcome.no_trade:
                router.claim(made.id, now=at)
        order = np.random.default_rng(seed).permutation(len(outcomes))
        shuffled = [outcomes[i][1] for i in order]
        start = 0
        for size in itertools.cycle((1, 7, 40)):
            batch = shuffled[start : start + size]
            if not batch:
                break
            record_all(again, batch, now=now)
            start += size
        assert statistics(again) == statistics(original)


def _reopen(target: Engine, source: Engine) -> None:
    record = experiments.load(source, "demo")
    for rule in (CHAMPION, *CHALLENGERS):
        found = policies.find(source, rule.name)
        policies.register(target, found.policy, now=found.registered_at, actor="test")
    experiments.open_experiment(
        target,
        record.experiment,
        challengers=[PolicyName(rule.name) for rule in CHALLENGERS],
        salt=record.salt,
        limits=record.limits,
        loss_limits=LossLimits(),
        rules=record.rules,
        now=record.opened_at,
        actor="test",
    )
