"""The second path that stops an arm, the first one silent: Prometheus, Alertmanager, service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from api_service import CheckedClient, service
from ledger import BEST, FALLEN, POOR, UNGUARDED, arms, feed, open_btc
from sqlalchemy import Engine, text

from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmStatus, PolicyName
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import experiments
from benchmarks.alerts._stack import ProgramMissing, Stack, alert_stack, await_that
from config.scopes import KeyScope
from liveops.api.access import digest_of
from liveops.clock import SystemClock

KEY = "lo_watcher"
# Neither ever flags: what stops an arm here is the alert.
SILENT = ChecklistRule(pf_throttle=0, drawdown_halt_percent=100)
RULES = Rules(checklist=SILENT, guard=UNGUARDED.guard)
PATIENCE_SECONDS = 90


def status(engine: Engine, policy: str) -> ArmStatus:
    return experiments.load(engine, "btc").arm_of(PolicyName(policy)).place.status


def answered(engine: Engine, result: str) -> int:
    statement = text("SELECT coalesce(max(n), 0) FROM alert_counts WHERE result = :result")
    with engine.connect() as connection:
        return int(connection.execute(statement, {"result": result}).scalar_one())


def resume(engine: Engine, policy: str) -> None:
    experiments.change_arm(
        engine,
        name="btc",
        policy=PolicyName(policy),
        verb=ArmVerb.RESUME,
        reason="looked into it",
        now=SystemClock().now(),
        actor="ann",
    )


def actors(engine: Engine) -> list[tuple[str, str]]:
    statement = text("SELECT kind, actor FROM decisions WHERE kind <> 'ENTER' ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]


@contextmanager
def watched(engine: Engine, folder: Path) -> Iterator[tuple[CheckedClient, Stack]]:
    """A service that is scraped each second, whose alerts come to it."""
    scopes = [KeyScope.READ.value, KeyScope.WEBHOOK.value]
    entry = {"name": "alertmanager", "scopes": scopes, "sha256": digest_of(KEY.encode())}
    with service(engine, clock=SystemClock(), keys=[entry]) as client:
        service_url = str(client.base_url)
        try:
            with alert_stack(
                folder, service=service_url, key=KEY, is_shipped=True, repeat_seconds=1
            ) as stack:
                yield client, stack
        except ProgramMissing as missing:
            pytest.skip(str(missing))


@pytest.mark.real_part
def test_alerts_alone_throttle_and_halt_and_undo_nobodys_resume(
    engine: Engine, tmp_path: Path
) -> None:
    weak, deep, sound = (name for name, _ in arms(3))
    open_btc(engine, challengers=arms(3), rules=RULES)
    moment = feed(engine, sound, BEST, prefix="sound")
    moment = feed(engine, weak, BEST, now=moment, prefix="before")
    with watched(engine, tmp_path) as (_, stack):

        def becomes(policy: str, wanted: ArmStatus) -> None:
            await_that(lambda: status(engine, policy) is wanted, seconds=PATIENCE_SECONDS)

        assert {name for name, policy in stack.firing() if policy} == set()
        moment = feed(engine, weak, POOR, now=moment, prefix="weak")
        becomes(weak, ArmStatus.THROTTLED)
        moment = feed(engine, deep, FALLEN, now=moment, prefix="deep")
        becomes(deep, ArmStatus.HALTED)

        # The alert goes on, and is sent again: a person who lets the arm go on is not overruled.
        resume(engine, weak)
        before = answered(engine, "repeated")
        await_that(lambda: answered(engine, "repeated") > before + 4, seconds=PATIENCE_SECONDS)
        assert ("ChallengerProfitFactorLow", weak) in stack.firing()
        assert status(engine, weak) is ArmStatus.ACTIVE
    assert status(engine, sound) is ArmStatus.ACTIVE
    by = "alertmanager"
    assert actors(engine) == [
        ("THROTTLE", by),
        ("HALT", by),
        ("RESUME", "ann"),
    ]


@pytest.mark.real_part
def test_a_prometheus_that_is_restarted_lets_go_on_who_was_resumed(
    engine: Engine, tmp_path: Path
) -> None:
    [(weak, _), (deep, _)] = arms(2)
    open_btc(engine, challengers=arms(2), rules=RULES)
    moment = feed(engine, weak, POOR, prefix="weak")
    feed(engine, deep, FALLEN, now=moment, prefix="deep")
    remembers, forgets = tmp_path / "remembers", tmp_path / "forgets"
    remembers.mkdir()
    forgets.mkdir()

    def go_on() -> bool:
        return {status(engine, policy) for policy in (weak, deep)} == {ArmStatus.ACTIVE}

    with watched(engine, remembers):
        for policy, stopped in ((weak, ArmStatus.THROTTLED), (deep, ArmStatus.HALTED)):
            await_that(lambda p=policy, s=stopped: status(engine, p) is s, seconds=PATIENCE_SECONDS)
        resume(engine, weak)
        resume(engine, deep)
    # It has read both as they were before, and lets their alerts begin anew.
    before = answered(engine, "resumed_since")
    with watched(engine, remembers) as (_, stack):
        await_that(lambda: answered(engine, "resumed_since") > before + 1, seconds=PATIENCE_SECONDS)
        told = {name for name, policy in stack.firing() if policy in (weak, deep)}
        assert told == {"ChallengerProfitFactorLow", "ChallengerDrawdownHigh"}
        assert go_on()
    # It never read them: what they are judged by since says nothing against either.
    with watched(engine, forgets) as (_, stack):
        read = "count_over_time(dd_challenger_pct[1m])"
        await_that(lambda: min(stack.values(read), default=0) > 4, seconds=PATIENCE_SECONDS)
        assert stack.values("dd_challenger_pct") == [0, 0]
        assert stack.values("pf_challenger_30") == []
        assert {name for name, policy in stack.firing() if policy} == set()
        assert go_on()
    by = "alertmanager"
    assert sorted(actors(engine)) == [
        ("HALT", by),
        ("RESUME", "ann"),
        ("RESUME", "ann"),
        ("THROTTLE", by),
    ]
