"""`liveops halt`, `throttle`, `resume` and `retire`: one command, four verbs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from bandit.core.lifecycle import ArmVerb
from liveops.commands.options import ConfigFile, Demo, actor, ledger_app

HELP = {
    ArmVerb.HALT: "Halt an arm: once this returns, no further assignment to it commits.",
    ArmVerb.THROTTLE: "Take an arm's traffic away until it is resumed.",
    ArmVerb.RESUME: "Let a throttled or halted arm trade again, at an arm's minimum of traffic.",
    ArmVerb.RETIRE: "Take a challenger out of its experiments for good.",
}

PolicySha = Annotated[
    str, typer.Option("--policy-sha", help="Policy: full name, sha or unique sha prefix.")
]
ReasonText = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit log.")]
OneExperiment = Annotated[
    str | None,
    typer.Option("--experiment", help="Only there; everywhere the policy has an arm if left out."),
]


def command_of(verb: ArmVerb) -> Callable[..., None]:
    """Return the command that asks for `verb`."""

    def change(
        policy_sha: PolicySha,
        reason: ReasonText,
        experiment: OneExperiment = None,
        demo: Demo = False,
        config: ConfigFile = None,
    ) -> None:
        from bandit.service import experiments
        from liveops.monitor import experiments_of

        with ledger_app(config=config, demo=demo, only_stops=verb is not ArmVerb.RESUME) as app:
            policy, _ = experiments.of_policy(app.engine, policy_sha)
            names = experiments_of(app, policy_sha) if experiment is None else [experiment]
            for name in names:
                arm, changed = experiments.change_arm(
                    app.engine,
                    name=name,
                    policy=policy,
                    verb=verb,
                    reason=reason,
                    now=app.clock.now(),
                    actor=actor(),
                )
                state = f"{arm.place.policy} in {name} is {arm.place.status}"
                said = state if changed else f"{state} already; nothing changed"
                sys.stdout.write(f"{said} ({arm.place.ppm / 10_000:g} % of traffic)\n")

    change.__doc__ = HELP[verb]
    return change
