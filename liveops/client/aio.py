"""The client for bots on asyncio."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Self, Unpack

from liveops.client import closing
from liveops.client.closing import CloseOrder, ClosingAll
from liveops.client.heartbeat import Heartbeat
from liveops.client.protocol import claim_fields
from liveops.client.values import (
    Acted,
    Assignment,
    AssignmentId,
    Kind,
    Options,
    Refusal,
    Side,
    amount,
    aware,
    features_told,
    fill_fields,
    history_told,
    holding_told,
    outcome_fields,
    paper_fields,
    ratio,
)

CLOSE_SECONDS: Final = 2.0
"""How long closing waits for what is spooled; the rest goes when the bot runs again."""


COMMAND_SECONDS: Final = 10.0
"""How long an emergency command is tried: unlike a decision, it is still good then."""


class AsyncClient:
    """Decisions and reports of one experiment, without blocking the event loop.

    Use it as `async with AsyncClient(…) as client`, from one event loop.
    """

    def __init__(
        self,
        url: str,
        experiment: str,
        *,
        spool_dir: str | os.PathLike[str],
        key: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Open the spool below `spool_dir`; nothing is sent before the client is entered."""
        # Here, not above: a bot that only reads our types loads no HTTP stack.
        from liveops.client.driver import Driver

        self._driver = Driver(url, experiment, spool_dir=spool_dir, key=key, **options)

    def __repr__(self) -> str:
        """Name service and experiment; never the key."""
        core = self._driver.core
        return f"{type(self).__name__}({core.url!r}, {core.experiment!r})"

    async def __aenter__(self) -> Self:
        """Start sending what is spooled, also by earlier runs of the bot."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Start sending what is spooled; the first call of any other method does so too."""
        self._driver.start()

    async def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send for at most `timeout` seconds what is spooled, and stop; the rest stays on disk."""
        await self._driver.close(timeout)

    async def assign(
        self,
        unit_id: str,
        instrument: str,
        *,
        context: object = None,
        proposed_actions: object = None,
        position: Assignment | None = None,
        deadline: float | None = None,
    ) -> Assignment:
        """Return which policy decides a unit; the same unit always gets the same policy.

        While the service is away, the champion decides for a bounded time. Raises `Killed`,
        `Paused`, `ServiceUnavailable` when nobody may decide, `Unwatched` where nothing new may
        open as the monitor is silent, and `RequestRefused`.
        """
        return await self._driver.assign(
            unit_id,
            instrument,
            context=context,
            proposed_actions=proposed_actions,
            position=position,
            deadline=deadline,
        )

    async def decide(
        self,
        unit_id: str,
        instrument: str,
        *,
        features: Mapping[str, Decimal | float],
        features_digest: str | None = None,
        history: Mapping[str, Sequence[float]] | None = None,
        held: Decimal | float = 0.0,
        unrealised_return: Decimal | float | None = None,
        holding_share: Decimal | float | None = None,
        context: object = None,
        proposed_actions: object = None,
        position: Assignment | None = None,
        deadline: float | None = None,
    ) -> Acted:
        """Return which policy decides a unit, and what that policy, stored with the service, does.

        `features` are its features by name, and `history` those of the bars before, the oldest
        first, which only policies with an encoder ask for. `held` is the position as a signed share
        of the nominal size; where it is not 0, `unrealised_return` and `holding_share` are due as
        well. The action is None where the service cannot decide, and while it is away. Raises as
        `assign`.
        """
        sight: dict[str, object] = {
            "features": features_told(features),
            **holding_told(held, unrealised_return, holding_share),
        }
        if features_digest is not None:
            sight["features_digest"] = features_digest
        if history is not None:
            sight["history"] = history_told(history)
        return await self._driver.decide(
            unit_id,
            instrument,
            context=context,
            proposed_actions=proposed_actions,
            position=position,
            sight=sight,
            deadline=deadline,
        )

    async def claim(
        self,
        assignment: Assignment,
        *,
        position_size: Decimal | float | None = None,
        leverage: Decimal | float | None = None,
        deadline: float | None = None,
    ) -> datetime:
        """Ask, just before the order, whether a decision still stands; return when it was claimed.

        `position_size` is what is about to be opened as a fraction of equity, `leverage` times its
        margin: told, they are held against the limits in `assignment.sizing`. Raises `Revoked`,
        `Expired`, `Killed`, `Paused`, `Unreconciled`, `Unwatched`, `PositionLimit` and `SizeLimit`,
        and `ServiceUnavailable` for a decision of a service that is away now.
        """
        told = claim_fields(position_size=position_size, leverage=leverage)
        return await self._driver.claim(assignment, told=told, deadline=deadline)

    async def outcome(
        self,
        assignment: Assignment | AssignmentId,
        *,
        pnl: Decimal,
        return_ratio: Decimal | float,
        opened_at: datetime,
        closed_at: datetime,
        fees: Decimal | None = None,
        slippage: Decimal | None = None,
        size: Decimal | None = None,
        r_multiple: Decimal | float | None = None,
        worst_excursion: Decimal | float | None = None,
    ) -> None:
        """Report what a decision earned; when this returns, the report is on disk."""
        fields = outcome_fields(
            pnl=pnl,
            return_ratio=return_ratio,
            opened_at=opened_at,
            closed_at=closed_at,
            amounts={"fees": fees, "slippage": slippage, "size": size},
            ratios={"r_multiple": r_multiple, "worst_excursion": worst_excursion},
        )
        await self._report(Kind.OUTCOME, assignment, fields)

    async def no_trade(self, assignment: Assignment | AssignmentId) -> None:
        """Report that the policy declined: evidence, but no trade."""
        await self._report(Kind.OUTCOME, assignment, {"no_trade": True})

    async def mark(
        self,
        assignment: Assignment | AssignmentId,
        *,
        unrealised_pnl: Decimal,
        marked_at: datetime,
    ) -> None:
        """Report what an open position would earn if it closed now."""
        fields = mark_fields(unrealised_pnl=unrealised_pnl, marked_at=marked_at)
        await self._report(Kind.MARK, assignment, fields)

    async def on_paper(
        self,
        assignment: Assignment | AssignmentId,
        policy: str,
        *,
        return_ratio: Decimal | float,
        opened_at: datetime,
        closed_at: datetime,
    ) -> None:
        """Report what a policy would have earned on a decision, whoever took it, net of costs.

        `policy` is a name, sha or unique sha prefix: a challenger's, or the champion's where
        another arm decided.
        """
        fields = paper_fields(
            policy,
            opened_at=opened_at,
            closed_at=closed_at,
            earned={"return": ratio(return_ratio, field="return")},
        )
        await self._report(Kind.PAPER, assignment, fields)

    async def on_paper_fill(
        self,
        assignment: Assignment | AssignmentId,
        policy: str,
        *,
        side: Side,
        entry_price: Decimal,
        exit_price: Decimal,
        size: Decimal,
        fee_bps: Decimal | float,
        slippage_bps: Decimal | float,
        opened_at: datetime,
        closed_at: datetime,
    ) -> None:
        """Report a trade that a policy would have made; the service works out what it earned."""
        earned = fill_fields(
            side=side,
            entry_price=entry_price,
            exit_price=exit_price,
            size=size,
            fee_bps=fee_bps,
            slippage_bps=slippage_bps,
        )
        fields = paper_fields(policy, opened_at=opened_at, closed_at=closed_at, earned=earned)
        await self._report(Kind.PAPER, assignment, fields)

    async def on_paper_no_trade(self, assignment: Assignment | AssignmentId, policy: str) -> None:
        """Report that a policy would have declined a decision."""
        await self._report(Kind.PAPER, assignment, {"policy": policy, "no_trade": True})

    async def close_orders(self, *, deadline: float | None = None) -> list[CloseOrder]:
        """Return what a person wants closed and has no outcome yet, oldest first.

        What was closed and reported is there until the report has arrived. Raises
        `ServiceUnavailable` while the service is away, and `RequestRefused`.
        """
        driver = self._driver
        request = closing.close_orders_request(driver.core.experiment)
        return closing.close_orders_of(await driver.asked(request, deadline=deadline))

    async def close_failed(
        self, order: CloseOrder, reason: str, *, deadline: float | None = None
    ) -> None:
        """Say why a position could not be closed; the order stands, and people see the reason.

        Raises as `close_orders`.
        """
        request = closing.close_failed_request(order, reason)
        await self._driver.asked(request, deadline=deadline)

    async def close_all_positions(
        self, reason: str, *, deadline: float = COMMAND_SECONDS
    ) -> ClosingAll:
        """Order every open position of the experiment to be closed; again changes nothing.

        It halts nothing. Needs a key with the scope `operate`. Raises as `close_orders`.
        """
        driver = self._driver
        request = closing.close_all_request(driver.core.experiment, reason)
        return closing.closing_all_of(await driver.commanded(request, deadline=deadline))

    async def halt_trading(self, reason: str, *, deadline: float = COMMAND_SECONDS) -> None:
        """Kill the experiment's account: once this returns, no decision follows, for any bot.

        Whatever becomes of the request, this client decides nothing alone from now on. Positions
        stay open. Needs a key with the scope `operate`. Raises as `close_orders`.
        """
        driver = self._driver
        request = closing.halt_request(driver.core.experiment, reason)
        await driver.on_disk(driver.core.halt)
        await driver.commanded(request, deadline=deadline)

    async def heartbeat(self, beat: Heartbeat) -> None:
        """Tell how the bot is, in the background: this neither waits for the service nor raises.

        The newest wins: one that waits is replaced, and none outlives a service that is away. What
        does not arrive is logged, once until it does.
        """
        self._driver.beat(beat)

    async def pending(self) -> int:
        """Return how many reports the service has not acknowledged."""
        return await self._driver.on_disk(self._driver.core.spool.pending)

    async def refused(self) -> list[Refusal]:
        """Return the reports that the service will never take, oldest first."""
        return await self._driver.on_disk(self._driver.core.spool.refused)

    async def forget(self, refusal: Refusal) -> None:
        """Drop a refused report that somebody has looked at."""
        await self._driver.on_disk(self._driver.core.spool.forget, refusal.id)

    async def flush(self, timeout: float) -> bool:
        """Send what is spooled; return whether all of it was acknowledged or refused in time."""
        return await self._driver.flush(timeout)

    async def _report(
        self, kind: Kind, assignment: Assignment | AssignmentId, fields: Mapping[str, object]
    ) -> None:
        driver = self._driver
        await driver.on_disk(driver.core.report, kind, id_of(assignment), fields)
        driver.wake()


def mark_fields(*, unrealised_pnl: Decimal, marked_at: datetime) -> dict[str, object]:
    """Return what the service is told of an open position."""
    return {
        "unrealised_pnl": amount(unrealised_pnl, field="unrealised_pnl"),
        "marked_at": aware(marked_at, field="marked_at").isoformat(),
    }


def id_of(assignment: Assignment | AssignmentId) -> AssignmentId:
    """Return the id by which a decision is reported; it is all a bot has to keep of it."""
    return assignment.id if isinstance(assignment, Assignment) else assignment
