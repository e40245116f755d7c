"""Renders Alertmanager's configuration: who is told of what, and what is muted."""

from __future__ import annotations

from typing import Any, Final

from alerts.limits import AlertPlaces
from alerts.rule import Component, Severity
from alerts.rule_files import RULES_HEAD, dumped

TRADING: Final = (
    Component.ACCOUNT,
    Component.ARM,
    Component.BOT,
    Component.DRIFT,
    Component.GUARD,
    Component.LEARNER,
)
"""What the service itself is told of; of what it is, others tell it nothing new."""

SCOPE: Final = (
    "component",
    "account",
    "artifact",
    "bot",
    "experiment",
    "gpu",
    "name",
    "policy",
    "scope",
    "symbol",
)
"""Labels that say what an alert is about: one thing where all of them agree."""

PEOPLE: Final = {
    Severity.CRITICAL: "pagerduty",
    Severity.WARNING: "slack",
    Severity.INFO: "email",
}
SERVICE: Final = "liveops"
WATCHDOG: Final = "watchdog"


def render_alertmanager(places: AlertPlaces) -> str:
    """Return Alertmanager's configuration.

    >>> "receiver: watchdog" in render_alertmanager(AlertPlaces())
    True
    """
    return RULES_HEAD + dumped(
        {
            "route": _route(),
            "inhibit_rules": [_inhibition()],
            "receivers": _receivers(places),
        }
    )


def receivers_of(severity: Severity, component: Component) -> tuple[str, ...]:
    """Return who is told of an alert, in order.

    >>> receivers_of(Severity.CRITICAL, Component.ARM)
    ('liveops', 'pagerduty')
    >>> receivers_of(Severity.WARNING, Component.SERVICE)
    ('slack',)
    """
    if component is Component.ALERTING:
        return (WATCHDOG,)
    service = (SERVICE,) if component in TRADING else ()
    return (*service, PEOPLE[severity])


def _route() -> dict[str, Any]:
    return {
        "receiver": PEOPLE[Severity.INFO],
        "group_by": ["alertname", *SCOPE],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "12h",
        "routes": [
            {
                "matchers": ['alertname="Watchdog"'],
                "receiver": WATCHDOG,
                "group_wait": "0s",
                "group_interval": "30s",
                "repeat_interval": "1m",
            },
            # What it is told, it reads from its ledger anew: often, and none waits for another.
            {
                "matchers": [f'component=~"{"|".join(TRADING)}"'],
                "receiver": SERVICE,
                "group_wait": "0s",
                "group_interval": "30s",
                "repeat_interval": "5m",
                "continue": True,
            },
            *(
                {"matchers": [f'severity="{severity.value}"'], "receiver": receiver}
                for severity, receiver in PEOPLE.items()
            ),
        ],
    }


def _inhibition() -> dict[str, Any]:
    return {
        "source_matchers": ['severity="critical"'],
        "target_matchers": ['severity=~"warning|info"', 'alertname!="Watchdog"'],
        "equal": list(SCOPE),
    }


def _receivers(places: AlertPlaces) -> list[dict[str, Any]]:
    secrets = places.secrets_dir
    text = "{{ .CommonAnnotations.summary }}"
    more = "{{ range .Alerts }}{{ .Annotations.description }} {{ .Annotations.runbook_url }}\n{{ end }}"
    return [
        {
            "name": "pagerduty",
            "pagerduty_configs": [
                {
                    "routing_key_file": f"{secrets}/pagerduty_routing_key",
                    "severity": "{{ .CommonLabels.severity }}",
                    "description": text,
                }
            ],
        },
        {
            "name": "slack",
            "slack_configs": [
                {
                    "api_url_file": f"{secrets}/slack_webhook_url",
                    "channel": places.slack_channel,
                    "title": text,
                    "text": more,
                    "send_resolved": True,
                }
            ],
        },
        {
            "name": "email",
            "email_configs": [
                {
                    "to": ", ".join(places.mail_to),
                    "from": places.mail_from,
                    "smarthost": places.smtp_server,
                    "require_tls": not places.smtp_server.startswith("localhost:"),
                    "send_resolved": True,
                }
            ],
        },
        {"name": SERVICE, "webhook_configs": [_webhook(places.webhook_url, secrets)]},
        {"name": WATCHDOG, "webhook_configs": [_webhook(places.watchdog_url, secrets)]},
    ]


def _webhook(url: str, secrets: str) -> dict[str, Any]:
    return {
        "url": url,
        "send_resolved": True,
        "http_config": {
            "authorization": {"type": "Bearer", "credentials_file": f"{secrets}/webhook_token"}
        },
    }
