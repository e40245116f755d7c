"""`.env` gives variables that the real environment overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import InvalidSettings, Source, load_settings


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_dotenv_beside_the_file_comes_before_the_one_of_the_working_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "settings.yaml"
    path.write_text("server: {host: '${WHERE}'}")
    (tmp_path / ".env").write_text("WHERE=working-directory")
    assert load_settings(path=path, environ={}, dotenv=None).settings.server.host == (
        "working-directory"
    )
    (tmp_path / "etc" / ".env").write_text("WHERE=beside")
    assert load_settings(path=path, environ={}, dotenv=None).settings.server.host == "beside"
    (tmp_path / "other.env").write_text("WHERE=given")
    given = load_settings(path=path, environ={}, dotenv=tmp_path / "other.env")
    assert given.settings.server.host == "given"
    real = load_settings(path=path, environ={"WHERE": "real"}, dotenv=None)
    assert real.settings.server.host == "real"


def test_dotenv_knows_quotes_comments_and_export() -> None:
    Path(".env").write_text(
        "# variables of the bot\n"
        "export LIVEOPS_PORT=9002  # also for the shell\n\n"
        "HOST='a b'\n"
        'LIVEOPS_HOME="state # one"\n'
    )
    Path("settings.yaml").write_text("server: {host: '${HOST}'}")
    loaded = load_settings(path=Path("settings.yaml"), environ={}, dotenv=None)
    assert loaded.settings.server.port == 9002
    assert loaded.settings.server.host == "a b"
    assert loaded.settings.home == Path("state # one")
    assert loaded.sources["home"] is Source.ENVIRONMENT


@pytest.mark.parametrize("line", ["SECRET hunter2", "hunter2", "A='hunter2", "=hunter2"])
def test_malformed_dotenv_line_is_named_and_not_shown(line: str) -> None:
    Path(".env").write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(InvalidSettings) as caught:
        load_settings(path=None, environ={}, dotenv=None)
    (problem,) = caught.value.problems
    assert str(problem) == ".env line 2: must be KEY=VALUE, found something else"


def test_dotenv_cannot_choose_the_settings_file_and_says_so() -> None:
    Path(".env").write_text("LIVEOPS_CONFIG=other.yaml")
    loaded = load_settings(path=None, environ={}, dotenv=None)
    assert loaded.warnings == ("LIVEOPS_CONFIG is not read from .env; set it in the environment",)
