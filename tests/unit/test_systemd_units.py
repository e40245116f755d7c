"""systemd's units: what they say, and that systemd understands it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from installations import installation, parsed, words

from liveops.systemd_units import render_units

SERVICES = [
    "liveops.service",
    "liveops-monitor@.service",
    "liveops-scheduler.service",
    "liveops-scale.service",
]


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not beside this checkout")
    return subprocess.run([program, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("unit", "command"),
    [
        ("liveops.service", "liveops serve"),
        ("liveops-monitor@.service", "live_ops_monitor --policy-sha P --mode continuous"),
        ("liveops-scheduler.service", "liveops scheduler"),
        ("liveops-scale.service", "liveops job run scale --scheduled"),
    ],
)
def test_a_service_runs_its_command_as_its_user_in_the_checkout(unit: str, command: str) -> None:
    here = installation()
    service = parsed(render_units(here)[unit])["Service"]
    program, *options = command.split()
    wanted = [str(here.programs / program), *options, "--config", str(here.config)]
    assert words(service["ExecStart"], instance="P") == wanted
    assert service["User"] == "trader"
    assert service["WorkingDirectory"] == "/srv/live ops/100%%"
    assert words(service["Environment"]) == [f"{k}={v}" for k, v in here.variables.items()]
    assert words(service["ReadWritePaths"]) == [str(here.home)]
    assert service["Restart"] == "on-failure"
    # Nor is a slot begun again that has no try left.
    assert service["RestartPreventExitStatus"] == ("2 4" if "job run" in command else "2")


@pytest.mark.parametrize(
    "unit", ["liveops.service", "liveops-monitor@.service", "liveops-scheduler.service"]
)
def test_what_goes_on_is_begun_again_after_ten_seconds_and_with_the_machine(unit: str) -> None:
    found = parsed(render_units(installation())[unit])
    assert found["Service"]["RestartSec"] == "10"
    assert found["Install"]["WantedBy"] == "multi-user.target"


def test_whoever_uses_the_embedded_ledger_comes_after_its_owner_and_goes_before_it() -> None:
    units = render_units(installation())
    assert parsed(units["liveops.service"])["Service"]["Type"] == "notify"
    for name in SERVICES[1:]:
        unit = parsed(units[name])["Unit"]
        assert (unit["Requires"], unit["After"]) == ("liveops.service", "liveops.service")


def test_with_a_server_of_ones_own_no_unit_needs_another_and_all_wait_for_the_network() -> None:
    units = render_units(installation(is_embedded=False))
    for name in SERVICES:
        unit = parsed(units[name])["Unit"]
        assert "Requires" not in unit
        assert unit["After"] == unit["Wants"] == "network-online.target"


def test_a_socket_that_lies_in_tmp_is_seen_by_every_unit() -> None:
    for name in SERVICES:
        usual = parsed(render_units(installation())[name])["Service"]
        assert usual["PrivateTmp"] == "true"
        shared = parsed(render_units(installation(is_long=True))[name])["Service"]
        assert "PrivateTmp" not in shared
        assert words(shared["ReadWritePaths"])[-1] == str(Path("/", "tmp"))
        away = installation(is_long=True, is_embedded=False)
        assert parsed(render_units(away)[name])["Service"]["PrivateTmp"] == "true"


def test_what_lies_outside_of_home_is_writable_too() -> None:
    here = installation(writable=(Path("/mnt/anchors"), Path("/mnt/old years")))
    for name in SERVICES:
        service = parsed(render_units(here)[name])["Service"]
        assert words(service["ReadWritePaths"]) == [str(here.home), *map(str, here.writable)]


@pytest.mark.real_part
@pytest.mark.parametrize("changes", [{}, {"is_embedded": False}, {"is_long": True}])
def test_systemd_finds_nothing_wrong_with_the_units(
    changes: dict[str, bool], tmp_path: Path
) -> None:
    root = tmp_path / "live ops 100%"
    programs = root / "bin"
    programs.mkdir(parents=True)
    for name in ("liveops", "live_ops_monitor"):
        shutil.copy("/bin/true", programs / name)
    here = installation(root=root, programs=programs, home=root / "it's var", **changes)
    files = []
    for name, text in render_units(here).items():
        files.append(tmp_path / name)
        files[-1].write_text(text)
    found = systemd_analyze("verify", "--man=no", *map(str, files))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    # The control: a word that systemd does not know, a program that is not there.
    files[0].write_text(files[0].read_text().replace("UMask=", "UMusk="))
    assert "UMusk" in systemd_analyze("verify", "--man=no", str(files[0])).stderr
    (programs / "liveops").unlink()
    assert systemd_analyze("verify", "--man=no", str(files[0])).returncode != 0


@pytest.mark.real_part
def test_systemd_says_that_the_timer_elapses_at_two_utc_each_day() -> None:
    calendar = parsed(render_units(installation())["liveops-scale.timer"])["Timer"]["OnCalendar"]
    # The night on which Berlin's clocks jump over two o'clock.
    base = "--base-time=2026-03-28 00:00:00 UTC"
    found = systemd_analyze("calendar", base, "--iterations=3", calendar)
    assert found.returncode == 0, found.stderr
    # Also in local time, where that is another.
    nights = re.findall(r"2026-\d\d-\d\d \d\d:\d\d:\d\d UTC", found.stdout)
    assert nights == [f"2026-03-{day} 02:00:00 UTC" for day in (28, 29, 30)]
