"""A scripted day for the monitor: virtual time, a bot that tells and trades, and what befalls them.

Minutes are counted by a clock that nobody sets; the wall's clock jumps. What is told goes to the
service and, once that has it, to the oracle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ledger import NOON
from monitored_day_oracle import MINUTE, Oracle

from bandit.core.errors import InvalidInput, Killed, LedgerUnavailable, Paused
from bandit.core.heartbeat import BreakerState, Heartbeat
from bandit.core.model import PolicyName, UnitId
from bandit.core.outcomes import trade
from bandit.core.shadow import shadow_trade
from bandit.service import health, recording, shadowing
from bandit.service.routing_table import Opportunity
from liveops.wiring import App

MINUTES = 24 * 60
SLIDER, FALLER = "slider", "faller"
SLIDES, FALLS = 310, 430
BEATS: Mapping[str, tuple[int, int]] = {
    "disconnected": (340, 350),
    "breaker": (360, 370),
    "model_old": (380, 390),
    "no_trades": (400, 410),
    "gap": (560, 595),
    "storm": (610, 616),
    "silent": (640, 650),
    "stopped": (655, 662),
    "clock_apart": (720, 730),
}
"""From which minute to which a heartbeat tells of this."""

GPU: Sequence[tuple[int, str | int]] = (
    (0, "no driver"),
    (240, 7),
    (826, 97),
    (851, 7),
    (910, "lost"),
    (920, "no driver"),
    (930, 7),
    (940, 97),
    (950, "hangs"),
    (960, 7),
)
"""What the GPU is from which minute on: a percentage, or why nothing can be read."""


class Time:
    """Seconds that never go back, and a wall clock that somebody sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds) + self.offset

    def monotonic(self) -> float:
        return self.seconds


class Stop(threading.Event):
    """Lets a virtual minute pass for each wait, and is set when the last one has."""

    def __init__(self, time: Time, pass_minute: Callable[[int], None]) -> None:
        super().__init__()
        self._time, self._pass_minute, self._minute = time, pass_minute, 0

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - of a busy host: a minute
        self._pass_minute(self._minute)
        self._minute += 1
        self._time.seconds = 60.0 * self._minute
        if self._minute == MINUTES:
            self.set()
        return self.is_set()


def is_on(name: str, minute: int) -> bool:
    """Whether the script has the bot tell of this in a minute."""
    begins, ends = BEATS[name]
    return begins <= minute < ends


@dataclass
class Position:
    """What the bot holds, or follows on paper since `pause` refused it."""

    assignment: UUID
    unit: str
    policy: str
    size: Decimal
    opened_at: datetime
    closes: int
    pause: int | None = None
    result: str | None = None
    closed_at: datetime | None = None


