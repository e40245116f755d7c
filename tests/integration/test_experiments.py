"""Experiments open and arms join, each in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    SALT,
    arms,
    change,
    count,
    join,
    open_btc,
    register,
    sizes,
    together,
    traffic,
)
from sqlalchemy import Engine, text

from bandit.core.account import LossLimits
from bandit.core.errors import (
    Conflict,
    InvalidAllocation,
    InvalidInput,
    UnknownName,
)
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import (
    ArmMode,
    DecisionKind,
    Experiment,
    PolicyName,
    Profile,
)
from bandit.core.reading import ChecklistRule, RampRule, Rules
from bandit.service import experiments, reporting

NEW = PolicyName(CHALLENGER)
PROD = PolicyName("prod")


def test_experiment_opens_with_its_starting_allocation(engine: Engine) -> None:
    record = open_btc(engine)
    assert traffic(engine) == {PROD: 900_000, NEW: 100_000}
    assert (record.epoch, record.salt, record.opened_at) == (1, SALT, NOON)
    assert [arm.status_reason for arm in record.arms] == ["opened with the experiment"] * 2
    [decision] = reporting.decision_history(engine, "btc")
    assert (decision.kind, decision.version) == (DecisionKind.ENTER, 1)
    assert decision.trading_day is None
    assert decision.inputs == {"before": {PROD: 0, NEW: 0}}
    [(allocation, created_at)] = reporting.allocation_history(engine, "btc")
    assert (allocation.version, allocation.champion, created_at) == (1, PROD, NOON)
    assert experiments.listed(engine) == ["btc"]
    assert experiments.of_policy(engine, "eee02a7") == (NEW, ["btc"])


def test_rules_come_back_as_they_were_given(engine: Engine) -> None:
    rules = Rules(
        ramp=RampRule(min_trades=7, step_down=2.0),
        checklist=ChecklistRule(window=5, long_window=20, pf_band=(1.5, 2.5)),
    )
    limits = Limits(step_up=1.25, start_ppm=50_000)
    record = open_btc(engine, rules=rules, limits=limits, profile=Profile.SEED_EXACT)
    assert (record.rules, record.limits) == (rules, limits)
    assert record.experiment.profile is Profile.SEED_EXACT
    assert record.experiment.capital == Decimal(10_000)


def test_parameters_enter_the_history_when_the_experiment_opens(engine: Engine) -> None:
    open_btc(engine)
    statement = text("SELECT old_value, new_value FROM parameter_history WHERE parameter = :name")
    with engine.connect() as connection:
        assert connection.execute(statement, {"name": "step_up"}).one() == (None, 1.5)
        assert connection.execute(statement, {"name": "profile"}).one() == (None, "guarded")
        assert connection.execute(statement, {"name": "min_trades"}).one() == (None, 30)


@pytest.mark.parametrize(("number", "share"), [(0, 0), (6, 100_000), (7, 85_714), (16, 37_500)])
def test_challengers_share_what_the_limits_leave(engine: Engine, number: int, share: int) -> None:
    open_btc(engine, challengers=arms(number))
    expected = {name: share for name, _ in arms(number)}
    assert traffic(engine) == {PROD: 1_000_000 - number * share, **expected}


def open_with(engine: Engine, **values: object) -> bool:
    experiment = Experiment(
        name="btc",
        champion=PROD,
        capital=Decimal(10_000),
        currency="USD",
        equity_fraction=0.1,
    )
    given: dict[str, object] = {
        "challengers": [NEW],
        "salt": SALT,
        "limits": Limits(),
        "loss_limits": LossLimits(),
        "rules": Rules(),
        "now": NOON,
        "actor": "test",
    }
    fields = {key: values.pop(key) for key in list(values) if key in Experiment.__slots__}
    opened = replace(experiment, **fields)
    return experiments.open_experiment(engine, opened, **(given | values))[1]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"challengers": [f"arm-{i}" for i in range(17)]}, InvalidInput),
        ({"challengers": [NEW, NEW]}, InvalidInput),
        ({"challengers": [PROD]}, InvalidInput),
        ({"challengers": ["nobody"]}, UnknownName),
        ({"champion": "nobody"}, UnknownName),
        ({"salt": b"short"}, InvalidInput),
        ({"now": NOON.replace(tzinfo=None)}, InvalidInput),
        ({"actor": " "}, InvalidInput),
        ({"limits": Limits(arm_minimum_ppm=10**5, champion_floor_ppm=950_000)}, InvalidAllocation),
    ],
)
def test_unlawful_opening_leaves_nothing(
    engine: Engine, values: dict[str, object], error: type[Exception]
) -> None:
    register(engine, PROD, "aaaaaaaa")
    register(engine, NEW, "eee02a74")
    before = sizes(engine)
    with pytest.raises(error):
        open_with(engine, **values)
    assert sizes(engine) == before


def test_opening_again_with_the_same_body_changes_nothing(engine: Engine) -> None:
    open_btc(engine)
    change(engine, ArmVerb.HALT)
    join(engine, register(engine, "later", "bbbbbbbb"))
    before = sizes(engine)
    # The opening's salt stands, and so do arms that joined and changed since.
    assert not open_with(engine, salt=bytes(32), capital=Decimal("10000.00"))
    assert sizes(engine) == before
    assert experiments.load(engine, "btc").salt == SALT


@pytest.mark.parametrize(
    "other",
    [
        {"capital": Decimal(10_001)},
        {"currency": "EUR"},
        {"equity_fraction": 0.2},
        {"profile": Profile.SEED_EXACT},
        {"limits": Limits(step_up=1.4)},
        {"rules": Rules(ramp=RampRule(min_trades=31))},
        {"challengers": []},
        {"challengers": [NEW, "later"]},
        {"champion": "later"},
    ],
)
def test_opening_again_with_another_body_conflicts(
    engine: Engine, other: dict[str, object]
) -> None:
    open_btc(engine)
    join(engine, register(engine, "later", "bbbbbbbb"))
    before = sizes(engine)
    with pytest.raises(Conflict, match="'btc' is open already with other values"):
        open_with(engine, **other)
    assert sizes(engine) == before


def test_two_at_once_open_one_experiment(engine: Engine) -> None:
    register(engine, PROD, "aaaaaaaa")
    register(engine, NEW, "eee02a74")
    calls: list[Callable[[], bool]] = [lambda: open_with(engine)] * 2
    assert sorted(together(*calls)) == [False, True]
    assert count(engine, "allocations") == 1


def test_live_arm_joins_at_ten_percent(engine: Engine) -> None:
    open_btc(engine)
    register(engine, "later", "bbbbbbbb")
    assert join(engine, "bbbbb") == (100_000, True)
    assert traffic(engine) == {PROD: 800_000, NEW: 100_000, "later": 100_000}
    newest = reporting.decision_history(engine, "btc")[0]
    assert (newest.kind, newest.version) == (DecisionKind.ENTER, 2)
    assert newest.reason == "later joined in mode live"
    assert newest.inputs == {"before": {PROD: 900_000, NEW: 100_000, "later": 0}}
    assert experiments.load(engine, "btc").epoch == 2


def test_live_arm_joins_at_what_the_limits_leave(engine: Engine) -> None:
    # Six at a tenth would leave nothing; six at 95,000 leave 30,000.
    limits = Limits(start_ppm=95_000)
    open_btc(engine, challengers=arms(6), limits=limits)
    register(engine, "seventh", "bbbbbbbb")
    assert join(engine, "seventh") == (30_000, True)
    assert traffic(engine)[PROD] == 400_000


def test_live_arm_without_room_for_its_minimum_is_refused(engine: Engine) -> None:
    open_btc(engine, challengers=arms(6))
    register(engine, "seventh", "bbbbbbbb")
    before = sizes(engine)
    with pytest.raises(InvalidAllocation) as refused:
        join(engine, "seventh")
    assert refused.value.limit == "arm_minimum"
    assert sizes(engine) == before


@pytest.mark.parametrize("mode", [ArmMode.SHADOW, ArmMode.PAPER])
def test_scored_arm_joins_without_traffic_even_when_there_is_no_room(
    engine: Engine, mode: ArmMode
) -> None:
    open_btc(engine, challengers=arms(6))
    register(engine, "seventh", "bbbbbbbb")
    assert join(engine, "seventh", mode) == (0, True)
    assert count(engine, "allocations") == 2


def test_joining_again_changes_nothing_and_another_mode_conflicts(engine: Engine) -> None:
    open_btc(engine)
    before = sizes(engine)
    assert join(engine, NEW) == (100_000, False)
    with pytest.raises(Conflict, match="already, in mode live"):
        join(engine, NEW, ArmMode.SHADOW)
    assert join(engine, PROD) == (900_000, False)
    assert sizes(engine) == before


def test_seventeenth_live_and_sixty_fifth_arm_are_refused(engine: Engine) -> None:
    open_btc(engine, challengers=arms(16))
    for name, sha in [("live", "b" * 8), *((f"shadow-{i}", f"c{i:07}") for i in range(49))]:
        register(engine, name, sha)
    with pytest.raises(InvalidAllocation, match="at most 16 live challengers"):
        join(engine, "live")
    for i in range(48):
        join(engine, f"shadow-{i}", ArmMode.SHADOW)
    with pytest.raises(InvalidAllocation, match="64 with shadow arms"):
        join(engine, "shadow-48", ArmMode.SHADOW)
    assert count(engine, "arms") == 65


@pytest.mark.parametrize(
    ("name", "policy", "known"), [("eth", NEW, "known: btc"), ("btc", "nobody", "known: prod")]
)
def test_joining_the_unknown_is_refused(engine: Engine, name: str, policy: str, known: str) -> None:
    open_btc(engine)
    with pytest.raises(UnknownName, match=known):
        experiments.add_arm(
            engine,
            name=name,
            policy=PolicyName(policy),
            mode=ArmMode.LIVE,
            now=NOON,
            actor="test",
        )
