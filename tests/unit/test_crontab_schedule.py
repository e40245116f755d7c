"""The crontab: fired as cron fires it, minute by minute, in zones where clocks go and jump."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from installations import installation, parsed

from bandit.core.errors import InvalidInput
from liveops.crontab import policies_in, render_crontab
from liveops.installation import Installation
from liveops.schedule import NIGHTLY, TRY_MINUTES
from liveops.systemd_units import render_units

FIELD = re.compile(r"\*(?:/(\d+))?|(\d+)")
# Where a day is 23, 24 and 25 hours long, where clocks jump by half an hour, where they stand on
# quarters of one, and where the night of UTC is another day. Each 48 hours hold the change.
ZONES = [
    ("UTC", datetime(2026, 3, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 10, 31, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 3, 1, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 3, 1, tzinfo=UTC)),
    ("Pacific/Chatham", datetime(2026, 9, 26, tzinfo=UTC)),
    ("Pacific/Kiritimati", datetime(2026, 3, 1, tzinfo=UTC)),
]


def jobs(crontab: str) -> Iterator[tuple[list[str], str]]:
    """The lines that cron takes for jobs: five fields, and the command as it reaches the shell."""
    for line in crontab.splitlines():
        if line and not line.startswith("#"):
            *fields, command = line.split(None, 5)
            assert re.search(r"(?<!\\)%", command) is None, "cron would end the command there"
            yield fields, command.replace(r"\%", "%")


def is_due(fields: list[str], local: datetime) -> bool:
    weekday = local.isoweekday() % 7
    now = (local.minute, local.hour, local.day, local.month, weekday)
    for field, value in zip(fields, now, strict=True):
        match = FIELD.fullmatch(field)
        assert match is not None, field
        if match[2] is not None:
            if value != int(match[2]):
                return False
        elif value % int(match[1] or 1):
            return False
    return True


def launches(fields: list[str], zone: str, start: datetime, hours: int = 48) -> list[datetime]:
    """When cron on a machine of this zone starts the command, in UTC."""
    minutes = (start + timedelta(minutes=count) for count in range(60 * hours))
    return [now for now in minutes if is_due(fields, now.astimezone(ZoneInfo(zone)))]


@pytest.fixture
def machine(tmp_path: Path) -> Installation:
    """An installation whose monitor writes down that it ran, and with which words."""
    root = tmp_path / "live ops" / "100%"
    programs = root / "bin"
    programs.mkdir(parents=True)
    monitor = programs / "live_ops_monitor"
    monitor.write_text('#!/bin/sh\necho "ran in $PWD for $LIVEOPS_HOME: $*"\n')
    monitor.chmod(0o755)
    home = root / "it's var"
    variables = {"LIVEOPS_HOME": str(home)}
    return installation(root=root, programs=programs, home=home, variables=variables)


def ran(command: str, log: Path, now: datetime, clock: Path) -> list[str]:
    """Run a command as cron does, at `now`, and return what its job added to the log."""
    clock.mkdir(exist_ok=True)
    fake = clock / "date"
    fake.write_text(f'#!/bin/sh\nexec /bin/date --date=@{now.timestamp():.0f} "$@"\n')
    fake.chmod(0o755)
    before = log.read_text() if log.exists() else ""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": f"{clock}:/usr/bin:/bin", "TZ": "Asia/Tokyo"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "cron would send a mail"
    return (log.read_text() if log.exists() else "").removeprefix(before).splitlines()


def test_the_line_runs_the_monitor_in_its_hour_of_utc_and_in_no_other(
    machine: Installation, tmp_path: Path
) -> None:
    ((_, command),) = jobs(render_crontab(machine, ["trend-v2"]))
    log, day = machine.logs / "scale.log", datetime(2026, 3, 1, tzinfo=UTC)
    starts = [day + timedelta(minutes=minutes) for minutes in range(0, 24 * 60, TRY_MINUTES)]
    acted = {
        now: said for now in starts if (said := ran(command, log, now, tmp_path / "clock")) != []
    }
    assert [f"{now:%H:%M}" for now in acted] == ["02:00", "02:15", "02:30", "02:45"]
    (said,) = acted[starts[8]]
    options = f"--policy-sha trend-v2 --mode scale --config {machine.config}"
    assert said == f"ran in {machine.root} for {machine.home}: {options}"


@pytest.mark.parametrize(("zone", "start"), ZONES)
def test_each_utc_night_begins_at_two_whatever_the_clocks_on_the_wall_do(
    zone: str, start: datetime
) -> None:
    ((fields, _),) = jobs(render_crontab(installation(), ["trend-v2"]))
    found = launches(fields, zone, start)
    # Each quarter of an hour that passes, so that the hour of UTC is looked at when it begins.
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=15)}
    nights = [now for now in found if now.hour == 2]
    days = [start, start + timedelta(days=1)]
    assert [now for now in nights if now.minute == 0] == [day.replace(hour=2) for day in days]
    assert len(nights) == 8, "and three times a night it looks whether that is done"


def test_a_line_at_two_on_the_wall_would_miss_a_night_and_run_one_twice() -> None:
    """The control: what a crontab usually says does not pass the test above."""
    found = launches(["0", "2", "*", "*", "*"], "America/New_York", ZONES[3][1])
    assert [now.hour for now in found] != [2, 2]
    assert len(launches(["30", "2", "*", "*", "*"], "Europe/Berlin", ZONES[1][1])) == 1
    assert len(launches(["30", "2", "*", "*", "*"], "Europe/Berlin", ZONES[2][1])) == 3


def test_crontab_and_timers_say_the_same_times() -> None:
    units = render_units(installation())
    lines = {job.split("/")[-1]: job for _, job in jobs(render_crontab(installation(), ["p"]))}
    assert len(lines) == len(NIGHTLY) == len([name for name in units if name.endswith(".timer")])
    for job, command in zip(NIGHTLY, lines.values(), strict=True):
        calendar = parsed(units[f"liveops-{job.name}@.timer"])["Timer"]["OnCalendar"]
        timed = re.fullmatch(r"\*-\*-\* (\d\d):00:00 UTC", calendar)
        guarded = re.match(r'\[ "\$\(date -u \+%H\)" = (\d\d) \] \|\| exit 0; ', command)
        assert timed is not None
        assert guarded is not None
        assert timed[1] == guarded[1] == f"{job.at:%H}"
        service = parsed(units[f"liveops-{job.name}@.service"])
        assert service["Service"]["RestartSec"] == f"{TRY_MINUTES}min"
        # Four starts and no fifth before the hours are over in which they are counted.
        assert service["Unit"]["StartLimitBurst"] == "4"
        assert service["Unit"]["StartLimitIntervalSec"] == "120min"


def test_every_policy_has_its_line_once() -> None:
    crontab = render_crontab(installation(), ["trend-v2", "btc.1", "trend-v2"])
    assert policies_in(crontab) == ["btc.1", "trend-v2"]
    commands = [command for _, command in jobs(crontab)]
    asked = [re.findall("--policy-sha ([^ ]+) ", command) for command in commands]
    assert asked == [["btc.1"], ["trend-v2"]]


def test_a_command_that_cron_would_refuse_for_its_length_is_refused_here() -> None:
    deep = Path("/" + "/".join(["x" * 60] * 5))
    with pytest.raises(InvalidInput, match="at most 998 bytes"):
        render_crontab(installation(home=deep, root=deep, programs=deep), ["p"])


@pytest.mark.parametrize("sign", ['"', "\\", "$", "*", "?", "[", "\n", " "])
def test_a_path_that_some_reader_would_misread_is_refused(sign: str) -> None:
    with pytest.raises(InvalidInput, match="path: must have none of"):
        installation(home=Path(f"/srv/var{sign}"))


@pytest.mark.parametrize("user", ["root", "", "Trader", "a b", "x;y"])
def test_only_an_ordinary_user_is_written_down(user: str) -> None:
    with pytest.raises(InvalidInput, match="--user: must be an ordinary user"):
        installation(user=user)
