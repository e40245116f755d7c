"""More trouble never makes a better level, whatever else is wrong; errors are never lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from ledger import NOON
from vitals import KILLED, account, beat, record, told_errors

from bandit.core.health import HealthLimits, Vitals, assess
from bandit.core.heartbeat import BotRecord, BreakerState, heard

LIMITS = HealthLimits()
spans = st.sampled_from(
    [
        timedelta(seconds=s)
        for s in (0, 1, 5, 6, 119, 120, 121, 900, 901, 604_800, 604_801, 2_592_000, 2_592_001)
    ]
)
maybe = st.one_of(st.none(), spans.map(lambda span: NOON - span))


@st.composite
def bots(draw: st.DrawFn) -> BotRecord:
    heard_at = NOON - draw(spans)
    newest = beat(
        sent_at=max(heard_at - draw(spans), NOON - timedelta(days=300)),
        started_at=NOON - timedelta(days=365),
        running=draw(st.booleans()),
        api_connected=draw(st.booleans()),
        candles={symbol: NOON - draw(spans) for symbol in draw(st.sets(st.sampled_from("AB")))},
        candle_seconds=draw(st.sampled_from([0, 60, 3600])),
        breakers={"orders": draw(st.sampled_from(BreakerState))},
        model_trained_at=draw(maybe),
        last_trade_at=draw(maybe),
    )
    errors = told_errors(draw(st.integers(0, 8)), at=NOON - draw(spans))
    first = heard_at - draw(spans)
    return record(newest, heard_at=heard_at, first_heard_at=first, errors=errors)


@st.composite
def found(draw: st.DrawFn) -> Vitals:
    return Vitals(
        now=NOON,
        ledger=draw(st.sampled_from([None, "away"])),
        latch=draw(st.sampled_from([None, "drill"])),
        guard=draw(st.sampled_from([None, "NORMAL", "REDUCED", "PAUSED"])),
        accounts=tuple(
            account(str(lost), kill=kill)
            for lost, kill in draw(
                st.lists(st.tuples(st.integers(0, 1500), st.sampled_from([None, KILLED])))
            )
        ),
        bots=tuple(draw(st.lists(bots(), max_size=3))),
        last_trade_at=draw(maybe),
    )


@st.composite
def worse(draw: st.DrawFn, of: Vitals) -> Vitals:
    """The same, with one thing that is worse than it was."""
    kinds = ["ledger", "latch", "kill", "lost", "bot"] + ["beat"] * 3 * bool(of.bots)
    match draw(st.sampled_from(kinds)):
        case "ledger":
            return replace(of, ledger="away")
        case "latch":
            return replace(of, latch="drill")
        case "kill":
            return replace(of, accounts=tuple(replace(a, kill=KILLED) for a in of.accounts))
        case "lost":
            return replace(of, accounts=(*of.accounts, account("900")))
        case "bot":
            stopped = draw(bots())
            stopped = replace(stopped, newest=replace(stopped.newest, running=False))
            return replace(of, bots=(*of.bots, stopped))
    index = draw(st.integers(0, len(of.bots) - 1))
    bot = of.bots[index]
    newest = bot.newest
    later = draw(spans)
    match draw(st.sampled_from(["stopped", "api", "candle", "breaker", "model", "silent", "more"])):
        case "stopped":
            bot = replace(bot, newest=replace(newest, running=False))
        case "api":
            bot = replace(bot, newest=replace(newest, api_connected=False))
        case "candle":
            older = {symbol: at - later for symbol, at in newest.candles.items()}
            bot = replace(bot, newest=replace(newest, candles=older))
        case "breaker":
            tripped = {**newest.breakers, "data": BreakerState.OPEN}
            bot = replace(bot, newest=replace(newest, breakers=tripped))
        case "model" if newest.model_trained_at is not None:
            older_model = newest.model_trained_at - later
            bot = replace(bot, newest=replace(newest, model_trained_at=older_model))
        case "silent":
            shifted = min(newest.sent_at, bot.heard_at - later)
            at = max(shifted, newest.started_at)
            bot = replace(bot, heard_at=bot.heard_at - later, newest=replace(newest, sent_at=at))
        case "more":
            *before, last = bot.errors
            bot = replace(bot, errors=(*before, replace(last, total=last.total + 6)))
    return replace(of, bots=(*of.bots[:index], bot, *of.bots[index + 1 :]))


@given(st.data())
def test_more_trouble_never_gives_a_better_level(data: st.DataObject) -> None:
    before = data.draw(found())
    after = data.draw(worse(before))
    ranks = [assess(vitals, LIMITS).level.rank for vitals in (before, after)]
    assert ranks == sorted(ranks)


@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.integers(0, 5), st.booleans()), min_size=1, max_size=60
    ),
    st.integers(0, 900),
)
def test_errors_are_counted_as_by_who_keeps_every_one_of_them(
    told: list[tuple[int, int, bool]], later: int
) -> None:
    """At least those told within the window, at most those of one step of a sixtieth more."""
    window = timedelta(minutes=10)
    now, started, total = NOON, NOON, 0
    every: list[tuple[object, int]] = []
    held: BotRecord | None = None
    for seconds, errors, restarts in told:
        now += timedelta(seconds=seconds)
        if restarts:
            started, total = now, 0
        total += errors
        every.append((now, errors))
        told_now = beat(sent_at=now, started_at=started, api_errors_total=total, candles={})
        held = heard(held, told_now, now=now, window=window)
        assert heard(held, told_now, now=now, window=window) is held
    assert held is not None
    now += timedelta(seconds=later)
    counted = held.errors_within(window, now=now)
    least = sum(errors for at, errors in every if at > now - window)  # type: ignore[operator]
    longest = max(seconds for seconds, _, _ in told) + 10
    most = sum(
        errors
        for at, errors in every
        if at > now - window - timedelta(seconds=longest)  # type: ignore[operator]
    )
    assert least <= counted <= most
