"""`liveops policy register|list|purge|restore` and `liveops experiment open|add|show|list`."""

from __future__ import annotations

import secrets
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from bandit.core.model import WHOLE_PPM, ArmMode, PolicyKind, Profile
from bandit.core.sizing import Sizing
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Day,
    Demo,
    DryRun,
    actor,
    ledger_app,
    money,
    print_json,
)

policy_commands = typer.Typer(
    help="Register, list, put away and take back policies.", no_args_is_help=True
)
experiment_commands = typer.Typer(
    help="Open experiments, add policies to them, show and list them.", no_args_is_help=True
)


@policy_commands.command("register")
def register(
    name: Annotated[str, typer.Argument(help="Name, such as tabnet_20260301.")],
    sha: Annotated[str, typer.Option("--sha", help="Content hash, 8 to 64 hexadecimal digits.")],
    kind: Annotated[PolicyKind, typer.Option("--kind", help="Who made it.")] = PolicyKind.EXTERNAL,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Register a policy; a policy never changes afterwards."""
    from bandit.core.model import Policy, PolicyName
    from bandit.core.model import PolicySha as Sha
    from bandit.service import policies

    policy = Policy(name=PolicyName(name), kind=kind, sha=Sha(sha))
    with ledger_app(config=config, demo=demo) as app:
        _, created = policies.register(app.engine, policy, now=app.clock.now(), actor=actor())
    said = "registered" if created else "was registered before; nothing changed"
    sys.stdout.write(f"{name} {said}\n")


@policy_commands.command("list")
def list_policies(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List every policy, oldest first; those that are put away say so."""
    from bandit.service import policies, purging

    with ledger_app(config=config, demo=demo) as app:
        found = [record.policy for record in policies.listed(app.engine)]
        away = purging.archived(app.engine)
    if as_json:
        print_json(
            [
                {"name": p.name, "kind": p.kind.value, "sha": p.sha, "archived": p.sha in away}
                for p in found
            ]
        )
        return
    for policy in found:
        last = away.get(policy.sha)
        said = "" if last is None else f"  archived {last.at:%Y-%m-%d}: {last.reason}"
        sys.stdout.write(f"{policy.name}  {policy.kind}  {policy.sha}{said}\n")


@policy_commands.command("purge")
def purge_policies(
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Put away policies that are old or lose, as the section `purge` of the settings says.

    One that goes is retired wherever it is a challenger, and what is stored of it is moved aside:
    nothing is deleted. One that a kept policy was made from is retired only. Never a champion, one
    that a rollback returns to, nor the last active ones. Again, it puts nobody away.
    """
    from liveops import policy_archive
    from liveops.maintenance.days import moment_of
    from liveops.wiring import purge_rule_of

    with ledger_app(config=config, demo=demo) as app:
        moment = moment_of(None if day is None else day.date(), now=app.clock.now())
        rule = purge_rule_of(app.settings)
        purged = policy_archive.purge(app, rule, dry_run=dry_run, as_of=moment, actor=actor())
    if as_json:
        print_json({"date": f"{moment:%Y-%m-%d}", "dry_run": dry_run, **purged.to_json()})
        return
    going, stays = ("would go", "would stay") if dry_run else ("is put away", "stays")
    retires = "would retire" if dry_run else "is retired"
    for fate in purged.fates:
        said = going if fate.archived else retires if fate.purged else stays
        sys.stdout.write(f"{fate.policy} {said}: {fate.reason}\n")


@policy_commands.command("restore")
def restore_policy(
    policy: Annotated[str, typer.Argument(help="Policy: full name, sha or unique sha prefix.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit log.")],
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Take back a policy that was put away, with what is stored of it; its arms stay retired.

    It may join experiments again, and counts as new: its age is that since now.
    """
    from liveops import policy_archive

    with ledger_app(config=config, demo=demo) as app:
        changed = policy_archive.restore(app, policy, reason=reason, actor=actor())
    sys.stdout.write(f"{policy} {'is taken back' if changed else 'was not put away'}\n")


@experiment_commands.command("open")
def open_experiment(
    name: Annotated[str, typer.Argument(help="Name, such as btc.")],
    champion: Annotated[str, typer.Option("--champion", help="Policy in production.")],
    capital: Annotated[str, typer.Option("--capital", help="Money behind the order flow.")],
    challenger: Annotated[
        list[str] | None, typer.Option("--challenger", help="Repeatable.")
    ] = None,
    equity_fraction: Annotated[
        float | None, typer.Option("--equity-fraction", help="Nominal share of one trade.")
    ] = None,
    profile: Annotated[
        Profile | None, typer.Option("--profile", help="How far to trust the rule.")
    ] = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Open an experiment under the limits and rules of the configuration."""
    from bandit.service import experiments, policies
    from liveops.wiring import experiment_of, limits_of, loss_limits_of, rules_of

    with ledger_app(config=config, demo=demo) as app:
        experiment = experiment_of(
            app.settings,
            name=name,
            champion=policies.find(app.engine, champion).policy.name,
            capital=money(capital, field="--capital"),
            equity_fraction=equity_fraction,
            profile=profile,
        )
        _, created = experiments.open_experiment(
            app.engine,
            experiment,
            challengers=[policies.find(app.engine, c).policy.name for c in challenger or []],
            salt=secrets.token_bytes(32),
            limits=limits_of(app.settings),
            loss_limits=loss_limits_of(app.settings),
            rules=rules_of(app.settings),
            now=app.clock.now(),
            actor=actor(),
        )
    said = "is open" if created else "was open before; nothing changed"
    sys.stdout.write(f"{name} {said}\n")


@experiment_commands.command("add")
def add_arm(
    experiment: Annotated[str, typer.Argument(help="Experiment that the policy joins.")],
    policy: Annotated[str, typer.Argument(help="Policy: full name, sha or unique sha prefix.")],
    mode: Annotated[
        ArmMode,
        typer.Option("--mode", help="live trades, paper trades on paper, shadow is scored."),
    ] = ArmMode.LIVE,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Let a policy join as a challenger; a live one starts at what the limits leave.

    The same again changes nothing.
    """
    from bandit.service import experiments, policies

    with ledger_app(config=config, demo=demo) as app:
        arm, is_new = experiments.add_arm(
            app.engine,
            name=experiment,
            policy=policies.find(app.engine, policy).policy.name,
            mode=mode,
            now=app.clock.now(),
            actor=actor(),
        )
    place = arm.place
    share = place.ppm / WHOLE_PPM
    if as_json:
        found = {"experiment": experiment, "policy": place.policy, "mode": place.mode.value}
        print_json({**found, "traffic_allocation": share, "new": is_new})
        return
    said = "joins" if is_new else "was in before; nothing changed:"
    sys.stdout.write(
        f"{place.policy} {said} {experiment} ({place.mode}), {100 * share:g} % of traffic\n"
    )


@experiment_commands.command("show")
def show_experiment(
    name: Annotated[str, typer.Argument(help="Experiment to show.")],
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show what an experiment was opened with: money, rules of traffic and sizing limits."""
    from bandit.service import experiments

    with ledger_app(config=config, demo=demo) as app:
        record = experiments.load(app.engine, name)
    opened, sizing = record.experiment, record.sizing
    if as_json:
        print_json(
            {
                "name": name,
                "champion": opened.champion,
                "account": opened.account_name,
                "capital": f"{opened.capital:f}",
                "currency": opened.currency,
                "profile": opened.profile.value,
                "strategy": opened.strategy.value,
                "sizing": None if sizing is None else asdict(sizing),
            }
        )
        return
    sys.stdout.write(
        f"{name}: champion {opened.champion}, {opened.capital:f} {opened.currency} of account "
        f"{opened.account_name}, {opened.profile}, {opened.strategy}\n{_sizing_line(sizing)}\n"
    )


def _sizing_line(sizing: Sizing | None) -> str:
    if sizing is None:
        return "sizing: no limits; it was opened before there were any"
    most = sizing.max_open_positions
    places = "any number of positions" if most is None else f"at most {most} positions"
    return (
        f"sizing: {places} open in the account, {100 * sizing.base_position_size:g} % of equity "
        f"nominal and {100 * sizing.max_position_size:g} % at most, leverage "
        f"{sizing.max_leverage:g} at most, stop loss {100 * sizing.stop_loss_pct:g} %, take profit "
        f"{100 * sizing.take_profit_pct:g} %"
    )


@experiment_commands.command("list")
def list_experiments(
    demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """List every experiment, oldest first."""
    from bandit.service import experiments

    with ledger_app(config=config, demo=demo) as app:
        names = experiments.listed(app.engine)
    if as_json:
        print_json(names)
        return
    sys.stdout.write("".join(f"{name}\n" for name in names))
