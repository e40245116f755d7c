"""One Typer app; every console script is an entry of it.

A command parses, calls one function, prints, exits: 0 done, 1 failed, 2 usage, 3 lock held
elsewhere. Results go to stdout, everything else to stderr. Heavy modules are imported by the
command that needs them, so that `--help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from bandit.core.errors import (
    AmbiguousName,
    BanditError,
    InvalidInput,
    LockHeldElsewhere,
    UnknownName,
)
from bandit.core.lifecycle import ArmVerb
from liveops.commands import (
    accounts,
    alerting,
    audit,
    backup,
    breakers,
    budget,
    candles,
    closing,
    data,
    drift,
    encoding,
    explain,
    guard,
    health,
    imports,
    jobs,
    keys,
    killing,
    learn,
    ledger,
    maintenance,
    market,
    monitor,
    notify,
    operate,
    policies,
    promote,
    replay,
    report,
    rotation,
    selection,
    service,
    setup,
    simulate,
    snapshots,
    tune,
)

EXIT_FAILED, EXIT_USAGE, EXIT_LOCKED = 1, 2, 3

app = typer.Typer(
    name="liveops",
    help="Champion/challenger bandit service for machine-learned trading policies, on Postgres.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(market.run)
app.command("evaluate")(market.evaluate)
app.command("gates")(market.gates)
app.command("simulate")(simulate.simulate)
app.command("serve")(service.serve)
app.command("scheduler")(jobs.scheduler)
app.command("setup")(setup.setup_live_ops)
app.command("alerts")(alerting.prometheus_alerts)
app.command("doctor")(service.doctor)
app.command("verify")(maintenance.verify)
app.command("maintain")(maintenance.weekly_maintenance)
app.command("reset")(service.reset)
app.command("status")(health.status)
app.command("health")(health.health)
app.add_typer(report.commands, name="report")
app.command("plot")(monitor.plot)
app.command("decisions")(monitor.decisions)
app.command("explain")(explain.explain)
app.command("replay")(replay.replay)
for verb in ArmVerb:
    app.command(verb.value)(operate.command_of(verb))
app.command("retrain")(rotation.scheduled_retrain)
app.command("drift")(drift.drift)
app.command("promote")(promote.promote)
app.command("rollback")(promote.rollback)
app.command("close-all")(closing.close_all)
app.command("close-orders")(closing.close_orders)
app.command("kill")(killing.kill)
app.command("release")(killing.release)
app.add_typer(policies.policy_commands, name="policy")
app.add_typer(policies.experiment_commands, name="experiment")
app.add_typer(accounts.commands, name="account")
app.add_typer(health.bot_commands, name="bots")
app.add_typer(budget.commands, name="budget")
app.add_typer(guard.commands, name="guard")
app.add_typer(selection.commands, name="selection")
app.add_typer(breakers.commands, name="breakers")
app.add_typer(notify.commands, name="notify")
app.add_typer(ledger.commands, name="ledger")
app.add_typer(snapshots.commands, name="snapshot")
app.add_typer(imports.commands, name="import")
app.add_typer(candles.commands, name="candles")
app.add_typer(data.commands, name="data")
learn.commands.command("timesnet")(encoding.timesnet)
app.add_typer(learn.commands, name="learn")
app.add_typer(jobs.commands, name="job")
app.add_typer(tune.commands, name="tune")
app.add_typer(keys.commands, name="key")
app.add_typer(audit.commands, name="audit")
app.add_typer(backup.commands, name="backup")
app.add_typer(backup.drill_commands, name="drill")
app.add_typer(service.database_commands, name="db")
app.add_typer(service.configuration_commands, name="config")


def _script(command: Callable[..., None]) -> typer.Typer:
    """Return an entry of its own for one command."""
    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    entry.command()(command)
    return entry


monitor_app = _script(monitor.live_ops_monitor)
status_app = _script(health.status)
health_app = _script(health.health)
retrain_app = _script(rotation.scheduled_retrain)
setup_app = _script(setup.setup_live_ops)
alerts_app = _script(alerting.prometheus_alerts)
validate_app = _script(data.validate)
rollback_app = _script(data.rollback)
maintenance_app = _script(maintenance.weekly_maintenance)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `liveops`."""
    sys.exit(exit_code(app, arguments))


def live_ops_monitor(arguments: Sequence[str] | None = None) -> None:
    """Run `live_ops_monitor`."""
    sys.exit(exit_code(monitor_app, arguments))


def check_status(arguments: Sequence[str] | None = None) -> None:
    """Run `check_status`."""
    sys.exit(exit_code(status_app, arguments))


def health_check(arguments: Sequence[str] | None = None) -> None:
    """Run `health_check`."""
    sys.exit(exit_code(health_app, arguments))


def scheduled_retrain(arguments: Sequence[str] | None = None) -> None:
    """Run `scheduled_retrain`."""
    sys.exit(exit_code(retrain_app, arguments))


def setup_live_ops(arguments: Sequence[str] | None = None) -> None:
    """Run `setup_live_ops`."""
    sys.exit(exit_code(setup_app, arguments))


def prometheus_alerts(arguments: Sequence[str] | None = None) -> None:
    """Run `prometheus_alerts`."""
    sys.exit(exit_code(alerts_app, arguments))


def validate_data(arguments: Sequence[str] | None = None) -> None:
    """Run `validate_data`."""
    sys.exit(exit_code(validate_app, arguments))


def rollback_data(arguments: Sequence[str] | None = None) -> None:
    """Run `rollback_data`."""
    sys.exit(exit_code(rollback_app, arguments))


def weekly_maintenance(arguments: Sequence[str] | None = None) -> None:
    """Run `weekly_maintenance`."""
    sys.exit(exit_code(maintenance_app, arguments))


def exit_code(entry: Callable[..., object], arguments: Sequence[str] | None) -> int:
    """Run an entry and return its exit code; errors made on purpose are one line on stderr.

    >>> exit_code(monitor_app, ["--mode", "report"])
    2
    """
    try:
        entry(args=arguments)
    except SystemExit as end:  # how Typer says usage error (2), Ctrl-C (130) and done (0)
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    except BanditError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return code_of(error)
    return 0


def code_of(error: BanditError) -> int:
    """Return the exit code that tells a script what kind of error this was."""
    if isinstance(error, LockHeldElsewhere):
        return EXIT_LOCKED
    if isinstance(error, InvalidInput | UnknownName | AmbiguousName):
        return EXIT_USAGE
    return EXIT_USAGE if error.code == "invalid_settings" else EXIT_FAILED
