"""Renders Alertmanager's configuration: who is told of what, and what is muted."""

from __future__ import annotations

from typing import Any, Final

from alerts.limits import AlertPlaces
from alerts.rule import Component, Severity
from alerts.rule_files import RULES_HEAD, dumped
from bandit.core.lifecycle import ArmVerb

ACTIONS: Final = (ArmVerb.THROTTLE, ArmVerb.HALT)
"""What the service does about an alert whose label `action` says so; it is told of no other."""

TOLD_AT_ONCE_MAX: Final = 500
"""Of more alerts in one payload the rest is cut off; each is a payload of its own."""

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


_TITLE: Final = "{{ .CommonAnnotations.summary }}"
_TEXT: Final = (
    "{{ range .Alerts }}{{ .Status }}: {{ .Annotations.description }} "
    "{{ .Annotations.runbook_url }} {{ end }}"
)


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


def receivers_of(
    severity: Severity, component: Component, stops: ArmVerb | None = None
) -> tuple[str, ...]:
    """Return who is told of an alert, in order; `stops` is what the service is to do.

    >>> receivers_of(Severity.CRITICAL, Component.ARM, ArmVerb.HALT)
    ('liveops', 'pagerduty')
    >>> receivers_of(Severity.WARNING, Component.SERVICE)
    ('slack',)
    """
    if component is Component.ALERTING:
        return (WATCHDOG,)
    service = (SERVICE,) if stops in ACTIONS else ()
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
                "matchers": [f'component="{Component.ALERTING.value}"'],
                "receiver": WATCHDOG,
                "group_wait": "0s",
                "group_interval": "30s",
                "repeat_interval": "1m",
            },
            # Each by itself, so that none waits for another; again, for what was lost.
            {
                "matchers": [f'action=~"{"|".join(ACTIONS)}"'],
                "receiver": SERVICE,
                "group_by": ["..."],
                "group_wait": "0s",
                "group_interval": "5s",
                "repeat_interval": "1m",
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
        "target_matchers": [
            'severity=~"warning|info"',
            f'component!="{Component.ALERTING.value}"',
        ],
        "equal": list(SCOPE),
    }


def _receivers(places: AlertPlaces) -> list[dict[str, Any]]:
    secrets, mail = places.secrets_dir, places.smtp_server
    configured: dict[str, tuple[str, dict[str, Any]]] = {
        PEOPLE[Severity.CRITICAL]: (
            "pagerduty_configs",
            {
                "routing_key_file": f"{secrets}/pagerduty_routing_key",
                "severity": "{{ .CommonLabels.severity }}",
                "description": _TITLE,
            },
        ),
        PEOPLE[Severity.WARNING]: (
            "slack_configs",
            {
                "api_url_file": f"{secrets}/slack_webhook_url",
                "channel": places.slack_channel,
                "title": _TITLE,
                "text": _TEXT,
            },
        ),
        PEOPLE[Severity.INFO]: (
            "email_configs",
            {
                "to": ", ".join(places.mail_to),
                "from": places.mail_from,
                "smarthost": mail,
                "require_tls": not mail.startswith(("localhost:", "127.0.0.1:")),
                "headers": {"Subject": _TITLE},
            },
        ),
        SERVICE: (
            "webhook_configs",
            {**_webhook(places.webhook_url, places), "max_alerts": TOLD_AT_ONCE_MAX},
        ),
        WATCHDOG: ("webhook_configs", _webhook(places.watchdog_url, places)),
    }
    return [
        {"name": name, kind: [{**how, "send_resolved": True}]}
        for name, (kind, how) in configured.items()
    ]


def _webhook(url: str, places: AlertPlaces) -> dict[str, Any]:
    if url != places.webhook_url:
        return {"url": url}  # somebody else's: our token is not for them
    token = f"{places.secrets_dir}/webhook_token"
    return {
        "url": url,
        "http_config": {"authorization": {"type": "Bearer", "credentials_file": token}},
    }
