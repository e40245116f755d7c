"""The spool: what it took outlives its process, its disk and its neighbours."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from ledger import NOON, together

from liveops.client.contact import Contact, Standing
from liveops.client.delivery import ACKNOWLEDGED, PUT_OFF, Fate, Verdict
from liveops.client.errors import InvalidInput, Problem, SpoolFull, SpoolUnusable
from liveops.client.spool import Spool
from liveops.client.values import AssignmentId, Champion, Fallback, Kind, Reason

URL = "http://127.0.0.1:8800"
ID = AssignmentId("00000000-0000-0000-0000-000000000001")
PROBLEM = Problem(status=409, code="conflict", detail="the unit went to another arm")
FALLBACK = Fallback(
    unit_id="u-1",
    instrument="BTCUSD",
    policy="prod",
    policy_sha="aaaaaaaa",
    size_multiplier=0.5,
    confidence_bump=0.1,
    decided_at=NOON,
    expires_at=NOON + timedelta(seconds=2),
    reason=Reason.NO_ANSWER,
)
CONTACT = Contact(
    standing=Standing.OPEN,
    known_at=NOON,
    away_seconds=12.5,
    epoch=3,
    champion=Champion(policy="prod", policy_sha="aaaaaaaa", epoch=3, decision_seconds_valid=2.0),
)


def opened(path: Path, *, experiment: str = "btc", rows_max: int = 100) -> Spool:
    return Spool(path, url=URL, experiment=experiment, rows_max=rows_max)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "btc.sqlite3"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    spool = opened(path)
    yield spool
    spool.close()


def add(spool: Spool, body: str = "{}", *, unit_id: str | None = None) -> None:
    spool.add(Kind.OUTCOME, body, unit_id=unit_id, now=NOON)


def bodies(spool: Spool) -> list[str]:
    return [row.body for row in spool.head(100)]


def test_rows_leave_in_the_order_they_came(spool: Spool) -> None:
    for body in ('{"n":1}', '{"n":2}', '{"n":3}'):
        add(spool, body)
    rows = spool.head(2)
    assert [row.body for row in rows] == ['{"n":1}', '{"n":2}']
    spool.settle(rows, [PUT_OFF, ACKNOWLEDGED], now=NOON)
    assert bodies(spool) == ['{"n":3}', '{"n":1}']
    assert spool.pending() == 2


def test_an_id_is_never_used_again(spool: Spool) -> None:
    add(spool)
    (first,) = spool.head(1)
    spool.settle([first], [ACKNOWLEDGED], now=NOON)
    add(spool)
    (second,) = spool.head(1)
    # Else an acknowledgement that is settled twice would take a row that nobody acknowledged.
    assert second.id > first.id
    spool.settle([first], [ACKNOWLEDGED], now=NOON)
    assert spool.pending() == 1


def test_only_its_owner_may_read_it(spool: Spool, path: Path) -> None:
    add(spool)
    assert spool.take_lease()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert len(list(path.parent.iterdir())) == 4  # the file, its two logs, the lock
    assert modes == {0o600}


def test_a_full_spool_takes_nothing_and_says_so(path: Path) -> None:
    spool = opened(path, rows_max=1)
    add(spool)
    with pytest.raises(SpoolFull, match="1 rows wait"):
        add(spool)
    with pytest.raises(SpoolFull):
        spool.add_fallback(FALLBACK, CONTACT)
    assert (spool.pending(), spool.fallback("u-1"), spool.contact()) == (1, None, Contact())
    spool.close()


FULL_DISK = """
import resource, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from liveops.client import Kind, SpoolError
from liveops.client.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]), url="http://127.0.0.1:8800", experiment="btc", rows_max=10**6)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
taken = 0
try:
    for taken in range(1000):
        spool.add(Kind.OUTCOME, "x" * 5000, unit_id=None, now=datetime.now(UTC))
except SpoolError as error:
    print(taken, type(error).__name__)
"""


def test_a_disk_that_takes_no_more_loses_nothing_it_took(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    taken, error = ran.stdout.split()
    assert error in ("SpoolFull", "SpoolUnusable")
    assert int(taken) > 0
    spool = opened(path)
    assert spool.pending() == int(taken)
    spool.close()


CRASH = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from liveops.client import Kind
from liveops.client.spool import Spool
spool = Spool(Path(sys.argv[1]), url="http://127.0.0.1:8800", experiment="btc", rows_max=100)
spool.add(Kind.OUTCOME, '{"n":1}', unit_id=None, now=datetime.now(UTC))
assert spool.take_lease()
with spool._transaction() as cursor:
    cursor.execute("INSERT INTO spool (kind, body) VALUES ('outcome', 'torn')")
    print("in the middle", flush=True)
    os._exit(1)
"""


