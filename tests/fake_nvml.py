"""NVIDIA's library as it answers where a driver is: faked at its own functions, and no further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml
import pytest

from liveops.gpu import GpuReading

GIB = 1 << 30
WHOLE = GpuReading(
    index=0,
    model="NVIDIA L4",
    busy_ratio=0.07,
    memory_used_bytes=3 * GIB,
    memory_total_bytes=24 * GIB,
    temperature_celsius=41.0,
)


@dataclass
class FakeNvml:
    """The functions of the library that are called, as they answer where a driver is."""

    gpus: int = 1
    busy_percent: int = 7
    has_driver: bool = True
    broken: set[str] = field(default_factory=set)
    opened: int = 0

    def answer(self, name: str, value: Callable[[], object]) -> Callable[..., object]:
        def ask(*_: object) -> object:
            if name in self.broken:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return value()

        return ask

    def open(self) -> None:
        if not self.has_driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        self.opened += 1

    def close(self) -> None:
        self.opened -= 1

    def handle(self, index: int) -> int:
        if index in (int(name) for name in self.broken if name.isdigit()):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for the library while the test lasts."""
        told: dict[str, Callable[[], object]] = {
            "nvmlDeviceGetName": lambda: WHOLE.model,
            "nvmlDeviceGetUtilizationRates": lambda: SimpleNamespace(
                gpu=self.busy_percent, memory=2
            ),
            "nvmlDeviceGetMemoryInfo": lambda: SimpleNamespace(used=3 * GIB, total=24 * GIB),
            "nvmlDeviceGetTemperature": lambda: 41,
        }
        for name, value in told.items():
            monkeypatch.setattr(pynvml, name, self.answer(name, value))
        monkeypatch.setattr(pynvml, "nvmlInit", self.open)
        monkeypatch.setattr(pynvml, "nvmlShutdown", self.close)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: self.gpus)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", self.handle)
