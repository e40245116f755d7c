"""Close orders in the paper market: while a replay goes on, and when it has ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace as changed
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from api_service import application
from ledger import count
from made_up_policy import trading
from postgres_server import PostgresServer
from sdk_bot import eventually
from sqlalchemy import Engine, text

from bandit.core.account import LossLimits
from bandit.core.closing import CloseTarget
from bandit.core.limits import Limits
from bandit.core.model import Policy, PolicyKind, PolicyName, Profile, UnitId
from bandit.core.paper_fills import Side
from bandit.core.reading import Rules
from bandit.service import accounts, closing, ledger
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from learners.market.candles import Candles, shipped_candles
from learners.market.features import FeatureSpec, features_of
from learners.market.paper_market import Proposal
from learners.market.scaler import Scaler
from learners.opportunities import OpportunityTaker
from liveops.connectors.rules import CHALLENGERS, CHAMPION, proposals
from liveops.learning import ENVIRONMENT
from liveops.paper_closing import PaperMarkets, closing_on_paper
from liveops.replay import replay
from liveops.replay_arms import LearnedArm
from liveops.replay_plan import CAPITAL, PREFIX, Plan, demo_rules
from liveops.wiring import App, acting_rules_of

Earned = dict[str, tuple[Decimal, datetime | None]]

NOW = datetime.fromisoformat("2026-03-01T12:00:00Z")
EXPERIMENT = f"{PREFIX}drill"
STEP = Decimal("0.00000001")
NIGHTS = 4
DECIDED = 60
"""Bars that are decided when the order comes."""


@pytest.fixture(scope="module")
def candles() -> Candles:
    return shipped_candles()


@pytest.fixture
def demo(engine: Engine) -> App:
    return changed(application(engine), demo=True)


def plan(candles: Candles, learned: tuple[LearnedArm, ...] = ()) -> Plan:
    return Plan(
        candles=candles,
        bars=candles.last_nights(NIGHTS),
        seed=7,
        experiment=EXPERIMENT,
        profile=Profile.GUARDED,
        limits=Limits(),
        loss_limits=LossLimits(),
        rules=demo_rules(Rules()),
        learned=learned,
    )


def replayed(engine: Engine, chosen: Plan) -> None:
    for _ in replay(engine, chosen):
        pass


def order(engine: Engine) -> list[CloseTarget]:
    """Order everything closed that is open, by a clock of another year than the market's."""
    made = closing.close_all(engine, EXPERIMENT, reason="drill", now=NOW, actor="ann")
    return list(made.targets)


