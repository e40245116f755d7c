"""`liveops drift`: does the market still look like the bars a policy was made from?"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import InvalidInput
from liveops.commands.learn import (
    CandleFiles,
    Instruments,
    Interval,
    Source,
    series_of,
)
from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from bandit.core.drift import DriftRun


def drift(
    policy: Annotated[
        str | None,
        typer.Argument(help="Name, sha or unique prefix of the sha.", show_default=False),
    ] = None,
    candles: CandleFiles = None,
    instruments: Instruments = None,
    source: Source = None,
    interval: Interval = None,
    bars: Annotated[
        int, typer.Option("--bars", min=1, help="How many of the newest bars to look at, at most.")
    ] = 2_000,
    every: Annotated[
        bool, typer.Option("--all", help="Every policy with an arm, on the candles of its recipe.")
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Hold bars after a policy's training against what was frozen of it; exit 1 where it drifted.

    Features, embeddings, what TabNet looks at, confidence and hits; the ledger keeps every check,
    and `/metrics` shows the newest. With --all, exit 1 says that a policy could not be checked;
    those of which nothing was frozen, or that have no later bars, are left out and named.
    """
    from liveops.drifting import check_drift

    if every:
        named = {"POLICY": policy, "--candles": candles, "--instrument": instruments}
        named |= {"--source": source, "--interval": interval}
        for option, given in named.items():
            if given:
                raise InvalidInput(field=option, rule="must not go with --all", found=given)
        _check_all(bars, demo=demo, as_json=as_json, config=config)
        return
    if policy is None:
        raise InvalidInput(field="POLICY", rule="must be named, or --all", found="neither")

    series = series_of(candles or [], instruments or [], config, source=source, interval=interval)
    if len(series) != 1:
        rule = "must be one instrument at a time"
        raise InvalidInput(field="--candles", rule=rule, found=len(series))
    with ledger_app(config=config, demo=demo) as app:
        run, _ = check_drift(app, policy, series[0], bars_max=bars, actor=actor())
    if as_json:
        checks = [check.to_json() for check in run.checks]
        window = [run.window_from.isoformat(), run.window_to.isoformat()]
        print_json({"artifact": run.sha, "window": window, "checks": checks})
    else:
        _print(run)
    if any(check.drifted for check in run.checks):
        raise typer.Exit(1)


def _check_all(bars: int, *, demo: bool, as_json: bool, config: Path | None) -> None:
    from liveops.drifting import check_all
    from liveops.relearning import recipe_candles

    with ledger_app(config=config, demo=demo) as app:
        candles = partial(recipe_candles, app.settings)
        found = list(check_all(app, candles, bars_max=bars, actor=actor()))
    if as_json:
        print_json([checked.to_json() for checked in found])
    for checked in found:
        if checked.error is not None:
            said = f"{checked.error.code}: {checked.error}"
        elif checked.run is None:
            said = f"left out: {checked.reason}"
        else:
            drifted = sum(check.drifted for check in checked.run.checks)
            said = f"{drifted} of {len(checked.run.checks)} checks drifted"
        if checked.error is not None or not as_json:
            out = sys.stdout if checked.error is None else sys.stderr
            out.write(f"{checked.policy}: {said}\n")
    if any(checked.error is not None for checked in found):
        raise typer.Exit(1)


def _print(run: DriftRun) -> None:
    out = sys.stdout
    out.write(
        f"{run.sha[:12]}, {run.window_from:%Y-%m-%d %H:%M} to {run.window_to:%Y-%m-%d %H:%M}\n"
    )
    out.write(f"{'':13}{'metric':13}{'subject':22}{'value':>9}{'limit':>9}{'p':>9}\n")
    for check in sorted(run.checks, key=lambda check: not check.drifted):
        numbers = "".join(
            f"{'-' if number is None else format(number, '.3g'):>9}"
            for number in (check.value, check.limit, check.p_value)
        )
        out.write(f"{check.verdict.value:13}{check.metric.value:13}{check.subject:22}{numbers}\n")
    drifted = sum(check.drifted for check in run.checks)
    out.write(f"{drifted} of {len(run.checks)} checks drifted\n")
