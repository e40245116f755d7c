"""What callers send: bodies that are read strictly, and the values they become."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import HTTPException, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)

from bandit.core.errors import InvalidInput
from bandit.core.heartbeat import COUNT_MAX
from bandit.core.marks import Mark
from bandit.core.model import (
    ArmMode,
    PolicyKind,
    Profile,
    Strategy,
    checked_amount,
    checked_instant,
)
from bandit.core.outcomes import Outcome, declined, trade
from liveops.api.strict_json import MalformedJson, parse, plain

JSON_BYTES_MAX = 64 * 1024
"""Largest body of one JSON document; a batch has a limit of its own."""

JSON = "application/json"

_MONEY = r"^-?[0-9]{1,17}(\.[0-9]{1,20})?$"
INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-][0-9]{2}:[0-5][0-9])"
)
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _number(value: object) -> Decimal:
    if not isinstance(value, Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports ValueError only
    return value


def _money(value: object) -> Decimal:
    if isinstance(value, str) and re.fullmatch(_MONEY, value):
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise ValueError('must be a decimal such as "12.34"')  # noqa: TRY004 - as above
    return value


def _instant(value: object) -> datetime:
    rule = "must be an RFC 3339 time with its offset, such as 2026-03-01T12:00:00Z"
    if not isinstance(value, str) or INSTANT.fullmatch(value) is None:
        raise ValueError(rule)
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(rule) from None


def is_uuid(text: str) -> bool:
    """Say whether `text` is a UUID in its usual form.

    >>> is_uuid("00000000-0000-8000-8000-000000000000"), is_uuid("{0}")
    (True, False)
    """
    return UUID_TEXT.fullmatch(text) is not None


def _whole(value: object) -> int:
    if not isinstance(value, Decimal) or value != value.to_integral_value():
        raise ValueError("must be a whole number")
    return int(value)


def _uuid(value: object) -> UUID:
    if not isinstance(value, str) or not is_uuid(value):
        raise ValueError("must be a UUID")
    return UUID(value)


Ratio = Annotated[Decimal, PlainValidator(_number), WithJsonSchema({"type": "number"})]
Money = Annotated[
    Decimal,
    PlainValidator(_money),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _MONEY}, {"type": "number"}]}),
]
Instant = Annotated[
    datetime,
    PlainValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Id = Annotated[UUID, PlainValidator(_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
Whole = Annotated[
    int,
    PlainValidator(_whole),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": COUNT_MAX}),
]
Json = Annotated[Any, AfterValidator(plain)]


def _text(pattern: str, description: str) -> Any:
    # Told, not enforced, here: the core holds values to these rules, and says them in words.
    return Field(description=description, json_schema_extra={"pattern": pattern})


Currency = Annotated[str, _text("^[A-Z0-9]{2,10}$", "Such as USD.")]
Name = Annotated[str, _text("^[a-z0-9][a-z0-9_.-]{0,62}$", "Lower-case words.")]
Reference = Annotated[
    str, _text("^[a-z0-9][a-z0-9_.-]{0,63}$", "A policy: full name, full sha or unique prefix.")
]


class Body(BaseModel):
    """A closed set of fields: an unknown one is an error, none is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewPolicy(Body):
    """A policy to register; it never changes afterwards."""

    name: Name
    kind: Annotated[PolicyKind, Field(strict=False)]
    sha: str = _text("^[0-9a-f]{8,64}$", "Hash of the policy's content.")
    data_cutoff: Instant | None = Field(
        default=None, description="The newest data the policy was made from."
    )
    parent: Name | None = Field(default=None, description="The policy it was made from.")
    metadata: dict[str, Json] = {}


class NewExperiment(Body):
    """An experiment to open; what is left out comes from the settings."""

    name: Name
    champion: Reference
    challengers: list[Reference] = Field(default=[], description="They join live.")
    capital: Money = Field(description="Money behind the order flow, in `currency`.")
    currency: Currency | None = None
    equity_fraction: Ratio | None = Field(
        default=None, description="Nominal share of equity of one trade, above 0 and at most 1."
    )
    profile: Annotated[Profile, Field(strict=False)] | None = None
    strategy: Annotated[Strategy, Field(strict=False)] | None = None
    decision_seconds_valid: Ratio | None = None
    account: Name | None = Field(
        default=None, description="Shares kill switch and loss limits; else the currency's own."
    )


