"""Every order in which transactions of the use cases can run keeps what the ledger promises."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
from ledger import CHALLENGER, NIGHT, NOON, SALT, closed, open_btc
from schedules import Stage, every_schedule
from sqlalchemy import Engine, make_url, text

from bandit.core.account import LossLimits
from bandit.core.errors import BanditError, InvalidTransition, Killed, Revoked, StaleEpoch
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import Assignment, Experiment, PolicyName, UnitId
from bandit.core.outcomes import Outcome
from bandit.core.reading import Rules
from bandit.service import experiments, killing, promoting, recording, scaling
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage import locks
from benchmarks.operation_check import faults

LIMITS = Limits(arm_minimum_ppm=600_000, start_ppm=600_000, unproven_cap_ppm=600_000)
UNITS = [f"u-{i}" for i in range(6)]
Work = Callable[[Engine], object]


@dataclass(frozen=True, kw_only=True)
class Place:
    """An experiment of one schedule's own, with what was decided in it before."""

    name: str
    before: Sequence[Assignment]

    def works(self) -> dict[str, Work]:
        """What a session may do here; each says what the ledger had when it was told of success."""
        early = [closed(made, "0.001") for made in self.before[:2]]
        late = [closed(made, "-0.002", minutes=30) for made in self.before[2:4]]
        return {
            "assign": lambda engine: self._assign(engine, UNITS),
            "assign_too": lambda engine: self._assign(engine, UNITS[3:]),
            "claim": lambda engine: Router(engine).claim(self.before[0].id, now=NOON),
            "outcome": lambda engine: self._record(engine, early),
            "outcome_too": lambda engine: self._record(engine, late),
            "scale": lambda engine: scaling.scale(engine, self.name, now=NIGHT, actor="test"),
            "halt": self._halt,
            "promote": self._promote,
            "kill": self._kill,
        }

    def _assign(self, engine: Engine, units: Sequence[str]) -> list[Assignment]:
        asked = [Opportunity(unit_id=UnitId(unit), instrument="BTCUSD") for unit in units]
        return Router(engine).assign(self.name, asked, now=NOON)

    def _record(self, engine: Engine, batch: Sequence[Outcome]) -> None:
        for answer in recording.record(engine, batch, now=NOON + timedelta(hours=2)):
            assert isinstance(answer, recording.Recorded), answer

    def _halt(self, engine: Engine) -> str:
        experiments.change_arm(
            engine,
            name=self.name,
            policy=PolicyName(CHALLENGER),
            verb=ArmVerb.HALT,
            reason="drill",
            now=NOON,
            actor="test",
        )
        return committed(engine)

    def _promote(self, engine: Engine) -> str:
        promoting.promote(
            engine,
            name=self.name,
            policy=PolicyName(CHALLENGER),
            reason="drill",
            now=NOON,
            actor="test",
        )
        return committed(engine)

    def _kill(self, engine: Engine) -> str:
        killing.kill(
            engine, [self.name], cause=KillCause.HAND, reason="drill", now=NOON, actor="test"
        )
        return committed(engine)


def committed(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one())


