"""A trial of a sweep: one plan, made and measured walking forward as any challenger is.

The same function wherever it runs: in a process of this machine or on another one
(`learners.backends`). It touches neither the ledger nor the study; whoever runs it hears a word
after every fold, so that a trial without a prospect is ended early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bandit.core.errors import BanditError
from bandit.core.model import PolicySha
from bandit.core.optimization import growth_bound
from learners import fitting
from learners.backtest import BacktestTrade
from learners.challenger import ChallengerPlan
from learners.market.candles import Candles
from learners.sealed_files import MANIFEST, PART, ArtifactRefused, seal
from learners.tuned_plan import risk_per_trade
from learners.workshop import Fold, Workshop

PACKAGES: Final = (*fitting.PACKAGES, "optuna")
"""What has to be installed where a sweep is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBegun:
    """A trial has a worker: its time begins to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldDone:
    """A fold was trained and played; `value` is that of all trades so far."""

    fold: Fold
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialMade:
    """All folds are done, and the policy of the newest bars, `sha`, is made.

    `files` are the stored directories by their names: of an encoder, then of the policy.
    """

    sha: PolicySha
    files: Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailed:
    """The trial cannot be made; `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLost:
    """Whoever was at the trial is gone, which says nothing about the trial."""

    reason: str


Said = TrialBegun | FoldDone | TrialMade | TrialFailed | TrialLost


def trial(
    plan: ChallengerPlan,
    series: Sequence[Candles],
    *,
    folder: Path | None,
    clock: Callable[[], float],
) -> Iterator[Said]:
    """Make and measure one plan; the last word is `TrialMade` or `TrialFailed`.

    Trainings keep their checkpoints below `folder`, and go on from there when the same is begun
    again; without one they lie in a directory that goes with the trial. The same plan on the same
    candles has the same value wherever packages and processor are the same.
    """
    yield TrialBegun()
    try:
        if folder is None:
            with TemporaryDirectory(prefix="liveops-trial-") as made:
                yield from _steps(plan, series, folder=Path(made), clock=clock)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            yield from _steps(plan, series, folder=folder, clock=clock)
    except BanditError as error:
        yield TrialFailed(reason=str(error)[:1000])


def value_of(plan: ChallengerPlan, trades: Sequence[BacktestTrade]) -> float:
    """Return what trades of a plan are worth: see `growth_bound`."""
    return growth_bound(
        [trade.return_ratio for trade in trades],
        position_ratio=plan.environment.position_ratio,
        risk_per_trade=risk_per_trade(plan.environment),
    )


def packed(root: Path) -> dict[str, dict[str, bytes]]:
    """Return the sealed directories below `root` as they travel: without their manifests."""
    return {
        folder.name: {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if file.name != MANIFEST
        }
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(PART)
    }


def unpacked(root: Path, files: Mapping[str, Mapping[str, bytes]]) -> None:
    """Store what was packed below `root`; raises `ArtifactRefused` for what changed on its way."""
    for name, contents in files.items():
        sha = seal(root, contents)
        if sha != name:
            rule = f"must have the SHA-256 {name}"
            raise ArtifactRefused(file=MANIFEST, rule=rule, found=sha)


def _steps(
    plan: ChallengerPlan, series: Sequence[Candles], *, folder: Path, clock: Callable[[], float]
) -> Iterator[Said]:
    workshop = Workshop(plan, series, folder=folder, clock=clock, report=lambda _: None)
    trades: list[BacktestTrade] = []
    for fold in workshop.folds():
        trades += [trade for market in fold.trades for trade in market]
        yield FoldDone(fold=fold, value=value_of(plan, trades))
    with TemporaryDirectory(prefix=PART, dir=folder) as root:
        sha = workshop.newest(Path(root)).sha
        files = packed(Path(root))
    yield TrialMade(sha=sha, files=files)
