"""`liveops tune`: a day's sweep for better values of a challenger, and what sweeps found."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit.core.errors import ExtraMissing, InvalidInput
from liveops.commands.learn import (
    CandleFiles,
    Confidence,
    Instruments,
    Interval,
    Ranging,
    Seed,
    Source,
    TestBars,
    TrainBars,
    series_of,
)
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    loaded_settings,
    print_json,
)
from liveops.recipes import Learner, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from pathlib import Path

    from bandit.core.optimization import OptimizationRun
    from config.settings import Settings
    from learners.backends import Backend
    from learners.market.candles import Candles
    from liveops.sweep_trials import Sweep
    from liveops.trial_store import TrialStore
    from liveops.tuning import Swept
    from liveops.wiring import App

commands = typer.Typer(invoke_without_command=True)


@commands.callback()
def tune(
    context: typer.Context,
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date", formats=["%Y-%m-%d"], help="Day of the sweep (UTC); today if left out."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, max=1000, help="Trials in all; else as in the settings."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="local or ray; else as in the settings."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Trials at a time; else as in the settings."),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", help="Tunable that is held, NAME=NUMBER; repeatable."),
    ] = None,
    candles: CandleFiles = None,
    instruments: Instruments = None,
    source: Source = None,
    interval: Interval = None,
    seed: Seed = 1,
    train_bars: TrainBars = 8_000,
    test_bars: TestBars = 2_000,
    confidence: Confidence = None,
    allow_ranging: Ranging = None,
    weekly: Annotated[
        bool,
        typer.Option(
            "--weekly",
            help="As the weekly maintenance: on tuning.instruments; does nothing where there is "
            "none, or where the learners are not installed.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Try values of a TimesNet with TabNet, and register the best as tuned_YYYYMMDD.

    One sweep a day: asked again it goes on where it was killed, and is left as it is once complete.
    Candles are those complete when the day began. Every trial counts in the deflated Sharpe ratio.
    Exit 0 also where the best earns nothing: the verdict is its card's.
    """
    if context.invoked_subcommand is not None:
        return
    if weekly:
        if candles or instruments or source or interval:
            raise InvalidInput(field="--weekly", rule="must not go with candles", found="both")
        instruments, source, interval, why_not = _of_the_week(config, demo=demo)
        if why_not is not None:
            _say_nothing_done(why_not, dry_run=dry_run, as_json=as_json)
            return
    _require_learners()
    series = series_of(candles or [], instruments or [], config, source=source, interval=interval)
    options = {
        "instruments": instruments,
        "source": source,
        "interval": interval,
        "seed": seed,
        "train_bars": train_bars,
        "test_bars": test_bars,
        "confidence": confidence,
        "allow_ranging": allow_ranging,
    }
    with ledger_app(config=config, demo=demo) as app:
        today = app.clock.now().date()
        chosen = today if day is None else day.date()
        if chosen > today:
            raise InvalidInput(field="--date", rule=f"must be {today} or before", found=chosen)
        settings = _overridden(app.settings, trials=trials, backend=backend, workers=workers)
        asked = _sweep(settings, chosen, series, fix or [], {"candles": candles, **options})
        if dry_run:
            _say_outlook(app, asked, backend=settings.tuning.backend, as_json=as_json)
            return
        _run(app, settings, asked, as_json=as_json)


