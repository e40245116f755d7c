"""What kept a policy out is counted with every rule that stood against it."""

from __future__ import annotations

import pytest

from bandit.core.acting import ActingRules, Choice, Regime, acted
from learners.entries import Entries

RISING = Regime(adx=40.0, trend=1, volatility=1.0)
RANGING = Regime(adx=10.0, trend=1, volatility=1.0)
WILD = Regime(adx=40.0, trend=1, volatility=5.0)
UNKNOWN = Regime(adx=40.0, trend=1, volatility=None)


def found(position: float, confidence: float, regime: Regime) -> Entries:
    choice = Choice(name="wish", position=position, confidence=confidence)
    return Entries.of(acted(choice, held=0.0, regime=regime, rules=ActingRules()))


@pytest.mark.parametrize(
    ("position", "confidence", "regime", "expected"),
    [
        (0.0, 0.9, RISING, Entries(asked=1)),
        (1.0, 0.9, RISING, Entries(asked=1, wanted=1, entered=1)),
        (1.0, 0.65, WILD, Entries(asked=1, wanted=1, entered=1)),
        (1.0, 0.64, RISING, Entries(asked=1, wanted=1, unsure=1)),
        (1.0, 0.64, WILD, Entries(asked=1, wanted=1, unsure=1)),
        (1.0, 0.9, RANGING, Entries(asked=1, wanted=1, off_regime=1)),
        (-1.0, 0.9, RISING, Entries(asked=1, wanted=1, off_regime=1)),
        (1.0, 0.9, UNKNOWN, Entries(asked=1, wanted=1, off_regime=1)),
        (1.0, 0.3, RANGING, Entries(asked=1, wanted=1, unsure=1, off_regime=1)),
    ],
)
def test_every_wish_is_entered_or_has_what_kept_it_out(
    position: float, confidence: float, regime: Regime, expected: Entries
) -> None:
    assert found(position, confidence, regime) == expected
