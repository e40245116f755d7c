"""The route of bots that let the service decide: which arm, and what that arm's policy does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from bandit.core.acting import ActingRules, Action, Move
from bandit.core.errors import InvalidInput
from bandit.core.model import Assignment
from bandit.service.live_routing import LiveRouter
from learners.holding import Holding
from learners.sealed_files import ArtifactRefused
from liveops.api.answers import Answer, AssignmentAnswer, assignment_values
from liveops.api.bodies import (
    JSON,
    JSON_BYTES_MAX,
    NewAssignment,
    Ratio,
    read,
    read_bytes,
    require_type,
    schema_of,
)
from liveops.api.hot import QuickJson, encoded, opportunity_of
from liveops.api.parameters import ExperimentName
from liveops.api.problems import declared
from liveops.api.report_answers import ReasonAnswer
from liveops.api.strict_json import parse
from liveops.api.watching import WATCHED, watch_headers
from liveops.deciders import Deciders
from liveops.wiring import App, acting_rules_of

if TYPE_CHECKING:
    from learners.decider import Decider

hot = APIRouter(prefix="/v1", responses=declared(503))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a bot sees of the market, and what it holds of it."""

    features: Mapping[str, float]
    features_digest: str | None
    holding: Holding
    history: Mapping[str, tuple[float, ...]] | None = None


class NewAction(NewAssignment):
    """An opportunity that asks for its arm, and for what the arm's policy does of it."""

    features: dict[str, Ratio] = Field(
        description="Every feature of the policy by its name, not scaled."
    )
    features_digest: str | None = Field(
        default=None,
        description="What `features.digest` of the policy says, of how they were computed.",
        pattern="^[0-9a-f]{64}$",
    )
    history: dict[str, list[Ratio]] | None = Field(
        default=None,
        description="The same features of the bars before, the oldest first; for encoders.",
    )
    held: Ratio | None = Field(
        default=None, description="Position as a signed share of the nominal size; left out: none."
    )
    unrealised_return: Ratio | None = Field(
        default=None, description="Net, on the position's value at entry; told where one is held."
    )
    holding_share: Ratio | None = Field(
        default=None,
        description="Bars since entry over the longest holding; told where a position is held.",
    )

    def sight(self) -> Sight:
        """Return the checked sight; raises `InvalidInput` naming the field and the rule."""
        told = {"unrealised_return": self.unrealised_return, "holding_share": self.holding_share}
        if self.held:
            for name, value in told.items():
                if value is None:
                    rule = "is required where held is not 0"
                    raise InvalidInput(field=name, rule=rule, found="nothing")
        history = None
        if self.history is not None:
            history = {
                name: tuple(float(value) for value in column)
                for name, column in self.history.items()
            }
        return Sight(
            history=history,
            features={name: float(value) for name, value in self.features.items()},
            features_digest=self.features_digest,
            holding=Holding(
                held=float(self.held or Decimal(0)),
                **{name: float(value or Decimal(0)) for name, value in told.items()},
            ),
        )


class ActionAnswer(Answer):
    """What is done of what the policy wants, after regime filter, guards and sizing limits."""

    move: Move
    position: float = Field(description="Signed share of the nominal size to go to.", ge=-1, le=1)
    size: float = Field(description="How far that is from what is held.", ge=0, le=2)
    choice: str = Field(description="What the policy wanted, by the name of its action.")
    confidence: float = Field(description="How sure it was.", ge=0, le=1)
    reasons: list[ReasonAnswer] = Field(
        description="Every check of new exposure; empty where none was wanted."
    )


class ActedAnswer(AssignmentAnswer):
    """Which arm decides a unit, for ever, and what its policy does on the features sent."""

    action: ActionAnswer | None = Field(description="null: the bot decides by itself.")
    no_action_reason: str | None = Field(description="Why there is no action.")


