"""The trading bot's own sections, under the names the source documents print.

A `config.yaml` written for the bot loads here unchanged. Keys marked `in_force=False` are checked
for type and range, and `liveops config show` says that nothing reads them yet.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr, StringConstraints

from bandit.core.account import DRAWDOWN_HARD_LIMIT
from bandit.core.guard_rule import WINDOW_MAX
from config.alerts import Alerts
from config.section import Count, Number, Section, setting, unique

planned = partial(setting, in_force=False)

Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}$")]
Timeframe = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[smhdwM]$")]


class Exchange(Section):
    """The exchange account the bot trades on."""

    name: str = planned("bybit", meaning="Exchange the bot trades on.", unit="name")
    testnet: bool = planned(
        False, meaning="Trade on the exchange's test network.", unit="true or false"
    )
    api_key: SecretStr | None = planned(
        None, meaning="API key of the exchange account.", unit="secret text"
    )
    api_secret: SecretStr | None = planned(
        None, meaning="API secret of the exchange account.", unit="secret text"
    )


class Trading(Section):
    """What is traded, on which candles."""

    symbols: Annotated[tuple[Symbol, ...], AfterValidator(unique)] = setting(
        ("BTCUSDT", "ETHUSDT"),
        meaning="Instruments to trade, each one once; those that a selection chooses from.",
        unit="list of names",
        min_length=1,
    )
    timeframe: Timeframe = planned(
        "1h", meaning="Length of a candle.", unit="number and one of s m h d w M"
    )


class Model(Section):
    """The model the bot runs."""

    version: str = planned("2.1", meaning="Version of the model to run.", unit="text")
    confidence_threshold: Number = setting(
        0.65,
        meaning="Open or add only at this confidence or above; the guards' bump comes on top.",
        unit="fraction",
        ge=0,
        le=1,
    )
    use_ensemble: bool = setting(
        True, meaning="Train gradient boosting beside TabNet.", unit="true or false"
    )
    ensemble_xgb_weight: Number = setting(
        0.7,
        meaning="Weight of the gradient-boosting model in the ensemble; 0 trains none.",
        unit="fraction",
        ge=0,
        le=1,
    )


class Risk(Section):
    """Sizing and loss limits; an experiment keeps the sizing limits it was opened with."""

    rising = (("base_position_size", "max_position_size"),)

    max_leverage: Number = setting(
        2.0,
        meaning="Highest leverage of a position; a claim that tells more is refused.",
        unit="times equity",
        gt=0,
        le=100,
    )
    max_position_size: Number = setting(
        0.05,
        meaning="Largest position: a claim that tells more is refused, `decide` opens no larger.",
        unit="fraction of equity",
        gt=0,
        le=1,
    )
    base_position_size: Number = setting(
        0.01,
        meaning="Nominal size of a trade; a new experiment takes it as its equity fraction.",
        unit="fraction of equity",
        gt=0,
        le=1,
    )
    max_daily_loss: Number = setting(
        0.03,
        meaning="A larger loss in one UTC day kills trading; an account keeps what it opened with.",
        unit="fraction of the day's first equity",
        gt=0,
        le=1,
    )
    max_drawdown: Number = setting(
        0.10,
        meaning="A deeper drawdown kills trading; an account keeps what it opened with.",
        unit="fraction of peak equity",
        gt=0,
        le=float(DRAWDOWN_HARD_LIMIT),
    )
    max_open_positions: Count | None = setting(
        2,
        meaning="Most positions open at once in an account: one more claim is refused; null: any.",
        unit="positions",
        ge=1,
    )
    stop_loss_pct: Number = setting(
        0.02,
        meaning="Stop loss, below or above entry; told with every assignment.",
        unit="fraction of price",
        gt=0,
        lt=1,
    )
    take_profit_pct: Number = setting(
        0.03,
        meaning="Take profit, above or below entry; told with every assignment.",
        unit="fraction of price",
        gt=0,
        le=10,
    )


class RegimeFilter(Section):
    """Which markets may be entered; closing a position is never blocked."""

    enabled: bool = setting(
        True,
        meaning="Filter entries by regime; else the rest of this section says nothing.",
        unit="true or false",
    )
    adx_threshold: Number = setting(
        25.0, meaning="A market under this ADX is ranging.", unit="ADX points", ge=0, le=100
    )
    volatility_threshold: Number = setting(
        2.0, meaning="Volatility above this halves the size.", unit="times the usual", gt=0
    )
    allow_ranging: bool = setting(
        False, meaning="Let new positions open in ranging markets.", unit="true or false"
    )


class PerformanceGuard(Section):
    """When an experiment or account trades smaller, pauses, recovers; set when it opens."""

    rising = (
        ("win_rate_threshold_paused", "win_rate_threshold_reduced", "recovery_win_rate"),
        ("recovery_drawdown", "drawdown_threshold_reduced", "drawdown_threshold_paused"),
        ("losing_streak_threshold_reduced", "losing_streak_threshold_paused"),
        ("recovery_min_trades", "rolling_window_trades"),
    )

    enabled: bool = setting(
        True,
        meaning="Guard new experiments and accounts; else they stay NORMAL.",
        unit="true or false",
    )
    rolling_window_trades: Count = setting(
        10, meaning="Newest trades the guard looks back on.", unit="trades", ge=1, le=WINDOW_MAX
    )
    win_rate_threshold_reduced: Number = setting(
        0.40, meaning="Under this win rate sizes are reduced.", unit="fraction", ge=0, le=1
    )
    win_rate_threshold_paused: Number = setting(
        0.30, meaning="Under this win rate nothing new opens.", unit="fraction", ge=0, le=1
    )
    drawdown_threshold_reduced: Number = setting(
        0.05, meaning="Above this drawdown sizes are reduced.", unit="fraction", ge=0, le=1
    )
    drawdown_threshold_paused: Number = setting(
        0.10, meaning="Above this drawdown nothing new opens.", unit="fraction", ge=0, le=1
    )
    losing_streak_threshold_reduced: Count = setting(
        5, meaning="As many losses in a row reduce sizes.", unit="trades", ge=1
    )
    losing_streak_threshold_paused: Count = setting(
        10, meaning="As many losses in a row let nothing new open.", unit="trades", ge=1
    )
    recovery_win_rate: Number = setting(
        0.45, meaning="Win rate that ends REDUCED or PAUSED.", unit="fraction", ge=0, le=1
    )
    recovery_drawdown: Number = setting(
        0.05, meaning="Drawdown under which they may end.", unit="fraction", gt=0, le=1
    )
    recovery_min_trades: Count = setting(
        5,
        meaning="Trades since they began before they may end; fewer in all tell no win rate.",
        unit="trades",
        ge=1,
    )
    reduced_size_multiplier: Number = setting(
        0.5,
        meaning="Share of its size that a decision keeps in REDUCED.",
        unit="fraction",
        ge=0,
        le=1,
    )
    reduced_confidence_bump: Number = setting(
        0.1,
        meaning="What REDUCED and PAUSED add to the confidence threshold.",
        unit="fraction",
        ge=0,
        le=1,
    )


class CrossSectional(Section):
    """Picks the strongest symbols of the list; off by default, set when an experiment opens."""

    enabled: bool = setting(
        False,
        meaning="Open positions in the strongest of `trading.symbols` only.",
        unit="true or false",
    )
    top_k: Count = setting(
        3, meaning="In how many symbols positions may open.", unit="symbols", ge=1, le=1000
    )
    rebalance_interval_minutes: Count = setting(
        1440, meaning="Time between two selections.", unit="minutes", ge=1, le=525_600
    )
    lookback_days: Count = setting(
        21,
        meaning="Symbols are ranked by what their price gained in it, where nobody tells scores.",
        unit="days",
        ge=1,
        le=3650,
    )
    max_symbol_risk_pct: Number = setting(
        0.10, meaning="Most of the equity in one symbol.", unit="fraction of equity", gt=0, le=1
    )


class Portfolio(Section):
    """Choice among symbols."""

    cross_sectional: CrossSectional = CrossSectional()


class ModelRotation(Section):
    """When a model is made anew, and what the new one must show."""

    enabled: bool = setting(
        False,
        meaning="Look every day for models that are due; seed_exact then replaces by itself.",
        unit="true or false",
    )
    retrain_frequency_days: Count = setting(
        30,
        meaning="An older model is made anew; a bot's is an issue of health.",
        unit="days",
        ge=1,
        le=36_500,
    )
    min_win_rate: Number = setting(
        0.48,
        meaning="A model that wins fewer of its newest trades is made anew.",
        unit="fraction",
        ge=0,
        lt=1,
    )
    min_sharpe_ratio: Number = setting(
        1.0, meaning="Sharpe ratio the new model must reach.", unit="annualised ratio"
    )
    min_profit_factor: Number = setting(
        1.2, meaning="Profit factor the new model must reach.", unit="ratio", ge=0
    )
    max_drawdown_threshold: Number = setting(
        0.20, meaning="Drawdown it must not exceed in evaluation.", unit="fraction", gt=0, le=1
    )
    min_trades: Count = setting(
        50, meaning="Trades it must have been evaluated on.", unit="trades", ge=1
    )
    require_outperformance: bool = setting(
        True, meaning="It must beat the model it replaces.", unit="true or false"
    )


class Reconciliation(Section):
    """What bots tell of positions and balance against the ledger."""

    blocks: bool = setting(
        True,
        meaning="A difference lets nothing new open; false only shows it.",
        unit="true or false",
    )
    balance_tolerance: Number = setting(
        0.01,
        meaning="Told equity may be so far from the ledger's.",
        unit="fraction of equity",
        ge=0,
        le=1,
    )
    grace_seconds: Number = setting(
        60.0,
        meaning="A difference counts once it has lasted so long, over two heartbeats at least.",
        unit="seconds",
        ge=0,
        le=86_400,
    )


class Operations(Section):
    """Health checks, the dead man's switch, rotation and alerts."""

    rising = (("monitor_throttle_intervals", "monitor_halt_intervals"),)

    health_check_interval_seconds: Count = setting(
        300,
        meaning="The status file is written as often, and when the level changes.",
        unit="seconds",
        ge=1,
        le=86_400,
    )
    status_file_path: Path = setting(
        Path("logs/bot_status.json"),
        meaning="File the health status is written to; a relative one lies in `home`.",
        unit="path",
    )
    max_candle_gap_minutes: Number = setting(
        15.0,
        meaning="No candle for longer than this: the feed stalls.",
        unit="minutes",
        gt=0,
        le=525_600,
    )
    max_api_errors: Count = setting(
        5, meaning="More errors in the window than this are too many.", unit="errors", ge=0
    )
    api_error_window_minutes: Number = setting(
        10.0, meaning="Window the API errors are counted in.", unit="minutes", gt=0, le=10_080
    )
    max_no_trade_hours: Number = setting(
        168.0, meaning="No trade for longer than this is an issue.", unit="hours", gt=0, le=87_600
    )
    monitor_throttle_intervals: Count = setting(
        3,
        meaning="A monitor silent for longer makes bots trade smaller.",
        unit="intervals of the monitor",
        ge=2,
        le=1000,
    )
    monitor_halt_intervals: Count = setting(
        6,
        meaning="A monitor silent for longer lets bots open nothing new.",
        unit="intervals of the monitor",
        ge=2,
        le=1000,
    )
    reconciliation: Reconciliation = Reconciliation()
    model_rotation: ModelRotation = ModelRotation()
    alerts: Alerts = Alerts()
