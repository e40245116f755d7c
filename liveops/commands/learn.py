"""`liveops learn rl`: make a challenger by reinforcement learning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import InvalidInput
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    loaded_settings,
    print_json,
)
from liveops.commands.training import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learners.market.candles import Candles
    from liveops.learning import Learned

commands = typer.Typer(help="Make challengers by learning from candles.", no_args_is_help=True)


@commands.callback()
def learning() -> None:
    """Make challengers by learning from candles."""


@commands.command("rl")
def reinforcement(
    name: Annotated[str, typer.Argument(help="Name of the policy, such as dqn_20260301.")],
    candles: Annotated[
        list[Path] | None,
        typer.Option(
            "--candles", help="Candle file; repeatable. Hourly BTCUSD if no candles are named."
        ),
    ] = None,
    instruments: Annotated[
        list[str] | None,
        typer.Option("--instrument", help="Instrument of the candle store; repeatable."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Where stored candles came from.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", help="Length of stored bars, such as 1h.")
    ] = None,
    algorithm: Annotated[str, typer.Option("--algorithm", help="ppo, dqn or qr_dqn.")] = "dqn",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a training.")] = 250_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all its chance.")] = 1,
    deadline: Annotated[
        float, typer.Option("--deadline", min=1, help="Seconds that one training may take.")
    ] = 600.0,
    train_bars: Annotated[
        int, typer.Option("--train-bars", min=1, help="Bars that a training learns from.")
    ] = 8_000,
    test_bars: Annotated[
        int, typer.Option("--test-bars", min=1, help="Bars after it that it is measured on.")
    ] = 2_000,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence", min=0, max=1, help="Least confidence it acts at; else that in force."
        ),
    ] = None,
    allow_ranging: Annotated[
        bool | None,
        typer.Option(
            "--allow-ranging/--forbid-ranging",
            help="Whether it may open positions in ranging markets; else as in force.",
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", help="Search that the trial belongs to; its name if left out."),
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Train an agent, measure it on bars it had not seen, write its card, and register it.

    A training that was stopped goes on where it was when the same is asked again. Exit 0 also where
    the card says that it earns nothing: the verdict is the card's.
    """
    from rich.console import Console

    from bandit.core.backtest import BacktestRule
    from bandit.core.model import PolicyName
    from learners.challenger import ChallengerPlan
    from learners.market.features import FeatureSpec
    from learners.network import Algorithm
    from learners.training_plan import TrainingPlan
    from liveops.learning import ENVIRONMENT, learn
    from liveops.wiring import acting_rules_of

    known = [member.value for member in Algorithm]
    if algorithm not in known:
        rule = f"must be one of {', '.join(known)}"
        raise InvalidInput(field="--algorithm", rule=rule, found=algorithm)
    training = TrainingPlan(
        algorithm=Algorithm(algorithm), seed=seed, total_steps=steps, deadline_seconds=deadline
    )
    series = _series(candles or [], instruments or [], config, source=source, interval=interval)
    progress = Console(stderr=True)
    with (
        ledger_app(config=config, demo=demo) as app,
        shown(progress, total=training.steps) as report,
    ):
        plan = ChallengerPlan(
            features=FeatureSpec(interval=series[0].interval),
            environment=ENVIRONMENT,
            training=training,
            acting=acting_rules_of(
                app.settings, confidence_min=confidence, allow_ranging=allow_ranging
            ),
            train_bars=train_bars,
            test_bars=test_bars,
        )
        learned = learn(
            app,
            name=PolicyName(name),
            family=family or name,
            plan=plan,
            series=series,
            rule=BacktestRule(),
            report=report,
            actor=actor(),
        )
    if as_json:
        print_json(learned.to_json())
        return
    _print(learned)


def _series(
    files: Sequence[Path],
    instruments: Sequence[str],
    config: Path | None,
    *,
    source: str | None,
    interval: str | None,
) -> list[Candles]:
    from learners.market.candles import load_candles, shipped_candles
    from liveops.candle_import import candle_store, stored_candles

    if instruments and files:
        rule = "must not go with --candles"
        raise InvalidInput(field="--instrument", rule=rule, found=instruments[0])
    if instruments:
        store = candle_store(loaded_settings(config).settings)
        return stored_candles(store, instruments, source=source, interval=interval)
    for option, given in (("--source", source), ("--interval", interval)):
        if given is not None:
            raise InvalidInput(field=option, rule="must go with --instrument", found=given)
    if not files:
        return [shipped_candles()]
    return [load_candles(file, instrument=None, allow_gaps=True) for file in files]


def _print(learned: Learned) -> None:
    said = "registered" if learned.is_new else "was registered before"
    sys.stdout.write(
        f"{learned.card.headline}\n"
        f"{learned.policy.name} {said}: {learned.policy.sha}\n"
        f"card      {learned.page}\n"
        f"artefact  {learned.artifact}\n"
    )
