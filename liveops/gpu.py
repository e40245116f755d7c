"""What NVIDIA's management library (NVML) tells of this machine's GPUs (SPEC L6).

Absent means absent: without a driver there are no readings, and what a GPU does not tell is None,
never 0. The library is opened for every reading, so that a GPU that appears or is lost is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from liveops.clock import monotonic

LOOK_SECONDS: Final = 15.0
FRESH_SECONDS: Final = 60.0
"""How long a reading is told of: four looks."""

LEAVE_SECONDS: Final = 1.0
"""How long the end of a service waits for a look: one that a wedged driver holds ends never."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU: its number on this machine, its model, and what it told; None is not known.

    `busy_ratio` is the part of the last moments in which it worked at anything.
    """

    index: int
    model: str
    busy_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None


def read_gpus() -> tuple[GpuReading, ...]:
    """Ask NVML about every GPU; none where there is no driver or it does not answer."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        count = _told(pynvml.nvmlDeviceGetCount)
        found = (_reading(index) for index in range(count or 0))
        return tuple(reading for reading in found if reading is not None)
    finally:
        _told(pynvml.nvmlShutdown)


def _reading(index: int) -> GpuReading | None:
    import pynvml

    handle = _told(lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return None
    busy = _told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    memory = _told(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return GpuReading(
        index=index,
        model=_told(lambda: str(pynvml.nvmlDeviceGetName(handle))) or "unknown",
        busy_ratio=None if busy is None else busy.gpu / 100,
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        temperature_celsius=_told(lambda: float(pynvml.nvmlDeviceGetTemperature(handle, sensor))),
    )


def _told(ask: Callable[[], _T]) -> _T | None:
    """Return an answer of the library; None where this GPU cannot tell, or is lost."""
    import pynvml

    try:
        return ask()
    except pynvml.NVMLError:
        return None


class GpuWatch:
    """The newest reading of the GPUs, and for how long it holds.

    >>> GpuWatch().newest()  # nobody has looked
    ()
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        """Know nothing yet; `clock` gives seconds that never go back."""
        self._clock = clock
        self._newest: tuple[float, tuple[GpuReading, ...]] | None = None

    def look(self) -> None:
        """Read the GPUs now."""
        readings = read_gpus()
        self._newest = self._clock(), readings

    def newest(self) -> tuple[GpuReading, ...]:
        """Return the newest readings; none once they are older than `FRESH_SECONDS`."""
        newest = self._newest
        if newest is None or self._clock() - newest[0] > FRESH_SECONDS:
            return ()
        return newest[1]

    @contextmanager
    def looking(self, *, seconds: float = LOOK_SECONDS) -> Iterator[None]:
        """Look again and again while the context lasts.

        In a thread that nothing waits for: a driver that hangs must hold up neither `/metrics` nor
        the end of the service.
        """
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                self.look()
                stop.wait(seconds)

        thread = threading.Thread(target=run, name="gpu-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(LEAVE_SECONDS)