@dataclass
class Bot:
    """Sends a heartbeat a minute, and trades one opportunity in three; each is held ten minutes."""

    app: App
    oracle: Oracle
    held: list[Position] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    has_fallen: bool = False
    candle: datetime = NOON

    def minute(self, minute: int, time: Time) -> None:
        """Do what a minute asks for; without the ledger, what can wait waits."""
        start = time.seconds
        for after, act in ((20, self._beat), (25, self._open), (30, self._close)):
            time.seconds = start + after
            try:
                act(minute, time.now())
            except LedgerUnavailable:
                assert self.oracle.is_away
        time.seconds = start

    def _beat(self, minute: int, now: datetime) -> None:
        if is_on("silent", minute):
            return
        self.errors += 2 * is_on("storm", minute)
        newest = now.replace(second=0, microsecond=0)
        if not is_on("gap", minute):
            self.candle = newest
        told: dict[str, Any] = {
            "sent_at": now - timedelta(seconds=8 if is_on("clock_apart", minute) else 0),
            "running": not is_on("stopped", minute),
            "api_connected": not is_on("disconnected", minute),
            "candles": {"BTCUSDT": newest, "ETHUSDT": self.candle},
            "candle_seconds": 60,
            "api_errors_total": self.errors,
            "breakers": {"orders": "open" if is_on("breaker", minute) else "closed"},
            "model_trained_at": now - timedelta(days=31 if is_on("model_old", minute) else 3),
            "last_trade_at": now - timedelta(hours=169 if is_on("no_trades", minute) else 1),
        }
        beat = Heartbeat(
            bot="alpha",
            started_at=NOON - timedelta(days=10),
            open_positions=len(self.held),
            **(told | {"breakers": {n: BreakerState(s) for n, s in told["breakers"].items()}}),
        )
        health.hear(self.app.engine, beat, now=now, window=10 * MINUTE)
        self.oracle.heard.hear(told, now)

    def _open(self, minute: int, now: datetime) -> None:
        if minute % 3:
            return
        unit = f"u-{minute:04}"
        told: dict[str, Any] = {"unit": unit, "opened_at": now, "closes": minute + 10}
        try:
            asked = [Opportunity(unit_id=UnitId(unit), instrument="BTCUSD")]
            [made] = self.app.router.assign("btc", asked, now=now)
            self.app.router.claim(made.id, now=now)
        except Paused as refused:
            assert self.oracle.guard.state == "PAUSED"
            found = {"assignment": refused.assignment_id, "policy": refused.policy}
            pause = self.oracle.guard.pauses
            self.held.append(Position(**told, **found, size=Decimal(1), pause=pause))
        except Killed:
            assert self.oracle.is_killed
        else:
            assert self.oracle.guard.state != "PAUSED"
            assert not self.oracle.is_killed
            reduced = self.oracle.guard.state == "REDUCED"
            size = Decimal(str(made.size_multiplier))
            assert size == (Decimal("0.5") if reduced else 1)
            self.held.append(Position(**told, assignment=made.id, policy=made.policy, size=size))

    def _close(self, minute: int, now: datetime) -> None:
        for position in [each for each in self.held if each.closes <= minute]:
            if position.closed_at is None:
                position.closed_at = max(now, position.opened_at)
                position.result = self._result(position.policy, minute)
            if self._told(position, now):
                self.held.remove(position)

    def _result(self, policy: str, minute: int) -> str:
        """What a trade of a policy earns that closes in this minute."""
        if policy == FALLER and minute >= FALLS and not self.has_fallen:
            self.has_fallen = True
            return "-0.42"
        bad = policy == SLIDER and minute >= SLIDES
        if bad or 1020 <= minute < 1035 or 1100 <= minute < 1165:
            return "-0.003"
        number = self.closed[policy] = self.closed.get(policy, 0) + 1
        return "0.004" if number % 3 else "-0.003"

    def _told(self, position: Position, now: datetime) -> bool:
        """Tell what a position earned; False where the ledger cannot have it yet."""
        assert position.result is not None
        assert position.closed_at is not None
        result, times = Decimal(position.result), (position.opened_at, position.closed_at)
        if position.pause is not None:
            told = shadow_trade(
                position.assignment,
                PolicyName(position.policy),
                return_ratio=result,
                opened_at=times[0],
                closed_at=times[1],
            )
            [on_paper] = shadowing.record(self.app.engine, [told], now=now)
            assert isinstance(on_paper, shadowing.RecordedShadow), on_paper
            self.oracle.paper(position.pause, position.result)
            return True
        pnl = 1000 * result * position.size
        outcome = trade(
            position.assignment,
            pnl=pnl,
            return_ratio=result,
            opened_at=times[0],
            closed_at=times[1],
        )
        [answer] = recording.record(self.app.engine, [outcome], now=now)
        if isinstance(answer, InvalidInput):  # of the future, since the clock was set back
            assert position.closed_at > now + 5 * MINUTE
            return False
        assert isinstance(answer, recording.Recorded), answer
        self.oracle.live(position.policy, position.unit, position.closed_at, position.result, pnl)
        return True
