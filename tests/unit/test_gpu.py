"""GPUs as NVML tells of them: absent is absent, and nothing is made up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fake_nvml import WHOLE, FakeNvml
from waiting import until

from liveops.gpu import FRESH_SECONDS, GpuReading, GpuWatch, read_gpus


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    fake.install(monkeypatch)
    yield fake
    assert fake.opened == 0, "the library is closed as often as it is opened"


def test_every_gpu_is_told(nvml: FakeNvml) -> None:
    nvml.gpus = 2
    first, second = read_gpus()
    assert first == WHOLE
    assert second.index == 1


def test_no_driver_is_no_gpu(nvml: FakeNvml) -> None:
    nvml.has_driver = False
    assert read_gpus() == ()
    nvml.has_driver = True
    assert read_gpus() == (WHOLE,), "one that appears is noticed"


@pytest.mark.parametrize(
    ("function", "unknown"),
    [
        ("nvmlDeviceGetUtilizationRates", {"busy_ratio"}),
        ("nvmlDeviceGetMemoryInfo", {"memory_used_bytes", "memory_total_bytes"}),
        ("nvmlDeviceGetTemperature", {"temperature_celsius"}),
    ],
)
def test_what_a_gpu_does_not_tell_is_not_known(
    nvml: FakeNvml, function: str, unknown: set[str]
) -> None:
    nvml.broken = {function}
    [found] = read_gpus()
    for name in GpuReading.__slots__:
        assert getattr(found, name) == (None if name in unknown else getattr(WHOLE, name))


def test_one_that_is_lost_is_absent_and_the_others_stay(nvml: FakeNvml) -> None:
    nvml.gpus, nvml.broken = 2, {"0"}
    assert [found.index for found in read_gpus()] == [1]


def test_a_machine_without_the_library_has_none() -> None:
    """The library itself, as it is where this test runs; with a GPU it tells of that."""
    for found in read_gpus():
        assert found.busy_ratio is None or 0.0 <= found.busy_ratio <= 1.0
        assert found.model


def test_a_reading_holds_for_a_minute(nvml: FakeNvml) -> None:
    now = [100.0]
    watch = GpuWatch(clock=lambda: now[0])
    watch.look()
    now[0] += FRESH_SECONDS
    assert watch.newest() == (WHOLE,)
    now[0] += 0.001
    assert watch.newest() == (), "what hangs is not told of for ever"
    nvml.gpus = 0
    watch.look()
    assert watch.newest() == ()


def test_it_looks_again_and_ends(nvml: FakeNvml) -> None:
    watch = GpuWatch()
    with watch.looking(seconds=0.001):
        until(lambda: watch.newest() == (WHOLE,))
        nvml.gpus = 0
        until(lambda: watch.newest() == ())
    assert "gpu-watch" not in {thread.name for thread in threading.enumerate()}
