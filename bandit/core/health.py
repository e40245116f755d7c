"""How the service and its bots are: from what was measured to issues and a level (SPEC F8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Final, assert_never

from bandit.core.account import AccountEquity
from bandit.core.backups import BackupKind, BackupRule, Unarchived
from bandit.core.closing import WaitingToClose
from bandit.core.health_table import TABLE, Condition, HealthLevel
from bandit.core.heartbeat import HEARTBEAT_SECONDS_MAX, BotRecord, BreakerState
from bandit.core.kill_switch import KillEvent
from bandit.core.reconciling import Reconciliation, summary
from bandit.core.watch import Pulse, WatchLevel, WatchRule, deadlines

CLOCK_SECONDS_MAX: Final = 5.0
CLOSE_SECONDS_MAX: Final = 60.0
DRAWDOWN_PART: Final = Decimal("0.5")
"""Of the drawdown that kills: what is deeper is said before it does."""

NORMAL: Final = "NORMAL"
"""The performance guard's status that is no issue; any other one is."""

PAUSED: Final = "PAUSED"
"""The performance guard's status under which nothing new opens."""

_DRAWDOWN_DIGITS = 80  # as many as the account's own limits are read with


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """What is too much; exactly at a limit nothing is wrong."""

    candle_gap: timedelta = timedelta(minutes=15)
    api_errors: int = 5
    api_error_window: timedelta = timedelta(minutes=10)
    no_trade: timedelta = timedelta(hours=168)
    model_age: timedelta = timedelta(days=30)
    heartbeat: timedelta = timedelta(seconds=HEARTBEAT_SECONDS_MAX)
    clock: timedelta = timedelta(seconds=CLOCK_SECONDS_MAX)
    watch: WatchRule = field(default_factory=WatchRule)
    close: timedelta = timedelta(seconds=CLOSE_SECONDS_MAX)
    backups: BackupRule = field(default_factory=BackupRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """An account's money, and the event that killed it; None where it is not killed.

    `reconciliation` is how it compares with what its bots tell, None where they never did;
    `is_blocked` says that nothing new opens because of it.
    """

    name: str
    equity: AccountEquity
    kill: KillEvent | None
    reconciliation: Reconciliation | None = None
    is_blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Everything that was measured at `now`; None is "not known".

    `ledger` says what keeps the ledger from being decided on, `latch` why the latch of this host is
    set, `guard` how the performance guard stands, `closing` what waits to be closed,
    `last_trade_at` when the ledger's newest trade closed. `pulses` are the newest of each
    experiment's monitor, `breakers` those of the service's own that are not closed, `backups` when
    the newest of each kind was taken of which there ever was one, `unarchived` what the ledger's
    server cannot archive of its log.
    """

    now: datetime
    ledger: str | None = None
    latch: str | None = None
    guard: str | None = None
    accounts: tuple[AccountState, ...] = ()
    bots: tuple[BotRecord, ...] = ()
    closing: tuple[WaitingToClose, ...] = ()
    last_trade_at: datetime | None = None
    pulses: tuple[Pulse, ...] = ()
    breakers: tuple[str, ...] = ()
    backups: Mapping[BackupKind, datetime] = field(default_factory=dict)
    unarchived: Unarchived | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One thing that is wrong: `subject` with it, and the value that broke the limit, if any."""

    condition: Condition
    subject: str
    text: str
    value: float | None = None
    limit: float | None = None

    @property
    def level(self) -> HealthLevel:
        """The level that the table says."""
        return TABLE[self.condition].level

    def to_json(self) -> dict[str, object]:
        """Return the issue as files and the API tell it."""
        return {
            "code": self.condition.value,
            "level": self.level.value,
            "subject": self.subject,
            "text": self.text,
            "value": self.value,
            "limit": self.limit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The level, and every issue behind it, the worst first."""

    issues: tuple[Issue, ...]

    @property
    def level(self) -> HealthLevel:
        """The worst level of the issues; HEALTHY without any."""
        return max((i.level for i in self.issues), key=_rank, default=HealthLevel.HEALTHY)

    def texts(self, level: HealthLevel) -> list[str]:
        """Return the issues of one level in words."""
        return [issue.text for issue in self.issues if issue.level is level]

    def meanings(self, level: HealthLevel) -> list[str]:
        """Return the same without names and numbers, each once."""
        found = (TABLE[i.condition].meaning for i in self.issues if i.level is level)
        return list(dict.fromkeys(found))


def assess(found: Vitals, limits: HealthLimits) -> Health:
    """Return how it is.

    What is not known gives no issue; but a bot that was heard once is expected from then on.

    >>> noon = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> assess(Vitals(now=noon), HealthLimits()).level.value
    'HEALTHY'
    >>> health = assess(Vitals(now=noon, latch="drill"), HealthLimits())
    >>> health.level.value, health.issues[0].text
    ('DEGRADED', 'the latch of this host is set: drill')
    """
    issues = [*_of_service(found), *_of_accounts(found), *_of_trades(found, limits)]
    issues += _of_closing(found, limits)
    issues += _of_backups(found, limits)
    for bot in found.bots:
        issues += _of_bot(bot, limits, now=found.now)
    for pulse in found.pulses:
        issues += _of_monitor(pulse, limits.watch)
    return Health(issues=tuple(sorted(issues, key=lambda issue: -issue.level.rank)))


def is_halted(found: Vitals) -> bool:
    """Say whether trading is halted: an account killed or not reconciled, the latch, a pause.

    An experiment never is by itself: its champion can be neither throttled nor halted.
    """
    is_stopped = any(a.kill is not None or a.is_blocked for a in found.accounts)
    return is_stopped or found.latch is not None or found.guard == PAUSED


def heartbeat_age(bot: BotRecord, *, now: datetime) -> timedelta:
    """Return how long ago a bot was heard; never below 0, as two clocks differ.

    After the clock was set back it is by how much, until the bot is heard again: nobody knows more.
    """
    return abs(now - bot.heard_at)


def candle_gap(bot: BotRecord, symbol: str, *, now: datetime) -> timedelta:
    """Return for how long the next candle of a symbol has been due; never below 0."""
    due = bot.newest.candles[symbol] + timedelta(seconds=bot.newest.candle_seconds)
    return max(now - due, timedelta(0))


def trade_ages(found: Vitals) -> Mapping[str, timedelta]:
    """Return for how long each running bot has not traded; where none tells, the whole ledger.

    Without any trade yet, a bot has been expected to trade since it was first heard.
    """
    running = [bot for bot in found.bots if bot.newest.running]
    told = {
        f"bot {bot.newest.bot}": bot.newest.last_trade_at
        for bot in running
        if bot.newest.last_trade_at is not None
    }
    if not told:
        since = found.last_trade_at or min((bot.first_heard_at for bot in running), default=None)
        told = {} if since is None else {"the ledger": since}
    return {subject: found.now - since for subject, since in told.items()}


def _of_service(found: Vitals) -> Iterator[Issue]:
    if found.ledger is not None:
        text = found.ledger
        yield Issue(condition=Condition.LEDGER_UNREADY, subject="ledger", text=text)
    if found.latch is not None:
        text = f"the latch of this host is set: {found.latch}"
        yield Issue(condition=Condition.LATCH_SET, subject="latch", text=text)
    if found.guard is not None and found.guard != NORMAL:
        text = f"the performance guard is {found.guard}"
        yield Issue(condition=Condition.GUARD_ACTS, subject="guard", text=text)
    for name in found.breakers:
        text = f"the circuit breaker {name} of the service is open"
        yield Issue(condition=Condition.BREAKER_OPEN, subject="service", text=text)


def _of_accounts(found: Vitals) -> Iterator[Issue]:
    for account in found.accounts:
        kill, equity = account.kill, account.equity
        if kill is not None:
            text = f"account {account.name} is killed ({kill.cause.value}): {kill.reason}"
            yield Issue(condition=Condition.ACCOUNT_KILLED, subject=account.name, text=text)
        yield from _of_reconciliation(account)
        if _is_deep(equity):
            value, limit = equity.drawdown_percent, float(100 * _deep(equity))
            yield Issue(
                condition=Condition.DRAWDOWN_DEEP,
                subject=account.name,
                text=f"account {account.name} is {value:.6g} % under its peak, limit {limit:.6g} %,"
                f" killed above {100 * equity.limits.drawdown:f} %",
                value=value,
                limit=limit,
            )


def _of_reconciliation(account: AccountState) -> Iterator[Issue]:
    compared = account.reconciliation
    if compared is None:
        return
    for condition, is_balance in (
        (Condition.POSITIONS_DIFFER, False),
        (Condition.BALANCE_DIFFERS, True),
    ):
        found = [each for each in compared.in_force if (each.key.position is None) is is_balance]
        if found:
            differs = summary(found, accepted_difference=compared.accepted_difference)
            halts = ", nothing new opens" if account.is_blocked else ""
            text = f"account {account.name} differs from what bots tell{halts}: {differs}"
            yield Issue(condition=condition, subject=account.name, text=text)


def _deep(equity: AccountEquity) -> Decimal:
    return DRAWDOWN_PART * equity.limits.drawdown


def _is_deep(equity: AccountEquity) -> bool:
    with localcontext(prec=_DRAWDOWN_DIGITS):
        # Exact, as the limit that kills is.
        return equity.peak - equity.equity > _deep(equity) * max(equity.peak, Decimal(0))


def _of_closing(found: Vitals, limits: HealthLimits) -> Iterator[Issue]:
    for waiting in found.closing:
        if found.now - waiting.since > limits.close:
            age, most = (found.now - waiting.since).total_seconds(), limits.close.total_seconds()
            yield Issue(
                condition=Condition.CLOSE_PENDING,
                subject=f"experiment {waiting.experiment}",
                text=f"positions of {waiting.experiment} open {age:.6g} s after the order to close "
                f"them: {waiting.positions}, limit {most:.6g} s",
                value=age,
                limit=most,
            )


def _of_trades(found: Vitals, limits: HealthLimits) -> Iterator[Issue]:
    for subject, idle in trade_ages(found).items():
        if idle > limits.no_trade:
            yield _over(Condition.NO_TRADES, subject, "no trade of", idle, limits.no_trade, "h")


def backup_ages(found: Vitals) -> Mapping[BackupKind, timedelta]:
    """Return how old the newest state backup is, and the newest one of the ledger; never below 0.

    A copy of the server's files is one of the ledger.
    """
    ledgers = [at for kind, at in found.backups.items() if kind is not BackupKind.STATE]
    newest = {BackupKind.STATE: found.backups.get(BackupKind.STATE)}
    newest[BackupKind.DATABASE] = max(ledgers, default=None)
    return {
        kind: max(found.now - at, timedelta(0)) for kind, at in newest.items() if at is not None
    }


def _of_backups(found: Vitals, limits: HealthLimits) -> Iterator[Issue]:
    for kind, age in backup_ages(found).items():
        limit = limits.backups.of(kind)
        if age > limit:
            unit = "min" if kind is BackupKind.STATE else "h"
            what = f"the {kind.value}"
            yield _over(Condition.BACKUP_OLD, what, "no newer backup of", age, limit, unit)
    if found.unarchived is not None:
        text = str(found.unarchived)
        yield Issue(condition=Condition.LOG_UNARCHIVED, subject="ledger", text=text)


def _of_bot(bot: BotRecord, limits: HealthLimits, *, now: datetime) -> Iterator[Issue]:
    beat = bot.newest
    subject = f"bot {beat.bot}"
    if not beat.running:
        text = f"{subject} said at {beat.sent_at.isoformat()} that it does not run"
        yield Issue(condition=Condition.BOT_STOPPED, subject=subject, text=text)
        return
    age, apart = heartbeat_age(bot, now=now), abs(bot.heard_at - beat.sent_at)
    if age > limits.heartbeat:
        yield _over(Condition.BOT_SILENT, subject, "no heartbeat of", age, limits.heartbeat, "s")
    if not beat.api_connected:
        text = f"{subject} is not connected to its exchange"
        yield Issue(condition=Condition.API_DISCONNECTED, subject=subject, text=text)
    for symbol in sorted(beat.candles):
        gap = candle_gap(bot, symbol, now=now)
        if gap > limits.candle_gap:
            which = f"{symbol} at {subject}"
            yield _over(
                Condition.FEED_STALLED, which, "no candle of", gap, limits.candle_gap, "min"
            )
    yield from _errors_of(bot, limits, now=now)
    for name, state in sorted(beat.breakers.items()):
        if state is BreakerState.OPEN:
            text = f"the circuit breaker {name} of {subject} is open"
            yield Issue(condition=Condition.BREAKER_OPEN, subject=subject, text=text)
    if beat.model_trained_at is not None and now - beat.model_trained_at > limits.model_age:
        age = now - beat.model_trained_at
        yield _over(
            Condition.MODEL_OLD, subject, "no newer model of", age, limits.model_age, "days"
        )
    if apart > limits.clock:
        yield _over(Condition.CLOCK_APART, subject, "clock of", apart, limits.clock, "s", "off by")


def _errors_of(bot: BotRecord, limits: HealthLimits, *, now: datetime) -> Iterator[Issue]:
    errors = bot.errors_within(limits.api_error_window, now=now)
    if errors > limits.api_errors:
        subject, minutes = f"bot {bot.newest.bot}", limits.api_error_window.total_seconds() / 60
        yield Issue(
            condition=Condition.API_ERRORS,
            subject=subject,
            text=f"{errors} API errors of {subject} in {minutes:.6g} min, "
            f"limit {limits.api_errors}",
            value=float(errors),
            limit=float(limits.api_errors),
        )


def _of_monitor(pulse: Pulse, rule: WatchRule) -> Iterator[Issue]:
    found = deadlines(pulse, rule)
    level = WatchLevel.WATCHED if found is None else found.level
    match level:
        case WatchLevel.WATCHED:
            return
        case WatchLevel.THROTTLE:
            condition, intervals = Condition.MONITOR_STALE, rule.throttle_intervals
        case WatchLevel.HALT:
            condition, intervals = Condition.MONITOR_GONE, rule.halt_intervals
        case _:
            assert_never(level)
    age = timedelta(seconds=pulse.age_seconds)
    limit = timedelta(seconds=intervals * pulse.interval_seconds)
    subject = f"the monitor of {pulse.experiment}"
    yield _over(condition, subject, "no pulse of", age, limit, "min")


_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86_400.0}


def _over(
    condition: Condition,
    subject: str,
    what: str,
    found: timedelta,
    limit: timedelta,
    unit: str,
    how: str = "for",
) -> Issue:
    value, most = (span.total_seconds() / _SECONDS[unit] for span in (found, limit))
    return Issue(
        condition=condition,
        subject=subject,
        text=f"{what} {subject} {how} {value:.6g} {unit}, limit {most:.6g} {unit}",
        value=value,
        limit=most,
    )


def _rank(level: HealthLevel) -> int:
    return level.rank
