"""Random lives of one arm between alerts and people, and an oracle of what becomes of it.

Alerts begin and end; each firing and each resolved notice is delivered never, once or several
times, late and in any order, as by two senders; people resume, throttle and halt in between.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

Kind = Literal["notice", "resume", "throttle", "halt"]
ACTIONS = ("throttle", "halt", "", "HALT")
SECONDS = 60
UNIT = timedelta(seconds=30)
"""How long a second of these lives is, which makes them half an hour or more."""

SETTLES = 10  # five minutes
LEVELS = {"active": 0, "throttled": 1, "halted": 2}


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happens at a second; of people nothing but `kind` and `at` says anything."""

    at: int
    kind: Kind
    fingerprint: str = ""
    status: str = "firing"
    starts: int = 0
    action: str = ""
    arm: str = "known"


def history(rng: random.Random, *, name: str = "f", step: int = 1) -> list[Event]:
    """A life of a minute or two: up to five alerts, up to six acts of people, at every `step`."""
    events = []
    for number in range(rng.randint(1, 5)):
        alert = {
            # The same alert may begin again: one fingerprint, another start.
            "fingerprint": f"{name}{rng.randint(0, 2)}x{number % 2}",
            # A sender's clock may be ahead of ours.
            "starts": (begins := rng.randint(0, SECONDS)) + rng.choice([0, 0, 0, 20]),
            "action": rng.choice(ACTIONS[:2] * 3 + ACTIONS),
            "arm": rng.choice(["known", "known", "known", "known", "champion", "unknown"]),
        }
        for status, earliest in (("firing", begins), ("resolved", begins + rng.randint(0, 20))):
            for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
                at = earliest + rng.choice([0, 1, rng.randint(0, 20), rng.randint(0, 60)])
                events.append(Event(at=at, kind="notice", status=status, **alert))
    kinds: list[Kind] = ["resume", "resume", "resume", "throttle", "halt"]
    for _ in range(rng.randint(0, 6)):
        events.append(Event(at=rng.randint(0, 2 * SECONDS), kind=rng.choice(kinds)))
    rng.shuffle(events)
    events = [replace(e, at=e.at // step * step, starts=e.starts // step * step) for e in events]
    return sorted(events, key=lambda event: event.at)


@dataclass
class Oracle:
    """What must become of the arm: how far it is stopped, read off the whole log each time."""

    level: int = 0
    log: list[Event] = field(default_factory=list)
    wrong: int = 0

    def see(self, event: Event) -> str | None:
        """Return how a notice must be answered; None for what people do."""
        earlier, before = list(self.log), self.level
        self.log.append(event)
        if event.kind != "notice":
            if event.kind == "resume":
                self.level = 0
            else:
                self.level = max(self.level, {"throttle": 1, "halt": 2}[event.kind])
            return None
        same = [e for e in earlier if e.kind == "notice" and _key(e) == _key(event)]
        asked = {"throttle": 1, "halt": 2}.get(event.action, 0)
        if event.status == "resolved":
            answer = "resolved"
        elif not asked or event.arm == "champion":
            answer = "no_action"
        elif event.arm == "unknown":
            answer = "unknown_arm"
        elif before >= asked:
            answer = "already"
        elif self._let_go_on_after(
            min([event.starts, event.at, event.at - SETTLES] + [e.at for e in same])
        ):
            answer = "resumed_since"
        else:
            self.level = asked
            return {1: "throttled", 2: "halted"}[asked]
        return "repeated" if same else answer

    def _let_go_on_after(self, moment: int) -> bool:
        return any(e.kind == "resume" and e.at > moment for e in self.log)


def _key(event: Event) -> tuple[str, int, str]:
    return event.fingerprint, event.starts, event.status


def lawful(events: Sequence[Event]) -> list[Event]:
    """The history without what a person could not have done then, as the oracle sees it.

    Notices of one key say one thing, as those of one alert do: the first is what counts.
    """
    oracle, kept, first = Oracle(), [], dict[Any, Event]()
    for event in events:
        if event.kind == "resume" and oracle.level == 0:
            continue
        if event.kind == "throttle" and oracle.level == 2:
            continue
        if event.kind == "notice":
            alert = event.fingerprint, event.starts
            told = first.setdefault(alert, event)
            if (told.action, told.arm) != (event.action, event.arm):
                continue
        oracle.see(event)
        kept.append(event)
    return kept
