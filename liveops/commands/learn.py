"""`liveops learn`: make challengers from candles, by reinforcement or as classifiers."""

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
from liveops.recipes import Learner, Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learners.market.candles import Candles
    from liveops.learning import Learned

commands = typer.Typer(help="Make challengers by learning from candles.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the policy, such as dqn_20260301.")]
CandleFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--candles", help="Candle file; repeatable. Hourly BTCUSD if no candles are named."
    ),
]
Instruments = Annotated[
    list[str] | None,
    typer.Option("--instrument", help="Instrument of the candle store; repeatable."),
]
Source = Annotated[str | None, typer.Option("--source", help="Where stored candles came from.")]
Interval = Annotated[
    str | None, typer.Option("--interval", help="Length of stored bars, such as 1h.")
]
Horizon = Annotated[int, typer.Option("--horizon", min=1, help="Bars that a trade is judged by.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all its chance.")]
Deadline = Annotated[
    float, typer.Option("--deadline", min=1, help="Seconds that one training may take.")
]
TrainBars = Annotated[
    int, typer.Option("--train-bars", min=1, help="Bars that a training learns from.")
]
TestBars = Annotated[
    int, typer.Option("--test-bars", min=1, help="Bars after it that it is measured on.")
]
Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence", min=0, max=1, help="Least confidence it acts at; else that in force."
    ),
]
Ranging = Annotated[
    bool | None,
    typer.Option(
        "--allow-ranging/--forbid-ranging",
        help="Whether it may open positions in ranging markets; else as in force.",
    ),
]
Tuned = Annotated[
    list[str] | None,
    typer.Option("--tuned", help="Tunable and its value, NAME=NUMBER; repeatable."),
]
Family = Annotated[
    str | None,
    typer.Option("--family", help="Search that the trial belongs to; its name if left out."),
]


@commands.callback()
def learning() -> None:
    """Make challengers by learning from candles."""


