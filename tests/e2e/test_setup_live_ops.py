"""`setup_live_ops` as a person types it, and what it wrote as cron and systemd start it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import REPOSITORY, environment, free_port, script
from installations import parsed, words
from ledger import open_btc, register
from made_up_policy import FEATURES, deciding
from sqlalchemy import Engine, text

from bandit.service import policies
from liveops.clock import now
from liveops.schedule import JOBS

SETUP = "from liveops.cli import setup_live_ops; setup_live_ops()"
CARD = Path(__file__).resolve().parents[1] / "data" / "policy_card.json"


def set_up(*arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `setup_live_ops` to its end, whatever scripts are installed beside this Python."""
    return subprocess.run(
        [sys.executable, "-c", SETUP, *arguments],
        env=environment(home, **more),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )


def answered(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_policy_is_set_up_once_and_a_second_time_changes_nothing(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    out, home = tmp_path / "out", tmp_path / "var"
    asked = ("--policy-sha", "eee02a74", "--out", str(out), "--user", "daemon")

    def again(*more: str) -> subprocess.CompletedProcess[str]:
        return set_up(*asked, *more, home=home, LIVEOPS_DATABASE_URL=database_url)

    dry = again("--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"would be written: {out}/live_ops_crontab" in dry.stdout
    assert not out.exists()
    first = answered(again("--json"))
    assert first["policy"] == "reinforcement_20250707_154526_eee02a74"
    assert (first["experiments"], first["registered_now"]) == (["btc"], False)
    assert {file["state"] for file in first["files"]} == {"new"}
    assert {file["state"] for file in answered(again("--json"))["files"]} == {"unchanged"}
    commands = [step["command"] for step in first["next"]]
    assert f"sudo crontab -u daemon {out}/live_ops_crontab" in commands
    assert f"sudo install -d -o daemon -g daemon {home}" in commands
    assert not [command for command in commands if "useradd" in command]
    rules = out / "prometheus" / "prometheus_alerts.yml"
    place = "/etc/prometheus/prometheus_alerts.yml"
    assert f"sudo install -m 644 -o root -g root {rules} {place}" in commands
    assert "alert: ChallengerDrawdownHigh" in rules.read_text()
    [enabled] = [c for c in commands if "enable --now" in c and "liveops-scale.timer" in c]
    assert "liveops-monitor@reinforcement_20250707_154526_eee02a74.service" in enabled
    assert "sudo systemctl enable --now liveops-scheduler.service" in commands
    # A server that only this shell knows of: its address, a secret, is written nowhere.
    assert "put LIVEOPS_DATABASE_URL into" in "".join(first["warnings"])
    written = "".join(path.read_text() for path in out.rglob("*") if path.is_file())
    assert database_url not in written + json.dumps(first)


def test_files_follow_the_options_until_somebody_edits_them(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    out, home = tmp_path / "out", tmp_path / "var"
    asked = ("--policy-sha", "prod", "--out", str(out))

    def again(*more: str) -> subprocess.CompletedProcess[str]:
        return set_up(*asked, *more, home=home, LIVEOPS_DATABASE_URL=database_url)

    assert again("--user", "daemon").returncode == 0
    moved = answered(again("--user", "nobody-yet", "--json"))
    assert [file["state"] for file in moved["files"]] == [
        *("unchanged", "changed", "changed", "changed"),
        *(("changed", "unchanged") * len(JOBS)),  # services, and timers, which name no user
        *("changed", "changed", "unchanged", "unchanged", "unchanged"),
    ]
    commands = [step["command"] for step in moved["next"]]
    assert commands[0].startswith("sudo useradd --system ")
    assert commands[0].endswith(" nobody-yet")
    assert [command for command in commands if "daemon-reload" in command]
    assert "User=nobody-yet\n" in (out / "systemd/liveops.service").read_text()

    crontab = out / "live_ops_crontab"
    crontab.write_text(crontab.read_text() + "# mine\n")
    kept = again()
    assert kept.returncode == 1
    assert f"kept, as it was edited: {crontab}" in kept.stdout
    assert "\n-# mine\n" in kept.stdout
    assert crontab.read_text().endswith("# mine\n")
    assert again("--force").returncode == 0
    assert not crontab.read_text().endswith("# mine\n")


def test_a_second_policy_finds_every_file_as_it_has_to_be(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine, challengers=[("one", "bbb00001"), ("two", "bbb00002")])
    states = []
    for policy in ("two", "one"):
        asked = ("--policy-sha", policy, "--out", str(tmp_path / "out"), "--json")
        done = set_up(*asked, home=tmp_path / "var", LIVEOPS_DATABASE_URL=database_url)
        states.append({file["state"] for file in answered(done)["files"]})
    assert states == [{"new"}, {"unchanged"}]
    asked = ("--policy-sha", "bbb", "--out", str(tmp_path / "out"))
    unclear = set_up(*asked, home=tmp_path / "var", LIVEOPS_DATABASE_URL=database_url)
    assert unclear.returncode == 2
    assert "fits 2 policies: one, two" in unclear.stderr


def test_an_unknown_policy_exits_2_with_the_known_ones_and_what_to_type(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    traversal = "../" * 20 + "etc/"
    for reference, typed in (
        ("nobody", "liveops policy register nobody --sha HASH --kind KIND"),
        ("f" * 64, f"liveops policy register NAME --sha {'f' * 64} --kind KIND"),
        (traversal, "liveops policy register"),
    ):
        asked = ("--policy-sha", reference, "--out", str(tmp_path / "out"))
        done = set_up(*asked, home=tmp_path / "var", LIVEOPS_DATABASE_URL=database_url)
        assert done.returncode == 2
        assert "known: prod" in done.stderr
        assert typed in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_policy_without_an_arm_is_set_up_with_what_to_type(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    def said() -> str:
        asked = ("--policy-sha", "alone", "--out", str(tmp_path / "out"), "--user", "daemon")
        done = set_up(*asked, home=tmp_path / "var", LIVEOPS_DATABASE_URL=database_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    register(engine, "alone", "abcdef01")
    assert "  liveops experiment open NAME --champion alone --capital MONEY\n" in said()
    open_btc(engine)
    assert "  liveops experiment add btc alone\n" in said()
    assert (tmp_path / "out/live_ops_crontab").exists()


@pytest.mark.parametrize("has_card", [False, True])
def test_a_policy_that_is_stored_here_is_registered(
    engine: Engine, database_url: str, tmp_path: Path, has_card: bool
) -> None:
    home = tmp_path / "var"
    made = deciding(home / "artifacts", FEATURES)
    name = f"reinforcement_{made.spec.training.data_to:%Y%m%d_%H%M%S}_{made.sha[:8]}"
    if has_card:
        (home / "cards").mkdir()
        shutil.copy(CARD, home / "cards" / f"{made.sha}.json")
        name = json.loads(CARD.read_text())["policy"]
    asked = ("--policy-sha", made.sha, "--out", str(tmp_path / "out"), "--json")
    dry = answered(set_up(*asked, "--dry-run", home=home, LIVEOPS_DATABASE_URL=database_url))
    assert (dry["policy"], dry["registered_now"]) == (name, True)
    assert policies.listed(engine) == []
    done = answered(set_up(*asked, home=home, LIVEOPS_DATABASE_URL=database_url))
    assert (done["policy"], done["registered_now"]) == (name, True)
    held = policies.find(engine, made.sha).policy
    assert (held.name, held.data_cutoff) == (name, made.spec.training.data_to)
    assert held.metadata["artifact"] == made.manifest
    assert not answered(set_up(*asked, home=home, LIVEOPS_DATABASE_URL=database_url))[
        "registered_now"
    ]


def test_what_was_damaged_is_not_registered(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    home = tmp_path / "var"
    made = deciding(home / "artifacts", FEATURES)
    weights = home / "artifacts" / made.sha / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    asked = ("--policy-sha", made.sha, "--out", str(tmp_path / "out"))
    done = set_up(*asked, home=home, LIVEOPS_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert done.stderr.startswith("artifact_refused: ")
    assert policies.listed(engine) == []


def test_a_place_that_cannot_be_written_and_a_wrong_user_are_told(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    (tmp_path / "file").touch()
    asked = ("--policy-sha", "prod", "--out", str(tmp_path / "file"))
    done = set_up(*asked, home=tmp_path / "var", LIVEOPS_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert done.stderr.startswith("file_not_written: ")
    root = set_up(*asked, "--user", "root", home=tmp_path, LIVEOPS_DATABASE_URL=database_url)
    assert root.returncode == 2
    assert "--user: must be an ordinary user" in root.stderr


def test_a_file_of_secrets_is_read_as_services_read_it_and_left_alone(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    config = tmp_path / "settings.yaml"
    config.write_text("database:\n  url: ${LEDGER}\n")
    secrets = tmp_path / ".env"
    secrets.write_text(f"LEDGER={database_url}\n")
    secrets.chmod(0o644)
    asked = ("--policy-sha", "prod", "--out", str(tmp_path / "out"), "--json")
    asked = (*asked, "--config", str(config))
    warned = "".join(answered(set_up(*asked, home=tmp_path / "var"))["warnings"])
    assert f"others may read {secrets}: chmod 600 {secrets}" in warned
    assert "database.url" not in warned
    secrets.chmod(0o600)
    secrets.write_text("# LEDGER is in my shell\n")
    mine = {"LEDGER": database_url}
    warned = "".join(answered(set_up(*asked, home=tmp_path / "var", **mine))["warnings"])
    assert "others may read" not in warned
    assert "services would not see database.url as this shell does" in warned
    assert secrets.read_text() == "# LEDGER is in my shell\n"
    unit = parsed((tmp_path / "out/systemd/liveops.service").read_text())["Service"]
    assert words(unit["ExecStart"])[1:] == ["serve", "--config", str(config)]


@contextmanager
def started(unit: Path, *, instance: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a service as systemd does: its own variables and directory; wait until it is ready."""
    service = parsed(unit.read_text())["Service"]
    variables = dict(word.split("=", 1) for word in words(service["Environment"]))
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    address = folder / f"notify {unit.name}"
    with (
        (folder / f"{unit.name}.log").open("w") as log,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor,
    ):
        supervisor.bind(str(address))
        supervisor.settimeout(240)
        process = subprocess.Popen(
            words(service["ExecStart"], instance=instance),
            cwd=service["WorkingDirectory"].replace("%%", "%"),
            env=kept | variables | {"NOTIFY_SOCKET": str(address)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            if service["Type"] == "notify":
                assert supervisor.recv(100) == b"READY=1"
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)


def ran_by_cron(crontab: Path, *, hour: str, folder: Path) -> None:
    """Run the line of the crontab that scales as cron does, at an hour of UTC."""
    (line,) = [x for x in crontab.read_text().splitlines() if " job run scale " in x]
    command = line.split(None, 5)[5].replace(r"\%", "%")
    folder.mkdir(exist_ok=True)
    date = folder / "date"
    date.write_text(f'#!/bin/sh\n[ "$*" = "-u +%H" ] && echo {hour}\n')
    date.chmod(0o755)
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env=kept | {"PATH": f"{folder}:/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "cron would send a mail"


def test_cron_scales_and_systemd_serves_from_what_was_written(open_folder: Path) -> None:
    home, out, port = open_folder / "my 100% var", open_folder / "out", free_port()
    known = {"LIVEOPS_PORT": str(port)}

    def liveops(*arguments: str) -> None:
        done = script("liveops", *arguments, home=home, **known)
        assert done.returncode == 0, done.stderr

    liveops("db", "upgrade")
    liveops("policy", "register", "prod", "--sha", "11111111", "--kind", "production")
    done = set_up("--policy-sha", "prod", "--out", str(out), "--user", "daemon", home=home, **known)
    assert done.returncode == 0, done.stderr
    units, log = out / "systemd", home / "logs" / "scale.log"
    with started(units / "liveops.service", instance="", folder=open_folder) as serving:
        assert httpx.get(f"http://127.0.0.1:{port}/ready").json() == {"status": "ok"}
        liveops("policy", "register", "newer", "--sha", "22222222")
        opened = ("--champion", "prod", "--challenger", "newer", "--capital", "10000")
        liveops("experiment", "open", "btc", *opened)
        unit = {"unit_id": "1", "instrument": "BTCUSD"}
        asked = httpx.post(f"http://127.0.0.1:{port}/v1/experiments/btc/assignments", json=unit)
        assert asked.is_success, asked.text
        with started(
            units / "liveops-monitor@.service", instance="prod", folder=open_folder
        ) as watching:
            assert watching.stdout is not None
            assert watching.stdout.readline().endswith("btc: nothing is flagged\n")
        assert watching.returncode == 0

        crontab, clock = out / "live_ops_crontab", open_folder / "clock"
        ran_by_cron(crontab, hour="01", folder=clock)
        assert not log.exists()
        is_over = now().hour < 2  # the newest slot is of a night that nobody decides any more
        ran_by_cron(crontab, hour="02", folder=clock)
        said = log.read_text()
        for told in (
            ["is not decided now"] if is_over else ['"kind": "HOLD"', '"already_done": false']
        ):
            assert told in said
        ran_by_cron(crontab, hour="02", folder=clock)
        assert re.search(r"scale of \S+ 02:00 UTC: was done before: ", log.read_text()[len(said) :])
    assert serving.returncode == 0
    # Whoever connects past SQLAlchemy finds a directory with a blank in its name, too.
    assert "WARNING" not in (open_folder / "liveops.service.log").read_text()
    assert not (home / "postgres/cluster/postmaster.pid").exists(), "the ledger stopped with it"


def test_the_ledger_has_one_night_of_what_both_start(engine: Engine, database_url: str) -> None:
    """Cron and a timer, both installed by mistake: one decision."""
    open_btc(engine)
    for _ in range(2):
        done = script(
            "live_ops_monitor",
            *("--policy-sha", "prod", "--mode", "scale"),
            LIVEOPS_DATABASE_URL=database_url,
        )
        assert done.returncode == 0, done.stderr
    with engine.connect() as connection:
        nights = text("SELECT count(*) FROM decisions WHERE trading_day IS NOT NULL")
        assert connection.execute(nights).scalar_one() == 1
