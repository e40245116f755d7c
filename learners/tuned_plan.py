"""What chosen tunables mean: the plan of a challenger in which each of them has its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from bandit.core.errors import InvalidInput
from bandit.core.tunables import checked_parameters
from learners.challenger import ChallengerPlan
from learners.classifier_plan import ClassifierPlan, EncoderPlan
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import Candles
from learners.market.features import FeatureSpec
from learners.market.indicators import average_true_range

ATR_BARS: Final = 14
_DIGITS: Final = 6
"""Digits of the ratios that follow from prices: no plan hangs on the last bit of a median."""

_ENCODER: Final = {
    "encoder_bars": ("bars",),
    "encoder_frequencies": ("frequencies",),
    "encoder_width": ("d_model", "d_ff"),
    "encoder_layers": ("layers",),
    "encoder_embedding": ("embedding",),
    "encoder_epochs": ("epochs",),
    "encoder_learning_rate": ("learning_rate",),
    "encoder_dropout": ("dropout",),
}
_TABNET: Final = {
    "horizon_bars": "horizon_bars",
    "tabnet_width": "width",
    "tabnet_decisions": "decisions",
    "tabnet_epochs": "epochs",
    "tabnet_learning_rate": "learning_rate",
    "tabnet_sparsity": "sparsity",
}


def tuned_plan(
    plan: ChallengerPlan, parameters: Mapping[str, object], series: Sequence[Candles]
) -> ChallengerPlan:
    """Return `plan` with chosen tunables in their places; what is not chosen stays.

    A stop in ATR becomes a ratio by the median ATR of the first `train_bars` bars: those come
    before whatever is measured. The position is what loses `risk_per_trade` at the stop, and at
    most all there is. Raises `InvalidInput` as `checked_parameters`, and for a plan that has no
    place for what was chosen.
    """
    chosen = checked_parameters(parameters)
    if not chosen:
        return plan
    training = plan.training
    if not isinstance(training, ClassifierPlan):
        rule = "must go with a classifier"
        raise InvalidInput(field="tunable", rule=rule, found=next(iter(chosen)))
    tabnet: dict[str, Any] = {
        place: chosen[name] for name, place in _TABNET.items() if name in chosen
    }
    return replace(
        plan,
        features=_features(plan.features, chosen),
        environment=_environment(plan, chosen, series),
        training=replace(
            training,
            encoder=_encoder(training.encoder, chosen),
            **tabnet,
        ),
    )


def risk_per_trade(environment: EnvironmentSpec) -> float:
    """Return the part of the equity that a trade loses at its stop, costs apart."""
    return environment.position_ratio * environment.stop_ratio


def typical_range(series: Sequence[Candles], *, bars: int) -> float:
    """Return the median ATR over the close, of the first `bars` bars of all instruments.

    >>> from learners.market.candles import shipped_candles
    >>> round(typical_range([shipped_candles()], bars=8_000), 4)
    0.0098
    """
    ranges = [
        average_true_range(candles.high[:bars], candles.low[:bars], candles.close[:bars], ATR_BARS)
        / candles.close[:bars]
        for candles in series
    ]
    known = np.concatenate(ranges)
    known = known[np.isfinite(known)]
    if not len(known) or not np.median(known) > 0:
        rule = f"must hold bars whose ATR of {ATR_BARS} is known"
        raise InvalidInput(field="candles", rule=rule, found=f"{bars} bars")
    return float(np.median(known))


def _features(spec: FeatureSpec, chosen: Mapping[str, Any]) -> FeatureSpec:
    short, long = spec.trend_bars[0], spec.trend_bars[-1]
    windows = (chosen.get("trend_bars_short", short), chosen.get("trend_bars_long", long))
    return replace(spec, rsi_bars=chosen.get("rsi_bars", spec.rsi_bars), trend_bars=windows)


def _environment(
    plan: ChallengerPlan, chosen: Mapping[str, Any], series: Sequence[Candles]
) -> EnvironmentSpec:
    spec = plan.environment
    stop, take_profit, position = spec.stop_ratio, spec.take_profit_ratio, spec.position_ratio
    if "stop_atr" in chosen:
        stop = round(chosen["stop_atr"] * typical_range(series, bars=plan.train_bars), _DIGITS)
    if "take_profit_r" in chosen:
        take_profit = round(chosen["take_profit_r"] * stop, _DIGITS)
    if "risk_per_trade" in chosen:
        position = min(1.0, round(chosen["risk_per_trade"] / stop, _DIGITS))
    return replace(
        spec,
        stop_ratio=stop,
        take_profit_ratio=take_profit,
        position_ratio=position,
        holding_bars_max=chosen.get("holding_bars", spec.holding_bars_max),
    )


def _encoder(plan: EncoderPlan | None, chosen: Mapping[str, Any]) -> EncoderPlan | None:
    named = {name: places for name, places in _ENCODER.items() if name in chosen}
    if not named:
        return plan
    if plan is None:
        raise InvalidInput(field="tunable", rule="must go with an encoder", found=next(iter(named)))
    return replace(
        plan, **{place: chosen[name] for name, places in named.items() for place in places}
    )
