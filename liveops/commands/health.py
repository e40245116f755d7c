"""`liveops status` and `liveops health`, also `check_status` and `health_check`; `liveops bots`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    print_json,
    settings_from,
)

if TYPE_CHECKING:
    from bandit.core.heartbeat import BotRecord
    from liveops.status_reading import StatusFile

SHOWN = 5
"""So many of the newest alerts are shown, as the documents' script does."""

bot_commands = typer.Typer(help="Bots that send heartbeats.", no_args_is_help=True)


def status(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print the status file: health, bots, money, alerts and trades; the service may be down.

    Exit 0 healthy, 1 degraded, 2 unhealthy, and where the file is missing or stale.
    """
    found, now = _found(demo=demo, config=config)
    if as_json:
        print_json({**found.document, **_age(found, now)})
    else:
        _print(_head(found, now), _body(found))
    _exit(found, now)


def health(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print the level of the status file and why it is so; the service may be down.

    Exit 0 healthy, 1 degraded, 2 unhealthy, and where the file is missing or stale.
    """
    found, now = _found(demo=demo, config=config)
    if as_json:
        told = ("health_status", "issues", "warnings", "written_at")
        answer = {key: found.document.get(key) for key in told}
        print_json(answer | _age(found, now))
    else:
        _print(_head(found, now))
    _exit(found, now)


@bot_commands.command("list")
def list_bots(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print every bot that was heard, and how long ago."""
    from bandit.service import health as service

    with ledger_app(config=config, demo=demo) as app:
        found, now = service.known_bots(app.engine), app.clock.now()
    told = [_told(record, (now - record.heard_at).total_seconds()) for record in found]
    if as_json:
        print_json(told)
        return
    for bot in told:
        state = "runs" if bot["running"] else "stopped"
        ago = f"heard {bot['heartbeat_age_seconds']:.0f} s ago"
        sys.stdout.write(f"{bot['bot']}: {state}, {ago}, {bot['open_positions']} positions\n")


@bot_commands.command("forget")
def forget_bot(
    name: Annotated[str, typer.Argument(help="Bot, as its heartbeats name it.")],
    reason: ReasonText,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Expect a bot no more: its silence is no issue any longer. It may come back."""
    from bandit.service import health as service

    with ledger_app(config=config, demo=demo) as app:
        service.forget(app.engine, name, reason=reason, now=app.clock.now(), actor=actor())
    sys.stdout.write(f"bot {name} is forgotten\n")


def _found(*, demo: bool, config: Path | None) -> tuple[StatusFile, datetime]:
    """Return the status file, and the time it is read at; exits 2 where there is none."""
    from liveops.clock import SystemClock
    from liveops.ledger_server import status_file
    from liveops.status_reading import StatusUnknown, read_status

    path = status_file(settings_from(config), demo=demo)
    try:
        return read_status(path), SystemClock().now()
    except StatusUnknown as unknown:
        sys.stderr.write(f"{unknown.code}: {unknown}\n")
        raise typer.Exit(2) from unknown


def _age(found: StatusFile, now: datetime) -> dict[str, Any]:
    age = (now - found.written_at).total_seconds()
    return {"age_seconds": age, "stale": found.is_stale(now=now)}


def _exit(found: StatusFile, now: datetime) -> None:
    code = found.exit_code(now=now)
    if code:
        raise typer.Exit(code)


def _print(*parts: Iterator[str]) -> None:
    """Print what the file says; exits 2 where it lacks what a file of ours has."""
    try:
        lines = [line for part in parts for line in part]
    except (LookupError, TypeError, AttributeError) as error:
        sys.stderr.write(f"status_unknown: the status file is not whole: {error!r}\n")
        raise typer.Exit(2) from error
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _head(found: StatusFile, now: datetime) -> Iterator[str]:
    age = (now - found.written_at).total_seconds()
    stale = " (stale: the service does not write it any more)" if found.is_stale(now=now) else ""
    yield "=== Bot Status ==="
    yield f"health: {found.level.value}, written {age:.0f} s ago{stale}"
    yield from (f"issue: {text}" for text in found.document["issues"])
    yield from (f"warning: {text}" for text in found.document["warnings"])


def _body(found: StatusFile) -> Iterator[str]:
    document = found.document
    metrics, trading, portfolio = (document[key] for key in ("metrics", "trading", "portfolio"))
    currency = portfolio["currency"] or ""
    yield f"performance guard: {_or_unknown(metrics['performance_guard_status'])}"
    yield f"open positions: {_or_unknown(metrics['open_positions'])}"
    yield f"trading halted: {_or_unknown(trading['halted'])}"
    yield f"equity: {_or_unknown(portfolio['equity'])} {currency}".rstrip()
    yield f"daily pnl: {_or_unknown(portfolio['daily_pnl'])} {currency}".rstrip()
    yield f"max drawdown: {_or_unknown(document['performance']['max_drawdown'])}"
    for bot in document["bots"]:
        state = "runs" if bot["running"] else "stopped"
        api = "connected" if bot["api_connected"] else "not connected"
        yield f"bot {bot['bot']}: {state}, {api}, heard at {bot['last_heartbeat']}"
    yield ""
    yield "=== Recent Alerts ==="
    yield from (f"{alert['at']} {alert['text']}" for alert in document["recent_alerts"][-SHOWN:])
    yield ""
    yield "=== Recent Trades ==="
    for trade in trading["recent_trades"]:
        yield (
            f"{trade['closed_at']} Closed position {trade['instrument']}, {trade['policy']} of "
            f"{trade['experiment']}: {trade['pnl']}"
        )


def _or_unknown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "unknown" if value is None else f"{value}"


def _told(record: BotRecord, age: float) -> dict[str, Any]:
    beat = record.newest
    return {
        "bot": beat.bot,
        "running": beat.running,
        "last_heartbeat": record.heard_at.isoformat(),
        "heartbeat_age_seconds": age,
        "open_positions": beat.open_positions,
    }
