"""What the alert rules go by where no other section says it, and where alerts lead."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from config.section import Count, Number, Section, setting

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]\S*[^\s/]$")]
HostPort = Annotated[str, StringConstraints(pattern=r"^[^\s:]+:[0-9]{1,5}$")]
Address = Annotated[str, StringConstraints(pattern=r"^[^\s@,]+@[^\s@,]+$")]


class AlertRules(Section):
    """Alert rules of Prometheus and routes of Alertmanager, as prometheus_alerts writes them."""

    job: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] = setting(
        "liveops", meaning="Job under which Prometheus scrapes the service.", unit="name"
    )
    down_minutes: Count = setting(
        2, meaning="SystemDowntime waits as long.", unit="minutes", ge=1, le=60
    )
    disconnected_minutes: Count = setting(
        5, meaning="APIDisconnected waits as long.", unit="minutes", ge=0, le=1440
    )
    breaker_open_minutes: Count = setting(
        0, meaning="CircuitBreakerOpen waits as long.", unit="minutes", ge=0, le=1440
    )
    balance_low: Number = setting(
        10.0, meaning="AccountBalanceLow under this equity.", unit="the account's currency", gt=0
    )
    win_rate_low: Number = setting(
        0.5, meaning="WinRateLow under this win rate.", unit="fraction", gt=0, lt=1
    )
    win_rate_hours: Count = setting(
        0, meaning="WinRateLow waits as long.", unit="hours", ge=0, le=720
    )
    sharpe_low: Number = setting(
        0.5, meaning="SharpeRatioLow under this ratio.", unit="annualised ratio", gt=-10, lt=10
    )
    sharpe_days: Count = setting(
        7, meaning="SharpeRatioLow waits as long.", unit="days", ge=0, le=90
    )
    playbooks_url: Annotated[str, StringConstraints(pattern=r"^\S*[^\s/]$")] = setting(
        "docs/playbooks",
        meaning="Where playbooks lie, one <Alert>.md each; best a URL that people can open.",
        unit="URL or path",
    )
    grafana_url: HttpUrl = setting(
        "http://127.0.0.1:3000", meaning="Grafana that shows the dashboards.", unit="URL"
    )
    secrets_dir: Annotated[str, StringConstraints(pattern=r"^/\S*[^\s/]$")] = setting(
        "/etc/prometheus/liveops",
        meaning="Directory of what Alertmanager alone may read: webhook_token, "
        "pagerduty_routing_key, slack_webhook_url.",
        unit="path",
    )
    slack_channel: Annotated[str, StringConstraints(pattern=r"^[#@]\S+$")] = setting(
        "#liveops", meaning="Slack channel of warnings.", unit="name"
    )
    smtp_server: HostPort = setting(
        "localhost:25", meaning="Mail server of what is for information.", unit="host:port"
    )
    mail_from: Address = setting(
        "liveops@localhost", meaning="Sender of that mail.", unit="address"
    )
    mail_to: tuple[Address, ...] = setting(
        ("root@localhost",), meaning="Who gets that mail.", unit="list of addresses", min_length=1
    )
    watchdog_url: HttpUrl | None = setting(
        None,
        meaning="Who waits for the alert that always fires; empty is the service itself.",
        unit="URL",
    )
