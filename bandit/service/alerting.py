"""Stop arms that alerts from outside name: the second path, beside the guards in the ledger.

A payload is read, judged and answered in one transaction, behind the gates of the experiments that
it may change: once it is answered, no assignment to an arm that it stopped commits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from bandit.core.alert_actions import (
    AlertResult,
    ArmStanding,
    KnownNotice,
    Notice,
    NoticeKey,
    action_of,
    kept_text,
    since_of,
    stop,
)
from bandit.core.errors import AmbiguousName, UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import PolicyName, checked_instant, checked_text
from bandit.service.experiments import apply_verb
from bandit.storage import alert_notices, decisions, experiments, locks, policies
from bandit.storage.alert_notices import HeardNotice
from bandit.storage.engine import SessionLost, again_where, snapshot, transaction
from bandit.storage.experiments import ExperimentRecord

ACTOR: Final = "alertmanager"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPayload:
    """What one request tells: its alerts in their order, and how many were cut off from it."""

    notices: tuple[Notice, ...]
    truncated: int
    receiver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredNotice:
    """What was done about one alert; `before` is what was done when it first came, if it did."""

    notice: Notice
    result: AlertResult
    before: AlertResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredPayload:
    """What was done about a payload; `halted` are the arms stopped for what was cut off from it."""

    notices: tuple[AnsweredNotice, ...]
    halted: tuple[tuple[str, PolicyName], ...]


@again_where(SessionLost)
def hear(engine: Engine, payload: AlertPayload, *, now: datetime, key: str) -> AnsweredPayload:
    """Do what a payload asks for; once this returns, no assignment to an arm it stopped follows.

    `key` is the name of the key it came with. The same again does what is still to be done, and
    nothing twice. Alerts that were cut off may have asked for anything: for them every challenger
    is halted that nobody let go on since the newest alert that is shown began, or just now.
    """
    checked_instant(now, field="now")
    key = checked_text(key, field="key", length_max=200)
    with transaction(engine) as connection:
        desk = Desk(connection=connection, key=key, now=now)
        desk.open(payload)
        answered = tuple(desk.answer(notice) for notice in payload.notices)
        halted = desk.halt_everybody(payload) if payload.truncated else ()
        alert_notices.append(connection, desk.heard, receiver=payload.receiver, now=now)
        counted = Counter(one.result for one in answered)
        counted[AlertResult.TRUNCATED] = payload.truncated
        alert_notices.count(connection, counted)
        return AnsweredPayload(notices=answered, halted=halted)


def counts(engine: Engine) -> Mapping[AlertResult, int]:
    """Return how many alerts had which result since the ledger began."""
    with snapshot(engine) as connection:
        return alert_notices.counts(connection)


@dataclass(slots=True, kw_only=True)
class Desk:
    """Answers the alerts of one payload in a transaction that holds the gates they need."""

    connection: Connection
    key: str
    now: datetime
    heard: list[HeardNotice] = field(default_factory=list)
    _known: dict[NoticeKey, KnownNotice] = field(default_factory=dict)
    _records: dict[str, ExperimentRecord] = field(default_factory=dict)
    _policies: dict[str, PolicyName | None] = field(default_factory=dict)
    _resumed: dict[str, Mapping[PolicyName, datetime]] = field(default_factory=dict)

    def open(self, payload: AlertPayload) -> None:
        """Wait for the gates, then read everything behind them."""
        asking = [notice for notice in payload.notices if notice.verb is not None]
        there = experiments.names(self.connection)
        named = there if payload.truncated else {notice.experiment for notice in asking}
        # Before the gates, as they never change: nobody waits while names are looked up.
        names = [name for name in there if name in named]
        ids = [experiments.ids_of(self.connection, name)[0] for name in names]
        for notice in asking:
            if notice.experiment in names and notice.policy not in self._policies:
                self._policies[notice.policy] = self._policy_of(notice.policy)
        locks.stop_exclusive(self.connection, account_ids=(), experiment_ids=ids)
        for name in names:
            self._read(name)
        self._known = alert_notices.known(self.connection, {n.key for n in payload.notices})

    def answer(self, notice: Notice) -> AnsweredNotice:
        """Do what one alert asks for."""
        known = self._known.get(notice.key)
        policy = self._policies.get(notice.policy)
        arm = None if policy is None else self._standing(notice.experiment, policy)
        action = action_of(notice, arm, known, now=self.now)
        decision_id = None
        if action.verb is not None:
            assert policy is not None
            text = f"alert {kept_text(notice.alertname)} since {notice.starts_at.isoformat()}"
            told = {"fingerprint": notice.fingerprint, "starts_at": notice.starts_at.isoformat()}
            decision_id = self._stop(notice.experiment, policy, action.verb, text, told)
        if known is None:
            known = KnownNotice(received_at=self.now, result=action.result)
            self._known[notice.key] = known
            self.heard.append(
                HeardNotice(notice=notice, result=action.result, decision_id=decision_id)
            )
            return AnsweredNotice(notice=notice, result=action.result, before=None)
        return AnsweredNotice(notice=notice, result=action.result, before=known.result)

    def halt_everybody(self, payload: AlertPayload) -> tuple[tuple[str, PolicyName], ...]:
        """Halt every challenger that may be, for alerts that were cut off."""
        since = since_of(payload.notices, now=self.now)
        text = f"{payload.truncated} alerts were cut off from a payload: one may have been a halt"
        halted = []
        for name, record in list(self._records.items()):
            for policy in [arm.place.policy for arm in record.kept_arms]:
                arm = self._standing(name, policy)
                if arm is None:
                    continue
                if stop(ArmVerb.HALT, arm, since=since, now=self.now).verb is None:
                    continue
                self._stop(name, policy, ArmVerb.HALT, text, {"truncated": payload.truncated})
                halted.append((name, policy))
        return tuple(halted)

    def _read(self, name: str) -> None:
        self._records[name] = record = experiments.load(self.connection, name)
        everybody = [arm.place.policy for arm in record.arms]
        self._resumed[name] = decisions.judged_since(self.connection, record.id, everybody)

    def _policy_of(self, reference: str) -> PolicyName | None:
        try:
            return policies.by_reference(self.connection, reference).policy.name
        except (UnknownName, AmbiguousName):
            return None

    def _standing(self, name: str, policy: PolicyName) -> ArmStanding | None:
        record = self._records.get(name)
        arms = () if record is None else record.arms
        arm = next((arm for arm in arms if arm.place.policy == policy), None)
        if record is None or arm is None:
            return None
        return ArmStanding(
            role=arm.place.role,
            status=arm.place.status,
            profile=record.experiment.profile,
            resumed_at=self._resumed[name].get(policy),
        )

    def _stop(
        self, name: str, policy: PolicyName, verb: ArmVerb, text: str, told: Mapping[str, object]
    ) -> int:
        """Stop an arm and return the decision that did."""
        apply_verb(
            self.connection,
            self._records[name],
            policy,
            verb,
            reason=text,
            inputs={"alert": {"key": self.key, **told}},
            reasons={},
            now=self.now,
            actor=ACTOR,
        )
        self._records[name] = experiments.load(self.connection, name)
        [made] = decisions.of_experiment(self.connection, name, newest=1)
        return made.id
