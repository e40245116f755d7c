"""What the trials of a sweep made, below `home`: kept of the best, and removed of the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from bandit.core.model import PolicySha
from learners.artifact import Artifact, read
from learners.backtest import BacktestTrade
from learners.durable_files import write_durably
from learners.entries import Entries
from learners.tuning import TrialMade, packed, unpacked
from learners.workshop import Fold

_MADE: Final = "made-"
_WORK: Final = "work-"
_TOLD: Final = "trial.json"


class KeptTrial(NamedTuple):
    """What one trial made, and what it did in each fold."""

    sha: PolicySha
    folds: Sequence[Fold]


class TrialStore:
    """The files of one sweep, by the numbers of its trials."""

    def __init__(self, folder: Path) -> None:
        """Look below `folder`; nothing is made yet."""
        self._folder = folder

    def work(self, number: int) -> Path:
        """Return where the trainings of a trial lie, while it runs."""
        return self._folder / f"{_WORK}{number}"

    def made(self, number: int) -> Path:
        """Return where what a trial made lies."""
        return self._folder / f"{_MADE}{number}"

    def keep(self, number: int, made: TrialMade, folds: Sequence[Fold]) -> None:
        """Store what a trial made; on disk when this returns, whole once `load` finds it."""
        folder = self.made(number)
        unpacked(folder, made.files)
        told = {"sha": made.sha, "folds": [_fold_json(fold) for fold in folds]}
        write_durably(folder / _TOLD, json.dumps(told).encode())

    def load(self, number: int) -> KeptTrial:
        """Return what a trial made that was kept."""
        told = json.loads((self.made(number) / _TOLD).read_bytes())
        return KeptTrial(PolicySha(told["sha"]), [_fold(fold) for fold in told["folds"]])

    def publish(self, number: int, root: Path) -> Artifact:
        """Store the policy of a trial, with its encoder, where policies are served from."""
        unpacked(root, packed(self.made(number)))
        return read(root, self.load(number).sha)

    def forget_others(self, *, made: Collection[int], work: Collection[int]) -> None:
        """Remove what was made but by the trials `made`, and trainings but of the trials `work`."""
        kept = {self.made(n) for n in made} | {self.work(n) for n in work}
        found = [path for prefix in (_MADE, _WORK) for path in self._folder.glob(f"{prefix}*")]
        for path in found:
            if path not in kept:
                shutil.rmtree(path)


def _fold_json(fold: Fold) -> dict[str, Any]:
    trades = [[_trade_json(trade) for trade in market] for market in fold.trades]
    return {"number": fold.number, "trades": trades, "entries": asdict(fold.entries)}


def _trade_json(trade: BacktestTrade) -> dict[str, Any]:
    return {
        "instrument": trade.instrument,
        "opened_at": trade.opened_at.isoformat(),
        "closed_at": trade.closed_at.isoformat(),
        "return_ratio": trade.return_ratio,
    }


def _fold(told: Mapping[str, Any]) -> Fold:
    return Fold(
        number=told["number"],
        trades=[[_trade(trade) for trade in market] for market in told["trades"]],
        entries=Entries(**told["entries"]),
    )


def _trade(told: Mapping[str, Any]) -> BacktestTrade:
    return BacktestTrade(
        instrument=told["instrument"],
        opened_at=datetime.fromisoformat(told["opened_at"]),
        closed_at=datetime.fromisoformat(told["closed_at"]),
        return_ratio=told["return_ratio"],
    )
