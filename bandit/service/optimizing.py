"""Sweeps in the ledger: begun once a day, followed, and ended; each step a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine

from bandit.core.errors import Conflict, LedgerUnavailable
from bandit.core.model import PolicyName, checked_instant, checked_text
from bandit.core.optimization import OptimizationRun, RunState, TrialCounts
from bandit.storage import audit, optimization
from bandit.storage.engine import snapshot, transaction

NEWEST: Final = 20


def require_room(engine: Engine) -> None:
    """Raise `LedgerUnavailable` where Optuna has no schema to keep its studies in."""
    with snapshot(engine) as connection:
        if not optimization.has_room_for_studies(connection):
            rule = "run as who owns the database: CREATE SCHEMA optuna; and let this user CREATE"
            raise LedgerUnavailable(f"the ledger has no schema optuna: {rule} in it")


def study_place(engine: Engine) -> tuple[str, dict[str, Any]]:
    """Return where Optuna keeps its studies: a URL, and what to connect with."""
    url = engine.url.render_as_string(hide_password=False)
    return url, optimization.study_arguments(url)


def find(engine: Engine, study: str) -> OptimizationRun | None:
    """Return a sweep; None where none of that name was begun."""
    with snapshot(engine) as connection:
        return optimization.by_study(connection, study)


def newest(engine: Engine, *, most: int = NEWEST) -> list[OptimizationRun]:
    """Return the sweeps that began last, the newest first."""
    with snapshot(engine) as connection:
        return optimization.newest(connection, most=most)


def require_same(found: OptimizationRun, asked: Mapping[str, Any]) -> None:
    """Raise `Conflict` where a sweep was begun with something else than is asked now.

    Where its bars ended is not held against it: what they were, the digest of its candles says.
    """
    names = sorted({*found.asked, *asked} - {"until"})
    differing = [name for name in names if found.asked.get(name) != asked.get(name)]
    if differing:
        bars = [f"{name} up to {newest}" for name, newest in found.asked.get("until", {}).items()]
        gone = (
            f" (of its bars, {', '.join(bars)}, some are gone or others: rolled back or corrected, "
            "or not those that are asked for)"
        )
        raise Conflict(
            f"{found.study} was begun with other {', '.join(differing)}"
            f"{gone if bars and 'candles' in differing else ''}; "
            "go on with the same, or begin a sweep of another day with --date"
        )


def begin(
    engine: Engine, study: str, *, trials: int, asked: Mapping[str, Any], now: datetime, actor: str
) -> OptimizationRun:
    """Begin a sweep, or return the one of that name; raises `Conflict` as `require_same`."""
    begun = OptimizationRun(
        study=study,
        began_at=checked_instant(now, field="now"),
        changed_at=now,
        trials=trials,
        asked=asked,
        state=RunState.RUNNING,
        counts=TrialCounts(),
        best_value=None,
        parameters={},
        policy=None,
    )
    with transaction(engine) as connection:
        if optimization.insert(connection, begun):
            _audit(connection, begun, "sweep_begun", now=now, actor=actor)
        found = optimization.by_study(connection, study)
    assert found is not None
    require_same(found, asked)
    return found


def follow(
    engine: Engine,
    study: str,
    *,
    counts: TrialCounts,
    best_value: float | None,
    parameters: Mapping[str, Any],
    now: datetime,
) -> None:
    """Write down how many trials of a sweep have ended, and the best of them so far."""
    with transaction(engine) as connection:
        found = _locked(connection, study)
        if found.state is RunState.RUNNING:
            changed = replace(
                found, counts=counts, best_value=best_value, parameters=parameters, changed_at=now
            )
            optimization.write(connection, changed)


def end(
    engine: Engine, study: str, *, policy: PolicyName | None, now: datetime, actor: str
) -> OptimizationRun:
    """End a sweep once: complete with the policy that was registered of it, failed without.

    What the best trial chose enters the history of parameters where it differs from the last one.
    """
    state = RunState.FAILED if policy is None else RunState.COMPLETE
    with transaction(engine) as connection:
        found = _locked(connection, study)
        if found.state is not RunState.RUNNING:
            return found
        ended = replace(found, state=state, policy=policy, changed_at=now)
        optimization.write(connection, ended)
        if policy is not None:
            reason = f"the best of {found.counts.ended} trials, registered as {policy}"
            optimization.record_parameters(connection, ended, now=now, actor=actor, reason=reason)
        _audit(connection, ended, f"sweep_{state}", now=now, actor=actor)
    return ended


def _locked(connection: Connection, study: str) -> OptimizationRun:
    found = optimization.by_study(connection, study, lock=True)
    assert found is not None, "a sweep never goes"
    return found


def _audit(
    connection: Connection, found: OptimizationRun, action: str, *, now: datetime, actor: str
) -> None:
    audit.append(
        connection,
        now=now,
        actor=checked_text(actor, field="actor", length_max=200),
        action=action,
        subject=found.study,
        details={
            "trials": found.trials,
            "complete": found.counts.complete,
            "pruned": found.counts.pruned,
            "failed": found.counts.failed,
            "best_value": found.best_value,
            "policy": found.policy,
        },
    )
