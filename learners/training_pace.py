"""How fast a training goes, and whether it will end in time: asked between two rounds of it."""

from __future__ import annotations

from multiprocessing.connection import Connection

from learners.training_events import (
    Ending,
    Forecast,
    OutOfTime,
    Progress,
    TooLong,
    TrainingEvent,
    encoded,
)
from learners.training_process import Order

FORECAST_AFTER_SECONDS = 2.0
PROGRESS_SECONDS = 1.0


class Pace:
    """Forecasts once, after seconds of learning; tells progress every second; says what is late."""

    def __init__(self, pipe: Connection, order: Order, *, steps_total: int) -> None:
        """Begin to watch a training of `steps_total` steps."""
        self.ended: Ending | None = None
        self._pipe = pipe
        self._order = order
        self._steps_total = steps_total
        self._measured: tuple[float, int] | None = None
        self._forecast = False
        self._round_at: float | None = None
        self._longest = 0.0
        self._told_at = order.clock()

    def round_begins(self, steps: int, *, is_learning: bool, mean: float | None = None) -> None:
        """Look ahead from a round's beginning; `mean` is the mean return of episodes, if any.

        Time counts from the first round in which something is learned.
        """
        now = self._order.clock()
        if self._round_at is not None:
            self._longest = max(self._longest, now - self._round_at)
        self._round_at = now
        if self._measured is None:
            if is_learning and self._longest > 0:
                self._measured = now, steps
        elif steps > self._measured[1]:
            self._look_ahead(now, steps, *self._measured, mean)

    def is_late(self) -> bool:
        """Tell whether the round that begins, as long as the longest one, would end too late."""
        assert self._round_at is not None, "a round has to begin first"
        return self._round_at + self._longest > self._order.deadline_at

    def stop_late(self, steps_kept: int) -> None:
        """End for being out of time, where nothing has ended the training yet."""
        if self.ended is None:
            self.ended = OutOfTime(steps=steps_kept)

    def say(self, event: TrainingEvent) -> None:
        """Tell the parent."""
        self._pipe.send_bytes(encoded(event))

    def _look_ahead(
        self, now: float, steps: int, began: float, first: int, mean: float | None
    ) -> None:
        rate = (steps - first) / (now - began)
        left = (self._steps_total - steps) / rate
        if not self._forecast and now - began >= FORECAST_AFTER_SECONDS:
            self._forecast = True
            started = self._order.deadline_at - self._order.deadline_seconds
            self.say(Forecast(seconds=now - started + left))
            if now + left > self._order.deadline_at:
                self.ended = TooLong(seconds=now - started + left)
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self.say(
                Progress(
                    steps=steps,
                    steps_total=self._steps_total,
                    steps_per_second=rate,
                    episode_return_mean=mean,
                    seconds_left=left,
                )
            )
