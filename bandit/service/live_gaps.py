"""Arms beside the backtests that their policies were made with (SPEC F12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from bandit.core.backtest import TrialId
from bandit.core.live_gap import UNKNOWN, LiveGap, TradeSample, live_gap
from bandit.storage import outcomes, trials

LIVE_TRADES: Final = 300
"""Newest trades of an arm that are compared, so that a report costs the same after ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideBacktest:
    """An arm's newest live trades beside what its policy's backtest promised.

    `promise` is None where the ledger did not keep it: then live numbers stand alone.
    """

    trial: TrialId
    live: TradeSample
    promise: TradeSample | None

    @property
    def gap(self) -> LiveGap:
        """How the live trades differ."""
        return live_gap(self.live, UNKNOWN if self.promise is None else self.promise)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "trial": self.trial,
            "trades": self.live.n,
            "trades_with_slippage": self.live.n_slippage,
            "trades_backtest": None if self.promise is None else self.promise.n,
            **self.gap.to_json(),
        }


def read(connection: Connection, arm_ids: Sequence[int]) -> dict[int, BesideBacktest]:
    """Return every arm beside its backtest, without those whose policy names none."""
    named = trials.of_arms(connection, arm_ids)
    live = outcomes.newest_samples(connection, list(named), LIVE_TRADES) if named else {}
    return {
        arm_id: BesideBacktest(
            trial=trial.id,
            live=live[arm_id],
            promise=None if trial.metrics is None else trial.metrics.promise,
        )
        for arm_id, trial in named.items()
    }
