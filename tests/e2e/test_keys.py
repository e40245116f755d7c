"""Making keys and encrypting secrets at the terminal, as docs/security.md tells it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import yaml
from commands import free_port, running, script, wait_for
from ledger import open_btc
from sqlalchemy import Engine, text

from config.settings import load_settings


def new_key(*arguments: str) -> tuple[str, str]:
    """The key and the lines for the settings file."""
    made = script("liveops", "key", "new", *arguments)
    assert made.returncode == 0, made.stderr
    key, _, lines = made.stdout.partition("\n")
    return key, lines


def test_a_new_key_is_random_marked_and_stored_as_its_hash() -> None:
    arguments = ("--name", "bot", "--scope", "trade", "--scope", "ingest", "--scope", "trade")
    key, lines = new_key(*arguments)
    assert re.fullmatch(r"lo_[A-Za-z0-9_-]{43}", key)
    assert key not in lines
    (entry,) = yaml.safe_load(lines)["api_keys"]
    assert (entry["name"], entry["scopes"]) == ("bot", ["trade", "ingest"])
    assert new_key(*arguments)[0] != key


def test_a_key_that_nobody_could_use_is_refused() -> None:
    for name in ("Bot", "owner", "local"):
        made = script("liveops", "key", "new", "--name", name, "--scope", "read")
        assert (made.returncode, made.stdout) == (2, "")
        assert "--name: " in made.stderr
    assert script("liveops", "key", "new", "--name", "bot").returncode == 2
    assert script("liveops", "key", "new", "--name", "bot", "--scope", "all").returncode == 2


def test_an_operator_halts_over_the_admin_listener_with_a_key_of_the_file(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    desk, desk_lines = new_key("--name", "desk", "--scope", "operate", "--days", "3")
    bot, bot_lines = new_key("--name", "bot", "--scope", "trade")
    config = tmp_path / "settings.yaml"
    config.write_text(desk_lines + bot_lines.removeprefix("api_keys:\n"))
    settings = {"LIVEOPS_CONFIG": str(config), "LIVEOPS_DATABASE_URL": database_url}

    listed = script("liveops", "key", "list", **settings).stdout.splitlines()
    assert re.fullmatch(r"desk: operate \(expires soon, until .*\+00:00\)", listed[0])
    assert listed[1] == "bot: trade (valid)"

    log, ports = tmp_path / "log", (free_port(), free_port())
    asked = ("serve", "--port", str(ports[0]), "--admin-port", str(ports[1]))
    with running(*asked, home=tmp_path / "var", log=log, **settings) as process:
        said = wait_for("serving http", log, process)
        admin = f"http://127.0.0.1:{ports[1]}"
        assert f"for operators {admin}" in said
        assert 'API key ends key_name="desk" state="expires soon"' in said
        halt = f"{admin}/v1/experiments/btc/arms/eee02a74/halt"
        codes = [
            httpx.post(halt, json={"reason": "drill"}, headers={"Authorization": f"Bearer {key}"})
            for key in ("lo_guess", bot, desk)
        ]
    assert [answer.status_code for answer in codes] == [401, 403, 200]
    with engine.connect() as connection:
        actor = text("SELECT actor FROM audit_log ORDER BY id DESC LIMIT 1")
        assert connection.execute(actor).scalar_one() == "desk"
    assert desk not in log.read_text()


def test_a_second_service_is_told_that_the_admin_port_is_taken(tmp_path: Path) -> None:
    home, log, admin = tmp_path / "var", tmp_path / "log", str(free_port())
    first = ("serve", "--port", str(free_port()), "--admin-port", admin)
    with running(*first, home=home, log=log) as process:
        wait_for("serving http", log, process)
        for command in (("serve",), ("run", "--nights", "1")):
            asked = (*command, "--port", str(free_port()), "--admin-port", admin)
            second = script("liveops", *asked, home=home)
            assert second.returncode == 1
            assert f"port_taken: port {admin} of 127.0.0.1 is in use" in second.stderr
            assert "--admin-port" in second.stderr


def test_a_secret_is_encrypted_from_stdin_and_opens_in_the_settings(tmp_path: Path) -> None:
    key = script("liveops", "config", "secret-key").stdout.strip()
    environ = {"LIVEOPS_SECRET_KEY": key}
    closed = script("liveops", "config", "encrypt", stdin="hunter2\n", **environ).stdout.strip()
    assert "hunter2" not in closed
    config = tmp_path / "settings.yaml"
    config.write_text(f"api_key: {closed}\n")
    loaded = load_settings(path=config, environ=environ, dotenv=None)
    assert loaded.settings.api_key is not None
    assert loaded.settings.api_key.get_secret_value() == "hunter2"
    shown = script("liveops", "config", "show", LIVEOPS_CONFIG=str(config), **environ)
    assert "api_key = ***  (secret text, from file)" in shown.stdout

    without_key = script("liveops", "config", "encrypt", stdin="hunter2\n")
    assert (without_key.returncode, without_key.stdout) == (2, "")
    assert "LIVEOPS_SECRET_KEY" in without_key.stderr
    nothing = script("liveops", "config", "encrypt", stdin="\n", **environ)
    assert (nothing.returncode, nothing.stdout) == (2, "")
