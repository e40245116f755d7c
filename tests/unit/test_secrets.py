"""Where secrets may lie, and what is said when one cannot be had."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
from cryptography.fernet import Fernet
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from config.secrets import KEY_FILE_VARIABLE, KEY_VARIABLE, SecretsVault, new_secret_key
from config.settings import InvalidSettings, LoadedSettings, describe, load_settings

CANARY = "canary-7f3a"
URL = f"postgresql://bot:{CANARY}@127.0.0.1:5432/ledger"


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def private(name: str, text: str, *, mode: int = 0o600) -> Path:
    path = Path(name).absolute()
    path.write_text(text)
    path.chmod(mode)
    return path


def load(text: str, environ: Mapping[str, str] | None = None) -> LoadedSettings:
    Path("settings.yaml").write_text(text)
    return load_settings(path=Path("settings.yaml"), environ=environ or {}, dotenv=None)


def refused(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The one problem that loading meets, which shows no secret, not even in its traceback."""
    with pytest.raises(InvalidSettings) as caught:
        load(text, environ)
    (problem,) = caught.value.problems
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return str(problem)


# Files


@pytest.mark.parametrize("mode", [0o600, 0o400])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_a_private_file(mode: int, end: str) -> None:
    path = private("key", CANARY + end, mode=mode)
    assert load(f"api_key: file:{path}").settings.api_key == SecretStr(CANARY)


def test_every_secret_setting_may_lie_elsewhere_and_stays_masked() -> None:
    url, key = private("url", URL), private("key", CANARY)
    loaded = load(
        f"database: {{url: 'file:{url}'}}\nexchange: {{api_secret: '${{BYBIT}}'}}\n"
        f"operations: {{alerts: {{discord_webhook_url: 'file:{key}'}}}}\n",
        {"BYBIT": f"file:{key}", "LIVEOPS_API_KEY": f"file:{key}"},
    )
    settings = loaded.settings
    assert settings.database.url == URL
    assert settings.api_key == settings.exchange.api_secret == SecretStr(CANARY)
    assert settings.operations.alerts.discord_webhook_url == SecretStr(CANARY)
    assert CANARY not in repr(loaded) + str(describe(loaded))


def test_only_the_last_line_break_is_dropped() -> None:
    path = private("key", f"\n{CANARY}\n\n")
    assert load(f"api_key: file:{path}").settings.api_key == SecretStr(f"\n{CANARY}\n")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o4600])
def test_a_file_that_others_may_read_is_refused(mode: int) -> None:
    path = private("key", CANARY, mode=mode)
    assert refused(f"\napi_key: file:{path}") == (
        f"api_key: must lie in a file that its owner alone may read: chmod 600 {path} "
        f"(settings.yaml line 2), found mode {mode:04o}"
    )


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o600)
    assert "must name a readable file" in refused(f"api_key: file:{tmp_path}/none")
    assert "must name a regular file" in refused(f"api_key: file:{tmp_path}/pipe")
    assert "must name a regular file" in refused(f"api_key: file:{tmp_path}/folder")
    assert "must name its file from the root" in refused("api_key: file:key")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", CANARY.encode() * 10_000])
def test_a_file_without_a_usable_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = private("key", "")
    path.write_bytes(content)
    assert f"in {path} (LIVEOPS_API_KEY)" in refused("", {"LIVEOPS_API_KEY": f"file:{path}"})


def test_secrets_and_other_problems_are_reported_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load("api_key: file:/none\ndatabase: {url: 'file:/none'}\nserver: {port: 0}\n")
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["api_key", "database.url", "server.port"]


def test_what_a_secret_opens_to_is_held_to_the_rule_of_its_setting() -> None:
    path = private("url", f"mysql://{CANARY}")
    assert "must match pattern" in refused(f"database: {{url: 'file:{path}'}}")


def test_a_setting_that_is_no_secret_is_taken_as_it_stands() -> None:
    path = private("key", CANARY)
    assert load(f"home: file:{path}").settings.home == Path(f"file:{path}")


# Encrypted values


def test_an_encrypted_secret_is_opened_with_the_key_of_a_variable_or_file() -> None:
    key = new_secret_key()
    closed = SecretsVault({KEY_VARIABLE: key}).encrypted(CANARY)
    assert closed.startswith("fernet:gAAAA")
    path = private("secret-key", key + "\n")
    for environ in ({KEY_VARIABLE: key}, {KEY_FILE_VARIABLE: str(path)}):
        assert load(f"api_key: {closed}", environ).settings.api_key == SecretStr(CANARY)