class NewArm(Body):
    """A policy that joins an experiment."""

    policy: Reference
    mode: Annotated[ArmMode, Field(strict=False)] = ArmMode.LIVE


class NewAssignment(Body):
    """An opportunity that asks for its arm."""

    unit_id: str = _text("^[!-~]{1,128}$", "Key of the opportunity; the same key, the same answer.")
    instrument: str = _text("^[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}$", "Such as BTCUSDT.")
    context: Json = None
    proposed_actions: Json = None
    position: Id | None = Field(
        default=None, description="The assignment that opened a position which is still open."
    )


class Reasoned(Body):
    """Why an operator acts."""

    reason: str = Field(min_length=1, max_length=1000)


class Rollback(Body):
    """Why an earlier champion takes over again, and which one."""

    reason: str = Field(min_length=1, max_length=1000)
    to: Reference | None = Field(
        default=None,
        description="Left out: the newest earlier champion; a halted one must be named.",
    )


class NewFallback(Body):
    """A decision that a bot took for the champion while it could not reach the service."""

    unit_id: str = _text("^[!-~]{1,128}$", "Key of the opportunity.")
    instrument: str = _text("^[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}$", "Such as BTCUSDT.")
    decided_at: Instant
    reason: str = Field(min_length=1, max_length=1000, description="Why the bot was on its own.")
    policy: Reference | None = Field(
        default=None, description="The champion that the bot knew; left out, the one of now."
    )


class KillOrder(Body):
    """Whom to kill or release, and why."""

    reason: str = Field(min_length=1, max_length=1000)
    accounts: list[Name] | None = Field(
        default=None, min_length=1, description="Left out: every account."
    )
    experiment: Name | None = Field(
        default=None, description="Instead of `accounts`: the account of this experiment."
    )


_OF_TRADE = {
    "pnl": {"type": ["string", "number"]},
    "return": {"type": "number"},
    "opened_at": {"type": "string"},
    "closed_at": {"type": "string"},
}
_TOLD_BY_ALL = ("assignment_id", "no_trade", "reason")


def _trade_or_nothing(schema: dict[str, Any]) -> None:
    # Told, not enforced, here: `NewOutcome.outcome` says in words which field is missing.
    nothing = {name: {"type": "null"} for name in schema["properties"] if name not in _TOLD_BY_ALL}
    schema["anyOf"] = [
        {"properties": {"no_trade": {"const": False}} | _OF_TRADE, "required": list(_OF_TRADE)},
        {"properties": {"no_trade": {"const": True}} | nothing, "required": ["no_trade"]},
    ]


class NewOutcome(Body):
    """What a decision earned; `pnl`, `return` and both times unless `no_trade` is true."""

    model_config = ConfigDict(json_schema_extra=_trade_or_nothing)

    assignment_id: Id
    no_trade: bool = Field(default=False, description="The policy declined: send nothing else.")
    pnl: Money | None = Field(default=None, description="Net, fees and funding included.")
    return_: Ratio | None = Field(
        default=None, alias="return", description="Net result over the notional at entry."
    )
    opened_at: Instant | None = None
    closed_at: Instant | None = None
    fees: Money | None = None
    slippage: Money | None = None
    size: Money | None = None
    r_multiple: Ratio | None = None
    worst_excursion: Ratio | None = None

    def outcome(self) -> Outcome:
        """Return the checked outcome; raises `InvalidInput` naming the field and the rule."""
        if self.no_trade:
            self._require_nothing_else()
            return declined(self.assignment_id)
        return trade(
            self.assignment_id,
            pnl=given(self.pnl, "pnl"),
            return_ratio=given(self.return_, "return"),
            opened_at=given(self.opened_at, "opened_at"),
            closed_at=given(self.closed_at, "closed_at"),
            fees=self.fees,
            slippage=self.slippage,
            size=self.size,
            r_multiple=self.r_multiple,
            worst_excursion=self.worst_excursion,
        )

    def _require_nothing_else(self) -> None:
        for name, value in self.model_dump(by_alias=True, exclude_none=True).items():
            if name not in _TOLD_BY_ALL:
                rule = "must be left out when no_trade is true"
                raise InvalidInput(field=name, rule=rule, found=value)


