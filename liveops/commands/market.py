"""`liveops run`, the main job; `liveops evaluate` and `liveops gates` for any trade log."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.gates import GateProfile
from bandit.core.model import PolicyName, Profile, Verdict
from liveops.commands.options import (
    AdminPort,
    AsJson,
    ConfigFile,
    Port,
    money,
    print_json,
    settings_from,
)
from liveops.commands.training import shown

if TYPE_CHECKING:
    from rich.console import Console

    from config.settings import Settings
    from liveops.replay_plan import Plan
    from liveops.wiring import App

DEMO_NIGHTS = 120
DEMO_SEED = 7
_WHERE = {".png": "picture", ".html": "page"}
BARS_MIN = 300  # the slowest rule of the paper market looks back 200 bars


TradesFile = Annotated[Path, typer.Argument(help="CSV, Parquet, or a freqtrade backtest result.")]
StartingCapital = Annotated[
    str | None, typer.Option("--starting-capital", help="Account before the first trade.")
]


def run(
    candles: Annotated[
        Path | None, typer.Option("--candles", help="Candle file; hourly BTCUSD when left out.")
    ] = None,
    instrument: Annotated[
        str | None, typer.Option("--instrument", help="Instrument of the candle file.")
    ] = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Go on over missing bars instead of refusing.")
    ] = False,
    nights: Annotated[int, typer.Option("--nights", min=1, help="Last nights.")] = DEMO_NIGHTS,
    everything: Annotated[bool, typer.Option("--all", help="Every night of the file.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the replay.")] = DEMO_SEED,
    profile: Annotated[
        Profile, typer.Option("--profile", help="How far to trust the rule.")
    ] = Profile.GUARDED,
    learn: Annotated[
        bool,
        typer.Option("--learn/--no-learn", help="Train challengers on the bars before them."),
    ] = True,
    exit_after: Annotated[
        bool, typer.Option("--exit", help="End after the report instead of serving on.")
    ] = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to serve on.")] = None,
    port: Port = None,
    admin_port: AdminPort = None,
    config: ConfigFile = None,
) -> None:
    """Replay real prices through the whole service as a paper market, then keep serving.

    Everything lives in the demo's own database; a replay that was driven to its end before is shown
    again at once, one that was cut off goes on.
    """
    from rich.console import Console

    from bandit.service import reporting
    from liveops import replay_pictures
    from liveops.api.server import listening
    from liveops.following import following_changes
    from liveops.kill_watch import watching_kill_switch
    from liveops.paper_closing import closing_on_paper
    from liveops.report import render_report
    from liveops.sealer import sealing
    from liveops.stopping import wait_for_stop
    from liveops.wiring import running_app

    _stop_on_terminate()
    out, progress = Console(soft_wrap=not sys.stdout.isatty()), Console(stderr=True)
    settings = settings_from(config)
    plan = _plan(
        settings,
        candles=candles,
        instrument=instrument,
        allow_gaps=allow_gaps,
        nights=None if everything else nights,
        seed=seed,
        profile=profile,
    )
    progress.print(f"starting the ledger in {settings.home}")
    with (
        running_app(settings, demo=True, create=True, upgrade=True) as app,
        sealing(app),
        watching_kill_switch(app),
        following_changes(app),
        app.gpus.looking(),
        app.monitors.looking(app.engine),
        listening(app, host=host, port=port, admin_port=admin_port) as at,
    ):
        with _warned_of(progress):
            replay_pictures.forget(settings)
        if learn:
            plan = _with_learned(app, plan, candles, profile=profile, progress=progress)
        _drive(app, plan, out=out, progress=progress)
        out.print(render_report(reporting.report(app.engine, plan.experiment)))
        with _warned_of(progress):
            for path in replay_pictures.leave(app, plan.experiment):
                out.print(f"{_WHERE[path.suffix]:<11} {path}", markup=False)
        _print_ways_on(out, at.public, plan.experiment)
        if at.admin:
            out.print(f"operators   {at.admin}")
        if not exit_after:
            progress.print("serving; Ctrl-C stops everything")
            with closing_on_paper(app, plan.candles):
                wait_for_stop(meanwhile=app.revive)


def evaluate(
    trades: TradesFile,
    starting_capital: StartingCapital = None,
    as_json: AsJson = False,
) -> None:
    """Print the performance numbers of any trade log."""
    from rich.console import Console

    from liveops.evaluation import evaluate_file, render_evaluation

    report = evaluate_file(trades, _capital(starting_capital))
    if as_json:
        print_json(report.to_json())
    else:
        Console().print(render_evaluation(report))


def gates(
    trades: TradesFile,
    profile: Annotated[
        GateProfile, typer.Option("--profile", help="Which limits to hold the log against.")
    ],
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="Trade log of the policy to be replaced."),
    ] = None,
    starting_capital: StartingCapital = None,
    as_json: AsJson = False,
) -> None:
    """Hold a trade log against the promotion gates; exit code 1 unless every gate passes."""
    from rich.console import Console

    from liveops.gates import judge_file, render_gates

    report = judge_file(
        trades, profile=profile, baseline=baseline, starting_capital=_capital(starting_capital)
    )
    if as_json:
        print_json(report.to_json())
    else:
        Console().print(render_gates(report))
    if report.judgement.verdict is not Verdict.PASS:
        raise typer.Exit(1)


def _plan(
    settings: Settings,
    *,
    candles: Path | None,
    instrument: str | None,
    allow_gaps: bool,
    nights: int | None,
    seed: int,
    profile: Profile,
) -> Plan:
    from learners.market.candles import load_candles, shipped_candles
    from liveops.replay_plan import Plan, demo_rules, experiment_name
    from liveops.wiring import limits_of, loss_limits_of, rules_of

    if candles is None:
        bars = shipped_candles()
    else:
        bars = load_candles(
            candles, instrument=instrument, allow_gaps=allow_gaps, bars_min=BARS_MIN
        )
    chosen = range(len(bars)) if nights is None else bars.last_nights(nights)
    return Plan(
        candles=bars,
        bars=chosen,
        seed=seed,
        experiment=experiment_name(bars, chosen, seed=seed, profile=profile),
        profile=profile,
        limits=limits_of(settings),
        loss_limits=loss_limits_of(settings),
        rules=demo_rules(rules_of(settings)),
    )


def _with_learned(
    app: App, plan: Plan, file: Path | None, *, profile: Profile, progress: Console
) -> Plan:
    """Add challengers that are trained on the bars before; say why where there can be none."""
    from bandit.core.errors import BanditError, ExtraMissing
    from liveops.demo_challenger import TRAININGS, trained_arm
    from liveops.replay_plan import experiment_name

    def begin(name: PolicyName) -> None:
        progress.print(
            f"training {name} on the {plan.bars.start:,} bars before those replayed: to measure it "
            "on bars that it has not seen, then to take part; kept for the next run"
        )

    arms = []
    for training in TRAININGS:
        try:
            with shown(progress) as report:
                arm, learned = trained_arm(
                    app,
                    plan.candles,
                    plan.bars,
                    training,
                    file=file,
                    begin=begin,
                    report=report,
                )
        except ExtraMissing as error:  # as it is for each of them
            progress.print(f"trained challengers take no part: {error}", markup=False)
            break
        except BanditError as error:  # the others show the rest without it
            progress.print(f"a trained challenger takes no part: {error}", markup=False)
            continue
        arms.append(arm)
        if learned is None:
            progress.print(f"{arm.policy.name} was trained before")
        else:
            progress.print(f"{arm.policy.name}: {learned.card.headline}", markup=False)
            progress.print(f"its card    {learned.page}", markup=False)
    shas = [arm.policy.sha for arm in arms]
    name = experiment_name(plan.candles, plan.bars, seed=plan.seed, profile=profile, learned=shas)
    return replace(plan, learned=tuple(arms), experiment=name)


def _drive(app: App, plan: Plan, *, out: Console, progress: Console) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from liveops.decision_lines import decision_lines, night_lines
    from liveops.replay import is_complete, replay

    if is_complete(app.engine, plan):
        progress.print(f"{plan.experiment} was replayed before; `liveops reset --demo` forgets it")
        return
    columns = (
        TextColumn("replaying {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("bars"),
        TimeElapsedColumn(),
    )
    throttle = plan.rules.checklist.pf_throttle
    progress.print(
        f"{len(plan.bars)} bars, {plan.equity_fraction:.0%} of equity a trade; hourly rules live "
        f"near a profit factor of 1, so this market throttles under {throttle:g}, and win four "
        f"trades in ten, so its guards pause under {plan.rules.guard.win_rate_paused:.0%}"
    )
    with Progress(*columns, console=out if out.is_terminal else progress) as shown:
        task, refused = shown.add_task(plan.candles.instrument, total=len(plan.bars)), 0
        full = 0
        for step in replay(app.engine, plan):
            shown.update(task, completed=step.done, description=f"{step.at:%Y-%m-%d}")
            for stop in step.stops:
                for line in decision_lines(stop):
                    out.print(line)
            for line in night_lines(step.night) if step.night is not None else ():
                out.print(line)
            refused, full = step.refused, step.full
    out.print(
        f"the performance guard refused {refused} of {len(plan.bars)} opportunities; "
        "they were followed on paper"
    )
    if plan.rules.sizing is not None:
        most = plan.rules.sizing.max_open_positions
        out.print(f"{full} wishes found no place among the {most} positions that may be open")


def _print_ways_on(out: Console, url: str, experiment: str) -> None:
    out.print(f"API         {url}/openapi.json")
    out.print(f"decisions   {url}/v1/experiments/{experiment}/decisions")
    out.print(f"report      {url}/v1/experiments/{experiment}/report")
    out.print(f"metrics     {url}/metrics")


@contextmanager
def _warned_of(progress: Console) -> Iterator[None]:
    """Let the service go on where a picture of it cannot be written."""
    from liveops.whole_files import FileNotWritten

    try:
        yield
    except FileNotWritten as error:
        progress.print(f"warning: {error}", markup=False)


def _stop_on_terminate() -> None:
    """Let a SIGTERM end the same way as Ctrl-C, so that what was started is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, interrupt)


def _capital(text: str | None) -> Decimal | None:
    return None if text is None else money(text, field="--starting-capital")
