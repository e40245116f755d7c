"""The monitor that goes on: looks at a policy's experiments, and acts on the checklist (SPEC F1).

One loop, one look at a time. What a look does is done once: the ledger refuses what it has already,
so a second monitor, or the same one begun again, changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bandit.core import checklist
from bandit.core.checklist import ArmRow
from bandit.core.errors import BanditError, InvalidInput, LockHeldElsewhere, UnknownName
from bandit.core.upkeep import UpkeepAction, UpkeepRow
from bandit.core.watch import checked_interval
from bandit.service import experiments, guarding, learner_jobs, policies, reporting, watching
from bandit.service.arm_report import ArmReport
from bandit.service.reporting import ExperimentReport
from bandit.storage.locks import Lease, LockClass
from learners.market.stored_series import DamagedSeries
from liveops.background import Turn
from liveops.clock import monotonic
from liveops.learner import STUCK_SECONDS, Learner
from liveops.monitor import machine_row
from liveops.ranking import select_by_momentum
from liveops.wiring import App

ACTOR: Final = "monitor"
TICK_SECONDS: Final = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A row of the checklist that asks for its action: of which experiment, policy, and what."""

    experiment: str
    policy: str
    row: ArmRow | UpkeepRow

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other flags, whatever its value is."""
        return self.experiment, self.policy, self.row.metric

    @property
    def text(self) -> str:
        """The flag in words, as logs and terminals say it."""
        reason = self.row.reason
        where = f"{self.experiment}/{self.policy}" if self.policy else "this machine"
        return f"{where}: {self.row.metric} {reason.value:.4g}, limit {reason.limit:g}"

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {"experiment": self.experiment, "policy": self.policy, **self.row.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found, and what was done about it, in words."""

    at: datetime
    experiments: tuple[str, ...]
    flags: tuple[Flag, ...] = ()
    done: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it, a line a look."""
        return {
            "at": self.at.isoformat(),
            "experiments": list(self.experiments),
            "flags": [flag.to_json() for flag in self.flags],
            "done": list(self.done),
        }


@dataclass(slots=True)
class Monitor:
    """Looks at the experiments in which a policy has an arm.

    `learner` does the work that is asked for; `is_dry` only says what would be asked.
    """

    app: App
    policy: str
    learner: Learner | None
    is_dry: bool
    _raised: dict[tuple[str, str, str], Flag] = field(default_factory=dict)
    _has_pulsed: bool = False

    def look(self) -> Look:
        """Look once: arms, encoders, this machine. What is newly flagged is logged as an alert."""
        now = self.app.clock.now()
        _, names = experiments.of_policy(self.app.engine, self.policy)
        found: list[Flag] = []
        done: list[str] = []
        for name in names:
            report = reporting.report(self.app.engine, name)
            flags = [*_flags(report)]
            found += flags
            done += self._act(report, flags, now)
            done += self._select(report)
        machine = machine_row(self.app, self.app.gpus.newest())
        if machine.flagged:
            found.append(Flag(experiment="", policy="", row=machine))
            done += self._free(machine)
        self._raise(found)
        return Look(at=now, experiments=tuple(names), flags=tuple(found), done=tuple(done))

    def pulse(self, look: Look, *, who: str, seconds: float) -> None:
        """Tell bots that somebody sees what they do, and looks again in `seconds`."""
        if self.is_dry:
            return
        watching.pulse(
            self.app.engine,
            look.experiments,
            who=who,
            interval_seconds=seconds,
            is_first=not self._has_pulsed,
            now=self.app.clock.now(),
            actor=ACTOR,
        )
        self._has_pulsed = True

    def end(self, *, who: str) -> None:
        """Disarm the dead man's switch: a person ended the monitor."""
        names = watching.end(self.app.engine, who=who, now=self.app.clock.now(), actor=ACTOR)
        if names:
            log.info("the monitor was ended: bots go on without it", extra={"of": names})

    def _act(self, report: ExperimentReport, flags: list[Flag], now: datetime) -> Iterator[str]:
        yield from self._stop(report, now)
        asking = {f.policy: f for f in flags if f.row.action is UpkeepAction.REFRESH_ENCODER}
        for arm in report.arms:
            if (flag := asking.get(arm.arm.place.policy)) is not None:
                yield from self._refresh(arm, flag, now)

    def _stop(self, report: ExperimentReport, now: datetime) -> Iterator[str]:
        """Throttle or halt what the guard in the outcomes' transaction has left."""
        name, rule = report.record.experiment.name, report.record.rules.checklist
        asking = [(arm.arm, checklist.action_of(arm.reading, rule)) for arm in report.arms]
        if self.is_dry:
            for arm, row in asking:
                if row is not None:
                    yield f"would {row.action} {name}/{arm.place.policy}"
            return
        ids = {arm.id: report.record.id for arm, row in asking if row is not None}
        if ids:
            for policy, verb in guarding.recheck(self.app.engine, ids, now=now):
                yield f"{name}/{policy}: {verb}"

    def _refresh(self, arm: ArmReport, flag: Flag, now: datetime) -> Iterator[str]:
        """Ask for the encoder's refresh tonight, once for each drift check that asks for it."""
        policy, engine = arm.arm.place.policy, self.app.engine
        assert arm.encoder_run is not None, "its row is of a run"
        if learner_jobs.recipe_of(engine, policy) is None:
            if flag.key not in self._raised:
                yield f"the encoder of {policy} cannot be refreshed: how it was made is not known"
            return
        action, cause = UpkeepAction.REFRESH_ENCODER, arm.encoder_run
        if self.is_dry:
            if learner_jobs.would_ask(engine, policy, action, cause=cause, now=now):
                yield f"would ask for an encoder refresh of {policy} tonight"
            return
        job = learner_jobs.request(
            engine,
            policy,
            action,
            cause=cause,
            reason=flag.text,
            now=now,
            actor=ACTOR,
        )
        if job is not None:
            yield f"asked for an encoder refresh of {policy} at {job.due_at:%Y-%m-%d %H:%M} UTC"

    def _select(self, report: ExperimentReport) -> Iterator[str]:
        """Select the strongest symbols, where the experiment does so and the time has come."""
        name = report.record.experiment.name
        if not report.record.rules.selection.enabled:
            return
        try:
            made = select_by_momentum(self.app, name, actor=ACTOR, is_dry=self.is_dry)
        except (DamagedSeries, InvalidInput, LockHeldElsewhere, OSError, UnknownName) as error:
            # Of candles, or for now; whoever waits for the monitor's pulse must not wait for them.
            yield f"{name}: nothing new is selected: {error}"
            return
        if made.is_new and made.selection is not None:
            opens = "would open" if self.is_dry else "opens"
            yield f"{name} {opens} positions in {', '.join(made.selection.chosen)}"

    def _free(self, row: UpkeepRow) -> Iterator[str]:
        """Begin a learner again that keeps the GPU busy and makes no progress."""
        learner = self.learner
        if learner is None or learner.job is None or learner.silent_seconds < STUCK_SECONDS:
            return
        why = f"{row.metric} {row.reason.value:.4g} while it says nothing"
        if self.is_dry:
            yield f"would begin the learner again: {why}"
        elif (job := learner.restart(why)) is not None:
            yield f"began the learner of {job.policy} again: {why}"

    def _raise(self, found: list[Flag]) -> None:
        """Log what is flagged now and was not before, and what is over."""
        now = {flag.key: flag for flag in found}
        for key in now.keys() - self._raised.keys():
            log.warning("[ALERT] %s: %s", now[key].text, now[key].row.action)
        for key in self._raised.keys() - now.keys():
            log.info("over: %s", self._raised[key].text)
        self._raised = now