@commands.command("rl")
def reinforcement(
    name: Name,
    candles: CandleFiles = None,
    instruments: Instruments = None,
    source: Source = None,
    interval: Interval = None,
    algorithm: Annotated[str, typer.Option("--algorithm", help="ppo, dqn or qr_dqn.")] = "dqn",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a training.")] = 250_000,
    seed: Seed = 1,
    deadline: Deadline = 600.0,
    train_bars: TrainBars = 8_000,
    test_bars: TestBars = 2_000,
    confidence: Confidence = None,
    allow_ranging: Ranging = None,
    family: Family = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Train an agent, measure it on bars it had not seen, write its card, and register it.

    A training that was stopped goes on where it was when the same is asked again. Exit 0 also where
    the card says that it earns nothing: the verdict is the card's.
    """
    recipe = Recipe.of(
        Learner.AGENT,
        candles=candles,
        instruments=instruments,
        source=source,
        interval=interval,
        algorithm=algorithm,
        steps=steps,
        seed=seed,
        deadline=deadline,
        train_bars=train_bars,
        test_bars=test_bars,
        confidence=confidence,
        allow_ranging=allow_ranging,
        family=family or name,
    )
    _learn(name, recipe, demo=demo, as_json=as_json, config=config)


@commands.command("tabnet")
def classifier(
    name: Name,
    candles: CandleFiles = None,
    instruments: Instruments = None,
    source: Source = None,
    interval: Interval = None,
    horizon: Horizon = 12,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Epochs of TabNet.")] = 20,
    with_encoder: Annotated[
        bool,
        typer.Option(
            "--encoder/--no-encoder", help="Whether TabNet sees the embeddings of a TimesNet."
        ),
    ] = True,
    refresh: Annotated[
        str | None,
        typer.Option(
            "--refresh",
            help="Encoder that the newest training goes on from, by its sha or the beginning of it,"
            " or policy with one.",
        ),
    ] = None,
    with_forest: Annotated[
        bool | None,
        typer.Option(
            "--forest/--no-forest",
            help="Whether gradient boosting goes beside TabNet; else as the settings say.",
        ),
    ] = None,
    tuned: Tuned = None,
    seed: Seed = 1,
    deadline: Deadline = 600.0,
    train_bars: TrainBars = 8_000,
    test_bars: TestBars = 2_000,
    confidence: Confidence = None,
    allow_ranging: Ranging = None,
    family: Family = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Train a classifier, measure it on bars it had not seen, write its card, and register it.

    TabNet on features and a TimesNet's embeddings, with gradient boosting beside it where the
    settings say so. What was stopped goes on after its last epoch when the same is asked again.
    Exit 0 also where the card says that it earns nothing: the verdict is the card's.
    """
    recipe = Recipe.of(
        Learner.CLASSIFIER,
        candles=candles,
        instruments=instruments,
        source=source,
        interval=interval,
        horizon=horizon,
        epochs=epochs,
        with_encoder=with_encoder,
        with_forest=with_forest,
        tuned=tuned,
        seed=seed,
        deadline=deadline,
        train_bars=train_bars,
        test_bars=test_bars,
        confidence=confidence,
        allow_ranging=allow_ranging,
        family=family or name,
    )
    _learn(name, recipe, refresh=refresh, demo=demo, as_json=as_json, config=config)


@commands.command("again")
def again(
    policy: Annotated[
        str, typer.Argument(help="Policy that was made by `liveops learn`: name, sha or prefix.")
    ],
    name: Annotated[str, typer.Argument(help="Name of the new policy.")],
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Go on from its encoder, for 10 epochs of the newest bars."),
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make a policy anew as another one was made: the same options, on the candles there are now.

    It belongs to the same search, so its trial counts there. The settings are those in force now.
    """
    from bandit.service import learner_jobs

    with ledger_app(config=config, demo=demo) as app:
        stored = learner_jobs.recipe_of(app.engine, policy)
    if stored is None:
        rule = "must be a policy that `liveops learn` made: of others it is not known how"
        raise InvalidInput(field="policy", rule=rule, found=policy)
    recipe = Recipe.from_json(stored)
    if refresh and recipe.learner is not Learner.CLASSIFIER:
        rule = "must be left out: an agent has no encoder"
        raise InvalidInput(field="--refresh", rule=rule, found=policy)
    _learn(
        name,
        recipe,
        refresh=policy if refresh else None,
        demo=demo,
        as_json=as_json,
        config=config,
        parent=policy,
    )


def _learn(
    name: str,
    recipe: Recipe,
    *,
    demo: bool,
    as_json: bool,
    config: Path | None,
    refresh: str | None = None,
    parent: str | None = None,
) -> None:
    from rich.console import Console

    from bandit.core.model import PolicyName
    from bandit.service import policies
    from liveops.encoding import encoder_of
    from liveops.relearning import learn_by, recipe_candles, recipe_plan

    series = recipe_candles(loaded_settings(config).settings, recipe)
    with (
        ledger_app(config=config, demo=demo) as app,
        shown(Console(stderr=True)) as report,
    ):
        refreshed = None if refresh is None else encoder_of(app, refresh)
        learned = learn_by(
            app,
            recipe,
            PolicyName(name),
            plan=recipe_plan(recipe, app.settings, series, refreshed=refreshed),
            series=series,
            parent=None if parent is None else policies.find(app.engine, parent).policy.name,
            report=report,
            actor=actor(),
        )
    if as_json:
        print_json(learned.to_json())
        return
    _print(learned)


def series_of(
    files: Sequence[Path],
    instruments: Sequence[str],
    config: Path | None,
    *,
    source: str | None,
    interval: str | None,
) -> list[Candles]:
    """Return the candles that the options of a command name; the shipped ones for none."""
    from liveops.relearning import candles_of

    settings = loaded_settings(config).settings
    return candles_of(settings, files, instruments, source=source, interval=interval)


def _print(learned: Learned) -> None:
    said = "registered" if learned.is_new else "was registered before"
    sys.stdout.write(
        f"{learned.card.headline}\n"
        f"{learned.policy.name} {said}: {learned.policy.sha}\n"
        f"card      {learned.page}\n"
        f"artefact  {learned.artifact}\n"
    )
