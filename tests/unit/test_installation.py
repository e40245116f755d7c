"""What services of this installation would find otherwise than the process that sets them up."""

from __future__ import annotations

from pathlib import Path

import pytest
from installations import installation

from config.settings import Settings
from liveops.installation import NotInstalled, installation_of, warnings_of


def test_programs_that_are_not_there_are_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(NotInstalled, match=r"there is no .*/liveops: run `make` in "):
        installation_of(Settings(), config=None, environ={}, user="daemon")


def test_directories_outside_of_home_and_variables_that_are_no_secret_are_written_down(
    tmp_path: Path,
) -> None:
    settings = Settings.model_validate(
        {
            "home": tmp_path / "var",
            "audit": {"anchor_dir": tmp_path / "anchors"},
            "ageing": {"archive_dir": tmp_path / "var" / "archives"},
        }
    )
    environ = {
        "LIVEOPS_PORT": "8899",
        "LIVEOPS_ADMIN_PORT": "",
        "LIVEOPS_API_KEY": "lo_secret",
        "LIVEOPS_SECRET_KEY_FILE": "/etc/key",
        "LIVEOPS_HOME": "elsewhere",
    }
    found = installation_of(settings, config=None, environ=environ, user="daemon")
    assert found.variables == {
        "LIVEOPS_HOME": str(tmp_path / "var"),
        "LIVEOPS_PORT": "8899",
        "LIVEOPS_SECRET_KEY_FILE": "/etc/key",
    }
    assert found.writable == (tmp_path / "anchors",)
    assert (found.user, found.group) == ("daemon", "daemon")
    assert installation_of(settings, config=None, environ={}, user="not-made").group == "not-made"


def test_a_home_whose_path_is_too_long_for_a_socket_is_known(tmp_path: Path) -> None:
    for name, is_long in (("var", False), ("x" * 107, True)):
        settings = Settings(home=Path("/srv") / name)
        assert installation_of(settings, config=None, environ={}, user="daemon").is_long is is_long


def test_a_folder_that_the_user_may_not_enter_is_named(open_folder: Path) -> None:
    inner = open_folder / "closed" / "home"
    inner.mkdir(parents=True)
    here = installation(user="daemon", root=inner, programs=inner, secrets=open_folder / ".env")

    def closed() -> list[str]:
        said = " may not enter "
        found = [w.split(said)[1] for w in warnings_of(here, Settings()) if said in w]
        return [warning for warning in found if str(open_folder) in warning]

    inner.parent.chmod(0o755)
    assert closed() == []
    inner.parent.chmod(0o700)
    assert [warning.split(":")[0] for warning in closed()] == [str(inner.parent)]


def test_settings_that_a_service_could_not_read_are_told(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("server:\n  port: ${PORT_OF_MY_SHELL}1\n  admin_port: 8${MORE_OF_MY_SHELL}\n")
    here = installation(config=file, root=tmp_path, secrets=tmp_path / ".env", variables={})
    settings = Settings.model_validate({"server": {"port": 8801, "admin_port": 8802}})
    warnings = "\n".join(warnings_of(here, settings))
    assert "put LIVEOPS_PORT into" in warnings
    assert "put LIVEOPS_ADMIN_PORT into" in warnings
    file.write_text("risk:\n  max_drawdown: 0.${MY_SHELL}05\n")
    warnings = "\n".join(warnings_of(here, Settings()))
    assert "put the variables that risk.max_drawdown is made of into" in warnings
    file.write_text("server:\n  port: ${PORT_OF_MY_SHELL}x\n")
    assert "services could not read their settings" in "\n".join(warnings_of(here, settings))


def test_a_user_whose_shared_memory_logind_may_take_away_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(**changes: object) -> bool:
        warnings = warnings_of(installation(user="daemon", **changes), Settings())
        return "RemoveIPC=no" in "\n".join(warnings)

    assert not said()
    # The users of this machine are not ours to add to.
    monkeypatch.setattr("liveops.installation.SYSTEM_UID_MAX", 0)
    assert said()
    assert not said(is_embedded=False)
