"""Only plain YAML is read, every key with its line, variables filled in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandit.core.errors import InvalidInput
from config.strict_yaml import parse_yaml, read_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "risk: &r {}\nserver: {}",
            "settings.yaml line 1: must be plain YAML, found the anchor &r",
        ),
        ("risk: {}\nserver: *r", "settings.yaml line 2: must be plain YAML, found the alias *r"),
        ("home: !!str 5", "line 1: must be plain YAML, found the tag tag:yaml.org,2002:str"),
        ("home: !!python/name:os.system x", "line 1: must be plain YAML, found the tag"),
        ("risk: {}\n\nrisk: {}", "risk: must be given once (settings.yaml line 3), found it on li"),
        ("server:\n  port: 1\n  port: 2", "server.port: must be given once (settings.yaml line 3)"),
        ("? [a]\n: 1", "line 1: must be plain YAML, found a sequence as key"),
        ("- 1", "settings.yaml: must be a mapping of sections"),
        ("home: a\n---\nhome: b", "line 2: must be plain YAML, found but found another document"),
        ("home: a: b", "line 1: must be plain YAML, found mapping values are not allowed here"),
        ("home:\n\t- a", "line 2: must be plain YAML, found character"),
        ("home: a\x07", "settings.yaml: must be plain YAML, found unacceptable character #x0007"),
        ("home: " + "[" * 1000, "line 1: must be plain YAML, found nesting deeper than 20"),
        ("home: 2025-13-45", "line 1: must be plain YAML, found text that only looks like timest"),
        ("server: {port: 0x" + "f" * 9000 + "}", "found text that only looks like int; write it"),
        ("home: ${", "home: must name a variable as ${NAME}, or write $${ for the text"),
        ("home: ${A:-b}", "home: must name a variable as ${NAME}"),
        (b"home: caf\xe9", "settings.yaml: must be UTF-8 text, found byte 0xe9 at offset 9"),
        (b"#" * 1_000_001, "settings.yaml: must be at most 1000000 bytes, found more"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_place(
    tmp_path: Path, text: str | bytes, expected: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InvalidInput) as caught:
        parse_yaml(read_text(path), name="settings.yaml", variables={})
    assert expected in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xef\xbb\xbfhome: here")
    assert read_text(path) == "home: here"


def test_lines_go_by_dotted_path_into_sections_and_lists() -> None:
    text = "trading:\n  timeframe: 1h\n  symbols:\n    - A\n    - B\n"
    document = parse_yaml(text, name="settings.yaml", variables={})
    assert document.data == {"trading": {"timeframe": "1h", "symbols": ["A", "B"]}}
    assert document.lines == {
        "trading": 1,
        "trading.timeframe": 2,
        "trading.symbols": 3,
        "trading.symbols.0": 4,
        "trading.symbols.1": 5,
    }


def test_an_unset_variable_is_remembered_with_its_key() -> None:
    text = "a: ${ONE}-${TWO}-${THREE}\nb: ${TWO}"
    document = parse_yaml(text, name="settings.yaml", variables={"ONE": "1"})
    assert document.data == {"a": "1--", "b": None}
    assert document.unset == {"a": ["TWO", "THREE"], "b": ["TWO"]}
    assert document.written == {"a": "${ONE}-${TWO}-${THREE}", "b": "${TWO}"}
