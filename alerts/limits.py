"""From where on something is told: the thresholds of the alert rules, and where alerts lead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLimits:
    """The thresholds of the rules; exactly at a limit nothing is told, but for whole counts.

    Ratios are parts of one, `drawdown_percent` and `gpu_percent` percent, `balance` is money of the
    account's currency, `encoder_kl` nats; `state`, `database` and `drill` are how old their newest
    backup, and the newest drill of a restore, may be.

    >>> AlertLimits().profit_factor
    1.6
    """

    profit_factor: float = 1.6
    profit_factor_trades: int = 30
    drawdown_percent: float = 4.0
    losing_streak: int = 5
    win_rate: float = 0.5
    win_rate_wait: timedelta = timedelta(0)
    sharpe: float = 0.5
    sharpe_wait: timedelta = timedelta(days=7)
    balance: float = 10.0
    daily_loss: float = 0.03
    drawdown: float = 0.10
    api_errors: int = 5
    api_error_window: timedelta = timedelta(minutes=10)
    candle_gap: timedelta = timedelta(minutes=15)
    no_trade: timedelta = timedelta(hours=168)
    heartbeat: timedelta = timedelta(seconds=120)
    disconnected_wait: timedelta = timedelta(minutes=5)
    breaker_wait: timedelta = timedelta(0)
    down_wait: timedelta = timedelta(minutes=2)
    encoder_kl: float = 0.30
    gpu_percent: float = 60.0
    data_sla: timedelta = timedelta(hours=2)
    state: timedelta = timedelta(minutes=75)
    database: timedelta = timedelta(hours=26)
    drill: timedelta = timedelta(days=8)
    snapshot_age: timedelta = timedelta(hours=36)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPlaces:
    """Where alerts come from and lead to: Prometheus' job, playbooks, dashboards, receivers.

    `webhook_url` is the service's own; `watchdog_url` takes the alert that always fires. Secrets
    are files below `secrets_dir`, which Alertmanager reads.
    """

    job: str = "liveops"
    playbooks: str = "docs/playbooks"
    dashboards: str = "http://127.0.0.1:3000"
    webhook_url: str = "http://127.0.0.1:8801/v1/webhooks/alertmanager"
    watchdog_url: str = webhook_url
    secrets_dir: str = "/etc/prometheus/liveops"
    slack_channel: str = "#liveops"
    smtp_server: str = "localhost:25"
    mail_from: str = "liveops@localhost"
    mail_to: tuple[str, ...] = ("root@localhost",)
