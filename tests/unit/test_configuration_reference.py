"""The generated files are complete and fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.reference import rendered
from config.section import leaves
from config.settings import Settings, Source, load_settings

ROOT = Path(__file__).parents[2]


def test_generated_files_equal_a_fresh_render() -> None:
    texts = rendered()
    assert set(texts) == {ROOT / "config" / "default.yaml", ROOT / "docs" / "configuration.md"}
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, f"run python -m config.reference: {path}"


def test_default_file_holds_every_key_at_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_settings(path=ROOT / "config" / "default.yaml", environ={}, dotenv=None)
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {Source.FILE}
    assert loaded.warnings == ()


def test_every_key_has_meaning_and_unit() -> None:
    for leaf in leaves(Settings):
        assert leaf.unit, leaf.key
        assert str(leaf.field.description).endswith("."), leaf.key


def test_reference_documents_every_key_under_its_section() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    tables = {part.split("\n", 1)[0]: part for part in text.split("\n## ")[1:]}
    for leaf in leaves(Settings):
        section = leaf.key.rpartition(".")[0] or "Outside the sections"
        assert f"\n| `{leaf.name}` | {leaf.field.description} | {leaf.unit} |" in tables[section]


@pytest.mark.parametrize(
    "row",
    [
        "| `max_drawdown` | A deeper drawdown kills trading; an account keeps what it opened with. "
        "| fraction of peak equity | `0.1` | number, above 0, 0.15 at most | yes |",
        '| `version` | Version of the model to run. | text | `"2.1"` | text | not yet |',
        "| `pf_band` | Expected profit factor, lowest and highest; not under `pf_throttle`. "
        "| ratio | `[2.1, 2.8]` | list of 2 | yes |",
        "| `LIVEOPS_PORT` | `server.port` |",
        "Always `arm_minimum <= start <= unproven_cap`.",
    ],
)
def test_reference_tells_default_limits_and_whether_a_key_is_in_force(row: str) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert row in text.splitlines()
