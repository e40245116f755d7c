"""The policies of the paper market, as the replay asks them: simple rules, and a learned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from learners.market.candles import Candles
from learners.market.paper_market import Proposal
from liveops.connectors.rules import CHALLENGERS, CHAMPION, Rule, proposals

if TYPE_CHECKING:
    from learners.opportunities import OpportunityTaker


class Wish(NamedTuple):
    """What an arm does with an opportunity.

    `share` of the nominal size; at the close of the bar `left_at` it decides to leave, or leaves
    the end to the proposal's bracket.
    """

    proposal: Proposal
    share: Decimal
    left_at: int | None


class ReplayArm(Protocol):
    """A policy that takes part in a replay."""

    @property
    def policy(self) -> Policy:
        """Return what is registered of it."""

    def wish(self, bar: int, *, size_multiplier: float, confidence_bump: float) -> Wish | None:
        """Return what it does with the opportunity at the close of a bar; None: nothing.

        The multiplier and the bump are the guards' share of that opportunity.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleArm:
    """A rule, with what it proposes at every bar."""

    rule: Rule
    book: Sequence[Proposal | None]

    @property
    def policy(self) -> Policy:
        """Return what is registered of it."""
        return Policy(
            name=PolicyName(self.rule.name),
            kind=PolicyKind.EXTERNAL,
            sha=PolicySha(self.rule.sha),
            metadata={"description": self.rule.description, "spec": self.rule.spec},
        )

    def wish(self, bar: int, *, size_multiplier: float, confidence_bump: float) -> Wish | None:  # noqa: ARG002 - a rule is sure
        """Return what the rule proposes, at the size that the guards leave."""
        proposal = self.book[bar]
        if proposal is None:
            return None
        share = Decimal(str(size_multiplier))
        return Wish(proposal=proposal, share=share, left_at=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedArm:
    """A trained policy, asked bar by bar through the runtime that serves it."""

    policy: Policy
    taker: OpportunityTaker

    def wish(self, bar: int, *, size_multiplier: float, confidence_bump: float) -> Wish | None:
        """Return what the policy does, behind the regime filter and the guards."""
        found = self.taker.intention(
            bar, size_multiplier=size_multiplier, confidence_bump=confidence_bump
        )
        if found is None:
            return None
        share = Decimal(str(found.share))
        return Wish(proposal=found.proposal, share=share, left_at=found.left_at)


def rule_arms(candles: Candles) -> tuple[RuleArm, ...]:
    """Return the rules of the paper market, the champion first."""
    return tuple(
        RuleArm(rule=rule, book=proposals(rule, candles)) for rule in (CHAMPION, *CHALLENGERS)
    )
