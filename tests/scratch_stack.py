"""A ledger, a bot and a service as the playbooks name them, brought into what an alert tells of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ledger import SALT, assign, closed, record_all, register
from sqlalchemy import Engine, text
from vitals import beat

from bandit.core.account import LossLimits
from bandit.core.heartbeat import BreakerState
from bandit.core.kill_switch import KillCause
from bandit.core.limits import Limits
from bandit.core.model import Experiment, PolicyName
from bandit.core.reading import Rules
from bandit.service import experiments, health, killing, promoting
from bandit.service.assigning import Router

WINDOW: Final = timedelta(minutes=10)
BLOCK: Final = re.compile(r"^```(bash|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
    "AccountBalanceLow": _killed,
    "BotSilent": _falls_silent,
    "BotStopped": _stops,
    "CircuitBreakerOpen": _breaks,
    "DailyLossHigh": _killed,
    "DataFeedStalled": _stalls,
    "DrawdownHigh": _killed,
    "HealthDegraded": _killed,
    "HealthUnhealthy": _stops,
    "KillSwitchActive": _killed,
    "PerformanceGuardPaused": _loses,
    "PerformanceGuardReduced": _loses_some,
    "StatisticsMismatch": _forged,
    "TradingHalted": _killed,
    "bot-or-exchange": _stops,
    "emergency-stop": _holds,
}
"""What is wrong before the commands of a page are typed; of the other pages nothing is."""

SAYS: Final[Mapping[str, str]] = {
    "APIDisconnected": "api_connected.*false",
    "APIErrorRateHigh": "api_errors.*7",
    "BotSilent": "issue: .*alpha",
    "BotStopped": "does not run",
    "CircuitBreakerOpen": "orders.*open",
    "DataFeedStalled": "issue: .*BTCUSDT",
    "KillSwitchActive": "usd is killed",
    "LedgerUnavailable": "issue: .*ledger",
    "PerformanceGuardPaused": "PAUSED",
    "PerformanceGuardReduced": "REDUCED",
    "StatisticsMismatch": "fees",
    "emergency-stop": "is killed",
    "rollback": "trend-v1 is the champion of btc [(]",
}
"""What the commands of a page must have told at least once: its situation is what it is for."""

DOWN: Final[Sequence[str]] = ("SystemDowntime",)
"""Pages of a service that does not run."""

AWAY: Final[Sequence[str]] = ("LedgerUnavailable",)
"""Pages of a service whose ledger does not answer."""


def stage(engine: Engine, page: str) -> None:
    """Bring the stack into the situation of a page."""
    STAGES.get(page, hear)(engine)
