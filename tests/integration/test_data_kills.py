"""A night, or a rollback, that is killed at any moment ends in the same state when done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from data_nights import app_of, grow, run
from sqlalchemy import Engine

OPERATIONS = ["some", pytest.param("every", marks=pytest.mark.slow)]
"""`some` is every second file that appears and fact that is recorded: one in each stage."""

# Each child is killed as it begins its n-th operation on the disk or the ledger; the next one does
# the same again, to its end. Its state must be that of the child that nobody disturbed.
KILLS = """
import hashlib, json, os, shutil, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from data_nights import app_of, contents, forget_facts, night
from bandit.service import data_runs
from bandit.storage.engine import connect
from learners.market.store_switch import versions
from liveops.candle_import import candle_store
from liveops.data_pipeline import run_night
from liveops.data_rollback import roll_back

url, root, what, every = sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5] == "every"
home = root / "home"

def do():
    app = app_of(connect(url), home)
    if what == "night":
        run_night(app, night(1), accepted=None, actor="test")
    else:
        roll_back(app, night(1), reason="drill", actor="test")

def die_at(last):
    left = [last]
    def counted(function):
        def call(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return call
    names = ["replace", "rename"]
    if every:
        os.fsync, shutil.rmtree = counted(os.fsync), counted(shutil.rmtree)
        names += ["open", "unlink", "mkdir"]
    for name in names:
        setattr(Path, name, counted(getattr(Path, name)))
    data_runs.record = counted(data_runs.record)

def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitpid(child, 0)[1]

def begin():
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(root / "seed", home)
    engine = connect(url)
    forget_facts(engine)
    if what == "rollback":
        app = app_of(engine, home)
        run_night(app, night(1), accepted=None, actor="test")
    engine.dispose()

def state():
    engine = connect(url)
    app = app_of(engine, home)
    store = candle_store(app.settings)
    facts = data_runs.of_date(engine, night(1))
    found = {
        "store": {p: hashlib.sha256(c).hexdigest() for p, c in contents(store).items()},
        "versions": [str(version.day) for version in versions(store.root)],
        "staging": [str(p) for p in (home / "data" / "staging").iterdir()],
        "archive": {
            str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (home / "data" / "archive").rglob("*") if p.is_file()
        },
        "facts": sorted(
            (f.stage, f.state, f.attempt, f.rows_in, f.rows_out, f.report_digest, f.version_after)
            for f in facts
        ),
        "paused": data_runs.paused(engine) is not None,
    }
    engine.dispose()
    return found

begin()
assert forked(do) == 0
expected, killed, at = state(), 0, []
last = 1
while True:
    begin()
    def dies():
        die_at(last)
        do()
    status = forked(dies)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    killed += 1
    engine = connect(url)
    at.append(len(data_runs.of_date(engine, night(1))))
    engine.dispose()
    assert forked(do) == 0, last
    assert state() == expected, (last, state(), expected)
    last += 1 if every else 2
print(json.dumps({"killed": killed, "stages": sorted(set(at)), "expected": expected}))
"""


def killed_everywhere(url: str, root: Path, what: str, operations: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, Path(__file__).parents[1], url, root, what, operations],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.fixture
def root(engine: Engine, tmp_path: Path) -> Path:
    """A home in which the first night is done, and the second can be."""
    home = tmp_path / "home"
    home.mkdir()
    grow(home / "files", days=20)
    run(app_of(engine, home), 0)
    grow(home / "files", days=21)
    home.rename(tmp_path / "seed")
    return tmp_path


@pytest.mark.parametrize("operations", OPERATIONS)
def test_a_night_that_is_killed_anywhere_ends_as_if_it_had_not_been(
    root: Path, database_url: str, operations: str
) -> None:
    told = killed_everywhere(database_url, root, "night", operations)
    # Killed in every stage: so many facts were there.
    stages = told["stages"]
    assert isinstance(stages, list)
    assert set(stages) >= set(range(7))
    expected = told["expected"]
    assert isinstance(expected, dict)
    assert (expected["staging"], expected["paused"]) == ([], False)
    assert len(expected["facts"]) == 7


@pytest.mark.slow  # its short form is in test_data_rollback.py
def test_a_rollback_that_is_killed_anywhere_ends_as_if_it_had_not_been(
    root: Path, database_url: str
) -> None:
    told = killed_everywhere(database_url, root, "rollback", "every")
    expected = told["expected"]
    assert isinstance(expected, dict)
    assert (expected["versions"], expected["paused"]) == (["2024-01-21"], False)
    assert len(expected["facts"]) == 7 + 5
