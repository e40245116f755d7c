"""Composition root: settings become an App; nothing is built at import time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import Engine

from bandit.core.account import LossLimits
from bandit.core.acting import ActingRules
from bandit.core.backups import BackupRule
from bandit.core.errors import InvalidInput, LedgerUnavailable
from bandit.core.fill_gap import FillGapRule
from bandit.core.guard_rule import GuardRule
from bandit.core.health import HealthLimits
from bandit.core.ladder import LadderRule
from bandit.core.limits import Limits
from bandit.core.model import WHOLE_PPM, Experiment, PolicyName, Profile, Strategy
from bandit.core.purging import PurgeRule
from bandit.core.reading import ChecklistRule, RampRule, Rules
from bandit.core.reconciling import ReconciliationRule
from bandit.core.selection import SelectionRule
from bandit.core.sizing import SizingRule
from bandit.core.upkeep import GpuRule
from bandit.core.watch import WatchRule
from bandit.service.assigning import Router
from bandit.storage import migrate, roles
from bandit.storage.engine import connect, database_now, require_protocol, snapshot
from config.settings import Settings
from liveops.breakers import Breakers
from liveops.clock import Clock, SystemClock, skew
from liveops.gpu import GpuWatch
from liveops.latch import Latch, latch_of
from liveops.ledger_server import ledger_server
from liveops.monitor_watch import MonitorWatch
from liveops.request_times import RequestTimes

SKEW_SECONDS_MAX = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything a command or a request needs.

    `gpus` and `monitors` know nothing until somebody looks at them; `breakers` stand round calls of
    this process, `requests` counts those that it answers.
    """

    settings: Settings
    engine: Engine
    router: Router
    clock: Clock
    latch: Latch
    demo: bool
    revive: Callable[[], None]
    gpus: GpuWatch = field(default_factory=GpuWatch)
    monitors: MonitorWatch = field(default_factory=MonitorWatch)
    breakers: Breakers = field(default_factory=Breakers)
    requests: RequestTimes = field(default_factory=RequestTimes)


@contextmanager
def running_app(
    settings: Settings,
    *,
    demo: bool,
    clock: Clock | None = None,
    create: bool,
    upgrade: bool,
    only_stops: bool = False,
) -> Iterator[App]:
    """Yield an App on a ledger with the schema of this code; `upgrade` brings it there first.

    `create` makes an embedded ledger where there is none yet. Whoever `only_stops` what trades is
    let through under any clock: a stop must not wait for a clock to be mended.

    Raises `LedgerUnavailable` when the server does not answer, has another schema, or its clock
    is more than five seconds from ours.
    """
    with ledger_server(settings, demo=demo, create=create) as server:
        if upgrade:
            migrate.upgrade(server.url)
        else:
            migrate.require_head(server.url)
        # From here on without the rights to change the schema, where the server lets us.
        engine = connect(roles.as_application(server.url) or server.url)
        try:
            try:
                require_common_clock(engine)
            except LedgerUnavailable as error:
                if not only_stops:
                    raise
                log.warning("the stop goes on under a wrong clock: %s", error)
            yield App(
                settings=settings,
                engine=engine,
                router=Router(engine),
                clock=clock or SystemClock(),
                latch=latch_of(settings, demo=demo),
                demo=demo,
                revive=server.revive,
                monitors=MonitorWatch(watch_rule_of(settings)),
                breakers=breakers_of(settings),
            )
        finally:
            engine.dispose()


@contextmanager
def with_own_engine(app: App, *, pool_size: int, statement_seconds: int) -> Iterator[App]:
    """Yield the same App with connections to the ledger that nobody else takes."""
    engine = connect(
        app.engine.url.render_as_string(hide_password=False),
        pool_size=pool_size,
        statement_seconds=statement_seconds,
    )
    try:
        yield replace(app, engine=engine, router=Router(engine))
    finally:
        engine.dispose()


@contextmanager
def ready_ledger(url: str, *, statement_seconds: int) -> Iterator[Engine]:
    """Yield an engine of one connection, unless no decision can be taken on the ledger at `url`.

    Raises `LedgerUnavailable` when it does not answer, has another schema, or its clock is more
    than five seconds from ours; `ForeignProtocol` when it decides by other rules than this code.
    """
    migrate.require_head(url)
    engine = connect(url, pool_size=1, statement_seconds=statement_seconds)
    try:
        with snapshot(engine) as connection:
            require_protocol(connection)
        require_common_clock(engine)
        yield engine
    finally:
        engine.dispose()


def require_common_clock(engine: Engine) -> None:
    """Raise `LedgerUnavailable` when the machine's clock and the database's have drifted apart."""
    with snapshot(engine) as connection:
        apart = skew(SystemClock().now(), database_now(connection)).total_seconds()
    if apart > SKEW_SECONDS_MAX:
        raise LedgerUnavailable(
            f"this machine's clock is {apart:.1f} s from the database's, "
            f"at most {SKEW_SECONDS_MAX:g} s are allowed: synchronise both"
        )


