"""The whole ledger beside a model of dictionaries: any order of calls, over two replicas.

The model below says what each call answers and what is remembered; where it and the ledger
disagree, hypothesis shrinks the story to its shortest form. Returns are so small that no guard ever
speaks: guards have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger import NOON, arms, open_btc, register
from ledger_model import (
    CHAMPION,
    HOLD_OUT,
    LEAST,
    OPEN_MAX,
    RESULTS,
    START,
    TARGETS,
    UNITS,
    WINDOW,
    Model,
    Unit,
    outcome_of,
)
from postgres_server import PostgresServer
from sqlalchemy import text

from bandit.core.errors import (
    BanditError,
    Conflict,
    InvalidTransition,
    Killed,
    UnknownName,
)
from bandit.core.kill_switch import KillCause
from bandit.core.ladder import LadderRule
from bandit.core.lifecycle import ArmVerb
from bandit.core.marks import Mark
from bandit.core.model import ArmMode, PolicyName, UnitId
from bandit.core.outcomes import Outcome
from bandit.core.reading import Rules
from bandit.core.sizing import SizingRule
from bandit.service import (
    auditing,
    experiments,
    killing,
    marking,
    promoting,
    rebuilding,
    recording,
    revising,
    scaling,
)
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect


class LedgerMachine(RuleBasedStateMachine):
    """Two replicas on one ledger, each with its own connections and memory."""

    server: PostgresServer

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        url = self.stack.enter_context(self.server.database())
        self.engines = [connect(url, pool_size=2) for _ in range(2)]
        self.routers = [Router(engine) for engine in self.engines]
        self.now = NOON
        self.model = Model()

    @initialize()
    def opens(self) -> None:
        hours = int(WINDOW / timedelta(hours=1))
        rules = Rules(
            ladder=LadderRule(attribution_hours=hours),
            sizing=SizingRule(max_open_positions=OPEN_MAX),
        )
        open_btc(self.engines[0], challengers=arms(2), equity_fraction=0.01, rules=rules)
        register(self.engines[0], "later", "bbbbbbbb")
        names = [name for name, _ in arms(2)]
        self.model.status = dict.fromkeys([CHAMPION, *names], "active")
        self.model.ppm = {CHAMPION: 800_000, names[0]: START, names[1]: START}
        # Something to claim, tell and revise from the first step on.
        self.assigns(replica=0, units=UNITS[:20])
        self.tells(replica=1, picks=[(i, RESULTS[i % 4], 1 + i % 3) for i in range(10)])

    def expect(self, wanted: object, call: Callable[[], object]) -> object:
        """Make the call; `wanted` is the error it should end with, or anything else."""
        got: object
        try:
            got = call()
        except BanditError as error:
            got = error
        expected = wanted if isinstance(wanted, type) else None
        failed = type(got) if isinstance(got, BanditError) else None
        assert failed is expected, f"{got!r} where {wanted!r} was expected"
        return got

    @rule(seconds=st.sampled_from([1, 2, 3, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(replica=st.integers(0, 1), units=st.lists(st.sampled_from(UNITS), min_size=1, max_size=6))
    def assigns(self, replica: int, units: list[str]) -> None:
        asked = [Opportunity(unit_id=UnitId(u), instrument="BTCUSD") for u in units]
        wanted = Killed if self.model.killed else None
        got = self.expect(wanted, lambda: self.routers[replica].assign("btc", asked, now=self.now))
        if wanted is not None:
            return
        assert isinstance(got, list)
        for unit, made in zip(units, got, strict=True):
            known = self.model.units.get(unit)
            if known is not None:
                assert made == known.made
                continue
            part = self.model.ppm[made.policy]
            assert self.model.status[made.policy] == "active"
            assert (made.propensity, made.epoch) == (part / 1_000_000, self.model.epoch)
            assert part > 0
            assert made.decided_at == self.now
            self.model.units[unit] = Unit(made)

    @precondition(lambda self: self.model.units)
    @rule(replica=st.integers(0, 1), data=st.data())
    def claims(self, replica: int, data: st.DataObject) -> None:
        unit = self.model.units[data.draw(st.sampled_from(sorted(self.model.units)))]
        wanted = self.model.claim(unit, self.now)
        got = self.expect(wanted, lambda: self.routers[replica].claim(unit.made.id, now=self.now))
        if isinstance(wanted, datetime):
            assert got == wanted
            unit.claimed_at = wanted

    @precondition(lambda self: self.model.units)
    @rule(replica=st.integers(0, 1), index=st.integers(0, 99), late=st.booleans())
    def marks(self, replica: int, index: int, late: bool) -> None:
        known = sorted(self.model.units)
        unit = self.model.units[known[index % len(known)]]
        at = self.now - timedelta(seconds=1) if late else self.now
        mark = Mark(assignment_id=unit.made.id, unrealised_pnl=Decimal(0), marked_at=at)
        [answer] = marking.mark(self.engines[replica], [mark], now=self.now)
        if unit.told is not None:
            assert isinstance(answer, Conflict), answer
        elif not isinstance(answer, BanditError):
            unit.marked_at = max(unit.marked_at or at, at)

    @precondition(lambda self: self.model.units)
    @rule(
        replica=st.integers(0, 1),
        picks=st.lists(
            st.tuples(st.integers(0, 99), st.sampled_from([None, *RESULTS]), st.integers(1, 4)),
            min_size=1,
            max_size=5,
        ),
    )
    def tells(self, replica: int, picks: list[tuple[int, Decimal | None, int]]) -> None:
        known = sorted(self.model.units)
        batch = []
        for index, result, minutes in picks:
            unit = self.model.units[known[index % len(known)]]
            batch.append((unit, outcome_of(unit.made, result, minutes)))
        later = self.now + timedelta(hours=1)
        answers = recording.record(self.engines[replica], [o for _, o in batch], now=later)
        for (unit, outcome), answer in zip(batch, answers, strict=True):
            if unit.first is None:
                unit.first = unit.told = outcome
                assert isinstance(answer, Recorded), answer
                assert answer.created
            elif unit.first.body_hash() == outcome.body_hash():
                assert isinstance(answer, Recorded), answer
                assert not answer.created
            else:
                assert isinstance(answer, Conflict), answer

    @precondition(lambda self: self.model.units)
    @rule(
        replica=st.integers(0, 1),
        index=st.integers(0, 99),
        result=st.sampled_from([None, *RESULTS]),
        minutes=st.integers(1, 4),
    )
    def revises(self, replica: int, index: int, result: Decimal | None, minutes: int) -> None:
        known = sorted(self.model.units)
        unit = self.model.units[known[index % len(known)]]
        outcome = outcome_of(unit.made, result, minutes)
        got = self.expect(
            UnknownName if unit.told is None else None,
            lambda: revising.revise(
                self.engines[replica],
                outcome,
                reason="drill",
                now=self.now + timedelta(hours=1),
                actor="test",
            ),
        )
        if unit.told is None:
            return
        is_new = outcome.body_hash() != unit.told.body_hash()
        unit.told, unit.revisions = outcome, unit.revisions + is_new
        assert isinstance(got, revising.Revised)
        assert (got.created, got.revision) == (is_new, unit.revisions)

    @rule(replica=st.integers(0, 1), data=st.data(), verb=st.sampled_from(list(ArmVerb)))
    def changes(self, replica: int, data: st.DataObject, verb: ArmVerb) -> None:
        policy = data.draw(st.sampled_from(sorted(self.model.status)))
        target, sources = TARGETS[verb]
        status = self.model.status[policy]
        wanted: object = None
        if policy == self.model.champion or status not in sources:
            wanted = InvalidTransition
        elif verb is ArmVerb.RESUME and status != target and self.model.killed:
            wanted = Killed
        self.expect(
            wanted,
            lambda: experiments.change_arm(
                self.engines[replica],
                name="btc",
                policy=PolicyName(policy),
                verb=verb,
                reason="drill",
                now=self.now,
                actor="test",
            ),
        )
        if wanted is None and status != target:
            self.model.status[policy] = target
            self.model.change(policy, LEAST if verb is ArmVerb.RESUME else 0)

    @rule(replica=st.integers(0, 1), data=st.data())
    def promotes(self, replica: int, data: st.DataObject) -> None:
        policy = data.draw(st.sampled_from(sorted(self.model.status)))
        again = policy == self.model.champion and self.model.crowned_by == "PROMOTE"
        wanted: object = None
        if not again:
            if policy == self.model.champion or self.model.status[policy] != "active":
                wanted = InvalidTransition
            elif self.model.killed:
                wanted = Killed
        got = self.expect(
            wanted,
            lambda: promoting.promote(
                self.engines[replica],
                name="btc",
                policy=PolicyName(policy),
                reason="drill",
                now=self.now,
                actor="test",
            ),
        )
        if wanted is None:
            assert isinstance(got, tuple)
            assert got[1] is not again
        if wanted is None and not again:
            self.model.crown(policy, kept=HOLD_OUT, by="PROMOTE")

    @rule(replica=st.integers(0, 1), data=st.data())
    def rolls_back(self, replica: int, data: st.DataObject) -> None:
        named = data.draw(st.sampled_from([None, None, *sorted(self.model.status)]))
        wanted = self.model.returning(named)
        self.expect(
            wanted,
            lambda: promoting.roll_back(
                self.engines[replica],
                name="btc",
                to=None if named is None else PolicyName(named),
                reason="drill",
                now=self.now,
                actor="test",
            ),
        )
        if isinstance(wanted, str):
            self.model.status[self.model.champion] = "halted"
            self.model.status[wanted] = "active"
            self.model.crown(wanted, kept=0, by="ROLL_BACK")

    @rule(replica=st.integers(0, 1))
    def joins(self, replica: int) -> None:
        is_there = "later" in self.model.status
        wanted = Killed if self.model.killed and not is_there else None
        self.expect(
            wanted,
            lambda: experiments.add_arm(
                self.engines[replica],
                name="btc",
                policy=PolicyName("later"),
                mode=ArmMode.LIVE,
                now=self.now,
                actor="test",
            ),
        )
        if wanted is None and not is_there:
            self.model.status["later"] = "active"
            self.model.change("later", START)

    @rule(replica=st.integers(0, 1), kill=st.sampled_from([True, False, False]))
    def kills_or_releases(self, replica: int, kill: bool) -> None:
        engine = self.engines[replica]
        if kill:
            killing.kill(
                engine, None, cause=KillCause.HAND, reason="drill", now=self.now, actor="test"
            )
        else:
            killing.release(engine, None, reason="over", now=self.now, actor="test")
        self.model.killed = kill

    @rule(replica=st.integers(0, 1))
    def scales(self, replica: int) -> None:
        night = scaling.scale(self.engines[replica], "btc", now=self.now, actor="test")
        assert night.already_done == (self.now.date() in self.model.nights)
        assert night.actions == ()
        self.model.nights.add(self.now.date())

    @invariant()
    def traffic_is_what_the_model_says(self) -> None:
        record = experiments.load(self.engines[0], "btc")
        found = {arm.place.policy: arm.place for arm in record.arms}
        assert {name: place.status for name, place in found.items()} == self.model.status
        assert {name: int(place.ppm) for name, place in found.items()} == self.model.ppm
        assert (record.epoch, record.is_killed) == (self.model.epoch, self.model.killed)
        assert record.experiment.champion == self.model.champion

    @invariant()
    def money_and_counts_are_what_was_told(self) -> None:
        told: dict[str, list[Outcome]] = {name: [] for name in self.model.status}
        for unit in self.model.units.values():
            if unit.told is not None:
                told[unit.made.policy].append(unit.told)
        statement = text(
            "SELECT p.name, s.n_outcomes, s.n_trades, s.gross_profit - s.gross_loss, s.fees"
            " FROM arm_statistics s JOIN arms a ON a.id = s.arm_id"
            " JOIN policies p ON p.id = a.policy_id"
        )
        with self.engines[1].connect() as connection:
            found = {row[0]: tuple(row[1:]) for row in connection.execute(statement)}
            equity = connection.execute(
                text("SELECT realised_pnl FROM account_equity")
            ).scalar_one()
        assert found == {
            name: (
                len(outcomes),
                sum(not o.no_trade for o in outcomes),
                sum((o.pnl for o in outcomes), Decimal(0)),
                sum((o.fees or Decimal(0) for o in outcomes), Decimal(0)),
            )
            for name, outcomes in told.items()
        }
        assert equity == sum((o.pnl for os in told.values() for o in os), Decimal(0))

    @invariant()
    def open_positions_are_those_that_were_claimed_and_have_no_outcome(self) -> None:
        counted = "SELECT count(*) FROM positions_open((SELECT id FROM accounts), :now)"
        same = (
            "SELECT NOT EXISTS (SELECT * FROM open_positions EXCEPT SELECT * FROM"
            " claimed_positions) AND NOT EXISTS (SELECT * FROM claimed_positions"
            " EXCEPT SELECT * FROM open_positions)"
        )
        with self.engines[1].connect() as connection:
            found = connection.execute(text(counted), {"now": self.now}).scalar_one()
            assert connection.execute(text(same)).scalar_one()
        assert found == len(self.model.open(self.now))

    def teardown(self) -> None:
        try:
            auditing.seal(self.engines[0], now=self.now)
            findings = auditing.verify(self.engines[0], []).findings
            assert [f for f in findings if f.kind != "unanchored"] == []
            assert rebuilding.compare(self.engines[0], now=self.now).mismatches == ()
        finally:
            for engine in self.engines:
                engine.dispose()
            self.stack.close()


def test_any_story_over_two_replicas_goes_as_the_model_says(
    postgres_server: PostgresServer,
) -> None:
    LedgerMachine.server = postgres_server
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
