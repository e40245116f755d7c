"""Builders for tests of the SDK: bots against the real service, or a scripted one on a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

from ledger import NOON

from liveops.client import Assignment, AssignmentId, Client

UNIT = "BTCUSD-2026-03-01T12:00"
TELL_OF_MONITOR = ("assign", "decide", "claim", "heartbeat")
CHAMPION = {"policy": "prod", "policy_sha": "aaaaaaaa"}


@dataclass
class Hands:
    """The clocks of a bot, moved by hand."""

    now: datetime = NOON
    seconds: float = 0.0

    def pass_by(self, seconds: float) -> None:
        """Let time pass for both clocks."""
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    def options(self) -> dict[str, Any]:
        """What a client has to be told of them."""
        return {
            "now": lambda: self.now,
            "monotonic": lambda: self.seconds,
            "jitter": lambda: 0.5,
            "deadline_seconds": 30.0,  # a test machine may be slow; tests of deadlines say theirs
        }


def earned(assignment: Assignment | AssignmentId, client: Client, *, pnl: str = "12.34") -> None:
    """Report a trade of one minute."""
    client.outcome(
        assignment,
        pnl=Decimal(pnl),
        return_ratio=Decimal(pnl) / 10_000,
        opened_at=NOON,
        closed_at=NOON + timedelta(minutes=1),
    )


def eventually(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Return once `condition` holds; fail where it never does."""
    pause, deadline = threading.Event(), monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not so after {seconds} s"
        pause.wait(0.02)


def problem(status: int, code: str, detail: str = "scripted") -> tuple[int, dict[str, Any]]:
    """An answer that refuses."""
    body = {"type": f"urn:liveops:problem:{code}", "title": code, "status": status}
    return status, {**body, "code": code, "detail": detail}


@dataclass
class ScriptedService:
    """A real HTTP server that answers as the contract says, or as `answers` has it.

    `answers` maps a route's name (`assign`, `decide`, `claim`, `fallback`, `batch`, `marks`,
    `heartbeat`, `experiment`, `close-orders`, `close-all`) to a function of the request's body.
    `came` lists the routes in the order of the requests. `watch` is what answers that grant
    something tell of the monitor.
    """

    url: str = ""
    answers: dict[str, Callable[[Any], tuple[int, Any]]] = field(default_factory=dict)
    came: list[str] = field(default_factory=list)
    bodies: dict[str, list[Any]] = field(default_factory=dict)
    keys: list[str | None] = field(default_factory=list)
    outcomes: dict[str, Any] = field(default_factory=dict)
    watch: str | None = None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return status and body."""
        route, value = routed(method, path, body)
        self.came.append(route)
        self.bodies.setdefault(route, []).append(value)
        if route in self.answers:
            return self.answers[route](value)
        match route:
            case "assign":
                return 200, self.assignment(value["unit_id"])
            case "decide":
                nothing = {"action": None, "no_action_reason": "scripted"}
                return 200, self.assignment(value["unit_id"], **nothing)
            case "fallback":
                return 201, self.assignment(value["unit_id"], decided_at=value["decided_at"])
            case "claim":
                return 200, {"assignment_id": path.split("/")[3], "claimed_at": NOON.isoformat()}
            case "experiment":
                return 200, experiment()
            case "batch":
                return 200, [self._recorded(n, line) for n, line in enumerate(value, start=1)]
            case "marks":
                return 200, {"recorded": len(value)}
            case "heartbeat":
                return 200, {"bot": value["bot"]}
            case _:
                return problem(404, "no_such_route")

    def assignment(self, unit_id: str, **fields: Any) -> dict[str, Any]:
        """The champion's assignment of a unit."""
        number = int.from_bytes(unit_id.encode()[-6:].rjust(6, b"0"), "big")
        made = {
            "assignment_id": f"00000000-0000-0000-0000-{number:012x}"[:36],
            "experiment": "btc",
            "unit_id": unit_id,
            **CHAMPION,
            "role": "champion",
            "propensity": 1.0,
            "allocation_version": 1,
            "epoch": 1,
            "mode": "live",
            "size_multiplier": 1.0,
            "confidence_bump": 0.0,
            "decided_at": NOON.isoformat(),
            "expires_at": (NOON + timedelta(seconds=2)).isoformat(),
        }
        return made | fields

    def _recorded(self, number: int, line: dict[str, Any]) -> dict[str, Any]:
        first = self.outcomes.setdefault(line["assignment_id"], line)
        if first != line:
            status, body = problem(409, "conflict")
            return {"line": number, "status": status, "problem": body}
        return {"line": number, "status": 201}


def experiment(**fields: Any) -> dict[str, Any]:
    """The experiment as the service tells it."""
    told = {"name": "btc", "champion": "prod", "epoch": 1, "decision_seconds_valid": 2.0}
    return told | {"arms": [CHAMPION]} | fields


def routed(method: str, path: str, body: bytes) -> tuple[str, Any]:
    """The name of a request's route, and what it sent."""
    if path.endswith("/outcomes/batch"):
        return "batch", [json.loads(line) for line in body.splitlines()]
    value = json.loads(body) if body else None
    names = {
        "assignments": "assign",
        "decide": "decide",
        "fallbacks": "fallback",
        "claim": "claim",
        "marks": "marks",
        "heartbeats": "heartbeat",
        "close-orders": "close-orders",
        "close-all": "close-all",
    }
    other = "experiment" if method == "GET" else "unknown"
    name = names.get(path.rsplit("/", 1)[1], other)
    return name, value


@contextmanager
def scripted() -> Iterator[ScriptedService]:
    """Serve on a free port; afterwards nobody listens there, as when a service is gone."""
    service = ScriptedService()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # no connection outlives the server

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            service.keys.append(self.headers.get("Authorization"))
            route, _ = routed(self.command, self.path, body)
            status, answer = service.answer(self.command, self.path, body)
            lines = answer if isinstance(answer, list) else [answer]
            sent = "\n".join(map(json.dumps, lines)).encode()
            self.send_response(status)
            if status == 503:
                self.send_header("Retry-After", "1")
            if service.watch is not None and status < 300 and route in TELL_OF_MONITOR:
                self.send_header("Liveops-Watch", service.watch)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
