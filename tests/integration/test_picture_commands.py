"""`liveops plot`: a picture of any experiment in any ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import BEST, BETTER, arms, market, open_btc, scale, sizes
from sqlalchemy import Engine

from liveops.cli import main

Command = Callable[..., int]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def trading(engine: Engine) -> None:
    """A market in which one night has looked at the challenger."""
    open_btc(engine, challengers=arms(1))
    market(engine, BETTER, arm_00=BEST)
    scale(engine)


def test_an_experiment_is_drawn_as_png_and_svg_and_nothing_changes(
    engine: Engine, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trading(engine)
    before = sizes(engine)
    for name in ("life.png", "life.svg"):
        assert command("plot", "btc", "--out", str(tmp_path / name)) == 0
        assert capsys.readouterr().out == f"drawn into {tmp_path / name}\n"
    assert (tmp_path / "life.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "life.svg").read_text(encoding="utf-8")
    assert ">arm-00 15 %<" in drawn
    assert sizes(engine) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["life.png", "life.svg"]


def test_what_cannot_be_drawn_is_refused_and_leaves_no_file(
    engine: Engine, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    file = tmp_path / "life.svg"
    for experiment, out, code, said in (
        ("btc", file, 1, "nothing_to_draw: experiment btc has nothing to draw: no night"),
        ("eth", file, 2, "unknown_name: no experiment is registered as 'eth'; known: btc"),
        ("btc", tmp_path / "life.gif", 2, "invalid_input: out: must end in .png or .svg"),
        ("btc", tmp_path / "no" / "life.svg", 2, "out: must lie in a directory that exists"),
    ):
        assert command("plot", experiment, "--out", str(out)) == code
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_leaves_the_one_before(
    engine: Engine, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trading(engine)
    file = tmp_path / "life.svg"
    file.write_text("the one before", encoding="utf-8")
    (tmp_path / "life.svg.part").mkdir()  # where it would be written first
    assert command("plot", "btc", "--out", str(file)) == 1
    assert f"file_not_written: {file} was not written: " in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "the one before"
