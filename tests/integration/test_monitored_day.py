"""A day of `live_ops_monitor --mode continuous` in virtual time, each minute as the tables say.

The loop, the ledger and all that is told to it are real; time is injected, and NVIDIA's library is
faked at its own functions. What is expected comes from `monitored_day_oracle`.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from api_service import application
from drift_runs import a_run, an_encoder_check
from embedded_owner import copy_of
from fake_nvml import FakeNvml
from ledger import NOON, open_btc
from monitored_day import FALLER, GPU, MINUTES, SLIDER, Bot, Stop, Time
from monitored_day_oracle import LEVELS, MINUTE, Arm, Oracle, level_of
from sqlalchemy import text
from waiting import until

from bandit.core.account import LossLimits
from bandit.core.kill_switch import KillCause
from bandit.core.limits import Limits
from bandit.core.model import PolicySha
from bandit.service import drift, experiments, killing, learner_jobs
from bandit.storage.engine import connect
from bandit.storage.migrate import upgrade
from liveops.background import Turn
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.gpu import GpuWatch
from liveops.latch import Latch
from liveops.learner import Learner
from liveops.ledger_server import status_file
from liveops.monitor import machine_row
from liveops.monitoring import Look, Monitor, monitor_until
from liveops.status_file import StatusKeeper

HOUR = 60
# Statements, plans and the like are made at first use, some thousands of objects on a day on which
# everything happens. In its quiet last hours hardly any: of each of 36 rounds a flag alone is more.
GROWTH_MAX = {(2 * HOUR, MINUTES - 1): 20_000, (MINUTES - 3 * HOUR, MINUTES - 1): 1_000}
TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
# Says nothing until it is told to end.
LEARNING = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
print('{"policy": "slider-r1"}')
"""


@dataclass(frozen=True)
class Size:
    """What may not grow."""

    objects: int
    threads: int
    files: int
    sessions: int


