"""What a scrape is answered with: one reading of the ledger, and what is this process' own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from alerts.catalogue import CATALOGUE
from alerts.http_metrics import EDGES
from alerts.metric import MetricKind
from liveops.gpu import GpuReading
from liveops.health_metrics import Sample
from liveops.metrics import LedgerReader, LedgerReading, filled
from liveops.outside_metrics import of_breakers
from liveops.request_times import RequestTimes
from liveops.wiring import App

GAP_SECONDS: Final = (1.0, 300.0)
"""A scraper that comes oftener, or more seldom, is not waited for."""

SCRAPERS_MAX: Final = 8
"""Of more scrapers, those that came last are waited for."""

_HISTOGRAM: Final = next(m for m in CATALOGUE if m.kind is MetricKind.HISTOGRAM)
_OWN: Final = tuple(m for m in CATALOGUE if m.is_own and m is not _HISTOGRAM)
_END: Final = b"# EOF\n"
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a scrape is answered with: its bytes, and their type and coding."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    """A reading as text, and the same as the begun stream of a gzip file."""

    reading: LedgerReading
    content_type: str
    text: bytes
    packed: bytes
    packer: zlib._Compress


class Exposition:
    """Answers scrapes: what the ledger said is rendered once for each reading.

    Reading the ledger takes longer than a scrape may. `ahead` says when to read for the next one.
    """

    def __init__(self, app: App) -> None:
        """Tell of `app`, its process and its ledger."""
        self._app = app
        self._ledger = LedgerReader(app)
        self._rendered: _Rendered | None = None
        self._heard: dict[str, float] = {}

    def answer(self, accept: str, *, encodings: str) -> Answer:
        """Return every metric in the best format of `accept`, packed where `encodings` has gzip."""
        encode, content_type = choose_encoder(accept)
        reading = self._ledger.newest()
        done = self._of(reading, encode, content_type)
        own = encode(_Own(self._app, read_at=reading.at))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if "gzip" not in encodings:
            return Answer(body=done.text + own, headers=headers)
        packer = done.packer.copy()
        body = done.packed + packer.compress(own) + packer.flush()
        return Answer(body=body, headers={**headers, "Content-Encoding": "gzip"})

    def read_ahead(self, accept: str) -> None:
        """Read the ledger for a scrape that is about to come, and render what it said."""
        encode, content_type = choose_encoder(accept)
        self._of(self._ledger.read_ahead(), encode, content_type)

    def ahead(self, scraper: str, *, at: float) -> float | None:
        """Note that `scraper` came `at` this second; return in how many to read for its next.

        None where it keeps no rhythm that is worth it, or none is known yet.
        """
        before = self._heard.pop(scraper, None)
        self._heard[scraper] = at
        while len(self._heard) > SCRAPERS_MAX:
            del self._heard[next(iter(self._heard))]
        gap = 0.0 if before is None else at - before
        if not GAP_SECONDS[0] <= gap <= GAP_SECONDS[1]:
            return None
        return max(gap - 2 * self._ledger.takes.total_seconds() - 0.1, 0.0)

    def _of(
        self, reading: LedgerReading, encode: Callable[[Collector], bytes], content_type: str
    ) -> _Rendered:
        done = self._rendered
        if done is None or done.reading is not reading or done.content_type != content_type:
            text = encode(reading).removesuffix(_END)
            packer = zlib.compressobj(level=1, wbits=_GZIP)
            packed = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
            self._rendered = done = _Rendered(
                reading=reading,
                content_type=content_type,
                text=text,
                packed=packed,
                packer=packer,
            )
        return done


class _Own(Collector):
    """What is this process' own, as it is now."""

    def __init__(self, app: App, *, read_at: datetime) -> None:
        self._app = app
        self._read_at = read_at

    def collect(self) -> Iterable[Metric]:
        app = self._app
        age = max((app.clock.now() - self._read_at).total_seconds(), 0.0)
        samples: list[Sample] = [
            *_of_gpus(app.gpus.newest()),
            *of_breakers(app.breakers.listed()),
            *_of_answers(app.requests),
            ("liveops_reading_age_seconds", (), age),
        ]
        return *filled(_OWN, samples), _durations(app.requests)


def _durations(requests: RequestTimes) -> HistogramMetricFamily:
    family = HistogramMetricFamily(_HISTOGRAM.name, _HISTOGRAM.help, labels=_HISTOGRAM.labels)
    edges = [*(str(edge) for edge in EDGES), "+Inf"]
    for group, times in requests.read().items():
        buckets = list(zip(edges, map(float, accumulate(times.counts)), strict=True))
        family.add_metric([group.value], buckets, sum_value=times.seconds)
    return family


def _of_answers(requests: RequestTimes) -> Iterator[Sample]:
    for group, times in requests.read().items():
        for status, n in times.answers.items():
            yield "liveops_http_requests_total", (group.value, status.value), n


def _of_gpus(readings: Sequence[GpuReading]) -> Iterator[Sample]:
    for found in readings:
        labels, busy = (str(found.index), found.model), found.busy_ratio
        for name, value in (
            ("liveops_gpu_busy_ratio", busy),
            ("gpu_util_pct", None if busy is None else 100 * busy),
            ("liveops_gpu_memory_used_bytes", found.memory_used_bytes),
            ("liveops_gpu_memory_bytes", found.memory_total_bytes),
            ("liveops_gpu_temperature_celsius", found.temperature_celsius),
        ):
            if value is not None:
                yield name, labels, value
