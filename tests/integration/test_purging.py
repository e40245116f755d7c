"""The purge in a ledger: who is retired and archived, what is moved, and what stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from api_service import application
from ledger import (
    CHALLENGER,
    EVEN,
    NOON,
    WAITING,
    arms,
    change,
    count,
    feed,
    join,
    open_btc,
    open_eth,
    promote,
    register,
    together,
    traffic,
)
from made_up_policy import stored
from sqlalchemy import Engine, text
from waiting import until

from bandit.core.errors import Conflict, InvalidInput
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import (
    ArmMode,
    ArmStatus,
    Policy,
    PolicyKind,
    PolicyName,
    PolicySha,
    Profile,
)
from bandit.core.purging import PurgeRule
from bandit.core.upkeep import UpkeepAction
from bandit.service import experiments, killing, learner_jobs, purging, reporting
from bandit.service import policies as policy_service
from bandit.storage import policy_archivals
from bandit.storage.engine import transaction
from bandit.storage.experiments import insert_arm
from bandit.storage.locks import Lease, LockClass, keep_free
from learners.artifact import read
from liveops import policy_archive
from liveops.clock import VirtualClock
from liveops.deciders import artifact_home
from liveops.wiring import App

LATER = NOON + timedelta(days=61)
ONE = PurgeRule(active_min=1)


def purged(engine: Engine, rule: PurgeRule = ONE, *, days: float = 61) -> dict[str, str]:
    moment = NOON + timedelta(days=days)
    told = purging.purge(engine, rule, as_of=moment, now=moment, actor="test")
    return {fate.policy: fate.reason for fate in told if fate.purged}


def rows(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_models_stay_while_a_rotation_is_under_way_and_none_begins_within_a_purge(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=arms(3))
    for name in ("arm-00", "arm-02"):
        learner_jobs.keep_recipe(engine, name, {"learner": "rl"}, now=NOON)
    change(engine, ArmVerb.RETIRE, "arm-02")
    rotation = Lease(engine, LockClass.ROTATION, 0)
    assert rotation.hold()
    told = {fate.policy: fate for fate in purging.would_purge(engine, ONE, now=LATER)}
    assert told["arm-00"].reason == "models are being made anew"
    # One that was not learned cannot be made anew, nor one without an arm.
    assert set(purged(engine)) == {"arm-01", "arm-02"}
    rotation.leave()
    # A session ends in its own time.
    until(lambda: "arm-00" in purged(engine))
    with transaction(engine) as connection:
        assert keep_free(connection, LockClass.ROTATION)
        with transaction(engine) as other:
            assert keep_free(other, LockClass.ROTATION), "two purges keep it free together"
        assert not rotation.hold(), "nobody plans with models that are about to go"
    assert rotation.hold()
    rotation.leave()


def test_old_policies_are_retired_wherever_they_are_and_archived_once(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    open_eth(engine)
    experiments.add_arm(
        engine, name="eth", policy=PolicyName("arm-00"), mode=ArmMode.SHADOW, now=NOON, actor="t"
    )
    told = {f.policy: f for f in purging.would_purge(engine, ONE, now=LATER)}
    assert [name for name, fate in told.items() if fate.purged] == ["arm-00", "arm-01", "eth-prod"]
    assert told["prod"].reason == "champion of btc"
    assert count(engine, "policy_archivals") == 0

    why = "61 days old, limit 60"
    assert purged(engine) == {"arm-00": why, "arm-01": why, "eth-prod": why}
    assert traffic(engine) == {"prod": 1_000_000}
    assert [arm.place.policy for arm in experiments.load(engine, "eth").kept_arms] == ["prod"]
    newest = reporting.decision_history(engine, "btc", newest=1)[0]
    assert (newest.kind.value, newest.reason) == ("RETIRE", f"purged: {why}")
    archived = {a.policy: a.reason for a in purging.archived(engine).values()}
    assert archived == dict.fromkeys(("arm-00", "arm-01", "eth-prod"), f"purged: {why}")
    audited = rows(engine, "SELECT subject FROM audit_log WHERE action = 'archive_policy'")
    assert sorted(audited) == [("arm-00",), ("arm-01",), ("eth-prod",)]

    sizes = {table: count(engine, table) for table in ("decisions", "audit_log")}
    assert purged(engine) == {}
    assert {table: count(engine, table) for table in sizes} == sizes


@pytest.mark.parametrize(
    ("profile", "gone"),
    [
        # 90 trades that won as much as they lost: the interval reaches 1.2 in no way to be sure.
        (Profile.SEED_EXACT, ["arm-00"]),
        (Profile.GUARDED, []),
        (Profile.OBSERVE, []),
    ],
)
def test_a_poor_profit_factor_counts_as_the_profile_says(
    engine: Engine, profile: Profile, gone: list[str]
) -> None:
    open_btc(engine, challengers=arms(1), profile=profile)
    feed(engine, "arm-00", EVEN)
    assert [*purged(engine, days=2)] == gone


def test_what_surely_loses_goes_in_guarded_too(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    feed(engine, "arm-00", ["0.001", "-0.003"] * 40)
    [(policy, reason)] = purged(engine, days=2).items()
    assert policy == "arm-00"
    assert reason.startswith("profit factor at most 0.")


def test_the_champion_before_stays_as_long_as_a_rollback_returns_to_it(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, "arm-00")
    told = {f.policy: f.reason for f in purging.would_purge(engine, ONE, now=LATER)}
    assert told["prod"] == "a rollback of btc returns to it"
    promote(engine, "arm-01")  # at the same hour as the first
    assert [*purged(engine)] == ["prod"]
    assert purging.would_purge(engine, ONE, now=LATER)[0].reason == (
        "a rollback of btc returns to it"
    )


def test_a_champion_that_was_replaced_is_warm_for_a_day(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, "arm-00")
    promote(engine, "arm-01")
    old = replace(ONE, age_max=timedelta(hours=1))
    told = {f.policy: f.reason for f in purging.would_purge(engine, old, now=NOON + timedelta(1))}
    assert told["prod"] == "champion of btc a day ago"


def test_the_last_active_ones_stay_and_a_job_holds_its_policy(engine: Engine) -> None:
    open_btc(engine, challengers=arms(4))
    change(engine, ArmVerb.HALT, "arm-03")
    learner_jobs.request(
        engine,
        "arm-03",
        UpkeepAction.REFRESH_ENCODER,
        cause="a run",
        reason="it drifted",
        now=NOON,
        actor="test",
    )
    assert [*purged(engine, PurgeRule())] == ["arm-02"]
    assert traffic(engine).keys() == {"prod", "arm-00", "arm-01", "arm-03"}


def test_a_purge_is_lawful_while_the_account_is_killed(engine: Engine) -> None:
    open_btc(engine)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    assert [*purged(engine)] == [CHALLENGER]
    assert traffic(engine) == {"prod": 1_000_000}


def test_two_purges_at_once_do_it_once(engine: Engine) -> None:
    open_btc(engine, challengers=arms(6))
    rule = PurgeRule(active_min=4)
    done = together(*[lambda: purged(engine, rule) for _ in range(4)])
    assert sorted(map(len, done)) == [0, 0, 0, 3]  # type: ignore[arg-type]
    assert len(traffic(engine)) == 4
    assert count(engine, "policy_archivals") == 3


def test_an_archived_policy_joins_nothing_until_it_is_taken_back(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine)
    purged(engine)
    with pytest.raises(Conflict, match=r"is archived since 2026-05-01 .* liveops policy restore"):
        experiments.add_arm(
            engine,
            name="eth",
            policy=PolicyName(CHALLENGER),
            mode=ArmMode.SHADOW,
            now=LATER,
            actor="test",
        )
    back = {"reason": "once more", "now": LATER, "actor": "ann"}
    assert purging.restore(engine, "eee02a74", **back)
    assert not purging.restore(engine, "eee02a74", **back)
    assert CHALLENGER not in {a.policy for a in purging.archived(engine).values()}
    assert experiments.load(engine, "btc").arm_of(PolicyName(CHALLENGER)).place.status is (
        ArmStatus.RETIRED
    )
    experiments.add_arm(
        engine,
        name="eth",
        policy=PolicyName(CHALLENGER),
        mode=ArmMode.SHADOW,
        now=LATER,
        actor="test",
    )
    # It counts as new since it was taken back, and can be put away again.
    assert purged(engine, days=120) == {}
    assert [*purged(engine, days=122)] == [CHALLENGER]
    assert count(engine, "policy_archivals") == 4  # twice away, once back, and eth-prod


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    served = application(engine, clock=VirtualClock(LATER))
    return replace(served, settings=served.settings.model_copy(update={"home": tmp_path}))


def with_artifact(app: App) -> str:
    """Register a policy whose content is stored, and let it join `btc`."""
    sha = stored(artifact_home(app.settings)).sha
    policy = Policy(name=PolicyName("made"), kind=PolicyKind.REINFORCEMENT, sha=sha)
    policy_service.register(app.engine, policy, now=NOON, actor="test")
    return sha


def test_a_policy_that_was_taken_back_is_judged_by_what_it_did_since(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    feed(engine, "arm-00", ["0.001", "-0.003"] * 40)
    assert [*purged(engine, days=2)] == ["arm-00"]
    moment = NOON + timedelta(days=3)
    purging.restore(engine, "arm-00", reason="once more", now=moment, actor="ann")
    assert purged(engine, days=9) == {}
    # What it closed since counts: here the same trades, and it was taken back before them.
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        earlier = {"at": NOON - timedelta(days=1)}
        connection.execute(text("UPDATE policy_archivals SET at = :at WHERE NOT archived"), earlier)
    assert [*purged(engine, days=9)] == ["arm-00"]


def test_a_parent_that_loses_is_retired_and_archived_when_its_child_went(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    feed(engine, "arm-00", ["0.001", "-0.003"] * 40)
    child = Policy(
        name=PolicyName("child"),
        kind=PolicyKind.REINFORCEMENT,
        sha=PolicySha("c" * 64),
        parent=PolicyName("arm-00"),
    )
    policy_service.register(engine, child, now=NOON, actor="test")
    join(engine, "child")
    [(gone, why)] = purged(engine, days=2).items()
    assert gone == "arm-00"
    assert why.endswith("; not archived: child was made from it")
    assert traffic(engine).keys() == {"prod", "child"}
    assert purging.archived(engine) == {}
    assert purged(engine, days=2) == {}, "once"
    change(engine, ArmVerb.RETIRE, "child")
    assert [*purged(engine, days=2)] == ["arm-00"]
    assert {a.policy for a in purging.archived(engine).values()} == {"arm-00"}


def test_a_ledger_from_before_a_purge_gets_its_files_back_when_the_service_starts(app: App) -> None:
    open_btc(app.engine)
    sha = with_artifact(app)
    join(app.engine, "made")
    home, archive = artifact_home(app.settings), policy_archive.archive_home(app.settings)
    archive.mkdir()
    (home / sha).rename(archive / sha)  # where a later purge had put it
    policy_archive.bring_back(replace(app, demo=True))
    assert not (home / sha).exists(), "the demo moves nothing"
    policy_archive.bring_back(app)
    assert read(home, sha).sha == sha
    policy_archive.purge(app, ONE, dry_run=False, as_of=LATER, actor="test")
    policy_archive.bring_back(app)
    assert not (home / sha).exists(), "what is archived stays aside"


def test_what_is_stored_is_moved_aside_and_back(app: App) -> None:
    open_btc(app.engine)
    sha = with_artifact(app)
    join(app.engine, "made")
    home, archive = artifact_home(app.settings), policy_archive.archive_home(app.settings)

    def purge(*, dry_run: bool = False) -> dict[str, object]:
        found = policy_archive.purge(app, ONE, dry_run=dry_run, as_of=LATER, actor="test")
        return found.to_json()

    told = purge(dry_run=True)
    assert (home / sha).is_dir()
    assert f"would move artefact {sha[:12]} to the archive" in told["done"]  # type: ignore[operator]
    done = [str(line).replace("would archive", "archived") for line in told["done"]]  # type: ignore[attr-defined]
    assert purge()["done"] == [line.replace("would move", "moved") for line in done]
    assert not (home / sha).exists()
    assert read(archive, sha).sha == sha
    assert purge()["done"] == []

    # Killed after the ledger was written: the next one moves what was left.
    (archive / sha).rename(home / sha)
    assert purge()["done"] == [f"moved artefact {sha[:12]} to the archive"]
    assert policy_archive.restore(app, "made", reason="once more", actor="ann")
    assert read(home, sha).sha == sha
    # The same of a restore.
    (home / sha).rename(archive / sha)
    assert not policy_archive.restore(app, "made", reason="once more", actor="ann")
    assert read(home, sha).sha == sha


def test_the_demo_moves_nothing_that_the_real_ledger_may_need(app: App) -> None:
    open_btc(app.engine)
    sha = with_artifact(app)
    demo = replace(app, demo=True)
    found = policy_archive.purge(demo, ONE, dry_run=False, as_of=LATER, actor="test")
    assert "made" in {fate.policy for fate in found.fates if fate.purged}
    assert (artifact_home(app.settings) / sha).is_dir()


def test_an_archived_policy_opens_no_experiment(engine: Engine) -> None:
    register(engine, "prod", "aaaaaaaa")
    assert [*purged(engine)] == ["prod"]
    with pytest.raises(Conflict, match="prod is archived"):
        open_btc(engine)
    with pytest.raises(InvalidInput):
        purging.restore(engine, "prod", reason="", now=LATER, actor="test")


def blocked(engine: Engine) -> int:
    [(found,)] = rows(engine, WAITING)
    assert isinstance(found, int)
    return found


def test_who_archives_waits_for_who_joins_and_then_archives_nobody(engine: Engine) -> None:
    record = open_btc(engine)
    register(engine, "late", "dddddddd")
    policy_id = policy_service.find(engine, "late").id
    with ThreadPoolExecutor(1) as pool, engine.connect() as joining:
        joined = {"mode": ArmMode.SHADOW, "reason": "joined", "now": NOON}
        insert_arm(joining, experiment_id=record.id, policy_id=policy_id, **joined)  # type: ignore[arg-type]
        purge = pool.submit(purged, engine)
        until(lambda: blocked(engine) == 1)
        joining.commit()
        with pytest.raises(Conflict, match="policy late has an arm in btc and cannot be archived"):
            purge.result(30)
    assert count(engine, "policy_archivals") == 0
    assert len(traffic(engine)) == 3
    assert sorted(purged(engine)) == ["late", CHALLENGER]


def test_who_joins_waits_for_who_archives_and_then_does_not(engine: Engine) -> None:
    open_btc(engine)
    register(engine, "late", "dddddddd")
    policy_id = policy_service.find(engine, "late").id
    with ThreadPoolExecutor(1) as pool, engine.connect() as archiving:
        put_away = {"archived": True, "now": LATER, "actor": "test", "reason": "drill"}
        policy_archivals.insert(archiving, policy_id, **put_away)  # type: ignore[arg-type]
        joining = pool.submit(join, engine, "late")
        until(lambda: blocked(engine) == 1)
        archiving.commit()
        with pytest.raises(Conflict, match="policy late is archived since"):
            joining.result(30)
    assert len(traffic(engine)) == 2
