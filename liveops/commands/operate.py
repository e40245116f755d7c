"""`liveops halt`, `throttle`, `resume` and `retire`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bandit.core.lifecycle import ArmVerb
from liveops.commands.options import ConfigFile, Demo, actor, ledger_app

PolicySha = Annotated[
    str, typer.Option("--policy-sha", help="Policy: full name, sha or unique sha prefix.")
]
ReasonText = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit log.")]
OneExperiment = Annotated[
    str | None,
    typer.Option("--experiment", help="Only there; everywhere the policy has an arm if left out."),
]


def halt(
    policy_sha: PolicySha,
    reason: ReasonText,
    experiment: OneExperiment = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Halt an arm: once this returns, no further assignment to it commits."""
    _change(ArmVerb.HALT, policy_sha, reason, experiment, demo=demo, config=config)


def throttle(
    policy_sha: PolicySha,
    reason: ReasonText,
    experiment: OneExperiment = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Take an arm's traffic away until it is resumed."""
    _change(ArmVerb.THROTTLE, policy_sha, reason, experiment, demo=demo, config=config)


def resume(
    policy_sha: PolicySha,
    reason: ReasonText,
    experiment: OneExperiment = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Let a throttled or halted arm trade again, at an arm's minimum of traffic."""
    _change(ArmVerb.RESUME, policy_sha, reason, experiment, demo=demo, config=config)


def retire(
    policy_sha: PolicySha,
    reason: ReasonText,
    experiment: OneExperiment = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Take a challenger out of its experiments for good."""
    _change(ArmVerb.RETIRE, policy_sha, reason, experiment, demo=demo, config=config)


def _change(
    verb: ArmVerb,
    policy_sha: str,
    reason: str,
    experiment: str | None,
    *,
    demo: bool,
    config: Path | None,
) -> None:
    from bandit.service import experiments
    from liveops.monitor import experiments_of

    with ledger_app(config=config, demo=demo) as app:
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
