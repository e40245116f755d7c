"""A challenger made from candles: measured on bars it had not seen, trained on the newest.

The same steps throughout: features of the past alone, a scaler fitted on the training rows, an
agent trained in a process of its own, and a policy that is asked bar by bar through the runtime
that serves it, behind the regime filter and the confidence that hold in service too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from learners.artifact import Artifact, write
from learners.artifact_spec import ActionSpec, DescribedPart, PolicyArtifactSpec
from learners.backtest import BacktestTrade, UnseenBars, walk_forward
from learners.canonical_json import canonical
from learners.environment import EpisodeTrade, MarketEnvironment
from learners.environment_spec import EnvironmentSpec, Target
from learners.market.candles import Candles
from learners.market.features import Features, FeatureSpec, features_of
from learners.market.paper_market import (
    ClosedPosition,
    ExitReason,
    funding_charges,
    open_position,
    settle,
)
from learners.market.scaler import Scaler
from learners.market.splits import Split, walking_splits
from learners.opportunities import NO_RUIN, decided, observed, target_of
from learners.reinforcement import TrainedPolicy, train
from learners.sealed_files import PART
from learners.serving import ServedPolicy
from learners.training_events import TrainingEvent
from learners.training_market import CandleMarket, TrainingWindow
from learners.training_plan import TrainingPlan

NOTIONAL: Final = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengerPlan:
    """How a challenger is made and measured.

    A fold trains on `train_bars` rows and is measured on the `test_bars` after them, `embargo_bars`
    and the longest holding apart; the policy itself is trained on the newest `train_bars`.
    """

    features: FeatureSpec
    environment: EnvironmentSpec
    training: TrainingPlan
    acting: ActingRules
    train_bars: int
    test_bars: int
    embargo_bars: int = 24

    @property
    def reach_bars(self) -> int:
        """Return how many bars after a decision its trade may still read."""
        return self.environment.holding_bars_max + 1

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all that decides what is made, but for the candles."""
        planned = self.training.to_json()
        for limit in ("deadline_seconds", "checkpoint_every_steps"):  # they decide nothing
            del planned[limit]
        bars = [self.train_bars, self.test_bars, self.embargo_bars]
        rules = {name: getattr(self.acting, name) for name in self.acting.__slots__}
        content = [
            *(self.features.to_json(), self.environment.to_json()),
            *(planned, asdict(self.training.settings), rules, bars),
        ]
        return hashlib.sha256(canonical(content)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """One instrument with its features."""

    candles: Candles
    features: Features


def markets_of(series: Sequence[Candles], spec: FeatureSpec) -> list[Market]:
    """Compute the features of several instruments, which must share their bars.

    Raises `InvalidInput` where they do not, an instrument comes twice, or there is none.
    """
    instruments = [candles.instrument for candles in series]
    if not series or len(set(instruments)) < len(instruments):
        rule = "must be one or more instruments, each once"
        raise InvalidInput(field="candles", rule=rule, found=instruments)
    for candles in series:
        if not np.array_equal(candles.opened_at, series[0].opened_at):
            rule = f"must have the bars of {instruments[0]}"
            raise InvalidInput(field=candles.instrument, rule=rule, found=f"{len(candles)} bars")
    return [Market(candles=each, features=features_of(each, spec)) for each in series]


def data_digest(series: Sequence[Candles]) -> str:
    """Return the SHA-256 that names the candles of all instruments."""
    return hashlib.sha256(canonical([candles.digest for candles in series])).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """What a training gave: the agent, and the scaler that its observations passed."""

    trained: TrainedPolicy
    scaler: Scaler


class Workshop:
    """Where challengers of one plan are made; what can be made again lies below `folder`."""

    def __init__(
        self,
        plan: ChallengerPlan,
        series: Sequence[Candles],
        *,
        folder: Path,
        clock: Callable[[], float],
        report: Callable[[TrainingEvent], None],
    ) -> None:
        """Compute the features; raises `InvalidInput` as `markets_of`."""
        self.plan = plan
        self.markets = markets_of(series, plan.features)
        self._folder = folder
        self._clock = clock
        self._report = report
        self._served: dict[tuple[int, int], tuple[ServedPolicy, Scaler]] = {}

    @property
    def splits(self) -> tuple[Split, ...]:
        """Return the folds; raises `InvalidInput` where not one fits."""
        plan = self.plan
        return walking_splits(
            len(self.markets[0].candles),
            train_bars=plan.train_bars,
            test_bars=plan.test_bars,
            reach_bars=plan.reach_bars,
            embargo_bars=plan.embargo_bars,
            first_bar=max(market.features.warm_up for market in self.markets),
        )

    def walked(self) -> tuple[list[UnseenBars], list[BacktestTrade]]:
        """Train on every fold and play what comes after it, instrument by instrument."""
        splits = self.splits
        trades = [
            trade
            for market in self.markets
            for trade in walk_forward(market.candles, splits, fit=partial(self._player, market))
        ]
        tests = [split.test for split in splits]
        return [UnseenBars(market.candles, tests) for market in self.markets], trades

    def newest(self, root: Path) -> Artifact:
        """Train on the newest bars, and store the policy below `root`."""
        last = len(self.markets[0].candles)
        return self._stored(self._fitted(range(last - self.plan.train_bars, last)), root)

    def _player(self, market: Market, bars: range) -> Callable[[range], list[BacktestTrade]]:
        key = (bars.start, bars.stop)
        if key not in self._served:
            # A fold's policy serves this measurement alone, from memory; checkpoints make it again.
            self._folder.mkdir(parents=True, exist_ok=True)
            fitted = self._fitted(bars)
            with TemporaryDirectory(prefix=PART, dir=self._folder) as root:
                policy = ServedPolicy(self._stored(fitted, Path(root)))
            self._served[key] = policy, fitted.scaler
        policy, scaler = self._served[key]

        def play(test: range) -> list[BacktestTrade]:
            closed = played(policy, market, scaler, self.plan, test)
            return [_trade(market, position) for position in closed]

        return play

    def _fitted(self, bars: range) -> Fitted:
        rows = [market.features.values[bars.start : bars.stop] for market in self.markets]
        scaler = Scaler.fit(np.concatenate(rows))
        windows = [
            TrainingWindow(
                candles=market.candles, features=observed(market.features, scaler), bars=bars
            )
            for market in self.markets
        ]
        trained = train(
            self.plan.training,
            CandleMarket(windows=tuple(windows), spec=self.plan.environment),
            folder=self._folder / "runs",
            clock=self._clock,
            report=self._report,
        )
        return Fitted(trained=trained, scaler=scaler)

    def _stored(self, fitted: Fitted, root: Path) -> Artifact:
        trained = fitted.trained
        spec = artifact_spec(self.plan, trained, fitted.scaler)
        return write(root, spec, trained.tensors, observations=trained.observations)


def played(
    policy: ServedPolicy, market: Market, scaler: Scaler, plan: ChallengerPlan, bars: range
) -> list[ClosedPosition]:
    """Let a policy trade bars, from flat to flat, and return what it closed at nominal size.

    It is asked at the close of each bar; where the features are not known it may only close.
    """
    # One window, which is all of the bars, and no ruin: what is measured goes on to its end.
    spec = replace(plan.environment, episode_bars=len(bars) - 1, equity_ratio_min=NO_RUIN)
    environment = MarketEnvironment(
        market.candles, observed(market.features, scaler), spec, count=1, bars=bars, seed=0
    )
    charges = funding_charges(market.candles, spec.funding_ratio)
    seen, closed = environment.reset()[0], []
    for bar in bars[:-1]:
        target = Target.FLAT
        if bar < bars[-2]:
            action = decided(policy, seen, market.features, bar, rules=plan.acting)
            target = target_of(action)
        step = environment.step(np.array([target]))
        seen = step.observations[0]
        closed += [
            settled(market.candles, trade, spec, charges) for trade in environment.closed_trades()
        ]
        if step.terminated[0]:
            break
    return closed


def settled(
    candles: Candles,
    trade: EpisodeTrade,
    spec: EnvironmentSpec,
    charges: NDArray[np.float64],
) -> ClosedPosition:
    """Live a trade of the environment again in the paper market, exact and with its times."""
    position = open_position(
        candles,
        bar=trade.entry_bar - 1,
        proposal=spec.proposal(trade.side),
        notional=NOTIONAL,
        costs=spec.costs,
    )
    assert position is not None
    left_at = trade.exit_bar - 1 if trade.exit_reason is ExitReason.DECISION else None
    closed = settle(candles, position, left_at=left_at, funding=charges)
    assert closed is not None
    assert closed.exit_reason is trade.exit_reason
    return closed


def _trade(market: Market, closed: ClosedPosition) -> BacktestTrade:
    return BacktestTrade(
        instrument=market.candles.instrument,
        opened_at=closed.opened_at,
        closed_at=closed.closed_at,
        return_ratio=float(closed.return_ratio),
    )


def artifact_spec(
    plan: ChallengerPlan, trained: TrainedPolicy, scaler: Scaler
) -> PolicyArtifactSpec:
    """Return what a trained policy says about itself."""
    return PolicyArtifactSpec(
        network=trained.network,
        actions=tuple(
            ActionSpec(name=target.name.lower(), position=float(target.sign))
            for target in plan.environment.targets
        ),
        features=_part(plan.features.to_json(), digest=plan.features.digest),
        scaler=_part(scaler.to_json()),
        environment=_part(plan.environment.to_json()),
        training=trained.record,
        golden=len(trained.observations),
    )


def _part(body: Mapping[str, Any], *, digest: str | None = None) -> DescribedPart:
    found = hashlib.sha256(canonical(dict(body))).hexdigest() if digest is None else digest
    return DescribedPart(digest=found, body=body)