def test_the_variable_wins_over_the_file() -> None:
    key, other = new_secret_key(), private("other", new_secret_key())
    closed = SecretsVault({KEY_VARIABLE: key}).encrypted(CANARY)
    both = {KEY_VARIABLE: key, KEY_FILE_VARIABLE: str(other)}
    assert load(f"api_key: {closed}", both).settings.api_key == SecretStr(CANARY)


def test_while_keys_are_exchanged_both_open_and_the_first_closes() -> None:
    old, new = new_secret_key(), new_secret_key()
    closed = SecretsVault({KEY_VARIABLE: old}).encrypted(CANARY)
    both = SecretsVault({KEY_VARIABLE: f"{new},{old}"})
    assert both.opened(closed, setting="api_key") == CANARY
    again = both.encrypted(CANARY).removeprefix("fernet:")
    assert Fernet(new).decrypt(again.encode()).decode() == CANARY


def test_a_secret_key_in_dotenv_opens() -> None:
    key = new_secret_key()
    Path(".env").write_text(f"{KEY_VARIABLE}={key}\n")
    closed = SecretsVault({KEY_VARIABLE: key}).encrypted(CANARY)
    assert load(f"api_key: {closed}").settings.api_key == SecretStr(CANARY)


def test_an_encrypted_secret_that_cannot_be_opened_is_said_so() -> None:
    closed = SecretsVault({KEY_VARIABLE: new_secret_key()}).encrypted(CANARY)
    wrong = {KEY_VARIABLE: new_secret_key()}
    assert refused(f"api_key: {closed}") == (
        "LIVEOPS_SECRET_KEY: must be set, or LIVEOPS_SECRET_KEY_FILE: encrypted values need their "
        "key (settings.yaml line 1), found nothing"
    )
    expected = "api_key: must have been encrypted with a key in LIVEOPS_SECRET_KEY"
    assert refused(f"api_key: {closed}", wrong).startswith(expected)
    assert refused(f"api_key: {closed[:-8]}", wrong).startswith(expected)
    assert refused("api_key: fernet:ä", wrong).startswith(expected)
    assert "must hold keys" in refused(f"api_key: {closed}", {KEY_VARIABLE: CANARY})
    open_to_all = private("secret-key", CANARY, mode=0o644)
    assert "chmod 600" in refused(f"api_key: {closed}", {KEY_FILE_VARIABLE: str(open_to_all)})


# AWS Secrets Manager


@pytest.fixture(scope="module")
def aws_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(aws_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": aws_endpoint,
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    return aws_endpoint


@pytest.fixture
def stored(aws: str) -> Iterator[str]:
    client = boto3.client("secretsmanager")
    values = {
        "plain": {"SecretString": CANARY},
        "fields": {"SecretString": json.dumps({"url": URL, "key": CANARY, "port": 5432})},
        "bytes": {"SecretBinary": CANARY.encode()},
    }
    for name, value in values.items():
        client.create_secret(Name=f"liveops/{name}", **value)
    yield "liveops"
    for name in values:
        client.delete_secret(SecretId=f"liveops/{name}", ForceDeleteWithoutRecovery=True)


def test_a_secret_is_fetched_whole_or_by_field(stored: str) -> None:
    loaded = load(
        f"api_key: aws-sm:{stored}/plain\nexchange: {{api_key: 'aws-sm:{stored}/fields#key'}}\n"
        f"database: {{url: 'aws-sm:{stored}/fields#url'}}\n"
    )
    settings = loaded.settings
    assert settings.api_key == settings.exchange.api_key == SecretStr(CANARY)
    assert settings.database.url == URL


def test_a_secret_that_aws_does_not_give_is_said_so(stored: str) -> None:
    missing = "api_key: must be in AWS Secrets Manager under liveops/nothing"
    assert refused("api_key: aws-sm:liveops/nothing").startswith(missing)
    assert "found ResourceNotFoundException" in refused("api_key: aws-sm:liveops/nothing")
    assert "found no text" in refused(f"api_key: aws-sm:{stored}/bytes")
    assert "found no JSON" in refused(f"api_key: 'aws-sm:{stored}/plain#key'")
    for field in ("port", "other"):
        assert "found no such text" in refused(f"api_key: 'aws-sm:{stored}/fields#{field}'")


def test_an_aws_that_does_not_answer_is_said_so(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "found EndpointConnectionError" in refused("api_key: aws-sm:liveops/plain")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "found NoRegionError" in refused("api_key: aws-sm:liveops/plain")
