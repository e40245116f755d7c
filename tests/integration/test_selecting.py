"""Selections in a real ledger: made in time, in force on every replica, answered as before."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from api_service import application, service
from ledger import NOON, open_btc
from sqlalchemy import Engine, text

from bandit.core.errors import Conflict, InvalidInput, NotSelected, UnknownName
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import declined
from bandit.core.reading import Rules
from bandit.core.selection import SelectionRule
from bandit.service import recording, selecting
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.routing_table import Opportunity
from config.settings import Settings
from learners.market.candle_store import SeriesName
from learners.market.candles import Candles
from liveops.candle_import import candle_store
from liveops.client import Client
from liveops.client import NotSelected as NotSelectedHere
from liveops.clock import VirtualClock
from liveops.monitoring import Monitor
from liveops.selection_lines import selection_lines
from liveops.wiring import App

RULE = SelectionRule(enabled=True, top_k=1, universe=("BTCUSD", "ETHUSD"))
LATER = NOON + timedelta(minutes=5)
NEXT_DAY = NOON + timedelta(days=1)


def opened(engine: Engine) -> None:
    open_btc(engine, rules=Rules(selection=RULE))


def choose(engine: Engine, *, now: datetime = NOON, **scores: float) -> selecting.SelectionReport:
    return selecting.make(engine, "btc", scores, reason="drill", now=now, actor="test")


def of(unit: str, instrument: str, **values: object) -> Opportunity:
    return Opportunity(unit_id=UnitId(unit), instrument=instrument, **values)


def asked(engine: Engine, *opportunities: Opportunity, now: datetime = LATER) -> list[Assignment]:
    return Router(engine).assign("btc", opportunities, now=now)


def test_only_selected_instruments_open_and_nothing_is_stored_of_others(engine: Engine) -> None:
    opened(engine)
    with pytest.raises(NotSelected, match="before its first selection"):
        asked(engine, of("a", "BTCUSD"))
    choose(engine, BTCUSD=0.2, ETHUSD=0.1)
    assert asked(engine, of("a", "BTCUSD"))[0].instrument == "BTCUSD"
    with pytest.raises(NotSelected, match=r"opens positions in BTCUSD since .*, not in ETHUSD"):
        asked(engine, of("b", "BTCUSD"), of("c", "ETHUSD"))
    with engine.connect() as connection:
        units = connection.execute(text("SELECT unit_id FROM assignments")).scalars().all()
    assert units == ["a"]
    # What was refused may be asked again, and is decided once it is selected.
    choose(engine, now=NEXT_DAY, BTCUSD=0.1, ETHUSD=0.2)
    assert asked(engine, of("c", "ETHUSD"), now=NEXT_DAY)[0].unit_id == "c"


def test_answer_and_position_outlive_the_selection_that_let_them_open(engine: Engine) -> None:
    opened(engine)
    choose(engine, BTCUSD=0.2, ETHUSD=0.1)
    router = Router(engine)
    [before] = router.assign("btc", [of("a", "BTCUSD")], now=LATER)
    router.claim(before.id, now=LATER)
    choose(engine, now=NEXT_DAY, BTCUSD=0.1, ETHUSD=0.2)
    at = NEXT_DAY + timedelta(minutes=1)
    assert router.assign("btc", [of("a", "BTCUSD")], now=at) == [before]
    [further] = router.assign("btc", [of("exit", "BTCUSD", position=before.id)], now=at)
    assert further.policy == before.policy
    [alone] = router.assign("btc", [of("alone", "BTCUSD", fallback_at=at)], now=at)
    assert alone.sticky
    [recorded] = recording.record(engine, [declined(before.id)], now=at)
    assert isinstance(recorded, recording.Recorded)


def test_selection_stands_until_its_time_has_passed(engine: Engine) -> None:
    opened(engine)
    first = choose(engine, BTCUSD=0.2)
    assert first.is_new
    early = choose(engine, now=NEXT_DAY - timedelta(seconds=1), ETHUSD=0.9)
    assert not early.is_new
    assert early.selection == first.selection
    again = choose(engine, now=NEXT_DAY, ETHUSD=0.9)
    assert again.is_new
    assert again.selection is not None
    assert again.selection.chosen == ("ETHUSD",)
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT details FROM audit_log WHERE action = 'selection' ORDER BY id")
        ).scalars()
        assert [each["chosen"] for each in told] == [["BTCUSD"], ["ETHUSD"]]


def test_dry_run_stores_nothing_and_faults_leave_what_stands(engine: Engine) -> None:
    opened(engine)
    dry = selecting.make(
        engine, "btc", {"BTCUSD": 1.0}, reason="drill", now=NOON, actor="test", is_dry=True
    )
    assert dry.is_new
    assert selecting.report(engine, "btc").selection is None
    for scores in ({"DOGEUSD": 1.0}, {}, {"BTCUSD": float("nan")}):
        with pytest.raises(InvalidInput):
            selecting.make(engine, "btc", scores, reason="drill", now=NOON, actor="test")
    with pytest.raises(UnknownName):
        selecting.report(engine, "eth")


def test_experiment_that_does_not_select_says_so_and_trades_everything(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(Conflict, match="every instrument"):
        selecting.report(engine, "btc")
    assert asked(engine, of("a", "ANYTHING"))[0].instrument == "ANYTHING"


def test_other_replica_goes_by_the_new_selection_within_two_seconds(engine: Engine) -> None:
    opened(engine)
    choose(engine, BTCUSD=0.2)
    other = Router(engine)
    at = NEXT_DAY - timedelta(seconds=1)
    other.assign("btc", [of("a", "BTCUSD")], now=at)
    choose(engine, now=NEXT_DAY, ETHUSD=0.2)
    with pytest.raises(NotSelected):
        other.assign("btc", [of("b", "BTCUSD")], now=at + selecting.REMEMBERED)


def test_in_a_group_only_what_is_not_selected_is_refused(engine: Engine, database_url: str) -> None:
    opened(engine)
    choose(engine, BTCUSD=0.2)

    async def all_at_once() -> list[Assignment | BaseException]:
        live = LiveRouter(Router(engine), url=database_url, now=lambda: LATER)
        async with live.running():
            wanted = [of(f"u{i}", "BTCUSD" if i % 2 else "ETHUSD") for i in range(40)]
            calls = [live.assign("btc", each) for each in wanted]
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(all_at_once())
    for number, answer in enumerate(answers):
        if number % 2:
            assert isinstance(answer, Assignment)
            assert answer.unit_id == f"u{number}"
        else:
            assert isinstance(answer, NotSelected)


def test_scores_come_over_http_and_bots_are_told_what_is_not_selected(
    engine: Engine, tmp_path: Path
) -> None:
    opened(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        path = "/v1/experiments/btc/selection"
        assert client.get(path).json()["chosen"] == []
        body = {"scores": {"BTCUSD": 0.5, "ETHUSD": None}, "reason": "my own model"}
        made = client.post(path, json=body).json()
        assert (made["chosen"], made["is_new"]) == (["BTCUSD"], True)
        assert client.post(path, json=body).json()["is_new"] is False
        assert client.post(path, json={**body, "scores": {"X": 1}}).status_code == 422
        assert client.post(path, json={"scores": {"BTCUSD": 1}}).status_code == 422
        refused = client.post(
            "/v1/experiments/btc/assignments", json={"unit_id": "x", "instrument": "ETHUSD"}
        )
        assert (refused.status_code, refused.json()["code"]) == (409, "not_selected")
        with Client(str(client.base_url), "btc", spool_dir=tmp_path, now=clock.now) as bot:
            with pytest.raises(NotSelectedHere):
                bot.assign("y", "ETHUSD")
            assert bot.assign("z", "BTCUSD").unit_id == "z"


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    """A service at a later noon whose store has candles of both symbols up to then."""
    store = candle_store(Settings(home=tmp_path))
    for instrument, growth in (("BTCUSD", 0.0001), ("ETHUSD", 0.0002)):
        closes = 100 * np.exp(growth * np.arange(24 * 30))
        opens = np.datetime64("2026-01-30T12:00:00", "us") + np.arange(24 * 30) * np.timedelta64(
            1, "h"
        )
        candles = Candles(
            instrument=instrument,
            opened_at=opens,
            open=closes,
            high=closes,
            low=closes,
            close=closes,
            volume=np.ones_like(closes),
        )
        name = SeriesName(source="file", instrument=instrument, interval=candles.interval)
        store.append(name, candles, now=NOON)
    return application(engine, clock=VirtualClock(NOON), settings={"home": tmp_path})


def test_monitor_selects_by_momentum_once_each_interval(engine: Engine, app: App) -> None:
    opened(engine)
    watched = Monitor(app=app, policy="prod", learner=None, is_dry=True)
    assert watched.look().done == ("btc would open positions in ETHUSD",)
    assert selecting.report(engine, "btc").selection is None
    watched = Monitor(app=app, policy="prod", learner=None, is_dry=False)
    assert watched.look().done == ("btc opens positions in ETHUSD",)
    assert watched.look().done == ()
    made = selecting.report(engine, "btc").selection
    assert made is not None
    assert made.scores == pytest.approx(
        {"BTCUSD": np.expm1(0.0001 * 504), "ETHUSD": np.expm1(0.0002 * 504)}
    )
    lines = list(selection_lines(selecting.report(engine, "btc")))
    assert lines[0] == "btc: ETHUSD since 2026-03-01 12:00 UTC"
    assert [line.split()[:2] for line in lines[2:]] == [["*", "ETHUSD"], ["BTCUSD", "+0.05169"]]


def test_monitor_keeps_what_stands_where_candles_are_old(engine: Engine, app: App) -> None:
    opened(engine)
    choose(engine, now=NOON - timedelta(days=1), BTCUSD=0.2)
    assert isinstance(app.clock, VirtualClock)
    app.clock.advance_to(NOON + timedelta(days=2))
    watched = Monitor(app=app, policy="prod", learner=None, is_dry=False)
    [said] = watched.look().done
    assert said.startswith("btc: nothing new is selected: scores: must have a score")
    standing = selecting.report(engine, "btc").selection
    assert standing is not None
    assert standing.chosen == ("BTCUSD",)


def test_damaged_candles_keep_no_monitor_from_its_pulse(engine: Engine, app: App) -> None:
    opened(engine)
    [manifest, *_] = sorted((app.settings.home / "candles").rglob("*.json"))
    manifest.write_text("{")
    watched = Monitor(app=app, policy="prod", learner=None, is_dry=False)
    look = watched.look()
    assert look.experiments == ("btc",)
    assert [said.partition(":")[0] for said in look.done] == ["btc"]
    assert "nothing new is selected" in look.done[0]
