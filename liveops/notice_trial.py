"""Try the channels: one notice that says it is a test."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from alerts.channels.channel import ChannelFailed, ChannelRefused
from bandit.core.errors import UnknownName
from bandit.core.notices import Notice, NoticeKind, Severity
from config.settings import Settings
from liveops.breakers import Breakers
from liveops.notice_channels import Addressed, channels_of
from liveops.wiring import breakers_of


def try_channels(settings: Settings, only: str | None, *, now: datetime) -> dict[str, str | None]:
    """Send a test on each channel, or on `only` that one; return what went wrong, by channel.

    Raises `UnknownName` for a channel that is not set up.
    """
    channels = {each.recipient.name: each for each in channels_of(settings.operations.alerts)}
    if only is not None and only not in channels:
        raise UnknownName(kind="channel", name=only, known=sorted(channels))
    breakers = breakers_of(settings)
    return {
        name: _tried(addressed, breakers, now=now)
        for name, addressed in channels.items()
        if only in (None, name)
    }


def _tried(addressed: Addressed, breakers: Breakers, *, now: datetime) -> str | None:
    notice = Notice(
        kind=NoticeKind.TEST,
        severity=Severity.INFO,
        title="This is a test",
        text="Sent by `liveops notify test`: nothing happened, nothing is to be done.",
        at=now,
        incident="test",
    )
    key = f"test-{now:%Y%m%dT%H%M%S.%f}"

    def send() -> None:
        addressed.channel.send(notice, key=key)
        if addressed.recipient.ends_incidents:  # or the test would stay open there
            addressed.channel.send(replace(notice, resolves=True), key=key)

    try:
        if addressed.breaker is None:
            send()
        else:
            breakers.call(addressed.breaker, send, answers=(ChannelRefused,))
    except ChannelFailed as error:
        return str(error)
    return None
