"""Record long streams of outcomes: one batch is read while others are stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

from sqlalchemy import Engine

from bandit.core.errors import BanditError
from bandit.core.outcomes import Outcome
from bandit.service import recording
from bandit.service.recording import Recorded

# One that waits for the disk or for an arm's lock, and one that inserts meanwhile.
LANES = 2

Answers = list[Recorded | BanditError]


def record_stream(
    engine: Engine, batches: Iterable[Sequence[Outcome]], *, now: datetime
) -> Iterator[Answers]:
    """Yield the answers to each batch in the order of the batches, as `recording.record` has them.

    Batches are taken a few ahead of what is yielded, so memory does not grow with the stream. An
    error of the ledger ends it; what was stored stays, and the same stream again goes on there.
    """
    under_way: deque[Future[Answers]] = deque()
    with ThreadPoolExecutor(LANES) as pool:
        for batch in batches:
            under_way.append(pool.submit(_recorded, engine, batch, now))
            if len(under_way) > LANES:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _recorded(engine: Engine, batch: Sequence[Outcome], now: datetime) -> Answers:
    return recording.record(engine, batch, now=now) if batch else []
