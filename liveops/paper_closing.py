"""Closes, in the demo, what a replay has left open and a person wants closed.

A replay that goes on does so by itself. Once it has ended, its positions stand where its candles
do: a service of the demo closes them at the last of these.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from typing import Final

from bandit.core.closing import CloseTarget
from bandit.core.errors import BanditError
from bandit.core.model import PolicyName
from bandit.service import closing, experiments, ledger, policies, recording
from learners.market.candles import Candles, shipped_candles
from learners.market.paper_market import PERPETUAL_TAKER
from liveops.background import repeated
from liveops.connectors.closing import CannotClose, PositionCloser
from liveops.connectors.paper_closer import PaperCloser
from liveops.replay_arms import ReplayArm, rule_arms
from liveops.replay_plan import COMPLETE, PREFIX
from liveops.wiring import App

TICK_SECONDS: Final = 1.0
ACTOR: Final = "paper_market"
log = logging.getLogger(__name__)


@contextmanager
def closing_on_paper(app: App, *known: Candles) -> Iterator[None]:
    """Look once a second while the context lasts; a service of another ledger has nothing to do.

    Candles are looked for in `known`, then in what comes with the product.
    """
    if not app.demo:
        yield
        return
    markets = PaperMarkets(app, known)
    trouble = "the paper market cannot close positions"
    with repeated("paper-closer", lambda _: markets.look(), seconds=TICK_SECONDS, trouble=trouble):
        yield


class PaperMarkets:
    """The paper markets of a demo, each found when the first position of it is to be closed."""

    def __init__(self, app: App, known: Sequence[Candles]) -> None:
        """Find nothing yet."""
        self._app = app
        self._known = known
        self._found: dict[str, PositionCloser] = {}

    def look(self) -> None:
        """Close what waits, and say of the rest why it is open still."""
        engine, clock = self._app.engine, self._app.clock
        for waiting in closing.waiting_by_experiment(engine):
            if not waiting.experiment.startswith(PREFIX):
                continue
            for target in closing.waiting(engine, waiting.experiment):
                try:
                    self._close(target)
                except CannotClose as error:
                    closing.failed(
                        engine,
                        target.order_id,
                        target.assignment_id,
                        reason=str(error),
                        now=clock.now(),
                        actor=ACTOR,
                    )

    def _close(self, target: CloseTarget) -> None:
        outcome = self._closer(target.experiment).close(target)
        now = self._app.clock.now()
        (answer,) = recording.record(self._app.engine, [outcome], now=now)
        if isinstance(answer, BanditError):
            raise CannotClose(str(answer)) from answer
        log.info("closed by order", extra={"unit": target.unit_id})

    @cached_property
    def _shipped(self) -> Candles:
        return shipped_candles()

    def _closer(self, experiment: str) -> PositionCloser:
        if experiment not in self._found:
            self._found[experiment] = self._market(experiment)
        return self._found[experiment]

    def _market(self, experiment: str) -> PositionCloser:
        candles = self._candles(experiment)
        rules: dict[PolicyName, ReplayArm] = {arm.policy.name: arm for arm in rule_arms(candles)}
        money = experiments.load(self._app.engine, experiment).experiment

        def arm_of(name: PolicyName) -> ReplayArm:
            if name not in rules:
                rules[name] = self._learned(name, candles)
            return rules[name]

        return PaperCloser(
            candles,
            arm_of=arm_of,
            # By way of text: 0.04 is exact there, and as a float it is not.
            notional=money.capital * Decimal(str(money.equity_fraction)),
            costs=PERPETUAL_TAKER,
        )

    def _candles(self, experiment: str) -> Candles:
        told = ledger.noted(self._app.engine, action=COMPLETE, subject=experiment)
        if told is None:
            raise CannotClose("its replay has not ended: `liveops run` goes on with it and closes")
        for candles in (*self._known, self._shipped):
            if candles.digest == told["candles"]:
                return candles
        raise CannotClose(
            f"its candles {told['candles'][:12]} are not here: "
            "`liveops run --candles FILE` serves with them"
        )

    def _learned(self, name: PolicyName, candles: Candles) -> ReplayArm:
        from liveops.demo_challenger import learned_arm

        policy = policies.find(self._app.engine, name).policy
        try:
            return learned_arm(self._app, policy, candles)
        except BanditError as error:
            raise CannotClose(f"{name} cannot be asked what it opened: {error}") from error
