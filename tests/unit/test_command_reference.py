"""The commands' reference page is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from liveops.commands.reference import render

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"


def test_reference_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_every_option_says_what_it_means() -> None:
    rows = [line for line in render().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if not row.split("|")[2].strip()] == []
