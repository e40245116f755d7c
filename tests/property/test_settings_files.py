"""Whatever stands in a settings file, loading ends in settings or in a problem that names it."""

from __future__ import annotations

import json
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.section import leaves
from config.settings import InvalidSettings, Settings, load_settings

SECTIONS = ["", "server", "risk", "operations", "operations.alerts", "portfolio.cross_sectional"]
KNOWN = {part for leaf in leaves(Settings) for part in leaf.key.split(".")}
YAML_WORDS = st.sampled_from(["a", ":", " ", "\n", "  ", "- ", "${", "}", "[", "]", "{", "&", "*x"])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "empty.env").touch()
    return folder / "settings.yaml"


def keys_of(section: str) -> set[str]:
    prefix = f"{section}." if section else ""
    below = [
        leaf.key.removeprefix(prefix) for leaf in leaves(Settings) if leaf.key.startswith(prefix)
    ]
    return {key.split(".")[0] for key in below}


@settings(deadline=None)
@given(
    section=st.sampled_from(SECTIONS),
    name=st.from_regex(r"[a-z_][a-z0-9_.]{0,30}", fullmatch=True).filter(
        lambda name: name.rpartition(".")[2] not in KNOWN
    ),
)
def test_any_unknown_key_is_an_error_with_the_nearest_one(
    path: Path, section: str, name: str
) -> None:
    nested: object = {name: 1}
    for part in reversed(section.split(".") if section else []):
        nested = {part: nested}
    path.write_text(json.dumps(nested))
    with pytest.raises(InvalidSettings) as caught:
        load_settings(path=path, environ={}, dotenv=path.with_name("empty.env"))
    (problem,) = caught.value.problems
    nearest = problem.rule.partition("did you mean ")[2].partition("?")[0]
    assert problem.field == (f"{section}.{name}" if section else name)
    assert nearest in keys_of(section)
    closeness = {key: SequenceMatcher(None, key, name).ratio() for key in keys_of(section)}
    assert closeness[nearest] == pytest.approx(max(closeness.values()))


@settings(deadline=None)
@given(text=st.lists(YAML_WORDS | st.text(max_size=3), max_size=30).map("".join))
def test_any_text_loads_or_is_refused(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    # Any error but this one fails the test.
    with suppress(InvalidSettings):
        loaded = load_settings(path=path, environ={}, dotenv=path.with_name("empty.env"))
        assert isinstance(loaded.settings, Settings)
