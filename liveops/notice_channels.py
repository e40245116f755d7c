"""The channels that the settings name: who wants to be told of what, and by which way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import SecretStr

from alerts.channels import web
from alerts.channels.channel import Channel
from alerts.channels.mail import Enclosing, MailChannel, MailSecurity
from bandit.core.notices import Notice, NoticeKind, Recipient, Severity
from config.alerts import Alerts

LOG: Final = "log"
_LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.ERROR,
}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressed:
    """A channel, and who it is for."""

    recipient: Recipient
    channel: Channel = field(repr=False)

    @property
    def breaker(self) -> str | None:
        """The name of the circuit breaker round it; None for what does not leave the process."""
        return None if self.recipient.name == LOG else f"notify.{self.recipient.name}"


class LogChannel:
    """Writes each notice into the log of the service."""

    def send(self, notice: Notice, *, key: str) -> None:
        """Write one line."""
        event = f"[ALERT] {notice.kind.value} {notice.title}"
        log.log(_LEVELS[notice.severity], event, extra={"why": notice.text, "notice": key})


def channels_of(alerts: Alerts, *, enclosing: Enclosing | None = None) -> list[Addressed]:
    """Return the log, and with `enabled` every channel that has what it needs.

    Mail is sent with what `enclosing` returns for a notice.

    >>> [addressed.recipient.name for addressed in channels_of(Alerts())]
    ['log']
    """
    # The level of health is logged by every replica, which needs no ledger for that.
    kinds = frozenset(NoticeKind) - {NoticeKind.HEALTH_ISSUE}
    found = [Addressed(recipient=Recipient(name=LOG, kinds=kinds), channel=LogChannel())]
    if not alerts.enabled:
        return found
    for name, channel, least in _configured(alerts, enclosing):
        recipient = Recipient(
            name=name,
            least_severity=least,
            kinds=_kinds(alerts),
            ends_incidents=name == "pagerduty",
        )
        found.append(Addressed(recipient=recipient, channel=channel))
    return found


def _kinds(alerts: Alerts) -> frozenset[NoticeKind]:
    asked = {
        NoticeKind.PERFORMANCE_GUARD_PAUSED: alerts.alert_on_pause,
        NoticeKind.PERFORMANCE_GUARD_REDUCED: alerts.alert_on_pause,
        NoticeKind.PERFORMANCE_GUARD_RECOVERED: alerts.alert_on_pause,
        NoticeKind.KILL_SWITCH: alerts.alert_on_kill_switch,
        NoticeKind.ARM_HALTED: alerts.alert_on_arm_changes,
        NoticeKind.ARM_THROTTLED: alerts.alert_on_arm_changes,
        NoticeKind.ARM_RESUMED: alerts.alert_on_arm_changes,
        NoticeKind.PROMOTION: alerts.alert_on_promotion,
        NoticeKind.MODEL_ROTATION: alerts.alert_on_model_rotation,
        NoticeKind.DRIFT: alerts.alert_on_drift,
        NoticeKind.HEALTH_ISSUE: alerts.alert_on_health_issues,
        NoticeKind.WEEKLY_REPORT: alerts.alert_on_weekly_report,
    }
    return frozenset(kind for kind in NoticeKind if asked.get(kind, True))


def _configured(
    alerts: Alerts, enclosing: Enclosing | None
) -> Iterator[tuple[str, Channel, Severity]]:
    if url := _open(alerts.discord_webhook_url):
        yield "discord", web.discord(url), alerts.discord_least_severity
    if url := _open(alerts.slack_webhook_url):
        yield "slack", web.slack(url), alerts.slack_least_severity
    if (token := _open(alerts.telegram_bot_token)) and alerts.telegram_chat_id:
        chat = web.telegram(token, alerts.telegram_chat_id, base=alerts.telegram_api_base)
        yield "telegram", chat, alerts.telegram_least_severity
    if key := _open(alerts.pagerduty_routing_key):
        pager = web.pagerduty(key, base=alerts.pagerduty_api_base)
        yield "pagerduty", pager, alerts.pagerduty_least_severity
    if url := _open(alerts.webhook_url):
        secret = _open(alerts.webhook_secret)
        yield "webhook", web.webhook(url, secret=secret), alerts.webhook_least_severity
    if alerts.email_smtp_server and alerts.email_recipients:
        mail = _mail(alerts, alerts.email_smtp_server, enclosing)
        yield "email", mail, alerts.email_least_severity


def _mail(alerts: Alerts, server: str, enclosing: Enclosing | None) -> MailChannel:
    return MailChannel(
        server=server,
        sender=alerts.email_sender or alerts.email_login or alerts.email_recipients[0],
        recipients=alerts.email_recipients,
        security=MailSecurity(alerts.email_security),
        login=alerts.email_login,
        password=_open(alerts.email_password),
        enclosing=enclosing,
    )


def _open(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() or None if secret is not None else None
