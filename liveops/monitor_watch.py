"""What a replica knows of the monitors, so that no decision asks the ledger for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from sqlalchemy import Engine

from bandit.core.errors import LedgerUnavailable
from bandit.core.watch import Deadlines, Pulse, WatchRule, deadlines, seen_again
from bandit.service import watching
from liveops.background import repeated
from liveops.clock import monotonic

TICK_SECONDS: Final = 1.0


class MonitorWatch:
    """The newest pulses, which go on ageing by a clock of this process while nobody can read.

    >>> MonitorWatch().deadlines("btc")  # nobody has looked: nothing is waited for
    """

    def __init__(
        self, rule: WatchRule | None = None, *, clock: Callable[[], float] = monotonic
    ) -> None:
        """Know nothing yet; `clock` gives seconds that never go back."""
        self._rule = rule or WatchRule()
        self._clock = clock
        self._known: tuple[float, Mapping[str, Pulse]] = (0.0, {})

    def look(self, engine: Engine) -> None:
        """Read every pulse; raises `LedgerUnavailable`, and then what was known ages on."""
        at, known = self._clock(), self._known  # the time before: a slow answer makes none younger
        between = at - known[0]
        pulses = {
            read.experiment: seen_again(
                known[1].get(read.experiment), read, seconds_between=between
            )
            for read in watching.newest(engine)
        }
        self._known = at, pulses

    def deadlines(self, experiment: str) -> Deadlines | None:
        """Return an experiment's deadlines as of now; None where no monitor is waited for."""
        at, known = self._known
        pulse = known.get(experiment)
        if pulse is None:
            return None
        return deadlines(pulse, self._rule, seconds_since=self._clock() - at)

    @contextmanager
    def looking(self, engine: Engine) -> Iterator[None]:
        """Look now and once a second while the context lasts, in a thread of its own."""
        with suppress(LedgerUnavailable):  # without a ledger nothing is decided either
            self.look(engine)
        trouble = "pulses of monitors are not read: those known go on ageing"
        with repeated(
            "monitor-watch", lambda _: self.look(engine), seconds=TICK_SECONDS, trouble=trouble
        ):
            yield
