"""A ledger of which every metric of the catalogue has something to tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from api_service import CheckedClient, service
from backtest_trials import a_trial
from data_facts import finished
from data_facts import record as record_night
from drift_runs import a_run
from fake_nvml import FakeNvml
from kept_snapshots import was_stored
from ledger import NIGHT, NOON, assign_to, feed, open_btc, scale, set_budget
from sqlalchemy import Engine
from vitals import beat

from bandit.core.backups import BackupKind, BackupRecord, RestoreDrill
from bandit.core.kill_switch import KillCause
from bandit.core.ladder import LadderRule
from bandit.core.notices import Recipient
from bandit.core.optimization import TrialCounts
from bandit.core.reading import Rules
from bandit.service import (
    auditing,
    backups,
    drift,
    health,
    job_runs,
    killing,
    noticing,
    optimizing,
    rebuilding,
    trials,
    watching,
)
from bandit.service.assigning import Router
from liveops.breakers import Breakers
from liveops.clock import VirtualClock
from liveops.gpu import GpuWatch

CHALLENGER = "reinforcement_20250707_154526_eee02a74"


@contextmanager
def told_service(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[CheckedClient]:
    """A service in the night after the day that `_live` fills, on a machine with a GPU."""
    _live(engine)
    FakeNvml().install(monkeypatch)
    gpus = GpuWatch()
    gpus.look()
    breakers = Breakers()
    breakers.of("notify.discord")
    with service(engine, clock=VirtualClock(NIGHT), gpus=gpus, breakers=breakers) as client:
        yield client


def _live(engine: Engine) -> None:
    trial, _ = trials.record(engine, a_trial([0.01, -0.01] * 15), now=NOON, actor="test")
    rules = Rules(ladder=LadderRule(attribution_hours=24))
    open_btc(engine, rules=rules, trials={CHALLENGER: trial.id})
    set_budget(engine, "100000")
    now = feed(engine, CHALLENGER, ["0.02", "-0.01"] * 15)
    feed(engine, "prod", ["0.02", "-0.01"], now=now, prefix="p")
    # A day later, so that there are daily returns to have a Sharpe ratio of.
    feed(engine, CHALLENGER, ["0.02"], now=NOON + timedelta(days=1), prefix="later")
    [made] = assign_to(engine, CHALLENGER, 1, prefix="claimed")
    Router(engine).claim(made.id, now=NOON)
    scale(engine)
    rebuilding.compare(engine, now=NIGHT)
    drift.record(engine, a_run(), now=NOON, actor="test")
    record_night(engine, finished(NOON))
    seen = {"who": "prod", "interval_seconds": 300, "is_first": True}
    watching.pulse(engine, ["btc"], now=NOON, actor="test", **seen)
    optimizing.begin(engine, "tune_20260301", trials=10, asked={}, now=NOON, actor="test")
    ended = TrialCounts(complete=3, pruned=2, failed=1)
    optimizing.follow(
        engine, "tune_20260301", counts=ended, best_value=0.001, parameters={}, now=NOON
    )
    told = beat(account="usd", equity=Decimal(10_000))
    health.hear(engine, told, now=NOON, window=timedelta(minutes=10))
    was_stored(engine, at=NOON)
    _notice_of_a_kill(engine)
    name = "state_backup_20260301_120000"
    taken = BackupRecord(kind=BackupKind.STATE, name=name, taken_at=NOON, size_bytes=1)
    backups.record(engine, taken)
    drill = RestoreDrill(
        began_at=NOON, backup=name, rows=1, rpo_seconds=60, rto_seconds=5, failure=None
    )
    backups.record_drill(engine, drill)
    run = job_runs.claim(engine, "data", NIGHT, now=NIGHT, actor="test")
    assert run is not None
    job_runs.finish(engine, run, succeeded=True, result="ok", now=NIGHT, actor="test")


def _notice_of_a_kill(engine: Engine) -> None:
    log = [Recipient(name="log")]
    noticing.follow(engine, log, now=NOON)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    auditing.seal(engine, now=NOON)
    noticing.follow(engine, log, now=NOON)
