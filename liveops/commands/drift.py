"""`liveops drift`: does the market still look like the bars a policy was made from?"""

from __future__ import annotations

import sys
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
    from bandit.core.drift import DriftRun


def drift(
    policy: Annotated[str, typer.Argument(help="Name, sha or unique prefix of the sha.")],
    candles: CandleFiles = None,
    instruments: Instruments = None,
    source: Source = None,
    interval: Interval = None,
    bars: Annotated[
        int, typer.Option("--bars", min=1, help="How many of the newest bars to look at, at most.")
    ] = 2_000,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Hold bars after a policy's training against what was frozen of it; exit 1 where it drifted.

    Features, embeddings, what TabNet looks at, confidence and hits; the ledger keeps every check,
    and `/metrics` shows the newest.
    """
    from liveops.drifting import check_drift

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
