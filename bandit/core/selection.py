"""Cross-sectional selection: new positions open only in the strongest symbols (SPEC F11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from bandit.core.errors import InvalidInput
from bandit.core.model import checked_instrument

SYMBOLS_MAX: Final = 1000
"""The most symbols that one selection chooses from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRule:
    """How many of which symbols an experiment may open positions in, and how often that changes.

    A disabled rule lets every instrument pass. `universe` are the symbols that are chosen from,
    `rebalance_minutes` the least time between two selections.

    >>> SelectionRule(enabled=True, universe=())
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: universe: must have 1 to 1000 symbols, found 0
    """

    enabled: bool = False
    top_k: int = 3
    rebalance_minutes: int = 1440
    lookback_days: int = 21
    universe: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a rule under which nothing could ever be chosen."""
        for name, most in (("top_k", SYMBOLS_MAX), ("rebalance_minutes", 525_600)):
            _require(name, getattr(self, name), most=most)
        _require("lookback_days", self.lookback_days, most=3650)
        if self.enabled and not 1 <= len(self.universe) <= SYMBOLS_MAX:
            rule = f"must have 1 to {SYMBOLS_MAX} symbols"
            raise InvalidInput(field="universe", rule=rule, found=len(self.universe))
        for symbol in self.universe:
            checked_instrument(symbol, field="universe")
        if len(set(self.universe)) < len(self.universe):
            raise InvalidInput(field="universe", rule="must name each once", found=self.universe)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SelectionRule:
        """Return the rule whose fields were stored; those that came later have their defaults.

        >>> SelectionRule.from_json({"enabled": True, "universe": ["BTCUSDT"]}).universe
        ('BTCUSDT',)
        """
        return cls(**{**stored, "universe": tuple(stored.get("universe", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The symbols in which positions may open since `at`, strongest first, and every score.

    A score is None where it was not known; such a symbol is never chosen.
    """

    at: datetime
    chosen: tuple[str, ...]
    scores: Mapping[str, float | None]

    def due_at(self, rule: SelectionRule) -> datetime:
        """Return when the next selection may be made."""
        return self.at + timedelta(minutes=rule.rebalance_minutes)


def select(scores: Mapping[str, float | None], *, rule: SelectionRule, now: datetime) -> Selection:
    """Choose the `top_k` symbols with the highest scores; of equal ones, the first by name.

    A symbol that is left out has no score. Raises `InvalidInput` for a symbol outside the universe,
    for a score that is not finite, and where no score is known: what was selected before stands.

    >>> rule = SelectionRule(enabled=True, top_k=2, universe=("BTCUSDT", "ETHUSDT", "SOLUSDT"))
    >>> noon = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> select({"ETHUSDT": 0.1, "BTCUSDT": -0.2, "SOLUSDT": 0.3}, rule=rule, now=noon).chosen
    ('SOLUSDT', 'ETHUSDT')
    """
    told = dict.fromkeys(rule.universe) | dict(scores)
    for symbol, score in told.items():
        if symbol not in rule.universe:
            known = f"must be one of {', '.join(rule.universe)}"
            raise InvalidInput(field="scores", rule=known, found=symbol)
        if score is not None and not math.isfinite(score):
            raise InvalidInput(field=f"scores.{symbol}", rule="must be finite", found=score)
    ranked = sorted((-score, symbol) for symbol, score in told.items() if score is not None)
    if not ranked:
        raise InvalidInput(field="scores", rule="must have a score of a symbol", found="none")
    chosen = tuple(symbol for _, symbol in ranked[: rule.top_k])
    return Selection(at=now, chosen=chosen, scores=told)


def _require(name: str, value: int, *, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidInput(field=name, rule=f"must lie in 1..{most}", found=value)
