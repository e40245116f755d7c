"""One canary in each place that secrets may come from; whatever is provoked, none is seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import httpx
import pytest
from commands import BIN, REPOSITORY, environment, free_port, running, wait_for
from ledger import open_btc
from moto.server import ThreadedMotoServer
from sqlalchemy import Engine, make_url, text

from config.secrets import KEY_VARIABLE, SecretsVault, new_secret_key

CANARIES = {
    "environment": "canary-environment-5d1c",
    "file": "canary-file-83ab",
    "fernet": "canary-fernet-90fe",
    "aws": "canary-aws-c472",
    "secret key": new_secret_key(),
}
NEWCOMER = "canary-of-a-caller"
SHOW_EVERYTHING = """
from liveops.commands.options import loaded_settings
s = loaded_settings(None).settings
print(s.database.url, s.api_key.get_secret_value(), s.exchange.api_secret.get_secret_value(),
      s.operations.alerts.discord_webhook_url.get_secret_value())
"""


@dataclass(kw_only=True)
class Scene:
    """A configured checkout, and everything that was seen of it."""

    environ: dict[str, str]
    seen: list[str] = field(default_factory=list)

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and keep what it said."""
        done = subprocess.run(
            arguments,
            env=self.environ | more,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.seen += [done.stdout, done.stderr]
        return done

    def liveops(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(BIN / "liveops"), *arguments, **more)

    def ask(self, url: str, key: str) -> int:
        answer = httpx.get(url, headers={"Authorization": f"Bearer {key}"})
        self.seen += [answer.text, str(answer.headers)]
        return answer.status_code

    def leaks(self) -> set[str]:
        """The places whose canary was seen."""
        everything = "\n".join(self.seen)
        return {place for place, canary in CANARIES.items() if canary in everything}


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environ = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        secret = json.dumps({"webhook": CANARIES["aws"]})
        boto3.client("secretsmanager").create_secret(Name="alerts", SecretString=secret)
    yield environ
    server.stop()


@pytest.fixture
def scene(tmp_path: Path, engine: Engine, aws: Mapping[str, str]) -> Iterator[Scene]:
    open_btc(engine)
    role, password = f"canary_{os.getpid()}", CANARIES["environment"]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'")
    url = engine.url.set(drivername="postgresql", username=role, password=password)
    key = tmp_path / "key"
    key.write_text(CANARIES["file"] + "\n")
    key.chmod(0o600)
    closed = SecretsVault({KEY_VARIABLE: CANARIES["secret key"]}).encrypted(CANARIES["fernet"])
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        f"api_key: file:{key}\nexchange: {{api_secret: '{closed}'}}\nlogging: {{level: DEBUG}}\n"
        "operations: {alerts: {discord_webhook_url: 'aws-sm:alerts#webhook'}}\n"
    )
    yield Scene(
        environ=environment(
            tmp_path / "var",
            LIVEOPS_CONFIG=str(settings),
            LIVEOPS_DATABASE_URL=url.render_as_string(hide_password=False),
            **{KEY_VARIABLE: CANARIES["secret key"]},
            **aws,
        )
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")


def test_every_canary_is_in_use_and_would_be_found(scene: Scene) -> None:
    """The control: a program that prints them is caught by the same search."""
    assert scene.run(sys.executable, "-c", SHOW_EVERYTHING).returncode == 0
    assert scene.leaks() == {"environment", "file", "fernet", "aws"}
    scene.run(sys.executable, "-c", f"import os; print(os.environ['{KEY_VARIABLE}'])")
    assert scene.leaks() == set(CANARIES)


def test_commands_show_no_secret(scene: Scene) -> None:
    for command in (
        ("config", "show"),
        ("config", "show", "--json"),
        ("doctor",),
        ("report", "--json"),
        ("key", "list", "--json"),
    ):
        assert scene.liveops(*command).returncode == 0, scene.seen[-2:]
    assert scene.leaks() == set()


@pytest.mark.parametrize(
    "spoilt",
    [
        {"password": "wrong-{}"},
        {"host": "no-such-host.invalid", "password": "{}"},
        {"port": 1, "host": "127.0.0.1", "password": "{}"},
        {"query": {"password": "{}", "nonsense": "{}"}},
    ],
)
def test_a_ledger_that_refuses_shows_no_secret(
    scene: Scene, spoilt: dict[str, str | int | dict[str, str]]
) -> None:
    canary = CANARIES["environment"]
    changes = json.loads(json.dumps(spoilt).replace("{}", canary))
    url = make_url(scene.environ["LIVEOPS_DATABASE_URL"])
    if "host" in changes or "query" in changes:
        url = url.set(query={})
    wrong = url.set(**changes).render_as_string(hide_password=False)
    port = str(free_port())
    assert scene.liveops("doctor", LIVEOPS_DATABASE_URL=wrong).returncode == 1
    assert scene.liveops("serve", "--port", port, LIVEOPS_DATABASE_URL=wrong).returncode == 1
    assert scene.leaks() == set()


@pytest.mark.parametrize(
    "url", ["{0}", "postgresql://bot:a/{0}@h/d", "postgresql://b:{0}:1@h:{0}/d"]
)
def test_a_database_url_that_is_none_shows_no_secret(scene: Scene, url: str) -> None:
    wrong = url.format(CANARIES["environment"])
    scene.liveops("config", "show", LIVEOPS_DATABASE_URL=wrong)
    assert scene.liveops("report", LIVEOPS_DATABASE_URL=wrong).returncode in (1, 2)
    assert scene.leaks() == set()


def test_a_service_in_trouble_shows_no_secret(scene: Scene, engine: Engine, tmp_path: Path) -> None:
    log, port, key = tmp_path / "log", free_port(), CANARIES["file"]
    url, home = f"http://127.0.0.1:{port}", tmp_path / "var"
    with running("serve", "--port", str(port), home=home, log=log, **scene.environ) as process:
        wait_for("serving http", log, process)
        scene.seen.append(Path(f"/proc/{process.pid}/cmdline").read_text())
        paths = ("/health", "/metrics", "/openapi.json", "/v1/experiments/btc/report", "/nope")
        assert [scene.ask(url + path, key) for path in paths] == [200, 200, 200, 200, 404]
        assert scene.ask(url + "/v1/policies", NEWCOMER) == 401
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"GET / HTTP/1.1\r\nAuthorization {key}\r\n\r\n".encode())
            scene.seen.append(client.makefile().read())
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE policies RENAME TO elsewhere"))
        assert scene.ask(url + "/v1/policies", key) == 500
        with engine.begin() as connection:
            role = make_url(scene.environ["LIVEOPS_DATABASE_URL"]).username
            connection.execute(text(f"ALTER ROLE {role} PASSWORD 'another'"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :r"),
                {"r": role},
            )
        assert scene.ask(url + "/v1/experiments", key) == 503
        assert scene.ask(url + "/health", key) == 503
        assert scene.ask(url + "/metrics", key) == 200
    said = log.read_text()
    assert "Traceback" in said
    assert "request not served" in said
    assert " DEBUG " in said
    scene.seen.append(said)
    assert scene.leaks() == set()
    assert NEWCOMER not in said
