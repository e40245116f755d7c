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
from installations import installation

from bandit.core.errors import InvalidInput
from liveops.crontab import CRONTAB, TRY_MINUTES, example_installation, render_crontab
from liveops.installation import Installation
from liveops.ledger_server import checkout
from liveops.operator_files import sealed
from liveops.schedule import JOBS

FIELD = re.compile(r"\*|\d+(?:,\d+)*")
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


def lines(crontab: str) -> Iterator[tuple[str, list[str], str]]:
    """What cron takes for jobs: the name, five fields, and the command as it reaches the shell."""
    for line in crontab.splitlines():
        if line and not line.startswith("#"):
            *fields, command = line.split(None, 5)
            assert re.search(r"(?<!\\)%", command) is None, "cron would end the command there"
            name = re.search(r"liveops'? job run (\w+) --scheduled", command)
            assert name is not None
            yield name[1], fields, command.replace(r"\%", "%")


def line_of(name: str, crontab: str) -> tuple[list[str], str]:
    [found] = [(fields, command) for job, fields, command in lines(crontab) if job == name]
    return found


def is_due(fields: list[str], local: datetime) -> bool:
    weekday = local.isoweekday() % 7
    now = (local.minute, local.hour, local.day, local.month, weekday)
    for field, value in zip(fields, now, strict=True):
        assert FIELD.fullmatch(field) is not None, field
        if field != "*" and str(value) not in field.split(","):
            return False
    return True


def launches(fields: list[str], zone: str, start: datetime, hours: int = 48) -> list[datetime]:
    """When cron on a machine of this zone starts the command, in UTC."""
    minutes = (start + timedelta(minutes=count) for count in range(60 * hours))
    return [now for now in minutes if is_due(fields, now.astimezone(ZoneInfo(zone)))]


@pytest.fixture
def machine(tmp_path: Path) -> Installation:
    """An installation whose program writes down that it ran, and with which words."""
    root = tmp_path / "live ops" / "100%"
    programs = root / "bin"
    programs.mkdir(parents=True)
    program = programs / "liveops"
    program.write_text('#!/bin/sh\necho "ran in $PWD for $LIVEOPS_HOME: $*"\n')
    program.chmod(0o755)
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


@pytest.mark.parametrize(
    ("job", "day", "wanted"),
    [
        ("scale", datetime(2026, 3, 1, tzinfo=UTC), ["02"]),
        # What waits for the data, which may take until four, is looked at until five.
        ("rotation", datetime(2026, 3, 1, tzinfo=UTC), ["02", "03", "04"]),
        ("maintenance", datetime(2026, 3, 1, tzinfo=UTC), ["03", "04"]),  # a Sunday
        ("maintenance", datetime(2026, 3, 2, tzinfo=UTC), []),
        ("maintenance", datetime(2026, 2, 28, tzinfo=UTC), []),
        ("drill", datetime(2026, 3, 1, tzinfo=UTC), ["10"]),
        ("drill", datetime(2026, 3, 7, tzinfo=UTC), []),
    ],
)
def test_the_line_runs_its_job_in_its_hours_of_utc_and_in_no_other(
    machine: Installation, tmp_path: Path, job: str, day: datetime, wanted: list[str]
) -> None:
    _, command = line_of(job, render_crontab(machine))
    log = machine.logs / f"{job}.log"
    starts = [day + timedelta(minutes=minutes) for minutes in range(0, 24 * 60, TRY_MINUTES)]
    acted = {
        now: said for now in starts if (said := ran(command, log, now, tmp_path / "clock")) != []
    }
    assert [f"{now:%H:%M}" for now in acted] == [
        f"{hour}:{minute}" for hour in wanted for minute in ("00", "15", "30", "45")
    ]
    options = f"job run {job} --scheduled --config {machine.config}"
    assert {line for said in acted.values() for line in said} == (
        {f"ran in {machine.root} for {machine.home}: {options}"} if wanted else set()
    )


@pytest.mark.parametrize(("zone", "start"), ZONES)
def test_each_utc_night_begins_at_two_whatever_the_clocks_on_the_wall_do(
    zone: str, start: datetime
) -> None:
    fields, _ = line_of("scale", render_crontab(installation()))
    found = launches(fields, zone, start)
    # Each quarter of an hour that passes, so that the hour of UTC is looked at when it begins.
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=15)}
    nights = [now for now in found if now.hour == 2]
    days = [start, start + timedelta(days=1)]
    assert [now for now in nights if now.minute == 0] == [day.replace(hour=2) for day in days]
    assert len(nights) == 8, "and three times a night it looks whether that is done"


@pytest.mark.parametrize(("zone", "start"), ZONES)
def test_an_hourly_job_begins_at_its_minute_in_every_zone(zone: str, start: datetime) -> None:
    fields, _ = line_of("drift", render_crontab(installation()))
    found = launches(fields, zone, start)
    on_time = [start + timedelta(hours=hour, minutes=10) for hour in range(48)]
    assert [now for now in found if now.minute == 10] == on_time


def test_a_line_at_two_on_the_wall_would_miss_a_night_and_run_one_twice() -> None:
    """The control: what a crontab usually says does not pass the test above."""
    found = launches(["0", "2", "*", "*", "*"], "America/New_York", ZONES[3][1])
    assert [now.hour for now in found] != [2, 2]
    assert len(launches(["30", "2", "*", "*", "*"], "Europe/Berlin", ZONES[1][1])) == 1
    assert len(launches(["30", "2", "*", "*", "*"], "Europe/Berlin", ZONES[2][1])) == 3


def test_every_job_has_its_line_once() -> None:
    names = [name for name, *_ in lines(render_crontab(installation()))]
    assert names == [job.name for job in JOBS]


def test_the_example_in_the_checkout_is_what_is_rendered_now() -> None:
    kept = (checkout() / "config" / CRONTAB).read_text(encoding="utf-8")
    assert kept == sealed(render_crontab(example_installation()))


def test_a_command_that_cron_would_refuse_for_its_length_is_refused_here() -> None:
    deep = Path("/" + "/".join(["x" * 60] * 5))
    with pytest.raises(InvalidInput, match="at most 998 bytes"):
        render_crontab(installation(home=deep, root=deep, programs=deep))


@pytest.mark.parametrize("sign", ['"', "\\", "$", "*", "?", "[", "\n", " "])
def test_a_path_that_some_reader_would_misread_is_refused(sign: str) -> None:
    with pytest.raises(InvalidInput, match="path: must have none of"):
        installation(home=Path(f"/srv/var{sign}"))
