"""The training environment as a batch whose state can be kept and taken up again."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from learners.array_file import Arrays
from learners.environment_interfaces import MarketVecEnv
from learners.training_state import ResumableVecEnv


class ResumableMarketVecEnv(MarketVecEnv, ResumableVecEnv):
    """`MarketVecEnv` with the state of every market in it."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the states of the markets, named by their place."""
        return {
            f"{i}.{name}": array
            for i, environment in enumerate(self.environments)
            for name, array in environment.state().items()
        }

    def restore(self, state: Arrays) -> None:
        """Bring every market to where it was; raises `InvalidInput` as they do."""
        for i, environment in enumerate(self.environments):
            names = environment.state()
            environment.restore({name: state[f"{i}.{name}"] for name in names})
