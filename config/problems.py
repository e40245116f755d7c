"""Say what is wrong with a settings file in its writer's words: key, line, rule, what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bandit.core.errors import InvalidInput
from config.section import Leaf, Section, entry_of, leaves, subsection
from config.strict_yaml import Document

MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the values came from; `overrides` maps keys to the environment variable that won."""

    model: type[Section]
    file_name: str
    document: Document
    overrides: Mapping[str, str]


def problems_of(error: ValidationError, origin: Origin) -> list[InvalidInput]:
    """Return one `InvalidInput` for every fault pydantic found; secrets are not shown."""
    return [_problem(fault, origin) for fault in error.errors()]


def located(problem: InvalidInput, key: str, origin: Origin) -> InvalidInput:
    """Return a problem with the setting `key` that says where the setting stands."""
    rule = problem.rule + _where(key, origin)
    return InvalidInput(field=problem.field, rule=rule, found=problem.found)


def _problem(fault: ErrorDetails, origin: Origin) -> InvalidInput:
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return _unknown_key(tuple(map(str, fault["loc"])), origin)
    rule = fault["msg"].removeprefix("Value error, ")
    for subject in ("Input", "String", "Tuple"):
        rule = rule.replace(f"{subject} should", "must")
    if fault["type"] == "model_type":
        rule = "must be a section of keys"
    if fault["type"] == "string_type" and not isinstance(fault["input"], dict | list | None):
        rule += "; write it in quotes"
    is_of_many = fault["type"] in ("rising", "together")
    found = fault["ctx"]["of"] if is_of_many else _found(key, fault["input"], origin)
    return InvalidInput(field=key, rule=rule + _where(key, origin), found=found)


def _unknown_key(loc: tuple[str, ...], origin: Origin) -> InvalidInput:
    *path, name = loc
    section = origin.model
    for part in path:
        if part in section.model_fields:  # and not the number of an entry in a list
            section = subsection(section, part) or entry_of(section, part) or section
    key = ".".join(loc)
    of = ".".join(path) or "the settings"
    rule = (
        f"is no key of {of}{_where(key, origin)}; did you mean {_nearest(name, section, origin)}?"
        f" {of} may have {', '.join(section.model_fields)}"
    )
    # The value is not shown: under a mistyped `api_secret` it is one.
    return InvalidInput(field=key, rule=rule, found=name)


def _nearest(name: str, section: type[Section], origin: Origin) -> str:
    """Return the same name in another section, if it stands in just one, else the closest here."""
    parts = [leaf.key.split(".") for leaf in leaves(origin.model)]
    known = {".".join(path[:end]) for path in parts for end in range(1, len(path) + 1)}
    last = name.rpartition(".")[2]
    elsewhere = [path.rpartition(".") for path in known if path.rpartition(".")[2] == last]
    if len(elsewhere) == 1:
        of, _, key = elsewhere[0]
        return f"{key} under {of}" if of else f"{key} at the top level"
    return get_close_matches(name, section.model_fields, n=1, cutoff=0.0)[0]


def _where(key: str, origin: Origin) -> str:
    if key in origin.overrides:
        return f" ({origin.overrides[key]})"
    parts = key.split(".")
    above = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    lines = [origin.document.lines[path] for path in above if path in origin.document.lines]
    return f" ({origin.file_name} line {lines[0]})" if lines else ""


def _found(key: str, value: object, origin: Origin) -> str:
    leaf = _leaf_of(key, origin)
    if value is None:
        unset = origin.document.unset.get(key)
        return f"nothing, as {', '.join(unset)} is not set" if unset else "nothing"
    if leaf is None or isinstance(value, dict):
        kinds = {"dict": "a mapping", "list": "a list"}
        return kinds.get(type(value).__name__, "a single value")
    if leaf.secret:
        return MASK
    written = [
        text for at, text in origin.document.written.items() if f"{at}.".startswith(f"{key}.")
    ]
    if written and key not in origin.overrides:
        return ", ".join(written)
    return repr(value) if isinstance(value, str) else str(value)


def _leaf_of(key: str, origin: Origin) -> Leaf | None:
    """Return the leaf that `key` is or, as `trading.symbols.1`, lies in."""
    return next(
        (leaf for leaf in leaves(origin.model) if f"{key}.".startswith(f"{leaf.key}.")), None
    )