class NewRevision(NewOutcome):
    """An outcome as it should have been told, all of it, and why it is told again."""

    reason: str = Field(min_length=1, max_length=1000)


class NewMark(Body):
    """What an open position would earn if it were closed now."""

    assignment_id: Id
    unrealised_pnl: Money = Field(description="Net, the fees of closing it included.")
    marked_at: Instant

    def mark(self) -> Mark:
        """Return the checked mark; raises `InvalidInput` naming the field and the rule."""
        return Mark(
            assignment_id=self.assignment_id,
            unrealised_pnl=checked_amount(self.unrealised_pnl, field="unrealised_pnl"),
            marked_at=checked_instant(self.marked_at, field="marked_at"),
        )


_Model = TypeVar("_Model", bound=Body)
_Value = TypeVar("_Value")


def read(model: type[_Model], value: object) -> _Model:
    """Return a parsed JSON value as `model`.

    >>> read(Reasoned, {"reason": "stale feed"}).reason
    'stale feed'
    >>> read(Reasoned, {})
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: reason: is required, found nothing

    Raises `InvalidInput` naming the first field at fault.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _first_fault(error, model) from None


def body_of(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """Return the dependency that reads a request's one JSON document as `model`."""

    async def dependency(request: Request) -> _Model:
        require_type(request, JSON)
        return read(model, parse(await read_bytes(request, most=JSON_BYTES_MAX)))

    return dependency


def schema_of(model: type[Body], *, required: bool = True) -> dict[str, Any]:
    """Return what OpenAPI says of a request whose body is one `model`."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {JSON: {"schema": schema}}}}


def require_type(request: Request, *types: str) -> str:
    """Return the body's media type, or refuse the request with 415 unless it is one of `types`.

    A browser may send other types across origins without asking; it must ask before it sends JSON.
    """
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.strip().lower().replace('"', "")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if media_type not in types or charset not in ("", "charset=utf-8") or encoding != "identity":
        raise HTTPException(415, f"the body must be {' or '.join(types)} in plain UTF-8")
    return media_type


async def read_bytes(request: Request, *, most: int) -> bytes:
    """Return the body, or refuse it with 413 as soon as it proves larger than `most` bytes."""
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            rule = "must arrive whole"
            raise MalformedJson(field="body", rule=rule, found=f"{len(body)} bytes")
        body += message.get("body", b"")
        if len(body) > most:
            raise HTTPException(413, f"the body must have at most {most} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def given(value: _Value | None, field: str) -> _Value:
    """Return what a trade must tell; raises `InvalidInput` where it is left out."""
    if value is None:
        raise InvalidInput(field=field, rule="is required unless no_trade is true", found="nothing")
    return value


def _first_fault(error: ValidationError, model: type[Body]) -> InvalidInput:
    fault = error.errors()[0]
    field = ".".join(map(str, fault["loc"])) or "body"
    match fault["type"]:
        case "missing":
            return InvalidInput(field=field, rule="is required", found="nothing")
        case "extra_forbidden":
            known = ", ".join(info.alias or name for name, info in model.model_fields.items())
            rule = f"is not one of the fields {known}"
        case "model_type":
            rule = "must be a JSON object"
        case _:
            rule = _in_our_words(fault["msg"])
    found = fault["input"]
    return InvalidInput(field=field, rule=rule, found=repr(found) if type(found) is str else found)


def _in_our_words(message: str) -> str:
    # pydantic says "Input should be …"; a rule of ours says "must be …".
    return re.sub("^[A-Z][a-z]+ should", "must", message.removeprefix("Value error, "))