def _flags(report: ExperimentReport) -> Iterator[Flag]:
    name = report.record.experiment.name
    for arm in report.arms:
        for row in arm.rows:
            if row.flagged:
                yield Flag(experiment=name, policy=arm.arm.place.policy, row=row)


def monitor_until(
    stop: threading.Event,
    monitor: Monitor,
    *,
    seconds: float,
    say: Callable[[Look], None],
    clock: Callable[[], float] = monotonic,
) -> None:
    """Look now and every `seconds` until `stop`; a look that takes longer makes the next one wait.

    After each look it tells bots so, and at its end that nobody looks any more; a process that dies
    leaves them waiting. What fails is logged when it begins and when it is over, and tried again
    each second. Raises `UnknownName` for no policy, and `LockHeldElsewhere` where another process
    monitors it.
    """
    checked_interval(seconds)
    record = policies.find(monitor.app.engine, monitor.policy)
    who = record.policy.name
    lease = Lease(monitor.app.engine, LockClass.MONITOR, record.id)
    elsewhere = f"monitoring {record.policy.name}: another process is at it now"
    if not lease.hold():
        raise LockHeldElsewhere(elsewhere)
    turn, due = Turn("the monitor cannot look"), clock()

    def attempt(_: Turn) -> None:
        nonlocal due
        monitor.app.revive()
        if not lease.hold():
            raise LockHeldElsewhere(elsewhere)
        if clock() >= due:
            look = monitor.look()
            monitor.pulse(look, who=who, seconds=seconds)
            say(look)
            due += seconds * (1 + (clock() - due) // seconds)

    try:
        while not stop.is_set():
            turn.make(attempt)
            stop.wait(TICK_SECONDS)
        _end(monitor, lease, who=who)
    finally:
        lease.leave()


def _end(monitor: Monitor, lease: Lease, *, who: str) -> None:
    """End what is watched, unless another process has taken over or the ledger is away."""
    try:
        if lease.hold():
            monitor.end(who=who)
    except BanditError as error:
        log.warning("bots wait for a monitor: its end could not be written down: %s", error)
