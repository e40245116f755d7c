"""Clients that never give a unit up: the same body again, at the next replica, until they know."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import psycopg

from benchmarks.operation_log import OperationLog, Phase, Verb
from benchmarks.temporary_ledger import EXPERIMENT, INSTRUMENT

ANSWER_SECONDS_MAX = 5.0
PAUSE_SECONDS = 0.05
"""Between two units and two attempts: clients that never rest would starve what starts."""

ATTEMPTS_MAX = 5000
REPEATED = 0.25


@dataclass(kw_only=True)
class Client:
    """A bot: assign, claim, outcome, unit after unit; now and then it asks for the same again."""

    name: str
    urls: Sequence[str]
    stop: threading.Event
    abandon: threading.Event
    rng: np.random.Generator
    log: OperationLog = field(init=False)

    def __post_init__(self) -> None:
        """Begin a log."""
        self.log = OperationLog(self.name)

    def run(self) -> None:
        """Trade until told to stop; the unit under way is finished unless all is abandoned."""
        number = 0
        with httpx.Client(timeout=ANSWER_SECONDS_MAX) as http:
            while not self.stop.is_set():
                self._trade(http, f"{self.name}-{number}")
                number += 1
                self.stop.wait(PAUSE_SECONDS)

    def _trade(self, http: httpx.Client, unit: str) -> None:
        asked = {"unit_id": unit, "instrument": INSTRUMENT}
        path = f"/v1/experiments/{EXPERIMENT}/assignments"
        answer = self._until_known(http, Verb.ASSIGN, unit, path, asked)
        if answer is None:
            return
        made = json.loads(answer)
        key, at = made["assignment_id"], made["decided_at"]
        self._until_known(http, Verb.CLAIM, key, f"/v1/assignments/{key}/claim", None)
        earned = int(self.rng.integers(-500, 600))
        outcome = {
            "assignment_id": key,
            "pnl": f"{earned / 100:.2f}",
            "return": earned / 1_000_000,
            "opened_at": at,
            "closed_at": at,
        }
        self._until_known(http, Verb.OUTCOME, key, "/v1/outcomes", outcome)
        if self.rng.random() < REPEATED:
            self._until_known(http, Verb.ASSIGN, unit, path, asked)
            self._until_known(http, Verb.OUTCOME, key, "/v1/outcomes", outcome)

    def _until_known(
        self, http: httpx.Client, verb: Verb, key: str, path: str, body: dict[str, Any] | None
    ) -> str | None:
        """Ask until the answer is yes or no; the text of a yes."""
        place = int(self.rng.integers(len(self.urls)))
        pause = threading.Event()
        for attempt in range(ATTEMPTS_MAX):
            if self.abandon.is_set():
                return None
            url = self.urls[(place + attempt) % len(self.urls)]
            operation = self.log.invoked(verb, key)
            try:
                answer = http.post(f"{url}{path}", json=body)
            except httpx.TransportError:
                self.log.ended(operation, verb, key, Phase.UNKNOWN)
            else:
                if answer.is_success:
                    is_new = answer.status_code == httpx.codes.CREATED
                    self.log.ended(
                        operation, verb, key, Phase.OK, answer=answer.text, is_new=is_new
                    )
                    return answer.text
                # A 503 may come of a commit whose end nobody saw.
                unclear = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
                phase = Phase.UNKNOWN if unclear else Phase.FAIL
                self.log.ended(operation, verb, key, phase, answer=answer.text)
                if not unclear:
                    return None
            pause.wait(PAUSE_SECONDS)
        raise RuntimeError(f"{verb} {key}: no answer after {ATTEMPTS_MAX} attempts")


@dataclass(kw_only=True)
class CarelessWriter:
    """The canary: commits that do not wait for the disk. If they all stay, the kills were mild."""

    conninfo: str
    stop: threading.Event
    acknowledged: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Write numbers until told to stop, each once."""
        number = 0
        pause = threading.Event()
        while not self.stop.is_set():
            try:
                with psycopg.connect(self.conninfo, autocommit=True, connect_timeout=2) as own:
                    own.execute("SET synchronous_commit TO off")
                    own.execute("CREATE TABLE IF NOT EXISTS careless (number bigint PRIMARY KEY)")
                    while not self.stop.is_set():
                        number += 1
                        own.execute("INSERT INTO careless VALUES (%s)", [number])
                        self.acknowledged.append(number)
                        pause.wait(PAUSE_SECONDS / 20)
            except psycopg.OperationalError:
                pause.wait(PAUSE_SECONDS)

    def lost(self) -> int:
        """How many of its numbers are gone."""
        with psycopg.connect(self.conninfo) as own:
            found = {number for (number,) in own.execute("SELECT number FROM careless")}
        return len(set(self.acknowledged) - found)
