"""A ledger, a bot and a service as the playbooks name them, brought into what an alert tells of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from api_service import application
from drift_runs import a_check, an_encoder_check
from ledger import FALLEN, POOR, SALT, assign, closed, feed, record_all, register
from sqlalchemy import Engine, text
from vitals import beat

from bandit.core.account import LossLimits
from bandit.core.backups import BackupKind
from bandit.core.drift import DriftMetric, DriftRun
from bandit.core.heartbeat import BreakerState
from bandit.core.kill_switch import KillCause
from bandit.core.limits import Limits
from bandit.core.model import Experiment, PolicyName, PolicySha, Verdict
from bandit.core.reading import Rules
from bandit.service import drift, experiments, health, killing, promoting
from bandit.service.assigning import Router
from config.settings import Settings
from liveops import backups
from liveops.clock import SystemClock

WINDOW: Final = timedelta(minutes=10)
BLOCK: Final = re.compile(r"^```(bash|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SET_LIMITS: Final = text(
    "UPDATE experiments SET rules = jsonb_set(jsonb_set(rules, '{checklist,pf_throttle}',"
    " to_jsonb(CAST(:factor AS float))), '{checklist,drawdown_halt_percent}',"
    " to_jsonb(CAST(:drawdown AS float)))"
)
EXIT: Final = re.compile(r"\s#.*\bexit (\d+)")


def commands_of(page: str, *kinds: str) -> list[tuple[str, int]]:
    """The commands of the blocks of these kinds, each with the exit code that the page tells."""
    found = []
    for kind, block in BLOCK.findall(page):
        if kind in kinds:
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    told = EXIT.search(line)
                    found.append((line, int(told[1]) if told else 0))
    return found


def build(engine: Engine) -> None:
    """Open `btc` three days ago with `trend-v1`, which `trend-v2` followed, and a challenger."""
    at = datetime.now(UTC) - timedelta(days=3)
    names = [register(engine, f"trend-v{i}", f"{i}" * 8, now=at) for i in (1, 2, 3)]
    experiments.open_experiment(
        engine,
        Experiment(
            name="btc",
            champion=names[0],
            capital=Decimal(10_000),
            currency="USD",
            equity_fraction=0.1,
            account="usd",
        ),
        challengers=names[1:],
        salt=SALT,
        limits=Limits(),
        loss_limits=LossLimits(),
        rules=Rules(),
        now=at,
        actor="test",
    )
    promoting.promote(
        engine,
        name="btc",
        policy=PolicyName("trend-v2"),
        reason="better for a quarter",
        now=at + timedelta(hours=1),
        actor="test",
    )
    earn(engine, "1", "1", "-1", "1", at=at + timedelta(hours=2), prefix="before")


def earn(engine: Engine, *money: str, at: datetime | None = None, prefix: str = "now") -> None:
    """Let decisions of `btc` earn this, one commit each."""
    at = at or datetime.now(UTC) - timedelta(hours=2)
    units = [f"{prefix}-{i}" for i in range(len(money))]
    for made, each in zip(assign(engine, units, now=at), money, strict=True):
        record_all(engine, [closed(made, f"{each}e-4", pnl=each)], now=at + timedelta(hours=1))


def hear(engine: Engine, *, ago: timedelta = timedelta(0), **fields: Any) -> None:
    """Let the bot `alpha` tell how it is, some time ago."""
    at = datetime.now(UTC) - ago
    told = {"account": "usd", "started_at": at - timedelta(hours=6), "candles": {"BTCUSDT": at}}
    told |= fields
    health.hear(engine, beat(sent_at=at, **told), now=at, window=WINDOW)


def _stops(engine: Engine) -> None:
    hear(engine, running=False)


def _falls_silent(engine: Engine) -> None:
    hear(engine, ago=timedelta(minutes=5))


def _disconnects(engine: Engine) -> None:
    hear(engine, api_connected=False)


def _breaks(engine: Engine) -> None:
    hear(engine, breakers={"orders": BreakerState.OPEN})


def _errs(engine: Engine) -> None:
    began = datetime.now(UTC) - timedelta(hours=6)
    hear(engine, ago=timedelta(minutes=1), started_at=began)
    hear(engine, api_errors_total=7, started_at=began)


def _stalls(engine: Engine) -> None:
    hear(engine, candles={"BTCUSDT": datetime.now(UTC) - timedelta(hours=1)})


def _killed(engine: Engine) -> None:
    hear(engine)
    now = datetime.now(UTC)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=now, actor="test")


def _loses(engine: Engine) -> None:
    hear(engine)
    earn(engine, *["-1"] * 10)


def _loses_some(engine: Engine) -> None:
    hear(engine)
    earn(engine, *["-1", "-1", "1"] * 4)


def _wins_little(engine: Engine) -> None:
    """Let the challenger earn too little, and no guard see it, as if that had failed."""
    _earns(engine, POOR)


def _wins_seldom(engine: Engine) -> None:
    _earns(engine, ["0.003", "-0.0005", "-0.0005"] * 10)


def _falls(engine: Engine) -> None:
    """Let the challenger fall deep, and no guard see it, as if that had failed."""
    _earns(engine, FALLEN)


def _earns(engine: Engine, results: Sequence[str]) -> None:
    hear(engine)
    with engine.begin() as connection:
        connection.execute(_SET_LIMITS, {"factor": 0, "drawdown": 100})
    feed(engine, "trend-v3", results, now=datetime.now(UTC) - timedelta(hours=2))
    with engine.begin() as connection:
        connection.execute(_SET_LIMITS, {"factor": 1.6, "drawdown": 4})


def _loses_in_a_row(engine: Engine) -> None:
    hear(engine)
    feed(engine, "trend-v3", ["-0.001"] * 5, now=datetime.now(UTC) - timedelta(hours=2))


def _drifts(engine: Engine) -> None:
    """Let the newest check of the challenger find what every page of drift is about."""
    hear(engine)
    now = datetime.now(UTC)
    found = (
        ("rsi", DriftMetric.PSI, 0.41, "critical"),
        ("adx", DriftMetric.PSI, 0.25, "warning"),
        ("macd", DriftMetric.MISSING, 0.2, "critical"),
        ("volume", DriftMetric.MISSING, 0.07, "warning"),
        ("confidence", DriftMetric.CONFIDENCE, 0.25, "warning"),
    )
    checks = [
        a_check(subject, metric=metric, value=value, verdict=Verdict.FAIL, detail={"level": level})
        for subject, metric, value, level in found
    ]
    encoder = replace(an_encoder_check(0.62), verdict=Verdict.FAIL)
    run = DriftRun(
        sha=PolicySha("3" * 8),
        checks=(*checks, encoder),
        window_from=now - timedelta(days=10),
        window_to=now,
        checked_at=now,
    )
    drift.record(engine, run, now=now, actor="test")


def _differs(engine: Engine) -> None:
    (made,) = assign(engine, ["lost"], now=datetime.now(UTC) - timedelta(hours=1))
    Router(engine).claim(made.id, now=made.decided_at)
    for ago in (timedelta(minutes=2), timedelta(0)):
        hear(engine, ago=ago, positions=())


def _holds(engine: Engine) -> None:
    now = datetime.now(UTC)
    hear(engine, open_positions=1)
    (made,) = assign(engine, ["held"], now=now)
    Router(engine).claim(made.id, now=now)


def _forged(engine: Engine) -> None:
    hear(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE arm_statistics SET fees = 7 WHERE n_trades > 0"))


STAGES: Final[Mapping[str, Callable[[Engine], None]]] = {
    "APIDisconnected": _disconnects,
    "APIErrorRateHigh": _errs,
    "AccountNotReconciled": _differs,
    "AccountBalanceLow": _killed,
    "BotSilent": _falls_silent,
    "BotStopped": _stops,
    "ChallengerDrawdownHigh": _falls,
    "ChallengerProfitFactorLow": _wins_little,
    "CircuitBreakerOpen": _breaks,
    "ConsecutiveLossesHigh": _loses_in_a_row,
    "DailyLossHigh": _killed,
    "DataFeedStalled": _stalls,
    "DrawdownHigh": _killed,
    "EncoderKLDivergenceHigh": _drifts,
    "FeatureDriftCritical": _drifts,
    "FeatureDriftHigh": _drifts,
    "HealthDegraded": _killed,
    "HealthUnhealthy": _stops,
    "KillSwitchActive": _killed,
    "MissingDataCritical": _drifts,
    "MissingDataHigh": _drifts,
    "ModelConfidenceLow": _drifts,
    "PerformanceGuardPaused": _loses,
    "PerformanceGuardReduced": _loses_some,
    "StatisticsMismatch": _forged,
    "TradingHalted": _killed,
    "WinRateLow": _wins_seldom,
    "bot-or-exchange": _stops,
    "drifting-model": _drifts,
    "emergency-stop": _holds,
}
"""What is wrong before the commands of a page are typed; of the other pages nothing is."""

SAYS: Final[Mapping[str, str]] = {
    "APIDisconnected": "api_connected.*false",
    "APIErrorRateHigh": "api_errors.*7",
    "AccountNotReconciled": "missing",
    "BotSilent": "issue: .*alpha",
    "BotStopped": "does not run",
    "ChallengerDrawdownHigh": "trend-v3 dd_challenger_pct +4.688 .* FAIL: halt",
    "ChallengerProfitFactorLow": "trend-v3 pf_challenger_30 +1.5 .* FAIL: throttle",
    "CircuitBreakerOpen": "orders.*open",
    "ConsecutiveLossesHigh": "5 lost in a row",
    "DataAnomalyFound": '"return"',
    "DataPipelineCompleted": "2026-03-02: PASS",
    "DataPipelineFailed": "anomalies stop the load",
    "DataPipelineLate": "2026-03-03 is done",
    "DataFeedStalled": "issue: .*BTCUSDT",
    "EncoderKLDivergenceHigh": 'part="calibrated"} 0.62',
    "FeatureDriftCritical": 'check="psi",level="critical"} 1',
    "FeatureDriftHigh": 'check="psi",level="warning"} 1',
    "KillSwitchActive": "usd is killed",
    "LatencyHigh": 'le="0.2",route="assignments"',
    "LedgerUnavailable": "issue: .*ledger",
    "MissingDataCritical": 'check="missing",level="critical"} 1',
    "MissingDataHigh": 'check="missing",level="warning"} 1',
    "ModelConfidenceLow": 'check="confidence",level="warning"} 1',
    "PerformanceGuardPaused": "PAUSED",
    "PerformanceGuardReduced": "REDUCED",
    "StatisticsMismatch": "fees",
    "WinRateLow": "trend-v3 .* 30 +33%",
    "drifting-model": "liveops_drift_features.* 4",
    "data-pipeline": "rolled back to before 2026-03-02, undone: 2026-03-02",
    "emergency-stop": "is killed",
    "disaster-recovery": "restored database_backup_",
    "rollback": "trend-v1 is the champion of btc [(]",
}
"""What the commands of a page must have told at least once: its situation is what it is for."""

DOWN: Final[Sequence[str]] = ("SystemDowntime",)
"""Pages of a service that does not run."""

AWAY: Final[Sequence[str]] = ("LedgerUnavailable",)
"""Pages of a service whose ledger does not answer."""

LOST: Final[Sequence[str]] = ("disaster-recovery",)
"""Pages of a ledger of which nothing is left but a backup."""


def lose(engine: Engine, home: Path) -> None:
    """Back the ledger up into `home`, and lose it."""
    app = replace(application(engine, clock=SystemClock()), settings=Settings(home=home))
    backups.take(app, BackupKind.DATABASE, say=lambda _: None)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public, optuna CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()  # nobody may remember what was there


def stage(engine: Engine, page: str) -> None:
    """Bring the stack into the situation of a page."""
    STAGES.get(page, hear)(engine)