class Said(logging.Handler):
    """What was logged of the day, in words."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Day:
    """The day: its parts, what befalls them minute by minute, and what is found to be wrong."""

    def __init__(self, server: EmbeddedPostgres, home: Path, nvml: FakeNvml) -> None:
        self.server, self.home, self.nvml = server, home, nvml
        self.time, self.said = Time(), Said()
        self.engine = connect(server.url("day"))
        base = application(
            self.engine,
            clock=self.time,
            latch=Latch(home / "KILLED"),
            settings={"home": str(home), "operations": {"health_check_interval_seconds": 60}},
            gpus=GpuWatch(clock=self.time.monotonic),
        )
        self.app = replace(base, revive=self._revive)
        self.oracle = Oracle(arms={SLIDER: Arm(), FALLER: Arm()})
        self.bot = Bot(self.app, self.oracle)
        self.file = status_file(self.app.settings, demo=False)
        self.keeper = StatusKeeper(self.app, self.file)
        ends = str(home / "learned")
        self.learner = Learner(
            self.app, command=lambda _: ["-c", LEARNING, ends], clock=self.time.monotonic
        )
        self.looking_after = Turn("the learner cannot be looked after")
        self.rounds: list[float] = []
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self.levels = ["HEALTHY"]
        self.sizes: dict[int, Size] = {}

    def _revive(self) -> None:
        if not self.oracle.is_away:
            self.server.start()

    def monitor(self) -> Monitor:
        """Begin a monitor of the challenger that drifts."""
        return Monitor(app=self.app, policy=SLIDER, learner=self.learner, is_dry=False)

    def live(self) -> None:
        """Let the monitor go on for a day."""
        stop, log = Stop(self.time, self.pass_minute), logging.getLogger("liveops")
        before = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self.said)
        try:
            monitor_until(
                stop, self.monitor(), seconds=300.0, say=self.round, clock=self.time.monotonic
            )
        finally:
            log.removeHandler(self.said)
            log.setLevel(before)

    def round(self, look: Look) -> None:
        """Hold a round of the monitor against the tables."""
        seconds, oracle, now = self.time.seconds, self.oracle, self.time.now()
        self.rounds.append(seconds)
        flags = {(flag.policy, flag.row.metric, flag.row.action.value) for flag in look.flags}
        self._same("flags", flags, oracle.flags(seconds))
        self._same("done", list(look.done), oracle.done(seconds))
        self._same("look", (look.at, look.experiments), (now, ("btc",)))
        row = machine_row(self.app, self.app.gpus.newest()).reason
        self._same("gpu", row.value, oracle.gpu_percent(seconds))
        self._same("gpu verdict", row.verdict == "INCONCLUSIVE", row.value is None)
        places = experiments.load(self.engine, "btc").places
        statuses = {p.policy: p.status.value for p in places if p.role == "challenger"}
        self._same("arms", statuses, {name: arm.status for name, arm in oracle.arms.items()})

    def pass_minute(self, minute: int) -> None:
        """Look at the status file, then let a minute's events happen."""
        self.keeper.look()
        told = json.loads(self.file.read_bytes())
        codes = self.oracle.codes(self.time.now())
        level = level_of(codes)
        self._same("level", told["health_status"], level)
        self._same("codes", {finding["code"] for finding in told["findings"]}, codes)
        self._same("halted", told["trading"]["halted"], self.oracle.halted())
        if level != self.levels[-1]:
            self.levels.append(level)
        self.seen |= codes
        self._happen(minute)
        self.bot.minute(minute, self.time)
        self.looking_after.make(lambda _: self.learner.tick())
        self.time.seconds += 45
        self._look_at_gpu(minute)
        self._happen_late(minute)
        if any(minute in stretch for stretch in GROWTH_MAX):
            self.sizes[minute] = self._size()
        assert not self.wrong, "\n".join(self.wrong)

    def _same(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            minute = self.time.seconds / 60
            self.wrong.append(f"minute {minute:g}: {what} {found}, by the tables {expected}")

    def _happen(self, minute: int) -> None:
        engine, oracle, now = self.engine, self.oracle, self.time.now()
        match minute:
            case 470:
                killing.kill(
                    engine, None, cause=KillCause.HAND, reason="drill", now=now, actor="ann"
                )
                oracle.is_killed = True
            case 500:
                killing.release(engine, None, reason="over", now=now, actor="ann")
                oracle.is_killed = False
            case 540:
                oracle.is_away = True
                self.server.stop()
            case 600:
                self._drift(0.41, raw=1.11)
                oracle.drifted = SLIDER
            case 665:
                self.app.latch.set(reason="drill", actor="ann", now=now)
                oracle.is_latched = True
            case 700:
                self.app.latch.clear()
                oracle.is_latched = False
            case 810 | 861:
                oracle.job_said_at = self.time.seconds
            case 890:
                (self.home / "learned").touch()
            case 900:  # by now without a wait, which would cost the monitor its lease
                until(lambda: self.learner.job is None, act=self.learner.tick)
                oracle.job_said_at = None
            case 1005:
                self._drift(0.1)
                oracle.drifted = None

    def _happen_late(self, minute: int) -> None:
        match minute:
            case 479:
                self.time.offset += 60 * MINUTE
            case 547:
                self.server.start()
                self.oracle.is_away = False
            case 669:
                self.time.offset -= 30 * MINUTE
            case 859:
                with self.engine.connect() as connection:
                    connection.execute(text(TERMINATE))
            case 1130:
                self.server.stop()  # and nobody said so: the monitor has it back

    def _drift(self, value: float, **changes: float) -> None:
        check = an_encoder_check(value, **changes)
        hours = (self.time.now() - NOON).total_seconds() / 3600
        run = a_run(check, sha=PolicySha("bbbbbbbb"), hours=hours)
        drift.record(self.engine, run, now=self.time.now(), actor="test")

    def _look_at_gpu(self, minute: int) -> None:
        state = [state for begins, state in GPU if begins <= minute][-1]
        if state == "hangs":
            return
        self.nvml.has_driver = state != "no driver"
        self.nvml.broken = {"0"} if state == "lost" else set()
        percent = state if isinstance(state, int) else None
        self.nvml.busy_percent = percent or 0
        self.app.gpus.look()
        self.oracle.gpu = self.time.seconds, percent

    def _size(self) -> Size:
        gc.collect()
        with self.engine.connect() as connection:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            sessions = connection.execute(text(asked)).scalar_one()
        files = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
        return Size(sys.getallocatedblocks(), threading.active_count(), files, sessions)


def opened(server: EmbeddedPostgres) -> None:
    """Make the ledger of the day: a champion, and two challengers with a lot of traffic."""
    server.create_database("day")
    upgrade(server.url("day"))
    engine = connect(server.url("day"))
    open_btc(
        engine,
        challengers=((SLIDER, "bbbbbbbb"), (FALLER, "cccccccc")),
        limits=Limits(unproven_cap_ppm=300_000, start_ppm=300_000),
        loss_limits=LossLimits(daily_loss=Decimal("0.5"), drawdown=Decimal("0.08")),
    )
    learner_jobs.keep_recipe(engine, SLIDER, {"learner": "tabnet"}, now=NOON)
    engine.dispose()


@pytest.fixture(scope="module")
def lived(stopped_postgres: Path) -> Iterator[Day]:
    """The day, lived through once: each round and minute was held against the tables."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        Path(folder).chmod(0o711)
        nvml = FakeNvml(has_driver=False)
        nvml.install(patched)
        data_dir = copy_of(stopped_postgres, Path(folder, "postgres"))
        with EmbeddedPostgres(data_dir=data_dir, durable=False) as server:
            opened(server)
            day = Day(server, Path(folder), nvml)
            try:
                day.live()
                yield day
            finally:
                day.learner.stop()
                day.engine.dispose()


def test_every_condition_of_the_tables_held_for_a_while(lived: Day) -> None:
    # Whatever differs from the oracle in any round or minute has ended the day before this.
    assert lived.seen == set(LEVELS)
    assert lived.oracle.guard.changes == ["REDUCED", "NORMAL", "REDUCED", "PAUSED", "NORMAL"]
    assert lived.oracle.acted == [("throttle", SLIDER), ("halt", FALLER)]
    assert lived.oracle.restarts == 3
    assert level_of(lived.oracle.codes(lived.time.now())) == "HEALTHY"


def test_no_round_is_missed_or_doubled_but_where_the_ledger_is_away(lived: Day) -> None:
    late = {545: 548, 860: 861}
    assert lived.rounds == [60.0 * late.get(minute, minute) for minute in range(0, MINUTES, 5)]


def test_each_action_was_taken_once_and_is_in_the_audit_log(lived: Day) -> None:
    statement = text("SELECT action, subject, details FROM audit_log WHERE actor = :actor")
    told: dict[str, list[Any]] = {}
    with lived.engine.connect() as connection:
        for actor in ("rule:checklist", "rule:performance_guard", "monitor", "learner", "ann"):
            found = connection.execute(statement, {"actor": actor})
            told[actor] = [tuple(row) for row in found]
    assert sorted(action for action, _, _ in told["rule:checklist"]) == ["HALT", "THROTTLE"]
    for guard in ("account usd", "experiment btc"):
        states = [
            d["after"] for _, subject, d in told["rule:performance_guard"] if subject == guard
        ]
        assert states == lived.oracle.guard.changes
    assert [(action, subject) for action, subject, _ in told["monitor"]] == [
        ("monitor_started", "btc"),
        ("learner_job_requested", SLIDER),
        ("monitor_ended", "btc"),
    ]
    # Begun twice: the ledger had ended its session, and it took the job up anew.
    assert Counter(action for action, _, _ in told["learner"]) == {
        "learner_job_begun": 2,
        "learner_restarted": 3,
        "learner_job_done": 1,
    }
    assert [action for action, _, _ in told["ann"]] == ["KILL", "RELEASE"]
    # Whoever begins anew finds the same flags, and everything done.
    again = lived.monitor().look()
    assert (len(again.flags), again.done) == (3, ())


def test_each_change_is_said_when_it_begins_and_when_it_is_over(lived: Day) -> None:
    said = lived.said.messages
    alerts = [found for found in said if found.startswith("[ALERT] health")]
    assert alerts == [f"[ALERT] health {level}" for level in lived.levels[1:]]
    halts = [found for found in said if found.startswith("Trading")]
    assert halts == ["Trading halted", "Trading resumed"] * 3
    drifted, stuck = "slider: encoder_kl_divergence", "this machine: gpu_util_pct 97, limit 60"
    for begun, over, times in (
        ("the monitor cannot look, trying on", "over: the monitor cannot look", 3),
        (f"[ALERT] btc/{drifted}", f"over: btc/{drifted}", 1),
        (f"[ALERT] {stuck}", f"over: {stuck}", 2),
    ):
        assert [sum(m.startswith(start) for m in said) for start in (begun, over)] == [times] * 2
    for policy, metric in ((SLIDER, "pf"), (FALLER, "pf"), (FALLER, "dd")):
        assert sum(m.startswith(f"[ALERT] btc/{policy}: {metric}_challenger") for m in said) == 1


def test_a_day_leaves_no_memory_thread_file_or_session_behind(lived: Day) -> None:
    for (begins, ends), most in GROWTH_MAX.items():
        before, after = lived.sizes[begins], lived.sizes[ends]
        assert after.objects - before.objects < most
        assert replace(after, objects=0) == replace(before, objects=0)
