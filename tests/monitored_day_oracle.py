"""What the documents' tables say of a day that a bot has told: written anew, for tests.

Nothing here reads the ledger or asks the product: health.md, guards.md and monitor.md, as they are
printed, applied to what the bot told and to what the script did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

MINUTE = timedelta(minutes=1)

LEVELS = {
    "ledger_unready": "UNHEALTHY",
    "bot_stopped": "UNHEALTHY",
    "bot_silent": "UNHEALTHY",
    "api_disconnected": "UNHEALTHY",
    "feed_stalled": "UNHEALTHY",
    "api_errors": "UNHEALTHY",
    "account_killed": "DEGRADED",
    "latch_set": "DEGRADED",
    "guard_acts": "DEGRADED",
    "drawdown_deep": "DEGRADED",
    "no_trades": "DEGRADED",
    "breaker_open": "DEGRADED",
    "model_old": "DEGRADED",
    "clock_apart": "DEGRADED",
}


def level_of(codes: set[str]) -> str:
    """The worst level of the conditions that hold."""
    levels = {LEVELS[code] for code in codes}
    return next((level for level in ("UNHEALTHY", "DEGRADED") if level in levels), "HEALTHY")


@dataclass
class Heard:
    """What is known of the bot by its heartbeats."""

    newest: dict[str, Any] | None = None
    at: datetime | None = None
    errors: list[tuple[datetime, int]] = field(default_factory=list)
    total: int = 0

    def hear(self, beat: dict[str, Any], now: datetime) -> None:
        """Take a heartbeat; one that is no later changes nothing, unless the clock was set back."""
        set_back = self.at is not None and self.at > now + 2 * MINUTE
        if self.newest is not None and beat["sent_at"] <= self.newest["sent_at"] and not set_back:
            return
        more = beat["api_errors_total"] - self.total
        self.total = beat["api_errors_total"]
        self.errors = [(min(at, now), told) for at, told in self.errors] + [(now, more)]
        self.newest, self.at = beat, now

    def codes(self, now: datetime) -> Iterator[str]:
        """The conditions that hold of the bot."""
        if self.newest is None or self.at is None:
            return
        beat = self.newest
        if not beat["running"]:
            yield "bot_stopped"
            return
        if abs(now - self.at) > timedelta(seconds=120):
            yield "bot_silent"
        if not beat["api_connected"]:
            yield "api_disconnected"
        due = [
            candle + timedelta(seconds=beat["candle_seconds"])
            for candle in beat["candles"].values()
        ]
        if any(now - each > 15 * MINUTE for each in due):
            yield "feed_stalled"
        if sum(told for at, told in self.errors if at > now - 10 * MINUTE) > 5:
            yield "api_errors"
        if "open" in beat["breakers"].values():
            yield "breaker_open"
        if now - beat["model_trained_at"] > timedelta(days=30):
            yield "model_old"
        if abs(self.at - beat["sent_at"]) > timedelta(seconds=5):
            yield "clock_apart"
        if now - beat["last_trade_at"] > timedelta(hours=168):
            yield "no_trades"


@dataclass
class Guard:
    """The performance guard: windows of ten trades in the order in which they arrived."""

    state: str = "NORMAL"
    window: list[tuple[Decimal, Decimal]] = field(default_factory=list)
    streak: int = 0
    since: int = 0
    pauses: int = 0
    changes: list[str] = field(default_factory=list)

    def trade(self, pnl: Decimal, equity_before: Decimal) -> None:
        """Take the next trade."""
        told = len(self.window) >= 5
        self.window = [*self.window, (pnl, equity_before)][-10:]
        self.streak = self.streak + 1 if pnl < 0 else 0
        self.since += 1
        target = self._target()
        severity = ("NORMAL", "REDUCED", "PAUSED").index
        if self.state == "NORMAL" and pnl > 0 and told:
            return  # it takes a trade that did not win to tighten it
        if severity(target) > severity(self.state):
            self._enter(target)
        elif self.state != "NORMAL" and self._recovers():
            self._enter("NORMAL")

    def _enter(self, state: str) -> None:
        self.state, self.since = state, 0
        self.pauses += state == "PAUSED"
        self.changes.append(state)

    def _win_rate(self) -> Decimal | None:
        n = len(self.window)
        return None if n < 5 else Decimal(sum(pnl > 0 for pnl, _ in self.window)) / n

    def _drawdown(self) -> Decimal:
        equity = peak = Decimal(1)
        deepest = Decimal(0)
        for pnl, before in self.window:
            equity *= 1 + pnl / before
            peak = max(peak, equity)
            deepest = max(deepest, 1 - equity / peak)
        return deepest

    def _target(self) -> str:
        rate, fall = self._win_rate(), self._drawdown()
        for state, least, losses, most in (
            ("PAUSED", "0.30", 10, "0.10"),
            ("REDUCED", "0.40", 5, "0.05"),
        ):
            low = rate is not None and rate < Decimal(least)
            if low or self.streak >= losses or fall > Decimal(most):
                return state
        return "NORMAL"

    def _recovers(self) -> bool:
        rate = self._win_rate()
        high = rate is not None and rate >= Decimal("0.45")
        return high and self._drawdown() < Decimal("0.05") and self.since >= 5 and self.streak < 5


@dataclass
class Arm:
    """A challenger under the checklist: its live trades, newest last by when they closed."""

    status: str = "active"
    trades: list[tuple[datetime, str, Decimal]] = field(default_factory=list)

    def flags(self) -> Iterator[tuple[str, str]]:
        """The rows that are flagged, with their actions."""
        results = [result for _, _, result in sorted(self.trades)]
        short = results[-30:]
        won, lost = (sum(abs(r) for r in short if r * sign > 0) for sign in (1, -1))
        if len(short) == 30 and lost > 0 and won / lost < Decimal("1.6"):
            yield "pf_challenger_30", "throttle"
        equity = peak = Decimal(1)
        deepest = Decimal(0)
        for result in results[-150:]:
            equity += Decimal("0.1") * result
            peak = max(peak, equity)
            deepest = max(deepest, 1 - equity / peak)
        if deepest > Decimal("0.04"):
            yield "dd_challenger_pct", "halt"

    def act(self) -> str | None:
        """What its newest trade asks for, once."""
        asked = {action for _, action in self.flags()}
        if "halt" in asked and self.status in ("active", "throttled"):
            self.status = "halted"
            return "halt"
        if "throttle" in asked and self.status == "active":
            self.status = "throttled"
            return "throttle"
        return None


@dataclass
class Oracle:
    """Everything that the tables speak of, from what was told and scripted."""

    arms: dict[str, Arm]
    heard: Heard = field(default_factory=Heard)
    guard: Guard = field(default_factory=Guard)
    realised: Decimal = Decimal(0)
    peak: Decimal = Decimal(0)
    acted: list[tuple[str, str]] = field(default_factory=list)
    is_away: bool = False
    is_killed: bool = False
    is_latched: bool = False
    drifted: str | None = None
    asked: bool = False
    gpu: tuple[float, int | None] = (0.0, None)
    job_said_at: float | None = None
    restarts: int = 0

    def live(self, policy: str, unit: str, closed_at: datetime, result: str, pnl: Decimal) -> None:
        """A live trade arrived."""
        self.guard.trade(pnl, 10_000 + self.realised)
        self.realised += pnl
        self.peak = max(self.peak, self.realised)
        if policy in self.arms:
            arm = self.arms[policy]
            arm.trades.append((closed_at, unit, Decimal(result)))
            done = arm.act()
            if done is not None:
                self.acted.append((done, policy))

    def paper(self, pause: int, result: str) -> None:
        """A refused opportunity was followed: it counts where its very pause stands."""
        if self.guard.state == "PAUSED" and self.guard.pauses == pause:
            self.guard.trade(1000 * Decimal(result), 10_000 + self.realised)

    def codes(self, now: datetime) -> set[str]:
        """The conditions that hold."""
        found = {"latch_set"} if self.is_latched else set()
        if self.is_away:
            return found | {"ledger_unready"}
        found |= set(self.heard.codes(now))
        found |= {"account_killed"} if self.is_killed else set()
        found |= {"guard_acts"} if self.guard.state != "NORMAL" else set()
        # Killed above 8 %: deep above half of that, of the peak.
        if self.peak - self.realised > Decimal("0.04") * (10_000 + self.peak):
            found.add("drawdown_deep")
        return found

    def halted(self) -> bool | None:
        """Whether trading is halted; None is not known."""
        if self.is_away:
            return True if self.is_latched else None
        return self.is_killed or self.is_latched or self.guard.state == "PAUSED"

    def gpu_percent(self, seconds: float) -> int | None:
        """How busy the GPU is, as far as anybody has looked within a minute."""
        at, percent = self.gpu
        return percent if seconds - at <= 60 else None

    def flags(self, seconds: float) -> set[tuple[str, str, str]]:
        """The flags of a round: policy, metric, action."""
        found = {(name, *row) for name, arm in self.arms.items() for row in arm.flags()}
        if self.drifted is not None:
            found.add((self.drifted, "encoder_kl_divergence", "refresh_encoder"))
        percent = self.gpu_percent(seconds)
        if percent is not None and percent > 60:
            found.add(("", "gpu_util_pct", "restart_learner"))
        return found

    def done(self, seconds: float) -> list[str]:
        """What a round does, in words; doing it is remembered."""
        found = []
        if self.drifted is not None and not self.asked:
            self.asked = True
            found.append(f"asked for an encoder refresh of {self.drifted} at 2026-03-02 02:00 UTC")
        percent = self.gpu_percent(seconds)
        stuck = self.job_said_at is not None and seconds - self.job_said_at >= 600
        if percent is not None and percent > 60 and stuck:
            self.restarts += 1
            self.job_said_at = seconds
            why = f"gpu_util_pct {percent} while it says nothing"
            found.append(f"began the learner of {self.drifted} again: {why}")
        return found
