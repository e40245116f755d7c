"""Everything a client knows and decides; the drivers only carry its requests.

Each method may wait for the disk and none for the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from liveops import clock
from liveops.client import contact as contacts
from liveops.client import protocol
from liveops.client import watch as watches
from liveops.client.beats import Beats
from liveops.client.breaker import Breaker
from liveops.client.contact import Contact, Standing
from liveops.client.delivery import verdicts
from liveops.client.errors import (
    Expired,
    InvalidInput,
    Killed,
    Paused,
    Problem,
    RequestRefused,
    ServiceUnavailable,
    SpoolError,
    Unreconciled,
    Unwatched,
)
from liveops.client.protocol import Exchange, Reply, Request
from liveops.client.spool import Spool
from liveops.client.values import (
    Acted,
    Assignment,
    AssignmentId,
    Fallback,
    Kind,
    Reason,
    Refusal,
    expiry,
    fallback_unit,
)
from liveops.client.watch import Watchdog

DEADLINE_SECONDS: Final = 0.5
"""How long a decision may take: an opportunity does not wait."""

STORE_EVERY_SECONDS: Final = 10.0
"""How far the stored contact may lag: after a restart, the champion stands in that much shorter."""

_log = logging.getLogger("liveops.client")


def os_jitter() -> float:
    """Return a number in [0, 1) that no other bot draws at this moment."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Core:
    """One experiment of one service, as one process of a bot sees it."""

    def __init__(
        self,
        url: str,
        experiment: str,
        *,
        spool_dir: str | os.PathLike[str],
        deadline_seconds: float = DEADLINE_SECONDS,
        fallback_minutes: float = 15.0,
        failures_max: int = 3,
        recovery_seconds: float = 60.0,
        spool_max: int = 100_000,
        watch_throttle: float = 0.5,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = clock.monotonic,
        jitter: Callable[[], float] = os_jitter,
    ) -> None:
        """Open the spool of this experiment and service below `spool_dir`."""
        self.url = protocol.checked_url(url)
        self.experiment = protocol.checked_name(experiment)
        self.deadline_seconds = deadline_seconds
        self.now, self.monotonic, self.jitter = now, monotonic, jitter
        self.breaker = Breaker(failures_max=failures_max, recovery_seconds=recovery_seconds)
        self.spool = Spool(
            spool_path(Path(spool_dir), url=self.url, experiment=experiment),
            url=self.url,
            experiment=experiment,
            rows_max=spool_max,
        )
        self._limit_seconds = fallback_minutes * 60
        self._watchdog = Watchdog(watch_throttle, now=now, monotonic=monotonic)
        self._lock = threading.Lock()
        self._contact = self._stored = self.spool.contact()
        self._since = monotonic()
        self._champion_refused_in: int | None = None
        self.beats = Beats(self.spool, now=now, learn=self._learn)

    def decided_alone(self, unit_id: str, *, is_opening: bool) -> Assignment | None:
        """Return what was decided for a unit while the service was away: it stays so."""
        fallback = self.spool.fallback(unit_id)
        if fallback is None:
            return None
        made = fallback.assignment(self.experiment, self.spool.contact().sizing)
        return self._under_watch(replace(made, is_opening=is_opening))

    def assigned(
        self,
        exchange: Exchange,
        *,
        unit_id: str,
        instrument: str,
        is_position: bool,
        is_opening: bool,
    ) -> Assignment:
        """Return the service's decision, or the champion while it is away, or raise why neither."""
        reply = exchange.reply
        if reply is None or protocol.is_unreachable(reply):
            if is_position:
                # Another policy must not manage what it did not open.
                raise ServiceUnavailable(
                    "the service is away: the policy that opened the position decides on"
                )
            made = self._fall_back(unit_id, instrument, exchange.reason, is_opening=is_opening)
            return self._under_watch(replace(made, is_opening=is_opening))
        made, epoch = protocol.assignment_of(self._granted(reply))
        now, sent_at = self.now(), exchange.sent_at
        watch = watches.watch_of(reply.watch, heard_at=now)
        self._learn(
            lambda known: contacts.watched(
                contacts.routed(
                    known, made, epoch=epoch, is_position=is_position, sent_at=sent_at, now=now
                ),
                watch,
            )
        )
        return self._under_watch(replace(made, is_opening=is_opening))

    def acted(self, made: Assignment, reply: Reply) -> Acted:
        """Return a decision with its action, which is as much smaller as the decision."""
        return self._watchdog.acted(protocol.acted_of(made, protocol.require_granted(reply)))

    def needs_champion(self) -> bool:
        """Say whether to ask who the champion is, so that it can stand in."""
        with self._lock:
            contact = self._contact
        return contacts.needs_champion(contact) and self._champion_refused_in != contact.epoch

    def heard_champion(self, reply: Reply | None) -> None:
        """Take in who the champion is, if the service said so."""
        if reply is None or protocol.is_unreachable(reply):
            return
        try:
            champion = protocol.champion_of(protocol.require_granted(reply))
        except RequestRefused as refused:
            self._champion_refused_in = self._contact.epoch
            _log.warning("the champion stays unknown: no fallback", extra={"code": refused.code})
            return
        self._learn(lambda known: contacts.crowned(known, champion))

    def opener(self, position: Assignment) -> AssignmentId:
        """Return the service's id of the decision that opened a position."""
        known = self.id_or_report(position)
        if isinstance(known, Request):
            raise ServiceUnavailable(
                f"the service does not know yet of the decision {position.id} that opened the"
                " position: its policy decides on"
            )
        return known

    def id_or_report(self, assignment: Assignment) -> AssignmentId | Request:
        """Return the service's id of a decision, or the report that makes it known there.

        Raises `RequestRefused` when the service refused to take the decision in.
        """
        unit_id = fallback_unit(assignment.id)
        if unit_id is None:
            return protocol.checked_id(assignment.id)
        report = self.spool.report_of(unit_id)
        fallback = self.spool.fallback(unit_id)
        if fallback is None:
            rule = "must be a decision of this spool"
            raise InvalidInput(field="assignment", rule=rule, found=assignment.id)
        if fallback.problem is not None:
            raise protocol.refusal_of(fallback.problem)
        if fallback.assignment_id is not None:
            return fallback.assignment_id
        # Read before the decision: were it gone by then, the decision would have its id.
        assert report is not None
        return protocol.report_request(self.experiment, report.body)

    def reported(self, assignment: Assignment, reply: Reply) -> AssignmentId:
        """Take in what the service said to a report; raises why it refused it."""
        row = self.spool.report_of(assignment.unit_id)
        if row is not None:
            (verdict,) = verdicts([row], reply)
            self.log_refused(self.spool.settle([row], [verdict], now=self.now()))
        made, _ = protocol.assignment_of(self._granted(reply))
        return made.id

    def claimed(self, exchange: Exchange, assignment: Assignment) -> datetime:
        """Return when a decision was claimed; alone only what was decided alone."""
        reply = exchange.reply
        if reply is None or protocol.is_unreachable(reply):
            if assignment.is_fallback:
                return self._claim_alone(assignment)
            raise ServiceUnavailable(
                "the service is away: what it decided may have been revoked, place no order"
            )
        claimed_at = protocol.claimed_at_of(self._granted(reply))
        now, sent_at = self.now(), exchange.sent_at
        watch = watches.watch_of(reply.watch, heard_at=now)
        self._learn(
            lambda known: contacts.watched(contacts.claimed(known, sent_at=sent_at, now=now), watch)
        )
        self._under_watch(assignment)
        return claimed_at

    def report(self, kind: Kind, assignment: AssignmentId, fields: Mapping[str, object]) -> None:
        """Spool an outcome or a mark; when this returns, it survives whatever happens."""
        unit_id = fallback_unit(assignment)
        body = protocol.report_body(fields, assignment if unit_id is None else None)
        refusal = self.spool.add(kind, body, unit_id=unit_id, now=self.now())
        self.log_refused([] if refusal is None else [refusal])

    def answered(self, reply: Reply | None) -> Any:
        """Return what the service answered; nobody stands in where it is away."""
        if reply is None or protocol.is_unreachable(reply):
            raise ServiceUnavailable("the service is away: it did not take the request")
        return protocol.granted(reply)

    def halt(self) -> None:
        """Decide nothing alone any more, until the service says that trading goes on."""
        now = self.now()
        self._learn(lambda known: contacts.stopped(known, Standing.KILLED, now=now))

    def heard(self, reply: Reply) -> None:
        """Take in a stop that the service tells while it is sent reports."""
        if 400 <= reply.status < 500:
            with contextlib.suppress(RequestRefused):
                self._granted(reply)

    def log_refused(self, refused: list[Refusal]) -> None:
        """Say what the service will never take; `refused` of the client lists it from now on."""
        for refusal in refused:
            what = {"kind": refusal.kind.value, "body": refusal.body}
            why = {"code": refusal.problem.code, "detail": refusal.problem.detail}
            _log.error("the service refused a report", extra={**what, **why})

    def log_fault(self) -> None:
        """Say that sending failed in a way nobody foresaw, from where the error is handled."""
        _log.exception("reports are not sent; they stay in the spool")

    def _granted(self, reply: Reply) -> dict[str, object]:
        try:
            return protocol.require_granted(reply)
        except (Killed, Paused, Unreconciled) as refused:
            standing = contacts.standing_of(refused)
            now = self.now()
            self._learn(lambda known: contacts.stopped(known, standing, now=now))
            raise

    def _under_watch(self, made: Assignment) -> Assignment:
        with self._lock:
            return self._watchdog.decided(made, self._contact.watch)

    def _learn(self, change: Callable[[Contact], Contact], *, is_contact: bool = True) -> None:
        with self._lock:
            before = self._contact
            self._contact = contact = change(before)
            if is_contact:
                self._since = self.monotonic()
            if contact.watch is not before.watch:
                self._watchdog.heard()
            is_stored = _says_the_same(contact, self._stored)
        if is_stored:
            return
        try:
            stored = self.spool.update_contact(change)
        except SpoolError as error:
            # The answer itself is good; without the file a restart knows less and falls back less.
            _log.warning("the contact was not stored", extra={"detail": str(error)})
            return
        with self._lock:
            self._stored = stored

    def _fall_back(
        self, unit_id: str, instrument: str, reason: Reason, *, is_opening: bool
    ) -> Assignment:
        now = self.now()
        contact, silent = self._silence(now)
        try:
            champion = contacts.fallback_champion(
                contact, silent=silent, limit_seconds=self._limit_seconds
            )
            if is_opening:
                self._watchdog.require(contact.watch)
        except (ServiceUnavailable, Unwatched):
            self._remember_silence(contact, silent)
            raise
        fallback = Fallback(
            unit_id=unit_id,
            instrument=instrument,
            policy=champion.policy,
            policy_sha=champion.policy_sha,
            size_multiplier=contact.size_multiplier,
            confidence_bump=contact.confidence_bump,
            decided_at=now,
            expires_at=expiry(now, champion),
            reason=reason,
        )
        made = self.spool.add_fallback(fallback, replace(contact, away_seconds=silent))
        _log.warning("decided alone", extra={"unit_id": unit_id, "reason": reason.value})
        return made.assignment(self.experiment, contact.sizing)

    def _claim_alone(self, assignment: Assignment) -> datetime:
        now = self.now()
        contact, silent = self._silence(now)
        contacts.fallback_champion(contact, silent=silent, limit_seconds=self._limit_seconds)
        self._under_watch(assignment)
        if now > assignment.expires_at:
            detail = f"the decision expired at {assignment.expires_at.isoformat()}"
            raise Expired(Problem(status=409, code="expired", detail=detail))
        return now

    def _silence(self, now: datetime) -> tuple[Contact, float]:
        # The processes beside this one may have heard of a kill, or of a later contact.
        stored = self.spool.contact()
        at = self.monotonic()
        with self._lock:
            before = self._contact
            self._contact = contact = contacts.newest(before, stored, now=now)
            if contact.known_at != before.known_at or contact.away_seconds != before.away_seconds:
                self._since = at
            if contact.watch is not before.watch:
                self._watchdog.heard()
            observed = at - self._since
        return contact, contacts.silent_seconds(contact, now=now, observed_seconds=observed)

    def _remember_silence(self, contact: Contact, silent: float) -> None:
        # Else a restart under a clock that was set back would begin a new fifteen minutes.
        if contact.standing is not Standing.OPEN:
            return
        if silent - self.spool.contact().away_seconds >= STORE_EVERY_SECONDS:
            self.spool.update_contact(lambda _: replace(contact, away_seconds=silent))


def spool_path(folder: Path, *, url: str, experiment: str) -> Path:
    """Return the file of an experiment and service.

    >>> spool_path(Path("spool"), url="http://127.0.0.1:8800", experiment="btc").name
    'btc-52f6997e6d42.sqlite3'
    """
    digest = hashlib.sha256(f"{url} {experiment}".encode()).hexdigest()
    return folder / f"{experiment}-{digest[:12]}.sqlite3"


def _says_the_same(contact: Contact, stored: Contact) -> bool:
    if not watches.says_the_same(contact.watch, stored.watch, within_seconds=STORE_EVERY_SECONDS):
        return False
    contact = replace(contact, watch=stored.watch)
    if contact.known_at is None or stored.known_at is None:
        return contact == stored
    lag = (contact.known_at - stored.known_at).total_seconds()
    is_fresh = 0 <= lag < STORE_EVERY_SECONDS
    return is_fresh and replace(contact, known_at=stored.known_at) == stored
