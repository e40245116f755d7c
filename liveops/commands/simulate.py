"""`liveops simulate`: try the rules on hypothetical arms before real money does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import InvalidInput
from bandit.core.model import Profile, Strategy
from liveops.commands.options import AsJson, ConfigFile, print_json, settings_from

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bandit.core.trial_plan import TrialPlan
    from liveops.simulating import Estimate, Simulation


def simulate(
    arm: Annotated[
        list[str],
        typer.Option(
            "--arm",
            help="A challenger: NAME=PROFIT_FACTOR[:WIN_RATE]; more than one after /, in turn.",
        ),
    ],
    champion: Annotated[
        str, typer.Option("--champion", help="PROFIT_FACTOR[:WIN_RATE] of the champion.")
    ] = "1.3",
    setting: Annotated[str, typer.Option("--setting", help="Market: iid4, real or hard.")] = "real",
    profile: Annotated[
        Profile | None, typer.Option("--profile", help="How far to trust the rule.")
    ] = None,
    strategy: Annotated[
        Strategy | None, typer.Option("--strategy", help="Who proposes the weights.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=5000, help="Days to live.")] = 250,
    per_day: Annotated[
        int, typer.Option("--per-day", min=1, max=10_000, help="Opportunities a day.")
    ] = 20,
    delay_days: Annotated[
        int, typer.Option("--delay-days", min=0, help="Days until an outcome is told.")
    ] = 0,
    dwell: Annotated[
        int, typer.Option("--dwell", min=1, help="Opportunities until an arm takes its next turn.")
    ] = 500,
    checklist: Annotated[
        bool, typer.Option("--checklist/--no-checklist", help="Let it throttle and halt.")
    ] = True,
    agreement: Annotated[
        float,
        typer.Option(
            "--agreement", min=0, max=1, help="Share of opportunities on which luck is shared."
        ),
    ] = 0.0,
    on_paper: Annotated[
        bool, typer.Option("--on-paper/--live-only", help="Tell what every arm would have earned.")
    ] = False,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Seeded runs.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first run.")] = 1,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw traffic by day into this PNG or SVG file.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Simulate an experiment: error rates, gain, regret and traffic over many seeded runs.

    Limits, rules and equity fraction are those of the configuration.
    """
    from rich.console import Console

    from bandit.core.simulation import SETTINGS
    from bandit.core.trial_plan import TrialPlan
    from liveops.plots import checked_plot, draw_traffic
    from liveops.simulating import arm_of, challenger_of
    from liveops.wiring import limits_of, rules_of

    if setting not in SETTINGS:
        rule = f"must be one of {', '.join(SETTINGS)}"
        raise InvalidInput(field="setting", rule=rule, found=setting)
    settings = settings_from(config)
    rules = rules_of(settings)
    if not checklist:
        rules = replace(rules, checklist=rules.checklist.silenced)
    picture = None if plot is None else checked_plot(plot, field="plot")
    plan = TrialPlan(
        setting=SETTINGS[setting],
        champion=arm_of(champion),
        challengers=dict(challenger_of(text) for text in arm),
        profile=profile or settings.experiment_defaults.profile,
        strategy=strategy or settings.experiment_defaults.strategy,
        rules=rules,
        limits=limits_of(settings),
        days=days,
        per_day=per_day,
        delay_days=delay_days,
        dwell=dwell,
        agreement=agreement,
        on_paper=on_paper,
        equity_fraction=settings.risk.base_position_size,
    )
    found = _simulated(plan, runs=runs, seed=seed)
    if picture is not None:
        draw_traffic(found, picture)
    if as_json:
        print_json(found.to_json())
    else:
        Console().print(_rendered(found))


def _simulated(plan: TrialPlan, *, runs: int, seed: int) -> Simulation:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from liveops.simulating import simulate

    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("runs", total=runs)
        processes = min(os.cpu_count() or 1, runs)
        return simulate(
            plan, runs=runs, seed=seed, processes=processes, advanced=lambda: bar.advance(task)
        )


def _rendered(found: Simulation) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    plan = found.plan
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", title_justify="left")
    table.title = (
        f"{found.runs} runs of {plan.days} days of {plan.per_day} opportunities in "
        f"{plan.setting.name}: {plan.profile}, {plan.strategy}"
    )
    table.add_column("arm")
    for name in ("proven", "eligible", "stopped", "days", "traffic at end"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in found.arms:
        low, median, high = arm.traffic[-1]
        table.add_row(
            arm.policy,
            _share(arm.proven),
            _share(arm.eligible),
            _share(arm.stopped),
            "never" if arm.days_to_proven is None else str(arm.days_to_proven),
            f"{100 * median:.0f}% ({100 * low:.0f}-{100 * high:.0f})",
        )
    return Group(
        table,
        f"gain over the champion alone, per 1000 opportunities, in usual results: "
        f"{_mean(found.gain)}",
        f"regret beside {found.best} alone: {_mean(found.regret)}",
        f"worst dip below the champion alone in 19 of 20 runs: {found.dip:.1f}",
    )


def _share(found: Estimate) -> str:
    return f"{100 * found.value:.1f}% ({100 * found.low:.0f}-{100 * found.high:.0f})"


def _mean(found: Estimate) -> str:
    return f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"
