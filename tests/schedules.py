"""Run real transactions in every order that the database allows, one step at a time.

A session is a use case on connections of its own, stopped before each statement that matters to
the others and before each commit. A session that waits for another's lock is known by
`pg_blocking_pids`, never by the time it takes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event

from bandit.storage.engine import connect

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.001
BOUNDARY = re.compile(
    r"commit_assignments|commit_claims|pg_advisory_xact_lock\(|INSERT INTO outcomes"
    r"|FOR NO KEY UPDATE"
)
"""Statements that matter to others: they take a lock that others wait for, or write behind one."""


@dataclass(kw_only=True)
class Session:
    """One use case under way in a thread: at rest before a step, at work, or ended."""

    name: str
    work: Callable[[Engine], object]
    engine: Engine
    pids: set[int] = field(default_factory=set)
    is_at_rest: bool = False
    is_over: bool = False
    answer: object = None
    _change: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """Do the work, resting at every boundary; what it raises is its answer, for the judge."""
        self.rest()
        try:
            self.answer = self.work(self.engine)
        except BaseException as error:  # noqa: BLE001 - the test judges it
            self.answer = error
        finally:
            with self._change:
                self.is_over = True
                self._change.notify_all()

    def rest(self) -> None:
        """Wait for leave to go on."""
        with self._change:
            self.is_at_rest = True
            self._change.notify_all()
            assert self._change.wait_for(lambda: not self.is_at_rest, PATIENCE_SECONDS)

    def go_on(self) -> None:
        """Give leave for one step."""
        with self._change:
            self.is_at_rest = False
            self._change.notify_all()

    def settled(self) -> bool:
        """Wait a moment; say whether it rests or has ended."""
        with self._change:
            return self._change.wait_for(lambda: self.is_at_rest or self.is_over, POLL_SECONDS)


class Stage:
    """Engines and an observer for the sessions of many schedules on one ledger."""

    def __init__(self, url: str, conninfo: str, *, sessions_max: int = 3) -> None:
        """Connect; sessions rest before `BOUNDARY`, or while `every_statement` before any."""
        self._engines = [connect(url, pool_size=2) for _ in range(sessions_max)]
        self._observer = psycopg.connect(conninfo, autocommit=True)
        self._sessions: dict[int, Session] = {}
        self.every_statement = False
        for engine in self._engines:
            self._watch(engine)

    def close(self) -> None:
        """Disconnect."""
        for engine in self._engines:
            engine.dispose()
        self._observer.close()

    def _watch(self, engine: Engine) -> None:
        def current() -> Session | None:
            return self._sessions.get(threading.get_ident())

        @event.listens_for(engine, "before_cursor_execute")
        def before(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            session = current()
            if session is not None:
                session.pids.add(cursor.connection.info.backend_pid)
                if self.every_statement or BOUNDARY.search(statement):
                    session.rest()

        @event.listens_for(engine, "commit")
        def committing(connection: Connection) -> None:
            session = current()
            reads = connection.get_execution_options().get("postgresql_readonly", False)
            if session is not None and (self.every_statement or not reads):
                session.rest()

    def run(
        self,
        works: Mapping[str, Callable[[Engine], object]],
        choose: Callable[[Sequence[str]], str],
    ) -> dict[str, object]:
        """Run one schedule: `choose` names who of those that can go on does; return the answers."""
        sessions = {
            name: Session(name=name, work=work, engine=engine)
            for (name, work), engine in zip(works.items(), self._engines, strict=False)
        }
        threads = [threading.Thread(target=self._in_thread, args=(s,)) for s in sessions.values()]
        for thread in threads:
            thread.start()
        while not all(session.is_over for session in sessions.values()):
            ready = self._ready(list(sessions.values()))
            if ready:  # else all wait in a circle, until the server ends one of them
                sessions[choose(ready)].go_on()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a session never ended"
        return {name: session.answer for name, session in sessions.items()}

    def _in_thread(self, session: Session) -> None:
        self._sessions[threading.get_ident()] = session
        try:
            session.run()
        finally:
            del self._sessions[threading.get_ident()]

    def _ready(self, sessions: Sequence[Session]) -> list[str]:
        """Name who can go on, once all have come to rest: the last step may have freed some."""
        while True:
            before, ready = (
                [s.name for s in sessions if self._can_go_on(s)],
                [s.name for s in sessions if self._can_go_on(s)],
            )
            if before == ready:
                return ready

    def _can_go_on(self, session: Session) -> bool:
        """Say whether it rests; False when it has ended, or waits for another one's lock."""
        for _ in range(int(PATIENCE_SECONDS / POLL_SECONDS)):
            if session.settled():
                return not session.is_over
            if self._is_blocked(session):
                return False
        raise AssertionError(f"{session.name} neither goes on nor waits for a lock")

    def _is_blocked(self, session: Session) -> bool:
        waiting = (
            "SELECT count(*) FROM unnest(%s::int[]) p WHERE cardinality(pg_blocking_pids(p)) > 0"
        )
        found = self._observer.execute(waiting, [list(session.pids)]).fetchone()
        return found is not None and found[0] > 0


def every_schedule(run: Callable[[Callable[[Sequence[str]], str]], None]) -> Iterator[list[str]]:
    """Run `run` under every schedule there is, depth first, and yield each one's steps.

    Who can go on after the same steps is the same each time, so that the last step which had
    another choice left is taken otherwise in the next run.
    """
    prefix: list[str] = []
    while True:
        steps: list[tuple[str, list[str]]] = []

        def choose(
            ready: Sequence[str],
            prefix: Sequence[str] = tuple(prefix),
            steps: list[tuple[str, list[str]]] = steps,
        ) -> str:
            known = len(steps) < len(prefix)
            chosen = prefix[len(steps)] if known else ready[0]
            assert chosen in ready, f"{chosen} could go on here before, now only {ready}"
            steps.append((chosen, list(ready[ready.index(chosen) + 1 :])))
            return chosen

        run(choose)
        yield [chosen for chosen, _ in steps]
        while steps and not steps[-1][1]:
            steps.pop()
        if not steps:
            return
        prefix = [chosen for chosen, _ in steps[:-1]] + [steps[-1][1][0]]