@hot.post(
    "/experiments/{experiment}/decide",
    openapi_extra=schema_of(NewAction),
    response_model=ActedAnswer,
    responses=declared(400, 404, 409, 413, 415, 422, 423) | WATCHED,
)
async def decide(request: Request, experiment: ExperimentName) -> Response:
    """Choose the arm of a unit as `assignments` does, and let its stored policy decide.

    What is wrong with the features or a stored policy is said before anything is assigned. Again
    for the same unit gives the same assignment, and an action on the features sent this time.
    """
    require_type(request, JSON)
    asked = read(NewAction, parse(await read_bytes(request, most=JSON_BYTES_MAX)))
    opportunity, sight = opportunity_of(asked), asked.sight()
    app, live, deciders = _parts(request)
    record = (await live.table(experiment)).record
    known = await deciders.of(arm.policy_sha for arm in record.kept_arms)
    digest = computed_by(sight, known.values())
    made = await live.assign(experiment, opportunity)
    try:
        decider = known.get(made.policy_sha) or await deciders.find(made.policy_sha)
    except ArtifactRefused as error:  # of an arm that left or came meanwhile
        action: Action | str = f"the stored policy is refused: {error}"
    else:
        rules = acting_rules_of(app.settings)
        action = action_of(made, sight, decider, digest=digest, rules=rules)
    # After the commit, and last: no answer leaves once the latch is set.
    app.latch.require_open()
    headers = watch_headers(request, experiment)
    return QuickJson(encoded(acted_values(made, action)), headers=headers)


def computed_by(sight: Sight, deciders: Collection[Decider]) -> str | None:
    """Return the digest of the features that a bot sent; None where no policy needs any.

    Raises `InvalidInput` where they are not, name by name, those of the policies, and for a history
    that a policy needs and that is not there.
    """
    names = {decider.features_digest: decider.names for decider in deciders}
    if not names:
        return None
    digest = sight.features_digest
    if digest is None:
        if len(names) > 1:
            rule = f"is required: the policies see different features, {' or '.join(names)}"
            raise InvalidInput(field="features_digest", rule=rule, found="nothing")
        [digest] = names
    if digest not in names:
        rule = f"must be {' or '.join(names)}"
        raise InvalidInput(field="features_digest", rule=rule, found=repr(digest))
    for name in names[digest]:
        if name not in sight.features:
            raise InvalidInput(field=f"features.{name}", rule="is required", found="nothing")
    for name, value in sight.features.items():
        if name not in names[digest]:
            rule = f"is not one of the features {', '.join(names[digest])}"
            raise InvalidInput(field=f"features.{name}", rule=rule, found=value)
    bars = max(each.history_bars for each in deciders if each.features_digest == digest)
    _require_history(sight, names[digest], bars=bars)
    return digest


def _require_history(sight: Sight, names: Sequence[str], *, bars: int) -> None:
    """Refuse a history that is not of the features, or shorter than the policies look back."""
    if not bars:
        return
    rule = f"must have the {bars} bars before this one, or more"
    if sight.history is None:
        raise InvalidInput(field="history", rule=rule, found="nothing")
    if sight.history.keys() != set(names):
        found = ", ".join(sorted(sight.history.keys() ^ set(names)))
        raise InvalidInput(field="history", rule="must be of the features sent", found=found)
    lengths = {len(column) for column in sight.history.values()}
    if len(lengths) > 1 or min(lengths) < bars:
        found = " or ".join(map(str, sorted(lengths)))
        raise InvalidInput(field="history", rule=rule, found=found)


def action_of(
    made: Assignment,
    sight: Sight,
    decider: Decider | None,
    *,
    digest: str | None,
    rules: ActingRules,
) -> Action | str:
    """Return what the assigned policy does, or why that is for the bot to say; never an error."""
    if decider is None:
        return f"{made.policy} is not stored here: it decides where it runs"
    if digest not in (None, decider.features_digest):
        return f"{made.policy} sees other features, those of {decider.features_digest}"
    try:
        computed_by(sight, [decider])
        return decider.act(
            sight.features,
            sight.holding,
            rules=rules,
            history=sight.history,
            size_multiplier=made.size_multiplier,
            confidence_bump=made.confidence_bump,
            sizing=made.sizing,
        )
    except InvalidInput as error:
        return f"{made.policy} has no answer: {error}"


def acted_values(made: Assignment, action: Action | str) -> dict[str, Any]:
    """Return the values of an `ActedAnswer`."""
    values = assignment_values(made)
    if isinstance(action, str):
        return values | {"action": None, "no_action_reason": action}
    told = {
        "move": action.move,
        "position": action.position,
        "size": action.size,
        "choice": action.choice.name,
        "confidence": action.choice.confidence,
        "reasons": [reason.to_json() for reason in action.reasons],
    }
    return values | {"action": told, "no_action_reason": None}


def _parts(request: Request) -> tuple[App, LiveRouter, Deciders]:
    state = request.app.state
    app, live, deciders = state.app, state.live, state.deciders
    assert isinstance(app, App)
    assert isinstance(live, LiveRouter)
    assert isinstance(deciders, Deciders)
    return app, live, deciders
