"""`liveops close-all` and `liveops close-orders`: what is open is to be closed, what is left."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bandit.core.closing import CloseTarget
    from liveops.wiring import App

LOOK_SECONDS = 0.5

Experiment = Annotated[str, typer.Argument(help="Experiment, such as btc.", show_default=False)]


def close_all(
    experiment: Experiment,
    reason: ReasonText,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Watch for so many seconds until all are closed."),
    ] = 0.0,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Order every open position to be closed; the bot does it. Halts nothing else.

    Works while killed and while paused. With --wait, exit 1 when some are open still at its end,
    those of earlier orders too.
    """
    from bandit.service import closing

    with ledger_app(config=config, demo=demo, only_stops=True) as app:
        order = closing.close_all(
            app.engine, experiment, reason=reason, now=app.clock.now(), actor=actor()
        )
        if not as_json:
            sys.stdout.write(
                f"order {order.id} of {experiment}: positions to be closed {len(order.targets)}, "
                f"with those of earlier orders {order.waiting}\n"
            )
            _print_targets(order.targets)
            sys.stdout.write(f"{order.note}\n")
        left = _wait(app, experiment, seconds=wait) if wait else None
    if as_json:
        told = order.to_json()
        print_json(told if left is None else told | {"open": [each.to_json() for each in left]})
    elif left is not None:
        sys.stdout.write(f"{len(left)} open still\n" if left else "all are closed\n")
        _print_targets(left)
    if left:
        raise typer.Exit(1)


def close_orders(
    experiment: Experiment, demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Print what is to be closed and is open still, and what bots said of it."""
    from bandit.service import closing

    with ledger_app(config=config, demo=demo) as app:
        found = closing.waiting(app.engine, experiment)
    if as_json:
        print_json([target.to_json() for target in found])
        return
    sys.stdout.write(f"{experiment}: positions that wait to be closed {len(found)}\n")
    _print_targets(found)


def _wait(app: App, experiment: str, *, seconds: float) -> list[CloseTarget]:
    """Return what is open still once all are closed, or the time is over."""
    from bandit.service import closing
    from liveops.clock import monotonic

    pause, ends_at = threading.Event(), monotonic() + seconds
    while (left := closing.waiting(app.engine, experiment)) and monotonic() < ends_at:
        pause.wait(LOOK_SECONDS)
    return left


def _print_targets(targets: Sequence[CloseTarget]) -> None:
    for target in targets:
        failure = "" if target.failure is None else f", failed: {target.failure.reason}"
        sys.stdout.write(
            f"  {target.unit_id} {target.instrument} by {target.policy}, order {target.order_id} "
            f"of {target.since:%Y-%m-%d %H:%M:%S}{failure}\n"
        )
