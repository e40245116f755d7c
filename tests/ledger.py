"""Builders of small, lawful ledgers for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Engine

from bandit.core.limits import Limits
from bandit.core.model import (
    Assignment,
    Experiment,
    Policy,
    PolicyKind,
    PolicyName,
    PolicySha,
    Profile,
    UnitId,
)
from bandit.core.outcomes import Outcome, trade
from bandit.core.reading import Rules
from bandit.service import experiments, policies, recording
from bandit.service.assigning import Opportunity, Router

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SALT = bytes(range(32))


def register(engine: Engine, name: str, sha: str, *, now: datetime = NOON) -> PolicyName:
    """Register an external policy and return its name."""
    policy = Policy(name=PolicyName(name), kind=PolicyKind.EXTERNAL, sha=PolicySha(sha))
    return policies.register(engine, policy, now=now, actor="test")[0].policy.name


def open_btc(
    engine: Engine,
    *,
    challengers: Sequence[tuple[str, str]] = (
        ("reinforcement_20250707_154526_eee02a74", "eee02a74"),
    ),
    profile: Profile = Profile.GUARDED,
    equity_fraction: float = 0.1,
    limits: Limits | None = None,
    rules: Rules | None = None,
    now: datetime = NOON,
) -> experiments.ExperimentRecord:
    """Open the experiment `btc` with champion `prod` and the given challengers."""
    champion = register(engine, "prod", "aaaaaaaa", now=now)
    names = [register(engine, name, sha, now=now) for name, sha in challengers]
    experiment = Experiment(
        name="btc",
        champion=champion,
        capital=Decimal(10_000),
        currency="USD",
        equity_fraction=equity_fraction,
        profile=profile,
    )
    record, _ = experiments.open_experiment(
        engine,
        experiment,
        challengers=names,
        salt=SALT,
        limits=limits or Limits(),
        rules=rules or Rules(),
        now=now,
        actor="test",
    )
    return record


def assign(engine: Engine, units: Sequence[str], *, now: datetime = NOON) -> list[Assignment]:
    """Assign units of `btc` for BTCUSD."""
    opportunities = [Opportunity(unit_id=UnitId(u), instrument="BTCUSD") for u in units]
    return Router(engine).assign("btc", opportunities, now=now)


def assign_to(
    engine: Engine, policy: str, count: int, *, now: datetime = NOON, prefix: str = "u"
) -> list[Assignment]:
    """Assign units of `btc` until `count` of them went to `policy`; return those."""
    found: list[Assignment] = []
    for block in range(1000):
        made = assign(engine, [f"{prefix}-{block}-{i}" for i in range(64)], now=now)
        found += [a for a in made if a.policy == policy]
        if len(found) >= count:
            return found[:count]
    raise AssertionError(f"{policy} gets no traffic")


def closed(
    assignment: Assignment, result: str, *, minutes: int = 60, pnl: str | None = None
) -> Outcome:
    """A trade that closed `minutes` after its decision with return `result`."""
    return trade(
        assignment.id,
        pnl=Decimal(pnl) if pnl is not None else Decimal(result) * 1000,
        return_ratio=Decimal(result),
        opened_at=assignment.decided_at,
        closed_at=assignment.decided_at + timedelta(minutes=minutes),
    )


def record_all(engine: Engine, batch: Sequence[Outcome], *, now: datetime) -> None:
    """Record outcomes that must all be accepted."""
    for start in range(0, len(batch), 500):
        for answer in recording.record(engine, batch[start : start + 500], now=now):
            assert isinstance(answer, recording.Recorded), answer


def feed(
    engine: Engine, policy: str, results: Sequence[str], *, now: datetime = NOON, prefix: str = "u"
) -> datetime:
    """Let `policy` close one trade a minute with these returns; return a time after the last."""
    made = assign_to(engine, policy, len(results), now=now, prefix=prefix)
    pairs = enumerate(zip(made, results, strict=True), start=1)
    record_all(
        engine,
        [closed(a, result, minutes=minute) for minute, (a, result) in pairs],
        now=now + timedelta(minutes=len(results)),
    )
    return now + timedelta(minutes=len(results) + 1)
