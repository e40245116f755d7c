"""Keys in the settings file, and what doctor says of them and of the ports."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.keys import KeyEntry
from config.scopes import KeyScope
from config.settings import InvalidSettings, Settings, describe, load_settings
from liveops.clock import SystemClock
from liveops.doctor import Finding, checkup

DIGEST = "0123456789abcdef" * 4
ENTRY = f"api_keys:\n  - {{name: bot, scopes: [trade, ingest], sha256: '{DIGEST}'"


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Settings:
    Path("s.yaml").write_text(text)
    return load_settings(path=Path("s.yaml"), environ={}, dotenv=None).settings


def test_a_key_has_name_scopes_hash_and_perhaps_an_end() -> None:
    (endless,) = load(ENTRY + "}").api_keys
    assert (endless.name, endless.expires_at) == ("bot", None)
    assert endless.scopes == (KeyScope.TRADE, KeyScope.INGEST)
    (ending,) = load(ENTRY + ", expires_at: 2026-03-01T13:00:00+01:00}").api_keys
    assert ending.expires_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENTRY + ", expires_at: 2026-03-01T13:00:00}", "api_keys.0.expires_at: must have timezone"),
        (ENTRY + ", scope: [read]}", "api_keys.0.scope: is no key of api_keys.0 (s.yaml line 2);"),
        (ENTRY.replace("bot", "Bot") + "}", "api_keys.0.name: must match pattern"),
        (ENTRY.replace("bot", "owner") + "}", "api_keys.0.name: must not be owner or local"),
        (ENTRY.replace("ingest", "all") + "}", "api_keys.0.scopes.1: must be 'trade', 'ingest',"),
        (ENTRY.replace("ingest", "trade") + "}", "api_keys.0.scopes: must name each scope once"),
        (ENTRY.replace("trade, ingest", "") + "}", "api_keys.0.scopes: must have at least 1 item"),
        (ENTRY + "}\n" + ENTRY.partition("\n")[2] + "}", "api_keys: must list each key once"),
        ("api_keys: [{name: bot}]", "api_keys.0.scopes: Field required"),
        ("api_keys: bot", "api_keys: must be a valid tuple"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(text: str, expected: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(text)
    assert str(caught.value.problems[0]).startswith(expected)


def test_a_key_in_the_place_of_its_hash_is_not_shown() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(ENTRY.replace(DIGEST, "lo_leaked") + "}")
    assert "api_keys.0.sha256: must match pattern" in str(caught.value)
    assert "lo_leaked" not in str(caught.value)


def test_keys_are_shown_with_their_hash_only() -> None:
    Path("s.yaml").write_text(ENTRY + "}")
    loaded = load_settings(path=Path("s.yaml"), environ={}, dotenv=None)
    row = next(row for row in describe(loaded) if row.key == "api_keys")
    entry = {"name": "bot", "scopes": ["trade", "ingest"], "sha256": DIGEST, "expires_at": None}
    assert row.value == [entry]


def finding(settings: Settings, check: str) -> tuple[str, str]:
    found = {f.check: f for f in checkup(settings, demo=False)}
    shown: Finding = found[check]
    return shown.level.value, shown.message


def test_doctor_tells_of_keys_that_end() -> None:
    away = {"database": {"url": "postgresql://nobody@127.0.0.1:1/nowhere"}}
    at = {"name": "bot", "scopes": ["read"], "sha256": DIGEST}
    now = SystemClock().now()
    for days, level in ((1, "warn"), (-1, "warn"), (30, "ok")):
        entry = KeyEntry.model_validate(at | {"expires_at": now + timedelta(days=days)})
        settings = Settings.model_validate({"api_keys": [entry], **away})
        assert finding(settings, "keys")[0] == level
    assert finding(Settings.model_validate(away), "keys")[0] == "warn"
    far = Settings.model_validate({"server": {"admin_host": "192.0.2.1"}, **away})
    level, message = finding(far, "keys")
    assert (level, "192.0.2.1" in message) == ("fail", True)


@pytest.mark.parametrize("name", ["admin", "health"])
def test_doctor_looks_at_every_port(name: str) -> None:
    away = {"database": {"url": "postgresql://nobody@127.0.0.1:1/nowhere"}}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = Settings.model_validate({"server": {f"{name}_port": port}, **away})
        assert finding(settings, f"{name} port")[0] == "warn"
    assert finding(settings, f"{name} port") == ("ok", f"127.0.0.1:{port} is free")
    none = Settings.model_validate({"server": {f"{name}_port": 0}, **away})
    assert f"{name} port" not in {found.check for found in checkup(none, demo=False)}