def failures(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        statement = text("SELECT reason FROM close_failures ORDER BY id")
        return list(connection.execute(statement).scalars())


def outcomes(engine: Engine) -> Earned:
    """What each unit earned, and when it closed."""
    statement = text(
        "SELECT unit_id, pnl, CASE WHEN no_trade THEN NULL ELSE closed_at END AS at FROM outcomes"
    )
    with engine.connect() as connection:
        return {row.unit_id: (row.pnl, row.at) for row in connection.execute(statement)}


def bar_closing(candles: Candles, moment: datetime) -> int:
    return next(bar for bar in range(len(candles)) if candles.closing(bar) == moment)


def proposal_of(candles: Candles, target: CloseTarget) -> Proposal:
    rule = next(rule for rule in (CHAMPION, *CHALLENGERS) if rule.name == target.policy)
    proposal = proposals(rule, candles)[bar_closing(candles, target.decided_at)]
    assert proposal is not None
    return proposal


def exact(number: float) -> Decimal:
    return Decimal(repr(float(number)))


def earned(candles: Candles, target: CloseTarget, price: float) -> Decimal:
    """The oracle: in at the open after the decision, out at `price`; 2 bp worse and 5 bp each."""
    proposal = proposal_of(candles, target)
    sign = 1 if proposal.side is Side.LONG else -1
    opening = exact(candles.open[bar_closing(candles, target.decided_at) + 1])
    entry, leave = opening * (1 + sign * exact(0.0002)), exact(price) * (1 - sign * exact(0.0002))
    size = (CAPITAL * exact(0.04) * exact(target.size_multiplier) / entry) // STEP * STEP
    fees = sum((size * at * exact(0.0005)).quantize(STEP) for at in (entry, leave))
    return (sign * size * (leave - entry)).quantize(STEP) - fees


def is_ended_before(candles: Candles, target: CloseTarget, bar: int) -> bool:
    """The oracle: whether bracket or time end a position before the open of `bar`, or at it."""
    proposal, first = proposal_of(candles, target), bar_closing(candles, target.decided_at) + 1
    sign = 1 if proposal.side is Side.LONG else -1
    stop = candles.open[first] * (1 - sign * proposal.stop_ratio)
    take = candles.open[first] * (1 + sign * proposal.take_profit_ratio)
    for now in range(first, min(bar, len(candles))):
        low, high = sorted((sign * candles.low[now], sign * candles.high[now]))
        if now == first + proposal.holding_bars_max or low <= sign * stop or high >= sign * take:
            return True
    return first + proposal.holding_bars_max <= bar < len(candles)


@pytest.fixture(scope="module")
def undisturbed(postgres_server: PostgresServer, candles: Candles) -> Earned:
    """What units earn where nobody orders anything."""
    with postgres_server.database() as url:
        engine = connect(url)
        replayed(engine, plan(candles))
        found = outcomes(engine)
        engine.dispose()
    return found


def test_a_replay_closes_at_the_open_after_the_order(
    engine: Engine, candles: Candles, undisturbed: Earned
) -> None:
    chosen = plan(candles)
    going_on = replay(engine, chosen)
    list(itertools.islice(going_on, DECIDED))
    targets = order(engine)
    # The last decision was at the close of bar DECIDED - 1; the bot hears of it at that of DECIDED.
    leave = chosen.bars.start + DECIDED + 1
    by_order = [t for t in targets if not is_ended_before(candles, t, leave)]
    assert len(by_order) >= 2
    for _ in going_on:
        pass
    assert [target.is_closed for target in closing.ordered(engine, EXPERIMENT)] == [True] * len(
        targets
    )
    found = outcomes(engine)
    for target in by_order:
        pnl = earned(candles, target, candles.open[leave])
        assert found[target.unit_id] == (pnl, candles.opening(leave))
        assert found[target.unit_id] != undisturbed[target.unit_id]
    for target in targets:
        if target not in by_order:
            assert found[target.unit_id] == undisturbed[target.unit_id]
    account = accounts.named(engine, EXPERIMENT, now=NOW).equity
    assert account.equity == CAPITAL + sum(pnl for pnl, _ in found.values())
    assert failures(engine) == []


def test_a_replay_that_was_cut_off_closes_as_one_that_was_not(
    postgres_server: PostgresServer, candles: Candles
) -> None:
    digests = []
    for cuts in ((), (0,), (1, 30)):
        with postgres_server.database() as url:
            engine = connect(url)
            going_on: Iterator[object] = replay(engine, plan(candles))
            list(itertools.islice(going_on, DECIDED))
            assert len(order(engine)) >= 2
            for cut in cuts:
                list(itertools.islice(going_on, cut))
                going_on = replay(engine, plan(candles))
            for _ in going_on:
                pass
            digests.append(ledger.ledger_digest(engine))
            engine.dispose()
    assert len(set(digests)) == 1


def test_what_a_replay_left_open_is_closed_at_the_last_close(
    engine: Engine, demo: App, candles: Candles
) -> None:
    replayed(engine, plan(candles))
    targets = order(engine)
    last = len(candles) - 1
    *held, newest = targets
    assert newest.decided_at == candles.closing(last)
    assert len(held) >= 2
    assert not any(is_ended_before(candles, target, last + 1) for target in held)

    PaperMarkets(demo, ()).look()

    assert closing.waiting(engine, EXPERIMENT) == []
    found = outcomes(engine)
    for target in held:
        pnl = earned(candles, target, candles.close[last])
        assert found[target.unit_id] == (pnl, candles.closing(last))
    # Nothing was filled: there is no open after the last close.
    assert found[newest.unit_id] == (0, None)
    assert failures(engine) == []
    assert order(engine) == []


def test_a_service_of_the_demo_does_so_in_the_background(
    engine: Engine, demo: App, candles: Candles
) -> None:
    replayed(engine, plan(candles))
    assert order(engine)
    with closing_on_paper(application(engine)):  # not the demo's: its positions are a bot's
        assert closing.waiting(engine, EXPERIMENT)
    with closing_on_paper(demo):
        eventually(lambda: closing.waiting(engine, EXPERIMENT) == [])


def test_candles_that_cannot_be_found_are_said_to_be(
    engine: Engine, demo: App, candles: Candles
) -> None:
    other = candles.until(len(candles) - 100)
    replayed(engine, plan(other))
    targets = order(engine)
    markets = PaperMarkets(demo, ())
    for _ in range(2):
        markets.look()
    assert len(failures(engine)) == len(targets)
    assert set(failures(engine)) == {
        f"its candles {other.digest[:12]} are not here: "
        "`liveops run --candles FILE` serves with them"
    }
    PaperMarkets(demo, (other,)).look()
    assert closing.waiting(engine, EXPERIMENT) == []


def test_a_replay_that_goes_on_is_left_to_itself(
    engine: Engine, demo: App, candles: Candles
) -> None:
    list(itertools.islice(replay(engine, plan(candles)), DECIDED))
    targets = order(engine)
    PaperMarkets(demo, ()).look()
    assert len(closing.waiting(engine, EXPERIMENT)) == len(targets)
    assert set(failures(engine)) == {
        "its replay has not ended: `liveops run` goes on with it and closes"
    }


def test_what_the_market_did_not_open_it_cannot_close(
    engine: Engine, demo: App, candles: Candles
) -> None:
    going_on = replay(engine, plan(candles))
    list(itertools.islice(going_on, DECIDED))
    asked = Opportunity(unit_id=UnitId("by-hand"), instrument="BTCUSD")
    moment = candles.opening(len(candles) - NIGHTS * 24 + DECIDED).replace(minute=7)
    [made] = Router(engine).assign(EXPERIMENT, [asked], now=moment)
    Router(engine).claim(made.id, now=moment)
    order(engine)
    for _ in going_on:
        pass
    PaperMarkets(demo, ()).look()
    [target] = closing.waiting(engine, EXPERIMENT)
    assert target.unit_id == "by-hand"
    assert failures(engine) == [f"no bar of its candles closes at {moment.isoformat()}"]


def learned_arm(app: App, candles: Candles, root: Path) -> LearnedArm:
    features = FeatureSpec()
    scaler = Scaler.fit(features_of(candles, features).values[:5_000])
    artifact = trading(root, features, scaler, changed(ENVIRONMENT, funding_ratio=0.0))
    name, kind = PolicyName("learned"), PolicyKind.REINFORCEMENT
    return LearnedArm(
        policy=Policy(name=name, kind=kind, sha=artifact.sha, metadata={}),
        taker=OpportunityTaker(artifact, candles, rules=acting_rules_of(app.settings)),
    )


def wish_of(arm: LearnedArm, bar: int) -> object:
    return arm.wish(bar, size_multiplier=1.0, confidence_bump=0.0)


def test_a_learned_policy_is_asked_what_it_opened(
    engine: Engine, candles: Candles, tmp_path: Path
) -> None:
    settings = {"home": str(tmp_path), "model": {"confidence_threshold": 0.3}}
    app = changed(application(engine, settings=settings), demo=True)
    arm = learned_arm(app, candles, tmp_path / "artifacts")
    short = changed(plan(candles, (arm,)), bars=range(len(candles) - 48, len(candles)))
    replayed(engine, short)
    bar = next(b for b in reversed(short.bars[:-1]) if wish_of(arm, b) is not None)
    names = [UnitId(f"more-{number}") for number in range(64)]
    asked = [Opportunity(unit_id=name, instrument="BTCUSD") for name in names]
    moment = candles.closing(bar)
    for made in Router(engine).assign(EXPERIMENT, asked, now=moment):
        if made.policy == "learned":
            Router(engine).claim(made.id, now=moment)
    mine = [target for target in order(engine) if target.policy == "learned"]
    assert mine
    # Where it is gone, that is said; the others are closed all the same.
    gone = changed(application(engine, settings={"home": str(tmp_path / "gone")}), demo=True)
    PaperMarkets(gone, ()).look()
    assert len(closing.waiting(engine, EXPERIMENT)) == len(mine)
    assert all(reason.startswith("learned cannot be asked what it ") for reason in failures(engine))
    PaperMarkets(app, ()).look()
    assert closing.waiting(engine, EXPERIMENT) == []
    assert count(engine, "close_failures") == len(mine)
