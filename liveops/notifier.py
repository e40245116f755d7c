"""Tells people what happened: one replica follows the audit log, a thread a channel sends.

Nothing that decides or records waits for it: it reads what is sealed, on connections of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from alerts.channels.channel import ChannelFailed, ChannelRefused
from alerts.channels.mail import Enclosing
from bandit.core.notices import Delivery, DeliveryState
from bandit.service import noticing
from bandit.storage.locks import Lease, LockClass
from config.alerts import Alerts
from liveops import health
from liveops.background import Turn, repeated
from liveops.breakers import BreakerOpen
from liveops.notice_channels import Addressed, channels_of
from liveops.weekly_mail import weekly_enclosure
from liveops.wiring import App, with_own_engine

TICK_SECONDS: Final = 1.0
HEALTH_EVERY: Final = timedelta(seconds=5)
STATEMENT_SECONDS: Final = 5
STANDBY_LOOKS: Final = 5
"""At each of so many looks, who does not tell people asks for the lease, on a new connection."""

log = logging.getLogger(__name__)


@contextmanager
def notifying(app: App) -> Iterator[None]:
    """Tell people while the context lasts, in threads and on connections of its own.

    Of several services on one ledger, one does it; another goes on where it ended.
    """
    # A report takes longer than the notifier's own connections let a statement take.
    channels = channels_in_force(app, enclosing=partial(weekly_enclosure, app))
    # One for the lease, one for each thread.
    size = len(channels) + 2
    with (
        with_own_engine(app, pool_size=size, statement_seconds=STATEMENT_SECONDS) as own,
        ExitStack() as threads,
    ):
        notifier = Notifier(own, channels)
        threads.callback(notifier.leave)
        for addressed in channels:
            sender, name = Sender(own, notifier, addressed), addressed.recipient.name
            trouble = f"notices are not sent by {name}"
            threads.enter_context(
                repeated(f"notify-{name}", sender.look, seconds=TICK_SECONDS, trouble=trouble)
            )
        trouble = "nobody is told what happens"
        threads.enter_context(
            repeated("notifier", lambda _: notifier.look(), seconds=TICK_SECONDS, trouble=trouble)
        )
        yield


def channels_in_force(app: App, *, enclosing: Enclosing | None = None) -> list[Addressed]:
    """Return the channels of `app`, their breakers named; a demo tells nobody but its log.

    Mail is sent with what `enclosing` returns for a notice.
    """
    alerts = Alerts() if app.demo else app.settings.operations.alerts
    channels = channels_of(alerts, enclosing=enclosing)
    for addressed in channels:
        if addressed.breaker is not None:
            app.breakers.of(addressed.breaker)
    return channels


class Notifier:
    """Makes notices while this replica is the one that does."""

    def __init__(self, app: App, channels: Sequence[Addressed]) -> None:
        """Make them for `channels`; nothing is read before the first look."""
        self._app = app
        self._recipients = [addressed.recipient for addressed in channels]
        self._lease = Lease(app.engine, LockClass.NOTIFIER, 0)
        self._leads = threading.Event()
        self._judged_at: datetime | None = None
        self._looks_to_skip = 0

    @property
    def leads(self) -> bool:
        """Whether this replica is the one that tells people."""
        return self._leads.is_set()

    def look(self) -> None:
        """Take or keep the lease; with it, make notices of what is sealed, and of health."""
        if self._looks_to_skip:
            self._looks_to_skip -= 1
            return
        if not self._holds():
            self._looks_to_skip = STANDBY_LOOKS - 1
            return
        now = self._app.clock.now()
        if not self.leads:
            noticing.abandon(self._app.engine, self._recipients, now=now)
            log.info("this replica tells people what happens")
        self._leads.set()
        while noticing.follow(self._app.engine, self._recipients, now=now):
            if not self._holds():
                return
        # Also where the clock was set back: nobody may wait for it to catch up.
        if self._judged_at is None or not timedelta(0) <= now - self._judged_at < HEALTH_EVERY:
            found = health.look(self._app).health
            noticing.tell_health(self._app.engine, found, self._recipients, now=now)
            self._judged_at = now

    def _holds(self) -> bool:
        is_ours = False
        try:
            is_ours = self._lease.hold()
        finally:
            if not is_ours:
                self._leads.clear()
        return is_ours

    def leave(self) -> None:
        """Let another replica go on."""
        self._leads.clear()
        self._lease.leave()


class Sender:
    """Sends on one channel, one notice after the other, while its replica leads."""

    def __init__(self, app: App, notifier: Notifier, addressed: Addressed) -> None:
        """Send on `addressed`; nothing is read before the first look."""
        self._app = app
        self._notifier = notifier
        self._to = addressed
        self._per_hour = app.settings.operations.alerts.per_hour
        self._silent_until: datetime | None = None

    def look(self, turn: Turn) -> None:
        """Send what is due, until the turn is to stop."""
        recipient = self._to.recipient
        if not self._notifier.leads or self._must_wait():
            return
        now = self._app.clock.now()
        if self._to.breaker is not None:
            noticing.ration(self._app.engine, recipient, per_hour=self._per_hour, now=now)
        for delivery in noticing.due(self._app.engine, recipient.name, now=now):
            if turn.stop.is_set() or not self._notifier.leads or self._must_wait():
                return
            if noticing.claim(self._app.engine, delivery, now=self._app.clock.now()):
                pause = deliver(self._app, self._to, delivery)
                until = None if pause is None else self._app.clock.now() + pause
                self._silent_until = until

    def _must_wait(self) -> bool:
        now, until = self._app.clock.now(), self._silent_until
        if until is not None and now < until:
            return True
        return self._to.breaker is not None and not self._app.breakers.admits(self._to.breaker)


def deliver(app: App, to: Addressed, delivery: Delivery) -> timedelta | None:
    """Send what was claimed, and write down what came of it.

    Returns how long the channel asks to be left alone; None where it does not.
    """
    try:
        _send(app, to, delivery)
    except BreakerOpen:  # a person's reset or another thread came between; its turn comes again
        return None
    except ChannelFailed as error:
        return _failed(app, delivery, error)
    noticing.sent(app.engine, delivery, now=app.clock.now())
    return None


def _send(app: App, to: Addressed, delivery: Delivery) -> None:
    key = f"notice-{delivery.notice_id}"
    if to.breaker is None:
        to.channel.send(delivery.notice, key=key)
        return
    app.breakers.call(
        to.breaker,
        lambda: to.channel.send(delivery.notice, key=key),
        answers=(ChannelRefused,),
    )


def _failed(app: App, delivery: Delivery, error: ChannelFailed) -> timedelta | None:
    now = app.clock.now()
    pause = error.asked_pause(now=now)
    state = noticing.failed(
        app.engine,
        delivery,
        error=str(error),
        now=now,
        asked_pause=pause,
        for_good=isinstance(error, ChannelRefused),
    )
    if state is DeliveryState.GIVEN_UP:
        log.error(
            "notice given up",
            extra={
                "channel": delivery.channel,
                "notice": delivery.notice_id,
                "kind": delivery.notice.kind.value,
                "why": str(error),
            },
        )
    return pause
