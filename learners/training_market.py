"""Candles to train in: windows of one or several instruments, traded by the same rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.canonical_json import canonical
from learners.environment import MarketEnvironment
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import Candles

if TYPE_CHECKING:
    from learners.training_state import ResumableVecEnv


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingWindow:
    """The bars of one instrument that are trained in; `features` has a row for every candle.

    Nothing outside `bars` is read, so what is held out stays unseen.
    """

    candles: Candles
    features: NDArray[np.floating]
    bars: range


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandleMarket:
    """Windows that share the episodes evenly, as a `TrainingMarket`."""

    windows: tuple[TrainingWindow, ...]
    spec: EnvironmentSpec

    def __post_init__(self) -> None:
        """Refuse to train in nothing."""
        if not self.windows:
            raise InvalidInput(field="windows", rule="must be 1 or more", found=0)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the candles, features and bars of every window, and the rules."""
        content = hashlib.sha256(canonical(self.spec.to_json()))
        for window in self.windows:
            bars = [window.bars.start, window.bars.stop, window.bars.step]
            form = [window.candles.digest, *bars, *window.features.shape]
            content.update(canonical(form))
            content.update(np.ascontiguousarray(window.features, dtype="<f8").tobytes())
        return content.hexdigest()

    @property
    def data_from(self) -> datetime:
        """Return when the first bar of any window opens."""
        return min(window.candles.opening(window.bars[0]) for window in self.windows)

    @property
    def data_to(self) -> datetime:
        """Return when the last bar of any window closes."""
        return max(window.candles.closing(window.bars[-1]) for window in self.windows)

    def environments(self, count: int, *, seed: int) -> ResumableVecEnv:
        """Return `count` episodes, shared by the windows in order; loads torch.

        Raises `InvalidInput` for fewer episodes than windows.
        """
        from learners.resumable_market import ResumableMarketVecEnv

        shares = [len(part) for part in np.array_split(np.arange(count), len(self.windows))]
        return ResumableMarketVecEnv(
            [
                MarketEnvironment(
                    window.candles,
                    window.features,
                    self.spec,
                    count=share,
                    bars=window.bars,
                    seed=seed + i,
                )
                for i, (window, share) in enumerate(zip(self.windows, shares, strict=True))
            ]
        )