def breakers_of(settings: Settings) -> Breakers:
    """Return breakers that open and recover as the settings say.

    >>> breakers_of(Settings()).listed()
    []
    """
    chosen = settings.breakers
    return Breakers(failures_max=chosen.failures_max, recovery_seconds=chosen.recovery_seconds)


def experiment_of(
    settings: Settings,
    *,
    name: str,
    champion: PolicyName,
    capital: Decimal,
    currency: str | None = None,
    equity_fraction: float | None = None,
    profile: Profile | None = None,
    strategy: Strategy | None = None,
) -> Experiment:
    """Return the experiment that was asked for, what was left out taken from the settings."""
    chosen = settings.experiment_defaults
    fraction = settings.risk.base_position_size if equity_fraction is None else equity_fraction
    return Experiment(
        name=name,
        champion=champion,
        capital=capital,
        currency=currency or chosen.currency,
        equity_fraction=fraction,
        profile=profile or chosen.profile,
        strategy=strategy or chosen.strategy,
        decision_seconds_valid=chosen.decision_seconds_valid,
    )


def limits_of(settings: Settings) -> Limits:
    """Return the limits a new experiment gets."""
    chosen = settings.limits
    return Limits(
        champion_floor_ppm=_ppm(chosen.champion_floor),
        champion_floor_proven_ppm=_ppm(chosen.champion_floor_proven),
        proven_trades=chosen.proven_trades,
        unproven_cap_ppm=_ppm(chosen.unproven_cap),
        arm_minimum_ppm=_ppm(chosen.arm_minimum),
        step_up=settings.ramp.step_up,
        start_ppm=_ppm(chosen.start),
    )


def loss_limits_of(settings: Settings) -> LossLimits:
    """Return the loss limits a new account gets."""
    chosen = settings.risk
    # By way of text: 0.03 is exact there, and as a float it is not.
    return LossLimits(
        daily_loss=Decimal(str(chosen.max_daily_loss)), drawdown=Decimal(str(chosen.max_drawdown))
    )


def health_limits_of(settings: Settings) -> HealthLimits:
    """Return from where on something is wrong with a bot or its trading.

    >>> health_limits_of(Settings()) == HealthLimits()
    True
    """
    chosen = settings.operations
    return HealthLimits(
        candle_gap=timedelta(minutes=chosen.max_candle_gap_minutes),
        api_errors=chosen.max_api_errors,
        api_error_window=timedelta(minutes=chosen.api_error_window_minutes),
        no_trade=timedelta(hours=chosen.max_no_trade_hours),
        model_age=timedelta(days=chosen.model_rotation.retrain_frequency_days),
        watch=watch_rule_of(settings),
        backups=backup_rule_of(settings),
    )


def backup_rule_of(settings: Settings) -> BackupRule:
    """Return how old the newest backups and the newest drill may be.

    >>> backup_rule_of(Settings()) == BackupRule()
    True
    """
    chosen = settings.backup
    return BackupRule(
        state=timedelta(minutes=chosen.state_age_max_minutes),
        database=timedelta(hours=chosen.database_age_max_hours),
        drill=timedelta(days=chosen.drill_age_max_days),
    )


def watch_rule_of(settings: Settings) -> WatchRule:
    """Return how long a monitor may be silent before bots act on it.

    >>> watch_rule_of(Settings()) == WatchRule()
    True
    """
    chosen = settings.operations
    return WatchRule(
        throttle_intervals=chosen.monitor_throttle_intervals,
        halt_intervals=chosen.monitor_halt_intervals,
    )


def reconciliation_rule_of(settings: Settings) -> ReconciliationRule:
    """Return when what bots tell differs from the ledger, and whether that blocks.

    >>> reconciliation_rule_of(Settings()) == ReconciliationRule()
    True
    """
    chosen = settings.operations.reconciliation
    return ReconciliationRule(
        # By way of text: 0.01 is exact there, and as a float it is not.
        balance_tolerance=Decimal(str(chosen.balance_tolerance)),
        grace=timedelta(seconds=chosen.grace_seconds),
        blocks=chosen.blocks,
    )


def acting_rules_of(
    settings: Settings, *, confidence_min: float | None = None, allow_ranging: bool | None = None
) -> ActingRules:
    """Return from where on a stored policy acts, what was left out taken from the settings.

    Raises `InvalidInput` where something is said of ranging markets and no regime is asked for.

    >>> acting_rules_of(Settings(), confidence_min=0.5).confidence_min
    0.5
    """
    model, regime = settings.model, settings.regime_filter
    if allow_ranging is not None and not regime.enabled:
        rule = "must be left out where regime_filter.enabled is false"
        raise InvalidInput(field="allow_ranging", rule=rule, found=str(allow_ranging).lower())
    return ActingRules(
        confidence_min=model.confidence_threshold if confidence_min is None else confidence_min,
        filters_regime=regime.enabled,
        adx_min=regime.adx_threshold,
        volatility_max=regime.volatility_threshold,
        allow_ranging=regime.allow_ranging if allow_ranging is None else allow_ranging,
    )