def test_a_crash_in_the_middle_keeps_what_returned_and_nothing_torn(path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", CRASH, str(path)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "in the middle\n"), ran.stderr
    spool = opened(path)
    assert bodies(spool) == ['{"n":1}']
    assert spool.take_lease()
    spool.close()


TORN_START = """
import os, sys
from pathlib import Path
from liveops.client import spool
spool._TABLES = (*spool._TABLES[:3], "SELECT stop()")
import sqlite3
connect = sqlite3.connect
def stopping(*values, **named):
    made = connect(*values, **named)
    made.create_function("stop", 0, lambda: os._exit(1))
    return made
sqlite3.connect = stopping
spool.Spool(Path(sys.argv[1]), url="http://127.0.0.1:8800", experiment="btc", rows_max=100)
"""


def test_a_crash_while_the_file_was_made_leaves_one_that_opens(path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", TORN_START, str(path)], capture_output=True)
    assert ran.returncode == 1
    assert path.exists()
    spool = opened(path)
    add(spool)
    assert spool.pending() == 1
    spool.close()


def spoilt_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


def other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE trades (id INTEGER)")
    connection.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"timestamp,pnl\n" * 100)


@pytest.mark.parametrize("spoil", [spoilt_version, other_database, no_database])
def test_a_file_that_is_something_else_is_left_alone(
    path: Path, spoil: Callable[[Path], None]
) -> None:
    opened(path).close()
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(SpoolUnusable, match=str(path)):
        opened(path)
    assert path.read_bytes()[100:] == before[100:]


def test_a_spool_of_another_experiment_is_refused(path: Path) -> None:
    opened(path).close()
    with pytest.raises(SpoolUnusable, match="another experiment"):
        opened(path, experiment="eth")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusable, match="cannot be opened for writing"):
        opened(tmp_path / "file" / "btc.sqlite3")


def test_a_decision_alone_its_report_and_the_silence_are_one_write(
    spool: Spool, path: Path
) -> None:
    assert spool.add_fallback(FALLBACK, CONTACT) == FALLBACK
    later = replace(FALLBACK, decided_at=NOON + timedelta(minutes=1))
    assert spool.add_fallback(later, Contact()) == FALLBACK
    beside = opened(path)
    assert beside.fallback("u-1") == FALLBACK
    assert beside.contact() == CONTACT
    assert bodies(beside) == [
        '{"unit_id":"u-1","instrument":"BTCUSD","decided_at":"2026-03-01T12:00:00+00:00",'
        '"reason":"no_answer","policy":"prod"}'
    ]
    beside.close()


def test_an_outcome_waits_until_the_service_knows_of_its_decision(spool: Spool) -> None:
    spool.add_fallback(FALLBACK, CONTACT)
    add(spool, '{"no_trade":true}', unit_id="u-1")
    (report,) = spool.head(100)
    assert report.kind is Kind.FALLBACK
    acknowledged = Verdict(fate=Fate.ACKNOWLEDGED, assignment_id=ID)
    assert spool.settle([report], [acknowledged], now=NOON) == []
    assert bodies(spool) == [f'{{"assignment_id":"{ID}","no_trade":true}}']


def test_a_refused_decision_takes_its_outcomes_along_and_names_the_reason(spool: Spool) -> None:
    spool.add_fallback(FALLBACK, CONTACT)
    add(spool, '{"no_trade":true}', unit_id="u-1")
    add(spool, '{"n":2}')
    (report, *_) = spool.head(1)
    refused = spool.settle([report], [Verdict(fate=Fate.REFUSED, problem=PROBLEM)], now=NOON)
    assert [(r.kind, r.problem) for r in refused] == [
        (Kind.FALLBACK, PROBLEM),
        (Kind.OUTCOME, PROBLEM),
    ]
    late = spool.add(Kind.MARK, '{"late":1}', unit_id="u-1", now=NOON)
    assert late is not None
    assert spool.refused() == [*refused, late]
    assert bodies(spool) == ['{"n":2}']
    spool.forget(late.id)
    assert spool.refused() == refused


def test_a_report_of_a_decision_nobody_took_is_refused_to_the_caller(spool: Spool) -> None:
    with pytest.raises(InvalidInput, match="must be a decision of this spool"):
        add(spool, unit_id="u-9")
    assert spool.pending() == 0


def test_one_client_sends_at_a_time(spool: Spool, path: Path) -> None:
    beside = opened(path)
    assert spool.take_lease()
    assert spool.take_lease()
    assert not beside.take_lease()
    spool.release_lease()
    assert beside.take_lease()
    beside.close()
    assert spool.take_lease()


def test_two_processes_write_side_by_side(spool: Spool, path: Path) -> None:
    beside = opened(path)
    together(*(lambda s=s: [add(s) for _ in range(20)] for s in (spool, beside, spool, beside)))
    beside.close()
    assert spool.pending() == 80
    ids = [row.id for row in spool.head(100)]
    assert ids == sorted(set(ids))


def test_every_commit_waits_for_the_disk(spool: Spool, path: Path) -> None:
    assert spool._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert spool._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert path.with_name(f"{path.name}-wal").exists()
