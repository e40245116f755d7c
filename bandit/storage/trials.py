"""Backtest trials: recorded once, never changed, never forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.backtest import BacktestMetrics, BacktestTrial, TrialId, TrialSubject
from bandit.core.errors import Conflict
from bandit.core.live_gap import TradeSample
from bandit.core.model import PolicyKind, Verdict
from bandit.core.multiplicity import ReturnMoments
from bandit.core.profit_factor import ProfitFactor
from bandit.storage.engine import one, rows

_SUBJECT = (
    *("family", "kind", "spec", "data", "features"),
    *("window_first", "window_last", "seed", "steps"),
)
_MEASURED = (
    *("n_periods", "mean", "variance", "skew", "kurtosis", "sharpe", "periods_per_year"),
    *("n_trades", "n_losses", "gross_profit", "gross_loss"),
    *("total_return", "drawdown_max_percent"),
)
_PROMISED = ("n_wins", "trade_mean", "trade_error", "trade_slippage")


def record(
    connection: Connection, trial: BacktestTrial, *, now: datetime
) -> tuple[BacktestTrial, bool]:
    """Store a trial and return it with True, or with False the same one stored before.

    Raises `Conflict` where the same was tried before and measured something else.
    """
    inserted = one(
        connection,
        """
        INSERT INTO backtest_trials (
          id, family, kind, spec, data, features, window_first, window_last, seed, steps,
          started_at, finished_at, n_periods, mean, variance, skew, kurtosis, sharpe,
          periods_per_year, n_trades, n_losses, gross_profit, gross_loss, total_return,
          drawdown_max_percent, n_wins, trade_mean, trade_error, trade_slippage, verdict, failure,
          recorded_at)
        VALUES (
          :id, :family, :kind, :spec, :data, :features, :window_first, :window_last, :seed, :steps,
          :started_at, :finished_at, :n_periods, :mean, :variance, :skew, :kurtosis, :sharpe,
          :periods_per_year, :n_trades, :n_losses, :gross_profit, :gross_loss, :total_return,
          :drawdown_max_percent, :n_wins, :trade_mean, :trade_error, :trade_slippage, :verdict,
          :failure, :now)
        ON CONFLICT (id) DO NOTHING RETURNING id
        """,
        id=trial.id,
        now=now,
        **_written(trial),
    )
    stored = by_id(connection, trial.id)
    assert stored is not None
    if stored.metrics != _known_to(stored, trial.metrics):
        raise Conflict(
            f"trial {trial.id[:12]} of {trial.subject.family} was recorded at "
            f"{stored.finished_at.isoformat()} with other metrics; a trial never changes"
        )
    return stored, inserted is not None


def by_id(connection: Connection, trial_id: TrialId) -> BacktestTrial | None:
    """Return one trial, or None."""
    found = one(connection, "SELECT * FROM backtest_trials WHERE id = :id", id=trial_id)
    return None if found is None else _read(found)


def of_arms(connection: Connection, arm_ids: Sequence[int]) -> dict[int, BacktestTrial]:
    """Return the trial that each arm's policy names as its own; without one, no entry."""
    found = rows(
        connection,
        """
        SELECT a.id AS arm_id, t.* FROM arms a JOIN policies p ON p.id = a.policy_id
        JOIN backtest_trials t ON t.id = p.metadata ->> 'trial'
        WHERE a.id = ANY(CAST(:arm_ids AS bigint[]))
        """,
        arm_ids=list(arm_ids),
    )
    return {row["arm_id"]: _read(row) for row in found}


def of_family(connection: Connection, family: str) -> list[BacktestTrial]:
    """Return the trials of one search in the order in which they were recorded."""
    statement = "SELECT * FROM backtest_trials WHERE family = :family ORDER BY ordinal"
    return [_read(row) for row in rows(connection, statement, family=family)]


def annual_sharpes(connection: Connection, *, beside: TrialId) -> list[float | None]:
    """Return the annual Sharpe ratio of every trial but one, None for each that has none."""
    found = rows(
        connection,
        "SELECT sharpe * sqrt(periods_per_year) AS annual FROM backtest_trials WHERE id <> :beside",
        beside=beside,
    )
    return [row["annual"] for row in found]


def _known_to(stored: BacktestTrial, metrics: BacktestMetrics | None) -> BacktestMetrics | None:
    """Leave out what the ledger did not keep when the trial was stored."""
    if metrics is None or stored.metrics is None or stored.metrics.promise is not None:
        return metrics
    return replace(metrics, promise=None)


def _written(trial: BacktestTrial) -> dict[str, Any]:
    nothing = dict.fromkeys(_MEASURED + _PROMISED)
    measured = nothing if trial.metrics is None else _numbers(trial.metrics)
    return (
        asdict(trial.subject)
        | measured
        | {
            "kind": trial.subject.kind.value,
            "started_at": trial.started_at,
            "finished_at": trial.finished_at,
            "verdict": trial.verdict.value,
            "failure": trial.failure,
        }
    )


def _numbers(metrics: BacktestMetrics) -> dict[str, Any]:
    moments, factor, promise = metrics.moments, metrics.profit_factor, metrics.promise
    return {
        "n_periods": moments.n,
        "mean": moments.mean,
        "variance": moments.variance,
        "skew": moments.skew,
        "kurtosis": moments.kurtosis,
        "sharpe": moments.sharpe,
        "periods_per_year": metrics.periods_per_year,
        "n_trades": factor.n,
        "n_losses": factor.n_losses,
        "gross_profit": factor.gross_profit,
        "gross_loss": factor.gross_loss,
        "total_return": metrics.total_return,
        "drawdown_max_percent": metrics.drawdown_max_percent,
        "n_wins": None if promise is None else promise.wins,
        "trade_mean": None if promise is None else promise.mean,
        "trade_error": None if promise is None else promise.error,
        "trade_slippage": None if promise is None else promise.slippage,
    }


def _read(row: dict[str, Any]) -> BacktestTrial:
    subject = {name: row[name] for name in _SUBJECT} | {"kind": PolicyKind(row["kind"])}
    return BacktestTrial(
        subject=TrialSubject(**subject),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        metrics=None if row["failure"] is not None else _metrics(row),
        verdict=Verdict(row["verdict"]),
        failure=row["failure"],
    )


def _metrics(row: dict[str, Any]) -> BacktestMetrics:
    return BacktestMetrics(
        moments=ReturnMoments(
            n=row["n_periods"],
            mean=row["mean"],
            variance=row["variance"],
            skew=row["skew"],
            kurtosis=row["kurtosis"],
        ),
        periods_per_year=row["periods_per_year"],
        profit_factor=ProfitFactor(
            gross_profit=row["gross_profit"],
            gross_loss=row["gross_loss"],
            n=row["n_trades"],
            n_losses=row["n_losses"],
        ),
        total_return=row["total_return"],
        drawdown_max_percent=row["drawdown_max_percent"],
        promise=None if row["n_wins"] is None else _promise(row),
    )


def _promise(row: dict[str, Any]) -> TradeSample:
    return TradeSample(
        n=row["n_trades"],
        wins=row["n_wins"],
        mean=row["trade_mean"],
        error=row["trade_error"],
        n_slippage=0,
        slippage=row["trade_slippage"],
        slippage_error=None,
    )