def purge_rule_of(settings: Settings) -> PurgeRule:
    """Return which policies the weekly maintenance puts away.

    >>> purge_rule_of(Settings()) == PurgeRule()
    True
    """
    chosen = settings.purge
    return PurgeRule(
        age_max=timedelta(days=chosen.max_age_days),
        profit_factor_min=chosen.pf_min,
        active_min=chosen.active_min,
    )


def gpu_rule_of(settings: Settings) -> GpuRule:
    """Return from where on a learner's GPU is taken to be stuck."""
    chosen = settings.checklist
    return GpuRule(band_percent=chosen.gpu_band, restart_percent=chosen.gpu_restart)


def rules_of(settings: Settings) -> Rules:
    """Return the rules a new experiment gets."""
    ramp, checklist, evidence = settings.ramp, settings.checklist, settings.evidence
    return Rules(
        ramp=RampRule(
            min_trades=ramp.min_trades,
            drawdown_limit_percent=ramp.drawdown_limit_percent,
            step_down=ramp.step_down,
        ),
        checklist=ChecklistRule(
            window=checklist.pf_window,
            pf_throttle=checklist.pf_throttle,
            pf_band=checklist.pf_band,
            drawdown_halt_percent=checklist.drawdown_halt_percent,
            drawdown_band_percent=checklist.drawdown_band_percent,
            kl_refresh=checklist.kl_refresh,
            kl_band=checklist.kl_band,
            long_window=checklist.long_window,
            reentry_days=checklist.reentry_days,
        ),
        ladder=LadderRule(
            alpha=evidence.alpha,
            attribution_hours=evidence.attribution_hours,
            trades=evidence.trades,
            days=evidence.days,
            blocks=evidence.blocks,
            decay_days=evidence.decay_days,
            unreported_max=evidence.unreported_max,
        ),
        fill_gap=FillGapRule(
            flattery_max=evidence.flattery_max,
            trades=evidence.fill_gap_trades,
            alpha=evidence.fill_gap_alpha,
        ),
        allocator=settings.allocator.model_dump(),
        weigh_paper=evidence.weigh_paper,
        promote=evidence.promote,
        guard=guard_rule_of(settings),
        selection=selection_rule_of(settings),
        sizing=sizing_rule_of(settings),
    )


def selection_rule_of(settings: Settings) -> SelectionRule:
    """Return which symbols a new experiment may open positions in."""
    chosen = settings.portfolio.cross_sectional
    return SelectionRule(
        enabled=chosen.enabled,
        top_k=chosen.top_k,
        rebalance_minutes=chosen.rebalance_interval_minutes,
        lookback_days=chosen.lookback_days,
        universe=settings.trading.symbols if chosen.enabled else (),
    )


def sizing_rule_of(settings: Settings) -> SizingRule:
    """Return the sizing limits that a new experiment gets.

    >>> sizing_rule_of(Settings()) == SizingRule()
    True
    """
    chosen, selecting = settings.risk, settings.portfolio.cross_sectional
    return SizingRule(
        max_leverage=chosen.max_leverage,
        max_position_size=chosen.max_position_size,
        max_open_positions=chosen.max_open_positions,
        stop_loss=chosen.stop_loss_pct,
        take_profit=chosen.take_profit_pct,
        symbol_share_max=selecting.max_symbol_risk_pct if selecting.enabled else None,
    )


def guard_rule_of(settings: Settings) -> GuardRule:
    """Return the rule of the performance guard that a new experiment, or account, gets."""
    chosen = settings.performance_guard
    return GuardRule(
        enabled=chosen.enabled,
        window=chosen.rolling_window_trades,
        win_rate_reduced=chosen.win_rate_threshold_reduced,
        win_rate_paused=chosen.win_rate_threshold_paused,
        drawdown_reduced=chosen.drawdown_threshold_reduced,
        drawdown_paused=chosen.drawdown_threshold_paused,
        losing_streak_reduced=chosen.losing_streak_threshold_reduced,
        losing_streak_paused=chosen.losing_streak_threshold_paused,
        recovery_win_rate=chosen.recovery_win_rate,
        recovery_drawdown=chosen.recovery_drawdown,
        recovery_trades=chosen.recovery_min_trades,
        size_multiplier=chosen.reduced_size_multiplier,
        confidence_bump=chosen.reduced_confidence_bump,
    )


def _ppm(fraction: float) -> int:
    return round(fraction * WHOLE_PPM)
