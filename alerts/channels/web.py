"""Channels that are one HTTP request: chats, pagers, and whatever takes JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from alerts.channels.channel import TIMEOUT_SECONDS, ChannelFailed, ChannelRefused
from bandit.core.notices import Notice, Severity

TELEGRAM: Final = "https://api.telegram.org"
PAGERDUTY: Final = "https://events.pagerduty.com"
_SOURCE: Final = "liveops-bandit"
_NEVER: Final = (400, 413, 422)
"""Answers that say: this message is wrong, and will be wrong again."""

_MARKS: Final = {
    Severity.INFO: "\N{LARGE BLUE CIRCLE}",
    Severity.WARNING: "\N{LARGE ORANGE CIRCLE}",
    Severity.CRITICAL: "\N{LARGE RED CIRCLE}",
}

Body = Callable[[Notice, str], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebChannel:
    """Posts a notice as JSON; who knows `url` or `headers` can post too, so neither is shown."""

    url: str = field(repr=False)
    body: Body = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def send(self, notice: Notice, *, key: str) -> None:
        """Post, and believe the status alone: redirects are not followed, answers not read."""
        try:
            status, retry_after = asyncio.run(self._posted(self.body(notice, key)))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # `from None`: the original may quote the address, and with it the secret.
            raise ChannelFailed(f"no answer: {type(error).__name__}") from None
        if status in _NEVER:
            raise ChannelRefused(f"answered {status}")
        if not 200 <= status < 300:
            raise ChannelFailed(f"answered {status}", retry_after=retry_after)

    async def _posted(self, body: dict[str, Any]) -> tuple[int, str | None]:
        # One limit for all of it: who sends a byte now and then must not hold a channel.
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client,
            client.stream("POST", self.url, json=body, headers=dict(self.headers)) as answer,
        ):
            return answer.status_code, answer.headers.get("Retry-After")


def discord(url: str) -> WebChannel:
    """Return a Discord webhook; repr hides what it knows.

    >>> discord("https://discord.com/api/webhooks/1/secret")
    WebChannel()
    """
    return WebChannel(url=url, body=discord_body)


def slack(url: str) -> WebChannel:
    """Return an incoming webhook of Slack, or of what speaks as it does."""
    return WebChannel(url=url, body=slack_body)


def telegram(token: str, chat_id: str, *, base: str = TELEGRAM) -> WebChannel:
    """Return a chat that a Telegram bot writes to."""

    def body(notice: Notice, _key: str) -> dict[str, Any]:
        return {
            "chat_id": chat_id,
            "text": _plain(notice)[:4096],
            "link_preview_options": {"is_disabled": True},
        }

    return WebChannel(url=f"{base.rstrip('/')}/bot{token}/sendMessage", body=body)


def pagerduty(routing_key: str, *, base: str = PAGERDUTY) -> WebChannel:
    """Return a service of PagerDuty's Events API v2; what resolves closes the incident."""

    def body(notice: Notice, _key: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "routing_key": routing_key,
            "event_action": "resolve" if notice.resolves else "trigger",
            "dedup_key": f"{_SOURCE}:{notice.incident}"[:255],
        }
        if not notice.resolves:
            found["payload"] = {
                "summary": f"{notice.kind.value}: {notice.title}"[:1024],
                "source": _SOURCE,
                "severity": notice.severity.value,
                "timestamp": notice.at.isoformat(),
                "class": notice.kind.value,
                "custom_details": {"text": notice.text, **dict(notice.fields)},
            }
        return found

    return WebChannel(url=f"{base.rstrip('/')}/v2/enqueue", body=body)


def webhook(url: str, *, secret: str | None = None) -> WebChannel:
    """Return whatever takes JSON by POST, such as a gateway that sends SMS."""
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return WebChannel(
        url=url, body=lambda notice, key: {"key": key, **notice.to_json()}, headers=headers
    )


def discord_body(notice: Notice, key: str) -> dict[str, Any]:
    """Return an embed in the colour of the severity; nobody is mentioned, whatever names say."""
    return {
        "embeds": [
            {
                "title": f"{notice.kind.value}: {notice.title}"[:256],
                "description": notice.text,
                "color": notice.severity.colour,
                "timestamp": notice.at.isoformat(),
                "fields": [
                    {"name": name, "value": value or "-", "inline": True}
                    for name, value in (("severity", notice.severity.value), *notice.fields)
                ],
                "footer": {"text": f"{_SOURCE} {key}"},
            }
        ],
        "allowed_mentions": {"parse": []},
    }


def slack_body(notice: Notice, key: str) -> dict[str, Any]:
    """Return blocks of plain text beside a bar in the colour of the severity."""
    title = f"{notice.kind.value}: {notice.title}"
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _text(title[:150])}]
    if notice.text:
        blocks.append({"type": "section", "text": _text(notice.text)})
    if notice.fields:
        fields = [_text(f"{name}: {value}") for name, value in notice.fields[:10]]
        blocks.append({"type": "section", "fields": fields})
    context = f"{notice.severity.value} · {notice.at.isoformat()} · {key}"
    blocks.append({"type": "context", "elements": [_text(context)]})
    colour = f"#{notice.severity.colour:06x}"
    return {"text": _escaped(title), "attachments": [{"color": colour, "blocks": blocks}]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def _escaped(text: str) -> str:
    # Slack's own three: nothing in a name becomes a link or a mention.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(notice: Notice) -> str:
    lines = [f"{_MARKS[notice.severity]} {notice.kind.value}: {notice.title}"]
    if notice.text:
        lines.append(notice.text)
    lines += [f"{name}: {value}" for name, value in notice.fields]
    return "\n".join([*lines, notice.at.isoformat()])