@commands.command("history")
def history(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show the newest 20 sweeps: how far each is, the best value found, and what was registered."""
    from bandit.service import optimizing

    with ledger_app(config=config, demo=demo) as app:
        runs = optimizing.newest(app.engine)
    if as_json:
        print_json([run.to_json() for run in runs])
        return
    if not runs:
        sys.stdout.write("no sweep was begun\n")
    for run in runs:
        sys.stdout.write(_line(run))


def _of_the_week(
    config: Path | None, *, demo: bool
) -> tuple[list[str], str | None, str | None, str | None]:
    """Return instruments, source and interval of the weekly sweep, and why there is none if so."""
    chosen = loaded_settings(config).settings.tuning
    why_not = None
    try:
        _require_learners()
    except ExtraMissing as error:
        why_not = str(error)
    if demo:
        return [], None, None, why_not
    if not chosen.instruments:
        why_not = "tuning.instruments names no market"
    return list(chosen.instruments), chosen.source, chosen.interval, why_not


def _require_learners() -> None:
    from learners import tuning
    from learners.installed import versions

    versions(tuning.PACKAGES)  # or what needs them could not even be imported


def _say_nothing_done(why_not: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        # In the list too: it is what the week's maintenance tells of a task.
        told = [f"nothing: {why_not}"]
        print_json({"would" if dry_run else "done": told, "why_not": why_not})
    else:
        sys.stdout.write(f"nothing to do: {why_not}\n")


def _overridden(
    settings: Settings, *, trials: int | None, backend: str | None, workers: int | None
) -> Settings:
    if backend not in (None, "local", "ray"):
        raise InvalidInput(field="--backend", rule="must be local or ray", found=backend)
    given = {"trials": trials, "backend": backend, "workers": workers}
    chosen = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"tuning": settings.tuning.model_copy(update=chosen)})


def _sweep(
    settings: Settings,
    day: date,
    series: Sequence[Any],
    fix: Sequence[str],
    options: Mapping[str, Any],
) -> Sweep:
    from bandit.core.optimization import study_of
    from bandit.core.tunables import parsed_parameters
    from learners.classifier_plan import ClassifierPlan
    from liveops.relearning import known_before, plan_of
    from liveops.sweep_trials import Sweep

    chosen = settings.tuning
    recipe = Recipe.of(
        Learner.CLASSIFIER,
        **options,
        with_encoder=True,
        with_forest=False,
        deadline=chosen.trial_seconds,
        family=study_of(day),
    )
    training = ClassifierPlan(
        seed=options["seed"],
        forest=None,
        forest_weight=0.0,
        deadline_seconds=chosen.trial_seconds,
    )
    known = known_before(series, day)
    return Sweep(
        day=day,
        plan=plan_of(settings, training, recipe.options, known),
        series=known,
        trials=chosen.trials,
        fixed=parsed_parameters(fix),
        recipe=recipe,
        keep=chosen.keep_best,
        trial_seconds=chosen.trial_seconds,
        workers=chosen.workers,
    )


def _run(app: App, settings: Settings, asked: Sweep, *, as_json: bool) -> None:
    from liveops.tuning import sweep

    # Ray prints what it has to say, at any time; stdout is for the result.
    with redirect_stdout(sys.stderr):
        swept = sweep(
            app,
            asked,
            backend=lambda known, store: _backend(settings, known, store),
            report=_tell,
            actor=actor(),
        )
    if as_json:
        print_json(swept.to_json())
        return
    _print(swept)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _backend(settings: Settings, known: Sequence[Candles], store: TrialStore) -> Backend:
    from learners.backends import LocalBackend, RayBackend
    from liveops.clock import monotonic

    chosen = settings.tuning
    if chosen.backend == "ray":
        return RayBackend(known, address=chosen.ray_address, clock=monotonic)
    return LocalBackend(known, folder_of=store.work, clock=monotonic)


def _say_outlook(app: App, asked: Sweep, *, backend: str, as_json: bool) -> None:
    from liveops.tuning import outlook

    found = {**outlook(app, asked), "backend": backend, "workers": asked.workers}
    if as_json:
        print_json(found)
        return
    would = "; ".join(found["would"]) or "do nothing"
    sys.stdout.write(f"{found['study']} ({found['state']}): would {would}\n")


def _print(swept: Swept) -> None:
    kept = ", ".join(f"trial {number}" for number in swept.kept)
    sys.stdout.write(_line(swept.run) + f"kept      {kept}\n")
    if swept.learned is not None:
        learned = swept.learned
        sys.stdout.write(
            f"{learned.card.headline}\ncard      {learned.page}\nartefact  {learned.artifact}\n"
        )


def _line(run: OptimizationRun) -> str:
    counts, best = run.counts, "none" if run.best_value is None else f"{run.best_value:.6f}"
    ended = f"{counts.complete} complete, {counts.pruned} pruned and {counts.failed} failed"
    return (
        f"{run.study}: {run.state.value}, {ended} of {run.trials} trials, best {best}, "
        f"policy {run.policy or 'none'}\n"
    )
