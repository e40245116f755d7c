"""Other people's bandits as players: MABWiser, river and Vowpal Wabbit, each by its own code.

They learn in units, every night, what has closed. Until each arm has a result, opportunities are
dealt in turn, because some of them can only start on data. None of them is held to limits. river's
Exp3 is not here: it cannot learn of an arm that it has not drawn itself since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.evidence._opportunities import Player, Trade

Picked = tuple[list[int], list[float]]


class Dealt:
    """A player that deals in turn until every arm has a result, and then lets a peer go on."""

    def __init__(self, peer: Player, arms: int) -> None:
        self.peer, self.unseen, self.arms = peer, set(range(arms)), arms

    def learn(self, trades: Sequence[Trade]) -> None:
        """Pass everything on."""
        self.unseen -= {trade.arm for trade in trades}
        if trades:
            self.peer.learn(trades)

    def pick(self, draws: Sequence[float]) -> Picked:
        """Deal, or ask the peer."""
        if not self.unseen:
            return self.peer.pick(draws)
        return [i % self.arms for i in range(len(draws))], [1.0 / self.arms] * len(draws)


class MabWiser:
    """A context-free learning policy of MABWiser."""

    def __init__(self, arms: int, seed: int, policy: str, settings: dict[str, Any]) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(arms)), getattr(LearningPolicy, policy)(**settings), seed=seed)
        self.teach = self.mab.fit

    def learn(self, trades: Sequence[Trade]) -> None:
        """Fit, from the second night on partially."""
        self.teach([trade.arm for trade in trades], [trade.result for trade in trades])
        self.teach = self.mab.partial_fit

    def pick(self, draws: Sequence[float]) -> Picked:
        """Predict for each opportunity."""
        return [self.mab.predict() for _ in draws], [1.0] * len(draws)


class River:
    """A policy of river.bandit."""

    def __init__(self, arms: int, seed: int, policy: str, settings: dict[str, Any]) -> None:
        from river import bandit, preprocessing, proba

        scaler: Any = preprocessing.TargetStandardScaler
        parts: dict[str, Callable[..., Any]] = {
            "beta": proba.Beta,
            "gaussian": proba.Gaussian,
            "standard": lambda: scaler(None),
        }
        made = {key: parts[v]() if v in parts else v for key, v in settings.items()}
        self.wins = settings.get("reward_obj") == "beta"
        self.arms = list(range(arms))
        self.policy = getattr(bandit, policy)(**made, seed=seed)

    def learn(self, trades: Sequence[Trade]) -> None:
        """Update with each trade."""
        for trade in trades:
            self.policy.update(trade.arm, trade.result > 0 if self.wins else trade.result)

    def pick(self, draws: Sequence[float]) -> Picked:
        """Pull for each opportunity."""
        return [self.policy.pull(self.arms) for _ in draws], [1.0] * len(draws)


class VowpalWabbit:
    """Vowpal Wabbit's contextual bandit without a context: an action is its own only feature."""

    def __init__(self, arms: int, seed: int, options: str) -> None:
        from vowpalwabbit import Workspace

        self.lines = [f"|a arm{arm}" for arm in range(arms)]
        self.workspace = Workspace(f"--cb_explore_adf {options} --random_seed {seed} --quiet")

    def learn(self, trades: Sequence[Trade]) -> None:
        """Learn each trade as a cost, with the propensity of its decision."""
        for arm, result, propensity in trades:
            lines = self.lines.copy()
            lines[arm] = f"0:{-result}:{propensity} {lines[arm]}"
            self.workspace.learn(lines)

    def pick(self, draws: Sequence[float]) -> Picked:
        """Draw from its distribution, which stands still while nothing is learned."""
        shares = np.maximum(self.workspace.predict(self.lines), 0.0)
        shares /= shares.sum()
        arms = np.searchsorted(np.cumsum(shares)[:-1], draws, side="right")
        return arms.tolist(), shares[arms].tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One algorithm of a package in one of its documented settings."""

    package: str
    algorithm: str
    setting: str
    make: Callable[[int, int], Player]

    def player(self, arms: int, seed: int) -> Player:
        """Make it anew."""
        return Dealt(self.make(arms, seed), arms)


def _is_win(_: int, result: float) -> bool:
    return result > 0


def _described(settings: dict[str, Any]) -> str:
    return ",".join(f"{k}={getattr(v, '__name__', v)}" for k, v in settings.items()) or "default"


def _known() -> list[Peer]:
    named: list[tuple[str, Callable[..., Player], str, list[dict[str, Any]]]] = [
        ("mabwiser", MabWiser, "EpsilonGreedy", [{"epsilon": e} for e in (0.05, 0.1, 0.25)]),
        ("mabwiser", MabWiser, "Softmax", [{"tau": t} for t in (0.05, 0.1, 1)]),
        ("mabwiser", MabWiser, "UCB1", [{"alpha": a} for a in (0.5, 1, 1.25)]),
        ("mabwiser", MabWiser, "ThompsonSampling", [{"binarizer": _is_win}]),
        ("river", River, "EpsilonGreedy", [{"epsilon": e} for e in (0.1, 0.25)]),
        ("river", River, "EpsilonGreedy", [{"epsilon": 0.9, "decay": 0.001}]),
        ("river", River, "UCB", [{"delta": d} for d in (0.5, 1)]),
        ("river", River, "UCB", [{"delta": 1, "reward_scaler": "standard"}]),
        ("river", River, "ThompsonSampling", [{"reward_obj": o} for o in ("beta", "gaussian")]),
        ("river", River, "BayesUCB", [{"reward_obj": o} for o in ("beta", "gaussian")]),
    ]
    options = [
        *(("bag", f"--bag {n}") for n in (5, 10, 20)),
        ("bag", "--bag 10 -l 0.05"),
        *(("squarecb", f"--squarecb --gamma_scale {g}") for g in (10, 100, 1000)),
        *(("epsilon", f"--epsilon {e}") for e in (0.05, 0.1)),
        ("epsilon", "--epsilon 0.1 -l 0.05"),
    ]
    return [
        Peer(
            package=package,
            algorithm=algorithm,
            setting=_described(settings),
            make=partial(kind, policy=algorithm, settings=settings),
        )
        for package, kind, algorithm, all_settings in named
        for settings in all_settings
    ] + [
        Peer(
            package="vowpalwabbit",
            algorithm=algorithm,
            setting=option.strip().replace(" ", "_"),
            make=partial(VowpalWabbit, options=option),
        )
        for algorithm, option in options
    ]


KNOWN = _known()
PEERS = [peer for peer in KNOWN if find_spec(peer.package) is not None]
ABSENT = sorted({peer.package for peer in KNOWN} - {peer.package for peer in PEERS})
