"""Scores of symbols from the candles in the store, for selections that nobody else makes."""

from __future__ import annotations

from datetime import datetime, timedelta

from bandit.core.selection import SelectionRule
from bandit.service import selecting
from bandit.service.selecting import SelectionReport
from learners.market.candle_store import CandleStore
from learners.market.momentum import momentum
from liveops.candle_import import candle_store
from liveops.wiring import App


def scores_of(store: CandleStore, rule: SelectionRule, *, now: datetime) -> dict[str, float | None]:
    """Return each symbol's momentum; None where the store has not its candles, or only old ones.

    Of several series of a symbol the one with the shortest bars counts. Raises `DamagedSeries`.
    """
    lookback = timedelta(days=rule.lookback_days)
    kept = store.series()
    scores: dict[str, float | None] = {}
    for symbol in rule.universe:
        names = [stored.name for stored in kept if stored.name.instrument == symbol]
        shortest = min(names, key=lambda name: (name.interval, str(name)), default=None)
        scores[symbol] = (
            None if shortest is None else momentum(store.load(shortest), at=now, lookback=lookback)
        )
    return scores


def select_by_momentum(
    app: App, experiment: str, *, actor: str, is_dry: bool = False
) -> SelectionReport:
    """Select by the candles in the store, where the time has come.

    Raises what `selecting.make` and `scores_of` raise.
    """
    now = app.clock.now()
    known = selecting.report(app.engine, experiment)
    if known.due_at is not None and now < known.due_at:
        return known
    scores = scores_of(candle_store(app.settings), known.rule, now=now)
    return selecting.make(
        app.engine,
        experiment,
        scores,
        reason=f"momentum over {known.rule.lookback_days} days",
        now=now,
        actor=actor,
        is_dry=is_dry,
    )
