"""What a stored policy does with one opportunity: enter or not, how large, and when to leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandit.core.acting import ActingRules, Action, Regime, acted
from learners.artifact import Artifact
from learners.environment import OWN_COLUMNS, MarketEnvironment
from learners.environment_spec import EnvironmentSpec, Target
from learners.market.candles import Candles
from learners.market.features import Features, features_of
from learners.market.paper_market import ExitReason, Proposal
from learners.position_table import SIDES
from learners.serving import ServedPolicy
from learners.sight import sight_of

NO_RUIN: Final = 1e-9
"""The least equity of an episode that is to go on to its end, whatever it loses."""


_UNKNOWN = Regime(adx=None, trend=0, volatility=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intention:
    """A trade that a policy takes: its bracket, its share of the nominal size, and its end.

    At the close of the bar `left_at` the policy decides to leave; None where the bracket ends it.
    """

    proposal: Proposal
    share: float
    left_at: int | None


class OpportunityTaker:
    """Asks a stored policy about opportunities in one instrument, each by itself.

    Every one is met flat: the policy enters or declines, is asked again at the close of every bar
    while it holds, and what comes after its exit is another opportunity.
    """

    def __init__(self, artifact: Artifact, candles: Candles, *, rules: ActingRules) -> None:
        """Compute the features that the artefact asks for.

        Raises `ArtifactRefused` as `ServedPolicy` and as `sight_of`, and `InvalidInput` for bars
        of another length than its features have.
        """
        sight = sight_of(artifact)
        self._policy = ServedPolicy(artifact)
        self._candles = candles
        self._rules = rules
        self._observed, self._features = sight.of(features_of(candles, sight.spec))
        self._environment = EnvironmentSpec.from_json(artifact.spec.environment.body)

    def intention(
        self, bar: int, *, size_multiplier: float = 1.0, confidence_bump: float = 0.0
    ) -> Intention | None:
        """Return what it does with the opportunity at the close of `bar`; None where it declines.

        The multiplier and the bump are those of the assignment. Where candles end before the
        position does, its end is left to them.
        """
        stop = min(bar + self._environment.holding_bars_max + 2, len(self._candles))
        if stop - bar < 2:
            return None
        bars = range(bar, stop)
        spec = replace(self._environment, episode_bars=len(bars) - 1, equity_ratio_min=NO_RUIN)
        environment = MarketEnvironment(
            self._candles, self._observed, spec, count=1, bars=bars, seed=0
        )
        seen, share = environment.reset()[0], 0.0
        for now in bars[:-1]:
            action = decided(
                self._policy,
                seen,
                self._features,
                now,
                rules=self._rules,
                size_multiplier=size_multiplier,
                confidence_bump=confidence_bump,
            )
            target = target_of(action)
            if now == bar:
                if target is Target.FLAT:
                    return None
                share, proposal = abs(action.position), spec.proposal(SIDES[target])
            seen = environment.step(np.array([target])).observations[0]
            for trade in environment.closed_trades():
                by_decision = trade.exit_reason is ExitReason.DECISION
                left_at = trade.exit_bar - 1 if by_decision else None
                return Intention(proposal=proposal, share=share, left_at=left_at)
        return Intention(proposal=proposal, share=share, left_at=None)


def decided(
    policy: ServedPolicy,
    seen: NDArray[np.float32],
    features: Features,
    bar: int,
    *,
    rules: ActingRules,
    size_multiplier: float = 1.0,
    confidence_bump: float = 0.0,
) -> Action:
    """Ask a policy at the close of a bar, and hold its choice against the rules.

    `seen` is an observation of `MarketEnvironment`, which holds what is held. What is not known yet
    is entered by nobody, also where no regime is filtered.
    """
    regime = features.regime(bar)
    if not features.complete[bar]:
        regime, rules = _UNKNOWN, replace(rules, filters_regime=True)
    return acted(
        policy.choose(seen),
        held=float(seen[-OWN_COLUMNS]),
        regime=regime,
        rules=rules,
        size_multiplier=size_multiplier,
        confidence_bump=confidence_bump,
    )


def target_of(action: Action) -> Target:
    """Return the position that an action leads to, whatever its size."""
    if action.position == 0:
        return Target.FLAT
    return Target.LONG if action.position > 0 else Target.SHORT
