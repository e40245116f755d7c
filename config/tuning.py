"""How sweeps are run: what `liveops tune` reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from config.data import Interval, SourceName, StoredName
from config.section import Count, Number, Section, setting

HostAndPort = Annotated[str, StringConstraints(pattern=r"^[^:/\s]+:[0-9]{1,5}$")]


class Tuning(Section):
    """How `liveops tune` runs; what it may change, and what never, is in docs/tuning.md."""

    instruments: tuple[StoredName, ...] = setting(
        (),
        meaning="What the weekly sweep learns from, such as BTC/USDT of the candle store; empty: "
        "there is none.",
        unit="list of instruments",
    )
    source: SourceName | None = setting(
        None, meaning="Where their candles came from; empty where that is plain.", unit="name"
    )
    interval: Interval | None = setting(
        None,
        meaning="Length of their bars, such as 1h; empty where that is plain.",
        unit="number and s, m, h, d or w",
    )
    trials: Count = setting(
        10,
        meaning="Trials of a sweep, pruned and failed ones among them.",
        unit="trials",
        ge=1,
        le=1000,
    )
    trial_seconds: Number = setting(
        3600.0,
        meaning="A trial that takes longer is ended, and has failed.",
        unit="seconds",
        ge=1,
        le=604800,
    )
    workers: Count = setting(
        1, meaning="Trials that run at a time, a processor each.", unit="trials", ge=1, le=256
    )
    keep_best: Count = setting(
        2, meaning="Trials of a sweep whose artefacts are kept.", unit="trials", ge=1, le=100
    )
    backend: Literal["local", "ray"] = setting(
        "local", meaning="Where trials run: on this machine, or on a cluster of Ray.", unit="name"
    )
    ray_address: HostAndPort | None = setting(
        None,
        meaning="Cluster of Ray to join; empty starts one on this machine alone.",
        unit="host:port",
    )
