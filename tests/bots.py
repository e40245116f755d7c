"""Bots that trade over HTTP and never give a unit up, and what they were told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.crash._clients import Client
from benchmarks.operation_log import Entry, Phase, Verb

PATIENCE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Bots:
    """Bots by their names, with which their units begin."""

    clients: Mapping[str, Client]
    stop: threading.Event
    abandon: threading.Event

    def entries(self, *names: str) -> list[Entry]:
        """What these were told so far, or all of them."""
        chosen = names or self.clients
        return [entry for name in chosen for entry in list(self.clients[name].log.entries)]

    def await_more(self, phase: Phase, count: int, *verbs: Verb, name: str | None = None) -> None:
        """Return once so many more operations ended so."""
        names = () if name is None else (name,)

        def ended() -> int:
            entries = self.entries(*names)
            return sum(e.phase is phase and e.verb in (verbs or Verb) for e in entries)

        pause, wanted = threading.Event(), ended() + count
        for _ in range(PATIENCE_SECONDS * 20):
            if ended() >= wanted:
                return
            pause.wait(0.05)
        raise AssertionError(f"no {count} more {phase}: {self.entries(*names)[-8:]}")

    def seconds_max(self) -> float:
        """The longest that anybody waited for an answer."""
        began = {e.operation: e.at for e in self.entries() if e.phase is Phase.INVOKE}
        ended = [e for e in self.entries() if e.phase is not Phase.INVOKE]
        return max(e.at - began[e.operation] for e in ended)


@contextmanager
def trading(urls: Mapping[str, str]) -> Iterator[Bots]:
    """Let a bot trade at each address while the context lasts.

    At its end they finish the unit under way, unless something went wrong or they were told to
    abandon it.
    """
    stop, abandon = threading.Event(), threading.Event()
    clients = {
        name: Client(
            name=name, urls=[url], stop=stop, abandon=abandon, rng=np.random.default_rng(number)
        )
        for number, (name, url) in enumerate(urls.items())
    }
    with ThreadPoolExecutor(len(clients)) as pool:
        under_way = [pool.submit(client.run) for client in clients.values()]
        try:
            yield Bots(clients=clients, stop=stop, abandon=abandon)
        except BaseException:
            abandon.set()
            raise
        finally:
            stop.set()
    for future in under_way:
        future.result()
