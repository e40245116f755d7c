"""Files for an operator: rendered once, theirs once they were edited, whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from installations import installation

from liveops.crontab import CRONTAB
from liveops.operator_files import (
    FileState,
    OperatorFile,
    planned,
    render_logrotate,
    render_secrets_example,
    sealed,
    write,
)
from liveops.schedule import JOBS
from liveops.whole_files import FileNotWritten

NAMES = [
    "live_ops_crontab",
    "systemd/liveops.service",
    "systemd/liveops-monitor@.service",
    "systemd/liveops-scheduler.service",
    *(f"systemd/liveops-{job.name}.{end}" for job in JOBS for end in ("service", "timer")),
    "logrotate/liveops",
    "liveops.env.example",
    "prometheus/prometheus_alerts.yml",
    "prometheus/alertmanager.yml",
    "airflow/liveops_dags.py",
]

WATCHING = {"prometheus_alerts.yml": "groups: []\n", "alertmanager.yml": "route: {}\n"}


def states(files: list[OperatorFile]) -> set[FileState]:
    return {file.state for file in files}


def edit(path: Path, text: str = "# mine\n") -> bytes:
    path.write_text(path.read_text() + text)
    return path.read_bytes()


def test_a_second_time_there_is_nothing_to_write(tmp_path: Path) -> None:
    out = tmp_path / "a new" / "folder"
    first = planned(installation(), out=out, watching=WATCHING)
    assert [str(file.path.relative_to(out)) for file in first] == NAMES
    assert states(first) == {FileState.NEW}
    assert not out.exists(), "planning makes nothing"
    write(first, force=False)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = planned(installation(), out=out, watching=WATCHING)
    assert states(again) == {FileState.UNCHANGED}
    write(again, force=True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_file_that_somebody_edited_stays_until_it_is_forced(tmp_path: Path) -> None:
    write(planned(installation(), out=tmp_path, watching=WATCHING), force=False)
    unit = tmp_path / "systemd/liveops.service"
    mine = edit(unit)
    changed = planned(installation(user="other"), out=tmp_path, watching=WATCHING)
    (kept,) = [file for file in changed if file.state is FileState.EDITED]
    assert kept.path == unit
    assert "-# mine\n" in kept.diff
    assert "-User=trader\n+User=other\n" in kept.diff
    write(changed, force=False)
    assert unit.read_bytes() == mine
    assert "User=other" in (tmp_path / "systemd/liveops-monitor@.service").read_text()
    write(changed, force=True)
    assert unit.read_text() == kept.content
    found = planned(installation(user="other"), out=tmp_path, watching=WATCHING)
    assert states(found) == {FileState.UNCHANGED}


@pytest.mark.parametrize("mine", ["", "* * * * * mine\n", "# written by setup_live_ops\n"])
def test_a_file_of_that_name_that_is_not_ours_stays(tmp_path: Path, mine: str) -> None:
    crontab = tmp_path / CRONTAB
    crontab.write_text(mine)
    files = planned(installation(), out=tmp_path, watching=WATCHING)
    assert files[0].state is FileState.EDITED
    write(files, force=False)
    assert crontab.read_text() == mine


def test_what_is_ours_and_another_releases_is_written_again(tmp_path: Path) -> None:
    crontab = tmp_path / CRONTAB
    crontab.write_text(sealed("0 2 * * * another release\n"))
    files = planned(installation(), out=tmp_path, watching=WATCHING)
    assert files[0].state is FileState.CHANGED
    write(files, force=False)
    assert "another release" not in crontab.read_text()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    files = planned(installation(), out=tmp_path, watching=WATCHING)
    (tmp_path / "systemd").write_text("a file")
    with pytest.raises(FileNotWritten, match=r"systemd/liveops.service was not written: .* exists"):
        write(files, force=False)
    with pytest.raises(FileNotWritten, match="cannot be read: Not a directory"):
        planned(installation(), out=tmp_path, watching=WATCHING)


def test_logs_are_rotated_as_their_owner_and_an_open_one_is_copied() -> None:
    rules = re.findall(r'"(.+)" \{\n([^}]+)\}', render_logrotate(installation()))
    found = {name: rule.split("\n    ") for name, rule in rules}
    logs = [f"logs/{job.name}.log" for job in JOBS]
    assert [name.removeprefix("/srv/live ops/it's var/") for name in found] == [
        '" "/srv/live ops/it\'s var/'.join(logs),
        "postgres/server.log",
    ]
    scale, server = ([line.strip() for line in rule] for rule in found.values())
    assert "su trader traders" in scale
    assert "create" in scale
    assert "copytruncate" in server
    away = render_logrotate(installation(is_embedded=False))
    assert "server.log" not in away


def test_the_example_of_secrets_names_them_and_sets_none() -> None:
    lines = render_secrets_example(installation()).splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    assert "# LIVEOPS_API_KEY=" in lines
    assert "# LIVEOPS_DATABASE_URL=" in lines
    assert "/srv/live ops/100%/config/.env" in lines[0]
