"""The weekly report as it is sent: what a mail encloses, and each week told of once."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from alerts.channels.mail import Enclosure
from bandit.core.notices import DeliveryState, Notice, NoticeKind
from bandit.core.weekly import incident_of, week_of, weekly_notice
from bandit.service import noticing, weekly_reporting
from bandit.service.weekly_reporting import WeeklyReading
from liveops.wiring import App

SENDING_MAX: Final = timedelta(minutes=5)
"""Whoever began to send and said nothing since is taken to be dead after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """The report of a week in every form that it is read in; pictures are PNG by name."""

    reading: WeeklyReading
    text: str
    pictures: Mapping[str, bytes]

    def enclosure(self) -> Enclosure:
        """Return what a mail encloses."""
        week = self.reading.report.week.name
        cids = {name: f"{week}-{name}@liveops-bandit" for name in self.pictures}
        return Enclosure(
            text=self.text,
            page=self._page({name: f"cid:{cid}" for name, cid in cids.items()}),
            pictures={cids[name]: picture for name, picture in self.pictures.items()},
        )

    def page(self) -> str:
        """Return the page as one file, its pictures in it."""
        coded = {name: base64.b64encode(png).decode() for name, png in self.pictures.items()}
        return self._page({name: f"data:image/png;base64,{png}" for name, png in coded.items()})

    def _page(self, sources: Mapping[str, str]) -> str:
        from liveops.weekly_page import as_page, blocks_of

        report = self.reading.report
        blocks = blocks_of(report, sources)
        return as_page(blocks, title=report.headline, source=lambda name: sources[name])


def rendered(reading: WeeklyReading) -> Weekly:
    """Draw and write what was read."""
    from liveops.weekly_page import as_text, blocks_of
    from liveops.weekly_pictures import account_picture, arms_picture, life_picture

    report = reading.report
    drawn: dict[str, bytes | None] = {}
    for number, account in enumerate(report.accounts, start=1):
        drawn[f"account-{number}"] = account_picture(account, report.week)
    for number, experiment in enumerate(report.experiments, start=1):
        life = reading.lives[experiment.name]
        drawn[f"arms-{number}"] = arms_picture(experiment, report.week, life)
        drawn[f"life-{number}"] = life_picture(life)
    pictures = {name: picture for name, picture in drawn.items() if picture is not None}
    return Weekly(reading=reading, text=as_text(blocks_of(report, ())), pictures=pictures)


def weekly_enclosure(app: App, notice: Notice) -> Enclosure | None:
    """Return the report that a notice tells of, read anew; None for notices of other kinds."""
    if notice.kind is not NoticeKind.WEEKLY_REPORT:
        return None
    reading = weekly_reporting.read(app.engine, week_of(notice), now=app.clock.now())
    return rendered(reading).enclosure()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of a week's report on each channel; `sent` are those that this call sent on."""

    sent: tuple[str, ...]
    states: Mapping[str, DeliveryState]

    @property
    def arrived(self) -> bool:
        """Whether nothing is left to send, and nothing failed."""
        gone = {DeliveryState.SENT, DeliveryState.DIGESTED}
        return all(state in gone for state in self.states.values())

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {name: state.value for name, state in self.states.items()}


def tell(app: App, weekly: Weekly) -> Told:
    """Send the report on every channel that was not told of its week before, a mail with all of it.

    What fails is sent again by a running service, or by the next call after a while.
    """
    from liveops.notifier import channels_in_force, deliver

    enclosure = weekly.enclosure()
    found = channels_in_force(app, enclosing=lambda _: enclosure)
    channels = {addressed.recipient.name: addressed for addressed in found}
    notice_id, ours = noticing.tell_week(
        app.engine,
        weekly_notice(weekly.reading.report),
        [addressed.recipient for addressed in found],
        now=app.clock.now(),
        pause=SENDING_MAX,
    )
    for delivery in ours:
        deliver(app, channels[delivery.channel], delivery)
    states = {d.channel: d.state for d in noticing.deliveries(app.engine, notice_id)}
    sent = (d.channel for d in ours if states[d.channel] is DeliveryState.SENT)
    return Told(sent=tuple(sent), states=states)


def to_tell(app: App, weekly: Weekly) -> tuple[str, ...]:
    """Return the channels on which `tell` would send; it looks, and writes nothing."""
    from liveops.notifier import channels_in_force

    report = weekly.reading.report
    notice, now = weekly_notice(report), app.clock.now()
    known = noticing.week_told(app.engine, incident_of(report.week)) or []
    others = {d.channel for d in known}
    waiting = {d.channel for d in known if d.state is DeliveryState.PENDING and d.next_at <= now}
    recipients = (addressed.recipient for addressed in channels_in_force(app))
    return tuple(
        recipient.name
        for recipient in recipients
        if recipient.wants(notice) and (recipient.name in waiting or recipient.name not in others)
    )