class Arena:
    """Opens a place for each schedule, runs it, and says what is not as it was promised."""

    def __init__(self, engine: Engine, url: str) -> None:
        open_btc(engine, limits=LIMITS)
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.ledger = psycopg.connect(plain, autocommit=True)
        self.stage = Stage(url, plain)
        self._engine, self._numbers = engine, itertools.count()

    def close(self) -> None:
        self.stage.close()
        self.ledger.close()

    def place(self) -> Place:
        name = f"x{next(self._numbers)}"
        experiment = Experiment(
            name=name,
            champion=PolicyName("prod"),
            capital=Decimal(10_000),
            currency="USD",
            equity_fraction=0.1,
            account=name,
        )
        experiments.open_experiment(
            self._engine,
            experiment,
            challengers=[PolicyName(CHALLENGER)],
            salt=SALT,
            limits=LIMITS,
            loss_limits=LossLimits(),
            rules=Rules(),
            now=NOON,
            actor="test",
        )
        units = [Opportunity(unit_id=UnitId(f"b-{i}"), instrument="BTCUSD") for i in range(40)]
        made = Router(self._engine).assign(name, units, now=NOON)
        return Place(name=name, before=[m for m in made if m.policy == CHALLENGER])

    def broken(self, names: Sequence[str], choose: Callable[[Sequence[str]], str]) -> list[str]:
        """Run one schedule; say what it broke."""
        place = self.place()
        works = place.works()
        answers = self.stage.run({name: works[name] for name in names}, choose)
        return [
            *refusals(answers),
            *(self._leaks(place, answers)),
            *(row[0] for row in self.ledger.execute(BROKEN, {"name": place.name})),
        ]

    def _leaks(self, place: Place, answers: Mapping[str, object]) -> Iterator[str]:
        for name, policies in (("halt", [CHALLENGER]), ("kill", [CHALLENGER, "prod"])):
            seen = answers.get(name)
            if isinstance(seen, str):
                values = {"name": place.name, "policies": policies, "seen": seen}
                for (leak,) in self.ledger.execute(LEAKS, values):
                    yield f"{leak} committed after the {name} was acknowledged"
        seen = answers.get("promote")
        if isinstance(seen, str):
            for (leak,) in self.ledger.execute(VOID, {"name": place.name, "seen": seen}):
                yield f"{leak} committed under the champion before, after the promotion"


def refusals(answers: Mapping[str, object]) -> Iterator[str]:
    """What a session may be refused because of the others, and nothing else, deadlocks least."""
    lawful: dict[str, tuple[type[BanditError], ...]] = {
        "scale": (StaleEpoch,),
        "assign": (Killed,),
        "assign_too": (Killed,),
        "claim": (Killed, Revoked),
        # Whichever comes first: a champion is not halted, a halted arm is not promoted.
        "halt": (InvalidTransition,) if "promote" in answers else (),
        "promote": (Killed, InvalidTransition) if "halt" in answers else (Killed,),
    }
    for name, answer in answers.items():
        if isinstance(answer, BaseException) and not isinstance(answer, lawful.get(name, ())):
            yield f"{name} failed: {answer!r}"


LEAKS = """
WITH mine AS (
  SELECT s.id, s.unit_id, s.xmin::text::xid8 AS xid FROM assignments s
  JOIN experiments e ON e.id = s.experiment_id AND e.name = %(name)s
  JOIN arms a ON a.id = s.arm_id
  JOIN policies p ON p.id = a.policy_id AND p.name = ANY (%(policies)s))
SELECT 'assignment ' || unit_id FROM mine WHERE NOT pg_visible_in_snapshot(xid, %(seen)s)
UNION ALL
SELECT 'claim of ' || unit_id FROM mine JOIN claims c ON c.assignment_id = mine.id
WHERE NOT pg_visible_in_snapshot(c.xmin::text::xid8, %(seen)s)
"""

# What was decided under the champion before is void once the promotion was acknowledged.
VOID = """
WITH old AS (
  SELECT s.id, s.unit_id, s.xmin::text::xid8 AS xid FROM assignments s
  JOIN experiments e ON e.id = s.experiment_id AND e.name = %(name)s
  WHERE s.epoch < e.champion_epoch)
SELECT 'assignment ' || unit_id FROM old WHERE NOT pg_visible_in_snapshot(xid, %(seen)s)
UNION ALL
SELECT 'claim of ' || unit_id FROM old JOIN claims c ON c.assignment_id = old.id
WHERE NOT pg_visible_in_snapshot(c.xmin::text::xid8, %(seen)s)
"""

