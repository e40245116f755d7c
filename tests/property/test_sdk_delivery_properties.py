"""Whatever fails between a bot and the service: each report counts once, and none is lost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from enum import StrEnum
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ledger import NOON
from sdk_bot import ScriptedService, experiment, routed

from liveops.client.core import Core
from liveops.client.flushing import Round
from liveops.client.protocol import Exchange, Reply, Request
from liveops.client.values import AssignmentId, Kind

BOTS = 2


class Fault(StrEnum):
    """What happens to a request."""

    NONE = "none"
    LOST = "lost"
    ANSWER_LOST = "answer_lost"
    ANSWER_CUT = "answer_cut"
    AWAY = "away"
    FAILED = "failed"
    WRONG_KEY = "wrong_key"


class Wire:
    """Between the bots and a service that remembers what counted, without a socket."""

    def __init__(self) -> None:
        self.service = ScriptedService()
        self.known: set[str] = set()

    def carry(self, request: Request, fault: Fault) -> Reply | None:
        match fault:
            case Fault.LOST:
                return None
            case Fault.AWAY:
                return Reply(status=503, body=b"", retry_after_seconds=1.0)
            case Fault.FAILED:
                return Reply(status=500, body=b"")
            case Fault.WRONG_KEY:
                return Reply(status=401, body=b'{"code": "unauthorized"}')
            case Fault.NONE | Fault.ANSWER_LOST | Fault.ANSWER_CUT:
                reply = self._answer(request)
        if fault is Fault.ANSWER_LOST:
            return None
        cut = reply.body[: len(reply.body) // 2]
        return Reply(status=200, body=cut) if fault is Fault.ANSWER_CUT else reply

    def _answer(self, request: Request) -> Reply:
        name, value = routed(request.method, request.path, request.body)
        if name == "batch":
            # The ledger knows no outcome without its decision.
            assert {line["assignment_id"] for line in value} <= self.known
        status, answer = self.service.answer(request.method, request.path, request.body)
        if name == "fallback":
            self.known.add(answer["assignment_id"])
        lines = answer if isinstance(answer, list) else [answer]
        return Reply(status=status, body="\n".join(map(json.dumps, lines)).encode())


class Bots:
    """Processes of one bot on one spool; each may die at any moment."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.wire = Wire()
        self.numbers = count(1)
        self.reported: dict[str, Any] = {}
        self.cores = [self._core() for _ in range(BOTS)]
        sent = Exchange(reply=self._routed("first"), sent_at=NOON)
        self.cores[0].assigned(
            sent, unit_id="first", instrument="BTCUSD", is_position=False, is_opening=True
        )
        self.cores[0].heard_champion(Reply(status=200, body=json.dumps(experiment()).encode()))

    def report(self, bot: int) -> None:
        number = next(self.numbers)
        key = AssignmentId(f"00000000-0000-4000-8000-{number:012d}")
        self.wire.known.add(key)
        self.cores[bot].report(Kind.OUTCOME, key, {"pnl": f"{number}"})
        self.reported[key] = f"{number}"

    def decide_alone(self, bot: int) -> None:
        number = next(self.numbers)
        unit = f"u{number:05d}"
        silence = Exchange(reply=None, sent_at=NOON)
        made = self.cores[bot].assigned(
            silence, unit_id=unit, instrument="BTCUSD", is_position=False, is_opening=True
        )
        self.cores[bot].report(Kind.OUTCOME, made.id, {"pnl": f"{number}"})
        self.reported[self.wire.service.assignment(unit)["assignment_id"]] = f"{number}"

    def send(self, bot: int, faults: list[Fault], *, dies: bool) -> None:
        core = self.cores[bot]
        assert core.spool.take_lease()
        round_ = Round(core)
        for fault in faults:
            if (request := round_.next()) is None:
                break
            reply = self.wire.carry(request, fault)
            if dies:  # between the answer and its taking in
                self.restart(bot)
                return
            round_.take(reply)
        core.spool.release_lease()

    def restart(self, bot: int) -> None:
        self.cores[bot].spool.close()
        self.cores[bot] = self._core()

    def drain(self) -> None:
        while self.cores[0].spool.pending() > 0:
            before = self.cores[0].spool.pending()
            self.send(0, [Fault.NONE] * 50, dies=False)
            assert self.cores[0].spool.pending() < before, "a healthy service takes everything"

    def close(self) -> None:
        for core in self.cores:
            core.spool.close()

    def _core(self) -> Core:
        return Core(
            "http://127.0.0.1:8800",
            "btc",
            spool_dir=self.folder,
            now=lambda: NOON,
            monotonic=lambda: 0.0,
        )

    def _routed(self, unit: str) -> Reply:
        made = self.wire.service.assignment(unit)
        return Reply(status=200, body=json.dumps(made).encode())


Step = Callable[[Bots], None]

bot = st.integers(0, BOTS - 1)
faults = st.lists(st.sampled_from(Fault), min_size=1, max_size=4)


def reported_and_sent(bot: int, faults: list[Fault], dies: bool) -> Step:
    def step(bots: Bots) -> None:
        bots.report(bot)
        bots.decide_alone(bot)
        bots.send(BOTS - 1 - bot, faults, dies=dies)

    return step


steps = st.one_of(
    st.builds(reported_and_sent, bot, faults, st.booleans()),
    st.builds(lambda b: lambda bots: bots.report(b), bot),
    st.builds(lambda b: lambda bots: bots.decide_alone(b), bot),
    st.builds(lambda b, f, d: lambda bots: bots.send(b, f, dies=d), bot, faults, st.booleans()),
    st.builds(lambda b: lambda bots: bots.restart(b), bot),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=1, max_size=10))
def test_every_report_counts_once_whatever_fails_on_its_way(script: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bots = Bots(folder)
        for step in script:
            step(bots)
        bots.drain()
        counted = {key: line["pnl"] for key, line in bots.wire.service.outcomes.items()}
        refused = bots.cores[0].spool.refused()
        bots.close()
    assert counted == bots.reported
    assert refused == []
