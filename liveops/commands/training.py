"""What a terminal shows of trainings: a bar each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from learners.training_events import TrainingEvent


@contextmanager
def shown(console: Console) -> Iterator[Callable[[TrainingEvent], None]]:
    """Yield who is to hear of trainings, one after another, and draws each."""
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
