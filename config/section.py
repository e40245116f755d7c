"""What a section of the settings is made of: frozen, closed, every key with meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


def _not_boolean(value: object) -> object:
    # pydantic reads `true` as 1, so `min_trades: yes` would quietly become one trade.
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "must be a number")
    return value


Number = Annotated[float, BeforeValidator(_not_boolean)]
Count = Annotated[int, BeforeValidator(_not_boolean)]


class Section(BaseModel):
    """A closed set of keys, read once and never changed.

    `rising` names keys whose values must not fall from left to right.

    >>> class Window(Section):
    ...     '''A window.'''
    ...     rising = (("short", "long"),)
    ...     short: Count = setting(30, meaning="The short window.", unit="trades")
    ...     long: Count = setting(150, meaning="The long window.", unit="trades")
    >>> Window(short=40).long
    150
    >>> try:
    ...     Window(short=200)
    ... except ValueError as error:
    ...     "must keep short <= long" in str(error)
    True
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        hide_input_in_errors=True,  # an error's text must not carry a secret into a log
    )
    rising: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _empty_keeps_defaults(cls, given: object) -> object:
        # `risk:` with every key under it commented out is null in YAML.
        return {} if given is None else given

    @model_validator(mode="after")
    def _rises(self) -> Self:
        for keys in self.rising:
            values = [getattr(self, key) for key in keys]
            if any(left > right for left, right in pairwise(values)):
                found = ", ".join(f"{value:g}" for value in values)
                rule = " <= ".join(keys)
                raise PydanticCustomError("rising", "must keep {rule}", {"rule": rule, "of": found})
        return self


def setting(
    default: Any,
    *,
    meaning: str,
    unit: str,
    in_force: bool = True,
    environment: str | None = None,
    **limits: Any,
) -> Any:
    """Declare one key: its default, meaning and unit, and the limits pydantic is to check.

    `environment` names the variable that wins over the file; `in_force=False` marks a key that is
    validated but that nothing reads yet.
    """
    extra: JsonDict = {"unit": unit, "in_force": in_force, "environment": environment}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of a list whose entries are to be different.

    >>> unique(("BTCUSDT", "ETHUSDT"))
    ('BTCUSDT', 'ETHUSDT')
    """
    if len(set(values)) < len(values):
        raise ValueError("must name each one once")
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One key of the settings by its dotted path; it is `name` in `section`."""

    key: str
    section: type[Section]
    name: str
    unit: str
    in_force: bool
    environment: str | None
    secret: bool

    @property
    def field(self) -> FieldInfo:
        """What pydantic knows of the key."""
        return self.section.model_fields[self.name]


def subsection(model: type[Section], name: str) -> type[Section] | None:
    """Return the section that `name` holds in `model`, or None where it holds a plain value."""
    annotation = model.model_fields[name].annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return None


def entry_of(model: type[Section], name: str) -> type[Section] | None:
    """Return the section that each entry of the list `name` in `model` is, or None."""
    kinds = get_args(model.model_fields[name].annotation)
    if kinds and isinstance(kinds[0], type) and issubclass(kinds[0], Section):
        return kinds[0]
    return None


@cache
def leaves(model: type[Section], prefix: str = "") -> tuple[Leaf, ...]:
    """Return every key under `model`, in the order of declaration."""
    found: list[Leaf] = []
    for name, field in model.model_fields.items():
        inner = subsection(model, name)
        if inner is not None:
            found.extend(leaves(inner, f"{prefix}{name}."))
            continue
        extra: Any = field.json_schema_extra
        secret = not field.repr or SecretStr.__name__ in str(field.annotation)
        found.append(Leaf(key=f"{prefix}{name}", section=model, name=name, secret=secret, **extra))
    return tuple(found)
