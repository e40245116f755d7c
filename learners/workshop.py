"""Where challengers are made: measured on bars they had not seen, trained on the newest.

The same steps throughout: features of the past alone, a scaler fitted on the training rows, all
that learns in a process of its own, and a policy that is asked bar by bar through the runtime that
serves it, behind the regime filter and the confidence that hold in service too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bandit.core.model import PolicySha
from learners.artifact import Artifact, write
from learners.artifact_spec import (
    ActionSpec,
    DescribedPart,
    PolicyArtifactSpec,
    TrainingRecord,
)
from learners.backtest import BacktestTrade, UnseenBars, walk_forward
from learners.challenger import ChallengerPlan, Market, markets_of, played, trade_of
from learners.classifier import Bench, ClassRows, TaughtClassifier, embedded, taught_classifier
from learners.classifier_plan import ClassifierPlan
from learners.embedding import ServedEncoder, embedding_names
from learners.encoder_artifact import EncoderArtifact, read_encoder
from learners.entries import Entries
from learners.freezing import Judgement, Picture, looks_of
from learners.lessons import lesson_of, made_encoder, scaler_of
from learners.market.candles import Candles
from learners.market.scaler import Scaler
from learners.market.splits import Split, walking_splits
from learners.models import Model
from learners.reinforcement import train
from learners.sealed_files import PART
from learners.serving import ServedPolicy
from learners.sight import Sight, sight_of
from learners.training_events import TrainingEvent
from learners.training_market import CandleMarket, TrainingWindow
from learners.training_plan import TrainingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """What came of bars that a challenger had not seen: trades, and how often it wanted in."""

    markets: list[UnseenBars]
    trades: list[BacktestTrade]
    entries: Entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What came of one fold's unseen bars: the trades of each instrument, in their order."""

    number: int
    trades: Sequence[Sequence[BacktestTrade]]
    entries: Entries


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
        self._served: dict[tuple[int, int], tuple[ServedPolicy, Sight]] = {}

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

    def walked(self) -> Walked:
        """Train on every fold and play what comes after it, instrument by instrument."""
        return self.gathered(list(self.folds()))

    def folds(self) -> Iterator[Fold]:
        """Train on one fold after the other, and play what comes after each."""
        for number, split in enumerate(self.splits):
            entries = list[Entries]()
            trades = [
                walk_forward(
                    market.candles, [split], fit=partial(self._player, market, entries.append)
                )
                for market in self.markets
            ]
            self._served.clear()
            yield Fold(number=number, trades=trades, entries=sum(entries, start=Entries()))

    def gathered(self, folds: Sequence[Fold]) -> Walked:
        """Return what came of all folds, instrument by instrument."""
        tests = [split.test for split in self.splits]
        return Walked(
            markets=[UnseenBars(market.candles, tests) for market in self.markets],
            trades=[
                trade
                for place in range(len(self.markets))
                for fold in folds
                for trade in fold.trades[place]
            ],
            entries=sum((fold.entries for fold in folds), start=Entries()),
        )

    def newest(self, root: Path) -> Artifact:
        """Train on the newest bars, and store the policy below `root`.

        Where the plan names an encoder to go on from, it lies there too.
        """
        last, training = len(self.markets[0].candles), self.plan.training
        start = None
        if isinstance(training, ClassifierPlan) and training.refreshed is not None:
            start = read_encoder(root, training.refreshed)
        return self._made(range(last - self.plan.train_bars, last), root, start)

    def _player(
        self, market: Market, tell: Callable[[Entries], None], bars: range
    ) -> Callable[[range], list[BacktestTrade]]:
        key = (bars.start, bars.stop)
        if key not in self._served:
            # A fold's policy serves this measurement alone, from memory; checkpoints make it again.
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=PART, dir=self._folder) as root:
                artifact = self._made(bars, Path(root))
            self._served[key] = ServedPolicy(artifact), sight_of(artifact)
        policy, sight = self._served[key]

        def play(test: range) -> list[BacktestTrade]:
            found = played(policy, market, sight, self.plan, test)
            tell(found.entries)
            return [trade_of(market, position) for position in found.closed]

        return play

    def _made(self, bars: range, root: Path, start: EncoderArtifact | None = None) -> Artifact:
        """Train on some bars, and store the policy below `root`."""
        training = self.plan.training
        if isinstance(training, TrainingPlan):
            return self._reinforced(training, bars, root)
        return self._classified(training, bars, root, start)

    def _reinforced(self, training: TrainingPlan, bars: range, root: Path) -> Artifact:
        scaler = scaler_of(self.markets, bars)
        sight = Sight(spec=self.plan.features, scaler=scaler)
        windows = [
            TrainingWindow(
                candles=market.candles, features=sight.of(market.features).rows, bars=bars
            )
            for market in self.markets
        ]
        trained = train(
            training,
            CandleMarket(windows=tuple(windows), spec=self.plan.environment),
            folder=self._folder / "runs",
            clock=self._clock,
            report=self._report,
        )
        spec = artifact_spec(
            self.plan, trained.network, scaler, trained.record, golden=len(trained.observations)
        )
        return write(
            root,
            spec,
            trained.tensors,
            observations=trained.observations,
            reference=self._picture(bars).frozen(),
        )

    def _classified(
        self, training: ClassifierPlan, bars: range, root: Path, start: EncoderArtifact | None
    ) -> Artifact:
        lesson = lesson_of(
            training,
            self.markets,
            features=self.plan.features,
            environment=self.plan.environment,
            bars=bars,
            start=start,
        )
        learned: Sequence[ClassRows] = lesson.markets
        encoder = None
        if training.encoder is not None:
            encoder = made_encoder(lesson, root, self._bench)
            learned = embedded(learned, ServedEncoder(encoder).embed_series)
        made = taught_classifier(training, learned, classes=lesson.classes, bench=self._bench)
        spec = artifact_spec(
            self.plan,
            made.form,
            lesson.scaler,
            lesson.record(steps=training.steps),
            golden=len(made.observations),
            encoder=None if encoder is None else encoder.sha,
            horizon_bars=training.horizon_bars,
        )
        reference = self._picture(bars, self._judgement(made, learned)).frozen()
        return write(root, spec, made.tensors, observations=made.observations, reference=reference)

    def _picture(self, bars: range, judgement: Judgement | None = None) -> Picture:
        raw = [market.features.values[bars.start : bars.stop] for market in self.markets]
        names = self.plan.features.names
        return Picture(names=names, features=np.concatenate(raw), judgement=judgement)

    def _judgement(self, made: TaughtClassifier, learned: Sequence[ClassRows]) -> Judgement:
        names = self.plan.features.names
        rows = np.concatenate([market.rows[market.complete] for market in learned])
        width = made.form.tabnet.inputs - len(names)
        return Judgement(
            embeddings=rows[:, len(names) :] if width else None,
            columns=(*names, *embedding_names(width)),
            looks=looks_of(made.form, made.tensors, rows),
            confidences=made.confidences,
            hits=made.hits,
        )

    @property
    def _bench(self) -> Bench:
        return Bench(folder=self._folder / "runs", clock=self._clock, report=self._report)


def artifact_spec(
    plan: ChallengerPlan,
    model: Model,
    scaler: Scaler,
    record: TrainingRecord,
    *,
    golden: int,
    encoder: PolicySha | None = None,
    horizon_bars: int | None = None,
) -> PolicyArtifactSpec:
    """Return what a trained policy says about itself."""
    return PolicyArtifactSpec(
        network=model,
        actions=tuple(
            ActionSpec(name=target.name.lower(), position=float(target.sign))
            for target in plan.environment.targets
        ),
        features=DescribedPart.of(plan.features.to_json(), digest=plan.features.digest),
        scaler=DescribedPart.of(scaler.to_json()),
        environment=DescribedPart.of(plan.environment.to_json()),
        training=record,
        golden=golden,
        encoder=encoder,
        horizon_bars=horizon_bars,
    )
