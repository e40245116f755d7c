"""A stored policy asked as it was trained: raw features and what is held in, what is done out.

decider = Decider(read(root, sha))
action = decider.act(features, Holding(), rules=ActingRules())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bandit.core.acting import ActingRules, Action, acted
from bandit.core.errors import InvalidInput
from bandit.core.sizing import Sizing
from learners.artifact import Artifact
from learners.embedding_memory import Embeddings
from learners.environment import Observations
from learners.holding import Holding
from learners.market.features import regime_of
from learners.serving import ServedPolicy
from learners.sight import sight_of

History = Mapping[str, Sequence[float]]
"""Features of the bars before the present one, by name, the oldest first."""


class Decider:
    """A policy in memory with its features, its scaler and its encoder.

    `names` are its features in the order of a row, `features_digest` names how they are computed;
    `history_bars` is how many bars before the present one it looks back on.
    """

    def __init__(self, artifact: Artifact, *, embeddings: Embeddings | None = None) -> None:
        """Load the network and read what it says of its inputs.

        Deciders of one thread may share `embeddings`. Raises `ArtifactRefused` as `ServedPolicy`
        and as `sight_of`.
        """
        self._sight = sight_of(artifact)
        self._embeddings = embeddings or Embeddings()
        self.sha = artifact.sha
        self.names = self._sight.spec.names
        self.features_digest = self._sight.spec.digest
        self.history_bars = self._sight.history_bars
        self._policy = ServedPolicy(artifact)

    def act(
        self,
        features: Mapping[str, float],
        holding: Holding,
        *,
        rules: ActingRules,
        history: History | None = None,
        size_multiplier: float = 1.0,
        confidence_bump: float = 0.0,
        sizing: Sizing | None = None,
    ) -> Action:
        """Return what is done of what the policy wants, by `acted`.

        `features` has every one of `names`, as computed from candles, and so has `history` those of
        the `history_bars` before, or more. Raises `InvalidInput` for a number that is not finite,
        for a history that is needed and not there, and where the network's answer is no number.
        """
        choice = self._policy.choose(self.observation(features, holding, history=history))
        return acted(
            choice,
            held=holding.held,
            regime=regime_of(features),
            rules=rules,
            size_multiplier=size_multiplier,
            confidence_bump=confidence_bump,
            sizing=sizing,
        )

    def observation(
        self, features: Mapping[str, float], holding: Holding, *, history: History | None = None
    ) -> Observations:
        """Return what the policy sees: scaled features, embedding, what is held; all float32."""
        scaled = self._sight.scaled(features)
        embedding = [] if self._sight.encoder is None else self._embedding(scaled, history)
        return np.array([*scaled.tolist(), *embedding, *holding.columns], dtype=np.float32)

    def _embedding(self, scaled: NDArray[np.float64], history: History | None) -> list[float]:
        encoder = self._sight.encoder
        assert encoder is not None
        if history is None:
            rule = f"is required: the {self.history_bars} bars before this one"
            raise InvalidInput(field="history", rule=rule, found="nothing")
        columns = [history[name][-self.history_bars :] for name in self.names]
        window = self._sight.window(np.array(columns, dtype=np.float64).T, scaled)
        found: list[float] = self._embeddings.of(encoder, window).tolist()
        return found