BROKEN = """
WITH e AS (SELECT * FROM experiments WHERE name = %(name)s),
newest AS (SELECT v.* FROM allocations v JOIN e ON v.experiment_id = e.id
           ORDER BY version DESC LIMIT 1)
SELECT 'weights do not sum to one' FROM newest WHERE (SELECT sum(p) FROM unnest(ppm) p) <> 1000000
UNION ALL
SELECT 'an arm does not have its weight' FROM newest, arms a
WHERE a.experiment_id = newest.experiment_id
  AND round(a.traffic_allocation * 1000000) <> newest.ppm[array_position(policy_ids, a.policy_id)]
UNION ALL
SELECT 'the epoch is not that of the newest version' FROM newest, e WHERE e.epoch <> newest.epoch
UNION ALL
SELECT 'the champion is not that of the newest version' FROM newest, e
WHERE e.champion_id <> newest.policy_ids[champion_index]
UNION ALL
SELECT 'a role is not that of its version' FROM assignments s
JOIN e ON s.experiment_id = e.id JOIN arms a ON a.id = s.arm_id
JOIN allocations v ON v.experiment_id = e.id AND v.version = s.allocation_version
WHERE (s.role = 'champion') <> (v.policy_ids[v.champion_index] = a.policy_id)
UNION ALL
SELECT 'scaled twice in a night' FROM decisions d JOIN e ON d.experiment_id = e.id
WHERE d.trading_day IS NOT NULL GROUP BY d.trading_day HAVING count(*) > 1
UNION ALL
SELECT 'a propensity is not that of its version' FROM assignments s
JOIN e ON s.experiment_id = e.id JOIN arms a ON a.id = s.arm_id
JOIN allocations v ON v.experiment_id = e.id AND v.version = s.allocation_version
WHERE round(s.propensity * 1000000) <> v.ppm[array_position(v.policy_ids, a.policy_id)]
UNION ALL
SELECT 'statistics are not those of the outcomes' FROM arms a JOIN e ON a.experiment_id = e.id
JOIN arm_statistics s ON s.arm_id = a.id
CROSS JOIN LATERAL (
  SELECT count(*) AS n, coalesce(sum(greatest(pnl, 0)), 0) AS gain,
         coalesce(-sum(least(pnl, 0)), 0) AS loss
  FROM outcomes o WHERE o.arm_id = a.id) o
WHERE (s.n_outcomes, s.gross_profit, s.gross_loss) <> (o.n, o.gain, o.loss)
"""


