"""Read the settings file: plain YAML only, `${VARIABLE}` filled in, every key with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from bandit.core.errors import InvalidInput

BYTES_MAX = 1_000_000
DEPTH_MAX = 20
NUMBER_MAX = 100  # characters; reading `1:1:1:...` takes quadratic time
# `$${` is a literal `${`; a `${` that no name and `}` follow leaves the group empty.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A settings file as read; `lines`, `written` and `unset` go by dotted path.

    `written` keeps the text of scalars that name a variable, so that an error can show
    `${BYBIT_API_KEY}` and not what it stands for; `unset` names the variables without a value.
    """

    data: dict[str, object] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    unset: dict[str, list[str]] = field(default_factory=dict)


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file of at most `BYTES_MAX` bytes, else raise `InvalidInput`."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        rule = "must be a readable file"
        raise InvalidInput(field=str(path), rule=rule, found=error.strerror) from error
    if len(content) > BYTES_MAX:
        raise InvalidInput(field=str(path), rule=f"must be at most {BYTES_MAX} bytes", found="more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {content[error.start]:#04x} at offset {error.start}"
        raise InvalidInput(field=str(path), rule="must be UTF-8 text", found=found) from error


def parse_yaml(text: str, *, name: str, variables: Mapping[str, str]) -> Document:
    """Parse one YAML mapping; `name` says in errors which file it is.

    An empty scalar, also one that is empty because its variable is not set, is None.

    >>> document = parse_yaml("risk:\\n  max_drawdown: ${LIMIT}", name="c.yaml",
    ...                       variables={"LIMIT": "0.1"})
    >>> document.data, document.lines["risk.max_drawdown"]
    ({'risk': {'max_drawdown': '0.1'}}, 2)

    Raises `InvalidInput` on anything that is not plain YAML: anchors, aliases, tags, a key given
    twice, nesting deeper than `DEPTH_MAX`.
    """
    document = Document()
    try:
        root = _PlainLoader(text).get_single_node()
        if isinstance(root, yaml.MappingNode):
            reading = _Reading(name=name, variables=variables, document=document)
            document.data.update(reading.mapping(root, ""))
        elif root is not None and root.tag != "tag:yaml.org,2002:null":
            rule = "must be a mapping of sections"
            raise InvalidInput(field=name, rule=rule, found="another kind")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = name if mark is None else f"{name} line {mark.line + 1}"
        found = (error.problem or "something else").removeprefix("found ")
        # `from None`, as the original quotes the line, and with it perhaps a secret.
        raise InvalidInput(field=where, rule="must be plain YAML", found=found) from None
    except yaml.YAMLError as error:  # the reader's: characters that YAML does not know
        found = str(error).splitlines()[0]
        raise InvalidInput(field=name, rule="must be plain YAML", found=found) from None
    return document


def _not_plain(at: Any, found: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=found, problem_mark=at.start_mark)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader still expands aliases, which lets a small file ask for all memory."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs lack it
        if isinstance(event, yaml.AliasEvent):
            raise _not_plain(event, f"the alias *{event.anchor}")
        if event.anchor is not None:
            raise _not_plain(event, f"the anchor &{event.anchor}")
        if event.tag is not None:
            raise _not_plain(event, f"the tag {event.tag}")
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise _not_plain(event, f"nesting deeper than {DEPTH_MAX}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    name: str
    variables: Mapping[str, str]
    document: Document

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _not_plain(key_node, f"a {key_node.id} as key")
            name = key_node.value
            key = f"{path}.{name}" if path else name
            line = key_node.start_mark.line + 1
            if name in values:
                rule = f"must be given once ({self.name} line {line})"
                found = f"it on line {self.document.lines[key]} already"
                raise InvalidInput(field=key, rule=rule, found=found)
            self.document.lines[key] = line
            values[name] = self.value(value_node, key)
        return values

    def value(self, node: yaml.Node, key: str) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.item(item, f"{key}.{index}") for index, item in enumerate(node.value)]
        return self.scalar(node, key)

    def item(self, node: yaml.Node, key: str) -> object:
        self.document.lines[key] = node.start_mark.line + 1
        return self.value(node, key)

    def scalar(self, node: yaml.Node, key: str) -> object:
        kind = node.tag.rpartition(":")[2]
        # Never the text itself: it may be a secret that somebody forgot to quote.
        odd = _not_plain(node, f"text that only looks like {kind}; write it in quotes")
        if kind != "str" and len(node.value) > NUMBER_MAX:
            raise odd
        try:
            value = SafeConstructor().construct_object(node)
        except ValueError as error:
            raise odd from error
        return self.filled(value, key) or None if isinstance(value, str) else value

    def filled(self, text: str, key: str) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            variable = match[1]
            if variable is None:
                where = f"{self.name} line {self.document.lines[key]}"
                rule = f"must name a variable as ${{NAME}}, or write $${{ for the text ({where})"
                raise InvalidInput(field=key, rule=rule, found="${ without one")
            if variable not in self.variables:
                self.document.unset.setdefault(key, []).append(variable)
            return self.variables.get(variable, "")

        filled = _REFERENCE.sub(replacement, text)
        if filled != text:
            self.document.written[key] = text
        return filled
