"""The page that explains evidence: its pictures are there and small, its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from liveops.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "evidence.md").read_text(encoding="utf-8")
PICTURES = sorted((DOCS / "pictures").glob("*"))
SIMULATED = [" ".join(found.split()) for found in re.findall(r"`(liveops simulate [^`]*)`", TEXT)]


def test_every_picture_is_shown_and_every_shown_picture_is_there() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    shown = re.findall(r"!\[([^\]]+)\]\(pictures/([^)]+)\)", pages)
    assert sorted(name for _, name in shown) == [path.name for path in PICTURES]
    assert all(len(words) > 40 for words, _ in shown), "each says in words what it shows"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_loads_nothing(path: Path) -> None:
    assert path.stat().st_size < 60_000
    root = ET.parse(path).getroot()  # noqa: S314 - a file of ours
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    links = [v for part in root.iter() for k, v in part.attrib.items() if k.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert not [part.tag for part in root.iter() if part.tag.endswith(("script", "image"))]


@pytest.mark.parametrize("command", SIMULATED)
def test_its_simulations_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, *arguments = shlex.split(command)
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--days", "2", "--runs", "1"])
    assert ended.value.code == 0
    assert "1 runs of 2 days" in capsys.readouterr().out


def test_two_simulations_are_quoted() -> None:
    assert len(SIMULATED) == 2
