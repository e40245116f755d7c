"""What a terminal shows of trainings, a bar each, and a log of them, a line each tenth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from learners.training_events import TrainingEvent


class Lines:
    """Tells of trainings where nobody draws: a line each tenth of the way, for a log."""

    def __init__(self, console: Console) -> None:
        """Write to `console`; no training has begun."""
        self._console = console
        self._number = 0
        self._tenth = 0

    def hear(self, event: TrainingEvent) -> None:
        """Write a line of what is worth one."""
        from learners import training_events

        match event:
            case training_events.Begun():
                self._number += 1
                self._tenth = -1
                after = f" after {event.steps:,}" if event.steps else ""
                self._say(f"begins{after}")
            case training_events.Progress():
                tenth = 10 * event.steps // max(event.steps_total, 1)
                if tenth > self._tenth:
                    self._tenth = tenth
                    self._say(f"{event.steps:,.0f} of {event.steps_total:,.0f} steps")
            case training_events.CheckpointUnfit():
                self._say(f"checkpoint {event.name} is not used: {event.reason}")
            case _:
                return

    def _say(self, what: str) -> None:
        self._console.print(f"training {self._number}: {what}", soft_wrap=True, highlight=False)


@contextmanager
def shown(console: Console) -> Iterator[Callable[[TrainingEvent], None]]:
    """Yield who is to hear of trainings, one after another, and shows each."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from learners import training_events

    columns = (
        TextColumn("training {task.fields[number]}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} steps, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        yield Lines(console).hear
        return
    with Progress(*columns, console=console) as bars:

        def hear(event: TrainingEvent) -> None:
            match event:
                case training_events.Begun():
                    number = len(bars.tasks) + 1
                    bars.add_task(
                        "training", total=None, completed=event.steps, number=number, rate=0.0
                    )
                case training_events.Progress():
                    bars.update(
                        bars.task_ids[-1],
                        total=event.steps_total,
                        completed=event.steps,
                        rate=event.steps_per_second,
                    )
                case training_events.CheckpointWritten():
                    bars.update(bars.task_ids[-1], completed=event.steps)
                case training_events.CheckpointUnfit():
                    bars.print(f"checkpoint {event.name} is not used: {event.reason}")
                case _:
                    return

        yield hear