@pytest.fixture
def arena(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    # Schedules are to depend on locks alone, and not on how long a busy machine holds one up.
    monkeypatch.setattr(locks, "BLOCKED_MILLISECONDS", 60_000)
    monkeypatch.setattr(locks, "BATCH_IDLE_SECONDS_MAX", 60)
    monkeypatch.setattr(locks, "_CHANGE_IDLE_SECONDS_MAX", 60)
    made = Arena(engine, database_url)
    yield made
    made.close()


def enumerated(arena: Arena, names: Sequence[str]) -> tuple[int, dict[str, Sequence[str]]]:
    """Run every schedule; how many there were, and one that broke each thing that broke."""
    broken: dict[str, Sequence[str]] = {}
    found: list[str] = []

    def run(choose: Callable[[Sequence[str]], str]) -> None:
        found[:] = arena.broken(names, choose)

    count = 0
    for steps in every_schedule(run):
        count += 1
        for what in found:
            broken.setdefault(what, steps)
    return count, broken


PAIRS = [
    ("assign", "halt"),
    ("assign", "scale"),
    ("assign", "kill"),
    ("assign", "assign_too"),
    ("claim", "halt"),
    ("claim", "kill"),
    ("halt", "kill"),
    ("halt", "scale"),
    ("halt", "outcome"),
    ("outcome", "outcome_too"),
    ("scale", "outcome"),
    ("assign", "promote"),
    ("claim", "promote"),
    ("halt", "promote"),
    ("kill", "promote"),
    ("promote", "scale"),
    ("promote", "outcome"),
]
TRIPLES = [
    ("assign", "halt", "scale"),
    ("assign", "halt", "outcome"),
    ("assign", "kill", "claim"),
    ("assign", "assign_too", "halt"),
    ("halt", "scale", "outcome"),
    ("assign", "promote", "claim"),
    ("halt", "promote", "scale"),
]


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_every_order_of_two_keeps_the_promises(arena: Arena, names: Sequence[str]) -> None:
    count, broken = enumerated(arena, names)
    assert broken == {}
    # One after the other, the other way round, and at least as often in between.
    assert count >= 6
    assert faults([], arena.ledger) == []


@pytest.mark.slow
@pytest.mark.parametrize("names", TRIPLES, ids="-".join)
def test_every_order_of_three_keeps_the_promises(arena: Arena, names: Sequence[str]) -> None:
    count, broken = enumerated(arena, names)
    assert broken == {}
    assert count >= 90
    assert faults([], arena.ledger) == []


def at_random(
    arena: Arena, names: Sequence[str], rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Run one schedule drawn by lot; its steps, and what it broke."""
    steps: list[str] = []

    def choose(ready: Sequence[str]) -> str:
        steps.append(ready[int(rng.integers(len(ready)))])
        return steps[-1]

    return steps, arena.broken(names, choose)


@pytest.mark.parametrize("names", TRIPLES, ids="-".join)
def test_random_orders_of_three_keep_the_promises(arena: Arena, names: Sequence[str]) -> None:
    rng = np.random.default_rng(7)
    for _ in range(40):
        steps, broken = at_random(arena, names, rng)
        assert broken == [], steps
    assert faults([], arena.ledger) == []


def test_without_the_gate_an_assignment_follows_the_halt(arena: Arena) -> None:
    [(definition,)] = arena.ledger.execute(
        "SELECT pg_get_functiondef('commit_assignments'::regproc)"
    ).fetchall()
    lockless, times = re.subn(r"PERFORM pg_advisory_xact_lock_shared\(3[^;]*;", "", definition)
    assert times == 1
    arena.ledger.execute(lockless)
    _, broken = enumerated(arena, ("assign", "halt"))
    assert any("committed after the halt was acknowledged" in what for what in broken), broken


def test_without_the_epoch_a_claim_follows_the_promotion(arena: Arena) -> None:
    [(definition,)] = arena.ledger.execute("SELECT pg_get_viewdef('claim_verdicts')").fetchall()
    forgetful, times = re.subn(r"\(s\.epoch < e\.champion_epoch\) OR ", "", definition)
    assert times == 1
    arena.ledger.execute(f"CREATE OR REPLACE VIEW claim_verdicts AS {forgetful}")
    _, broken = enumerated(arena, ("claim", "promote"))
    assert any("under the champion before" in what for what in broken), broken


@pytest.mark.slow
def test_thousands_of_random_orders_statement_by_statement_keep_the_promises(arena: Arena) -> None:
    rng = np.random.default_rng(20260321)
    arena.stage.every_statement = True
    everyone = sorted(arena.place().works())
    for _ in range(3000):
        names = [str(name) for name in rng.choice(everyone, size=3, replace=False)]
        steps, broken = at_random(arena, names, rng)
        assert broken == [], steps
    assert faults([], arena.ledger) == []


def test_ledger_that_was_tampered_with_is_found_broken(arena: Arena) -> None:
    place = arena.place()
    values: dict[str, Any] = {"name": place.name}
    assert arena.ledger.execute(BROKEN, values).fetchall() == []
    arena.ledger.execute("SET session_replication_role TO replica")
    arena.ledger.execute(
        "UPDATE arm_statistics SET n_outcomes = n_outcomes + 1 WHERE arm_id IN (SELECT a.id"
        " FROM arms a JOIN experiments e ON e.id = a.experiment_id WHERE e.name = %(name)s)",
        values,
    )
    arena.ledger.execute("UPDATE experiments SET epoch = epoch + 1 WHERE name = %(name)s", values)
    found = {row[0] for row in arena.ledger.execute(BROKEN, values)}
    assert found == {
        "the epoch is not that of the newest version",
        "statistics are not those of the outcomes",
    }
