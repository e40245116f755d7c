"""Who is told of what happens, and by which ways; the first names are the documents'."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr

from bandit.core.notices import Severity
from config.section import Count, Section, setting, unique

_BOOL = "true or false"
_LEAST = "The least severity that this channel is told of."


class Alerts(Section):
    """Messages to people; off by default."""

    enabled: bool = setting(False, meaning="Send alerts; the log has them anyway.", unit=_BOOL)
    discord_webhook_url: SecretStr | None = setting(
        None, meaning="Discord webhook; whoever knows it can post.", unit="secret URL"
    )
    discord_least_severity: Severity = setting(Severity.INFO, meaning=_LEAST, unit="name")
    slack_webhook_url: SecretStr | None = setting(
        None, meaning="Slack's incoming webhook; whoever knows it can post.", unit="secret URL"
    )
    slack_least_severity: Severity = setting(Severity.INFO, meaning=_LEAST, unit="name")
    telegram_bot_token: SecretStr | None = setting(
        None, meaning="Token of the Telegram bot that writes.", unit="secret text"
    )
    telegram_chat_id: str | None = setting(
        None, meaning="Chat that the Telegram bot writes to.", unit="id or @name"
    )
    telegram_api_base: str = setting(
        "https://api.telegram.org",
        meaning="Telegram's API, or a server of your own.",
        unit="URL",
    )
    telegram_least_severity: Severity = setting(Severity.INFO, meaning=_LEAST, unit="name")
    pagerduty_routing_key: SecretStr | None = setting(
        None, meaning="Integration key of a PagerDuty service (Events API v2).", unit="secret text"
    )
    pagerduty_api_base: str = setting(
        "https://events.pagerduty.com",
        meaning="PagerDuty's API; the EU's is https://events.eu.pagerduty.com.",
        unit="URL",
    )
    pagerduty_least_severity: Severity = setting(Severity.CRITICAL, meaning=_LEAST, unit="name")
    webhook_url: SecretStr | None = setting(
        None, meaning="Takes each alert as JSON by POST, such as an SMS gateway.", unit="secret URL"
    )
    webhook_secret: SecretStr | None = setting(
        None, meaning="Bearer token that goes with it.", unit="secret text"
    )
    webhook_least_severity: Severity = setting(Severity.INFO, meaning=_LEAST, unit="name")
    email_smtp_server: str | None = setting(
        None, meaning="Mail server for alerts.", unit="host or host:port"
    )
    email_recipients: Annotated[tuple[str, ...], AfterValidator(unique)] = setting(
        (), meaning="Who gets mail, each one once.", unit="list of addresses"
    )
    email_sender: str | None = setting(
        None,
        meaning="Who mail is from; empty: the login, else the first recipient.",
        unit="address",
    )
    email_security: Literal["starttls", "tls", "none"] = setting(
        "starttls", meaning="How mail is encrypted on its way; no login with none.", unit="name"
    )
    email_login: str | None = setting(None, meaning="Login at the mail server.", unit="text")
    email_password: SecretStr | None = setting(
        None, meaning="Password at the mail server.", unit="secret text"
    )
    email_least_severity: Severity = setting(Severity.INFO, meaning=_LEAST, unit="name")
    per_hour: Count = setting(
        20,
        meaning="A channel sends so many an hour, critical ones apart; more become one.",
        unit="alerts",
        ge=1,
        le=10_000,
    )
    alert_on_pause: bool = setting(
        True, meaning="Alert when the performance guard changes.", unit=_BOOL
    )
    alert_on_kill_switch: bool = setting(
        True, meaning="Alert when the kill switch acts.", unit=_BOOL
    )
    alert_on_model_rotation: bool = setting(
        True, meaning="Alert when a model is rotated.", unit=_BOOL
    )
    alert_on_health_issues: bool = setting(True, meaning="Alert when health changes.", unit=_BOOL)
    alert_on_arm_changes: bool = setting(
        True, meaning="Alert when an arm is halted, throttled or resumed.", unit=_BOOL
    )
    alert_on_promotion: bool = setting(True, meaning="Alert when the champion changes.", unit=_BOOL)
    alert_on_drift: bool = setting(True, meaning="Alert when a drift check fails.", unit=_BOOL)
    alert_on_weekly_report: bool = setting(
        True, meaning="Send the weekly report; mail has all of it.", unit=_BOOL
    )
