"""Heartbeats of a client: what is sent, and what their answers say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from liveops.client import contact as contacts
from liveops.client import protocol
from liveops.client import watch as watches
from liveops.client.contact import Contact, Standing
from liveops.client.heartbeat import Heartbeat, heartbeat_request
from liveops.client.protocol import Reply, Request
from liveops.client.spool import Spool
from liveops.client.values import AssignmentId, fallback_unit

_log = logging.getLogger("liveops.client")


class Learn(Protocol):
    """Takes in what an answer says of the service; not each is an answer to a decision."""

    def __call__(self, change: Callable[[Contact], Contact], *, is_contact: bool = True) -> None:
        """Change what is known of the service."""


class Beats:
    """What a bot says of itself, and what it hears in return; nothing here ends a trade."""

    def __init__(self, spool: Spool, *, now: Callable[[], datetime], learn: Learn) -> None:
        """Name positions as `spool` knows them, and tell `learn` what answers say."""
        self._spool = spool
        self._now = now
        self._learn = learn
        self._trouble: str | None = None

    def request(self, beat: Heartbeat, *, sent_at: datetime) -> Request | None:
        """Return what tells of a bot; what cannot be told is logged, and None."""
        try:
            return heartbeat_request(beat, sent_at=sent_at, positions=self._known(beat.positions))
        except Exception as error:  # noqa: BLE001 - the boundary: a heartbeat must not end a trade
            self._say(f"it is not lawful: {error}")
            return None

    def answered(self, reply: Reply | None) -> None:
        """Log when heartbeats do not arrive, and do again; hear of the monitor and of a block."""
        if reply is None or protocol.is_unreachable(reply):
            self._say("the service is away")
        elif 200 <= reply.status < 300:
            self._say(None)
            watch = watches.watch_of(reply.watch, heard_at=self._now())
            self._learn(lambda known: contacts.watched(known, watch), is_contact=False)
            if protocol.is_blocked(reply):
                now = self._now()
                self._learn(lambda known: contacts.stopped(known, Standing.UNRECONCILED, now=now))
        else:
            problem = protocol.problem_of(reply)
            self._say(f"the service refuses it ({problem.code}): {problem.detail}")

    def log_fault(self) -> None:
        """Say that a heartbeat failed in a way nobody foresaw, from where it is handled."""
        _log.exception("the heartbeat was not sent")

    def _known(self, positions: Sequence[AssignmentId] | None) -> list[AssignmentId] | None:
        """Return positions as the service knows them; of the others it hears with their reports."""
        if positions is None:
            return None
        known = []
        for position in positions:
            unit_id = fallback_unit(position)
            fallback = None if unit_id is None else self._spool.fallback(unit_id)
            if unit_id is None:
                known.append(protocol.checked_id(position))
            elif fallback is not None and fallback.assignment_id is not None:
                known.append(fallback.assignment_id)
        return known

    def _say(self, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            _log.info("heartbeats arrive again")
        else:
            _log.warning("the heartbeat does not arrive: %s", trouble)
