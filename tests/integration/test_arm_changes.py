"""Arms are throttled, halted, resumed and retired, each in one transaction and a new epoch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ledger import (
    CHALLENGER,
    arms,
    change,
    feed,
    join,
    open_btc,
    register,
    sizes,
    together,
    traffic,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.errors import (
    InvalidAllocation,
    InvalidInput,
    InvalidTransition,
    UnknownName,
)
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import (
    ArmMode,
    ArmStatus,
    DecisionKind,
    PolicyName,
)
from bandit.service import experiments, reporting

NEW = PolicyName(CHALLENGER)
PROD = PolicyName("prod")


@pytest.mark.parametrize(
    ("verb", "status", "kind"),
    [
        (ArmVerb.THROTTLE, ArmStatus.THROTTLED, DecisionKind.THROTTLE),
        (ArmVerb.HALT, ArmStatus.HALTED, DecisionKind.HALT),
        (ArmVerb.RETIRE, ArmStatus.RETIRED, DecisionKind.RETIRE),
    ],
)
def test_stopped_arm_gives_everything_to_the_champion_in_a_new_epoch(
    engine: Engine, verb: ArmVerb, status: ArmStatus, kind: DecisionKind
) -> None:
    open_btc(engine)
    before = sizes(engine)
    assert change(engine, verb, reason=" too many losses ") == (status, True)
    assert traffic(engine)[PROD] == 1_000_000
    assert traffic(engine).get(NEW, 0) == 0
    assert experiments.load(engine, "btc").epoch == 2
    newest = reporting.decision_history(engine, "btc")[0]
    assert (newest.kind, newest.version, newest.actor) == (kind, 2, "test")
    assert newest.reason == "too many losses"
    assert newest.inputs == {"before": {PROD: 900_000, NEW: 100_000}, "policy": NEW}
    grown = {"decisions", "allocations", "audit_log"}
    assert sizes(engine) == {t: n + (t in grown) for t, n in before.items()}
    arm = experiments.load(engine, "btc").arm_of(NEW)
    assert (arm.place.status, arm.status_reason) == (status, "too many losses")


def test_every_change_has_one_audit_row_that_names_its_decision(engine: Engine) -> None:
    open_btc(engine)
    change(engine, ArmVerb.HALT)
    statement = text("SELECT actor, action, subject, details FROM audit_log ORDER BY id DESC")
    with engine.connect() as connection:
        newest = connection.execute(statement).first()
    decision = reporting.decision_history(engine, "btc")[0]
    assert newest is not None
    assert tuple(newest)[:3] == ("test", "HALT", "btc")
    told = {"decision": decision.id, "version": 2, "reason": "drill", "policy": CHALLENGER}
    assert newest.details == told


@pytest.mark.parametrize("verb", [ArmVerb.THROTTLE, ArmVerb.HALT, ArmVerb.RETIRE])
def test_changing_again_changes_nothing(engine: Engine, verb: ArmVerb) -> None:
    open_btc(engine)
    status, _ = change(engine, verb)
    before = sizes(engine)
    assert change(engine, verb) == (status, False)
    assert sizes(engine) == before


def test_resumed_arm_starts_at_the_minimum(engine: Engine) -> None:
    open_btc(engine)
    assert change(engine, ArmVerb.RESUME) == (ArmStatus.ACTIVE, False)
    change(engine, ArmVerb.THROTTLE)
    change(engine, ArmVerb.HALT)
    assert change(engine, ArmVerb.RESUME) == (ArmStatus.ACTIVE, True)
    assert traffic(engine) == {PROD: 980_000, NEW: 20_000}
    kinds = [decision.kind.value for decision in reporting.decision_history(engine, "btc")]
    assert kinds == ["RESUME", "HALT", "THROTTLE", "ENTER"]
    versions = [made.version for made, _ in reporting.allocation_history(engine, "btc")]
    assert versions == [1, 2, 3, 4]


def test_resumed_shadow_arm_stays_without_traffic(engine: Engine) -> None:
    open_btc(engine)
    join(engine, register(engine, "shadow", "bbbbbbbb"), ArmMode.SHADOW)
    change(engine, ArmVerb.HALT, "shadow")
    assert change(engine, ArmVerb.RESUME, "shadow") == (ArmStatus.ACTIVE, True)
    assert traffic(engine)["shadow"] == 0


def test_resume_without_room_is_refused_and_the_arm_stays_halted(engine: Engine) -> None:
    open_btc(engine, challengers=arms(6))
    change(engine, ArmVerb.HALT, "arm-00")
    join(engine, register(engine, "seventh", "bbbbbbbb"))
    before = sizes(engine)
    with pytest.raises(InvalidAllocation) as refused:
        change(engine, ArmVerb.RESUME, "arm-00")
    assert refused.value.limit == "champion_floor"
    assert experiments.load(engine, "btc").arm_of(PolicyName("arm-00")).place.status == "halted"
    assert sizes(engine) == before


@pytest.mark.parametrize("verb", ArmVerb)
def test_champion_is_refused(engine: Engine, verb: ArmVerb) -> None:
    open_btc(engine)
    before = sizes(engine)
    with pytest.raises(InvalidTransition, match="the champion"):
        change(engine, verb, PROD)
    assert sizes(engine) == before


@pytest.mark.parametrize("verb", [ArmVerb.THROTTLE, ArmVerb.HALT, ArmVerb.RESUME])
def test_retired_arm_stays_out(engine: Engine, verb: ArmVerb) -> None:
    open_btc(engine)
    change(engine, ArmVerb.RETIRE)
    with pytest.raises(InvalidTransition, match="an arm that is retired"):
        change(engine, verb)
    assert join(engine, NEW) == (0, False)
    assert traffic(engine) == {PROD: 1_000_000}
    # Later versions have no part for it.
    join(engine, register(engine, "later", "bbbbbbbb"))
    newest, _ = reporting.allocation_history(engine, "btc")[-1]
    assert newest.ppm == {PROD: 900_000, "later": 100_000}


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001, "a\0b"])
def test_change_without_a_storable_reason_is_refused(engine: Engine, reason: str) -> None:
    open_btc(engine)
    with pytest.raises(InvalidInput, match=r"^reason: must be 1 to 1000 characters"):
        change(engine, ArmVerb.HALT, reason=reason)
    assert traffic(engine)[NEW] == 100_000


def test_arm_of_another_experiment_is_unknown_here(engine: Engine) -> None:
    open_btc(engine)
    register(engine, "stranger", "bbbbbbbb")
    with pytest.raises(UnknownName, match="no arm of experiment btc is registered as 'stranger'"):
        change(engine, ArmVerb.HALT, "stranger")


def test_two_changes_at_once_follow_one_another(engine: Engine) -> None:
    open_btc(engine, challengers=arms(4))
    calls: list[Callable[[], bool]] = [
        lambda name=name: change(engine, ArmVerb.HALT, name)[1] for name, _ in arms(4)
    ]
    assert together(*calls) == [True] * 4
    assert traffic(engine) == {PROD: 1_000_000, **{name: 0 for name, _ in arms(4)}}
    assert experiments.load(engine, "btc").epoch == 5


def test_traded_arms_tell_their_trades_to_the_limits(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, NEW, ["0.001", "-0.001", "0"])
    assert experiments.load(engine, "btc").arm_of(NEW).place.trades == 3


# What the database refuses by itself


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE arms SET status = 'halted' WHERE policy_id = {prod}", "champion cannot become"),
        ("UPDATE arms SET status = 'sleeping' WHERE policy_id = {new}", "from active to sleeping"),
        ("UPDATE arms SET status = 'halted' WHERE policy_id = {new}", "inactive_zero"),
        ("UPDATE arms SET mode = 'shadow' WHERE policy_id = {new}", "inactive_zero"),
        ("UPDATE arms SET policy_id = {prod} WHERE policy_id = {new}", "an arm keeps its"),
        ("UPDATE arms SET joined_at = joined_at + interval '1 s'", "an arm keeps its"),
        ("DELETE FROM arms WHERE policy_id = {new}", "arms is append-only"),
        (
            "INSERT INTO arms (experiment_id, policy_id, status, status_reason, mode,"
            " traffic_allocation, joined_at, rung) SELECT experiment_id, {other}, status, 'x',"
            " mode, 0.1, joined_at, rung FROM arms LIMIT 1",
            "joins without traffic",
        ),
        ("UPDATE experiments SET name = 'eth'", "never change"),
        ("UPDATE experiments SET salt = sha256('x')", "never change"),
        ("UPDATE experiments SET capital = capital + 1", "never change"),
        ("UPDATE experiments SET epoch = epoch - 1", "never falls"),
        ("DELETE FROM experiments", "experiments is append-only"),
    ],
)
def test_database_refuses_what_no_service_does(
    engine: Engine, statement: str, message: str
) -> None:
    open_btc(engine)
    register(engine, "other", "bbbbbbbb")
    with engine.connect() as connection:
        ids = dict(connection.execute(text("SELECT sha, id FROM policies")).all())
    given = statement.format(prod=ids["aaaaaaaa"], new=ids["eee02a74"], other=ids["bbbbbbbb"])
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        connection.execute(text(given))


@pytest.mark.parametrize(
    ("start", "target"),
    [
        ("halted", "throttled"),
        ("retired", "active"),
        ("retired", "halted"),
        ("retired", "throttled"),
    ],
)
def test_database_knows_the_lawful_ways_of_an_arm(engine: Engine, start: str, target: str) -> None:
    open_btc(engine)
    verbs = {"throttled": ArmVerb.THROTTLE, "halted": ArmVerb.HALT, "retired": ArmVerb.RETIRE}
    change(engine, verbs[start])
    statement = text(f"UPDATE arms SET status = '{target}' WHERE status = '{start}'")
    refused = pytest.raises(IntegrityError, match=f"cannot go from {start} to {target}")
    with refused, engine.begin() as connection:
        connection.execute(statement)
