"""`liveops learn timesnet`: make an encoder alone, or refresh one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import InvalidInput
from liveops.commands.learn import (
    CandleFiles,
    Deadline,
    Horizon,
    Instruments,
    Interval,
    Seed,
    Source,
    TrainBars,
    series_of,
)
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    ledger_app,
    print_json,
    settings_from,
)
from liveops.commands.training import shown

if TYPE_CHECKING:
    from pathlib import Path

    from bandit.core.model import PolicySha
    from config.settings import Settings
    from learners.classifier_plan import EncoderPlan
    from learners.encoding import HeadScore, Refresh
    from liveops.encoding import LearnedEncoder


def timesnet(
    candles: CandleFiles = None,
    instruments: Instruments = None,
    source: Source = None,
    interval: Interval = None,
    bars: Annotated[
        int | None, typer.Option("--bars", min=1, help="Bars of a window; 48 if left out.")
    ] = None,
    embedding: Annotated[
        int | None,
        typer.Option("--embedding", min=1, help="Numbers of an embedding; 8 if left out."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of it; 10 if left out.")
    ] = None,
    refresh: Annotated[
        str | None,
        typer.Option(
            "--refresh",
            help="Encoder to go on from, by its sha or the beginning of it, or policy with one.",
        ),
    ] = None,
    horizon: Horizon = 12,
    seed: Seed = 1,
    deadline: Deadline = 600.0,
    train_bars: TrainBars = 8_000,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Train an encoder alone, store it, and say what it is worth on bars that taught it nothing.

    A TimesNet as `liveops learn tabnet` trains one. It is no policy: nothing is registered, and no
    trial is counted. What was stopped goes on after its last epoch when the same is asked again.
    Exit 0 also where it has learned nothing.
    """
    from rich.console import Console

    from learners.classifier_plan import ClassifierPlan
    from learners.encoding import EncodingPlan
    from learners.market.features import FeatureSpec
    from liveops import clock
    from liveops.encoding import learn_encoder
    from liveops.learning import ENVIRONMENT

    sizes = {"bars": bars, "embedding": embedding, "epochs": epochs}
    encoder = _encoder_plan(sizes, refresh)
    series = series_of(candles or [], instruments or [], config, source=source, interval=interval)
    settings, refreshed = _start(refresh, demo=demo, config=config)
    with shown(Console(stderr=True)) as report:
        learned = learn_encoder(
            settings,
            plan=EncodingPlan(
                features=FeatureSpec(interval=series[0].interval),
                environment=ENVIRONMENT,
                training=ClassifierPlan(
                    seed=seed,
                    horizon_bars=horizon,
                    encoder=encoder,
                    refreshed=refreshed,
                    deadline_seconds=deadline,
                ),
                train_bars=train_bars,
            ),
            series=series,
            now=clock.now(),
            report=report,
        )
    if as_json:
        print_json(learned.to_json())
        return
    _print(learned)


def _encoder_plan(sizes: dict[str, int | None], refresh: str | None) -> EncoderPlan:
    """Return how an encoder is made, by the sizes that were said."""
    from learners.classifier_plan import EncoderPlan

    said = {name: value for name, value in sizes.items() if value is not None}
    if refresh is not None and said:
        name, value = next(iter(said.items()))
        rule = "must be left out beside --refresh, which goes on with what is stored"
        raise InvalidInput(field=f"--{name}", rule=rule, found=value)
    return EncoderPlan(**said)


def _start(
    refresh: str | None, *, demo: bool, config: Path | None
) -> tuple[Settings, PolicySha | None]:
    """Return the settings, and the encoder to go on from: the ledger is asked for that alone."""
    from liveops.encoding import encoder_of

    if refresh is None:
        return settings_from(config), None
    with ledger_app(config=config, demo=demo) as app:
        return app.settings, encoder_of(app, refresh)


def _print(learned: LearnedEncoder) -> None:
    made = learned.made
    spec, score = made.artifact.spec, made.score
    form, training = spec.form, spec.training
    periods = ", ".join(map(str, form.periods))
    cycles = ", ".join(map(str, form.frequencies))
    sys.stdout.write(
        f"encoder    {made.artifact.sha}\n"
        f"artefact   {learned.path}\n"
        f"bars       {training.data_from:%Y-%m-%d %H:%M} to {training.data_to:%Y-%m-%d %H:%M} UTC\n"
        f"learned    from {made.windows:,} windows of {form.bars} bars\n"
        f"folds      along periods of {periods} bars ({cycles} cycles in a window)\n"
        f"held out   {score.windows:,} windows that end in the last bars, which taught it nothing\n"
        f"           cross-entropy {score.cross_entropy:.4f} nats; "
        f"of the class frequencies alone {score.yardstick:.4f}\n"
        f"           {_verdict(score)}\n"
    )
    if made.refresh is not None:
        _print_refresh(made.refresh, learned.refreshed)


def _verdict(score: HeadScore) -> str:
    from bandit.core.model import Verdict

    reach = f"(95 %: {score.gain.low:+.4f} to {score.gain.high:+.4f})"
    by = f"{score.yardstick - score.cross_entropy:.4f} nats better than the frequencies {reach}"
    if score.verdict is Verdict.FAIL:
        return f"it has learned nothing: it does not beat the class frequencies {reach}"
    if score.verdict is Verdict.PASS:
        return f"it has learned something: {by}"
    return f"this may be chance: {by}"


def _print_refresh(refresh: Refresh, start: PolicySha | None) -> None:
    before = refresh.before
    sys.stdout.write(
        f"refreshed  from {start}\n"
        f"           which had {before.cross_entropy:.4f} nats on the same windows\n"
        f"moved      {refresh.moved:.3f} times as far as the old embeddings of these windows "
        "lie from their mean\n"
    )
    if refresh.windows_known:
        sys.stdout.write(
            f"           {refresh.windows_known:,} of these windows end in bars that the old one "
            "was made from, and may have taught that one\n"
        )
