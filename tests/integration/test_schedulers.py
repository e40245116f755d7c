"""Schedulers as processes: five on one ledger, whose leader is killed or stopped."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from benchmarks.maintenance.schedulers import run


def test_each_slot_is_done_once_while_leaders_are_killed_and_stopped(
    database_url: str, tmp_path: Path
) -> None:
    plain = make_url(database_url).set(drivername="postgresql")
    conninfo = plain.render_as_string(hide_password=False)
    report = run(database_url, conninfo, tmp_path, jobs=6, rounds=2, period=15, seed=5)
    assert (report.done, report.done_twice) == (12, 0)
    assert report.killed
    assert report.stopped
    # The work of a slot is begun again only where its leader was lost.
    assert report.executions - report.slots <= report.begun_again
