"""The scripts behind `make clean`, `make bench` and CI's look at the skipped tests."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Owns a server as liveops/embedded_postgres.py does; its server goes when it is told to end.
OWNER = """
import fcntl, os, pathlib, signal, sys
home = pathlib.Path(sys.argv[1])
locks = [open(home / name, "w") for name in ("owner.lock", "server.lock")]
for lock in locks:
    fcntl.flock(lock, fcntl.LOCK_EX)
locks[0].write(str(os.getpid()))
locks[0].flush()
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the scripts alone."""
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks/run.py", root / "benchmarks")
    return root


def run(root: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / script, *arguments], capture_output=True, text=True
    )


# make clean


def test_clean_removes_what_runs_left_and_nothing_else(checkout: Path) -> None:
    for left in (".venv/bin", "var/postgres", "bandit/__pycache__", ".mypy_cache", "build"):
        (checkout / left).mkdir(parents=True)
    for kept in ("bandit/core.py", ".coveragerc", ".env"):
        (checkout / kept).touch()
    done = run(checkout, "scripts/clean.py")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "removing .venv",
        "removing build",
        "removing .mypy_cache",
        "removing var",
    ]
    assert {path.name for path in checkout.iterdir()} == {
        "bandit", "benchmarks", "scripts", ".coveragerc", ".env",
    }  # fmt: skip
    assert [path.name for path in (checkout / "bandit").iterdir()] == ["core.py"]


def test_clean_of_a_clean_checkout_does_nothing(checkout: Path) -> None:
    done = run(checkout, "scripts/clean.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_clean_leaves_what_a_link_points_to(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/ledger").touch()
    (checkout / "var").symlink_to(tmp_path / "elsewhere")
    assert run(checkout, "scripts/clean.py").returncode == 0
    assert not (checkout / "var").is_symlink()
    assert (tmp_path / "elsewhere/ledger").exists()


def test_clean_ends_the_owner_of_a_server_before_it_removes_var(checkout: Path) -> None:
    home = checkout / "var/postgres"
    home.mkdir(parents=True)
    command = [sys.executable, "-c", OWNER, home]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        done = run(checkout, "scripts/clean.py")
        assert owner.wait() == -15
    assert done.returncode == 0
    assert f"stopping process {owner.pid}" in done.stdout
    assert not (checkout / "var").exists()


def test_var_stays_while_its_server_does_not_stop(checkout: Path) -> None:
    script = checkout / "scripts/clean.py"
    script.write_text(script.read_text().replace("STOP_SECONDS_MAX = 40", "STOP_SECONDS_MAX = 0"))
    home = checkout / "var/postgres"
    home.mkdir(parents=True)
    (home / "owner.lock").touch()
    with (home / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(checkout, "scripts/clean.py")
    assert done.returncode == 1
    assert "var/ stays" in done.stderr
    assert home.exists()


# make bench


def add_benchmark(root: Path, name: str, body: str) -> None:
    script = root / "benchmarks" / name
    script.parent.mkdir(exist_ok=True)
    script.write_text(body)


MISSED = "print('assign ours=9 yardstick=10 ratio=0.9 target=1.0 missed')\n"
MET = "import sys\nprint(sys.argv[1:])\nprint('fold ours=2 yardstick=1 ratio=2 target=1 met')\n"


def test_a_missed_speed_is_shown_and_fails_nothing(checkout: Path) -> None:
    add_benchmark(checkout, "ledger/assign.py", MISSED)
    add_benchmark(checkout, "core/fold.py", MET)
    done = run(checkout, "benchmarks/run.py")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "fold ours=2 yardstick=1 ratio=2 target=1 met",
        "assign ours=9 yardstick=10 ratio=0.9 target=1.0 missed",
    ]
    assert "1 claims met, 1 missed, 0 scripts failed" in done.stderr


def test_one_group_runs_alone_and_helpers_are_no_benchmarks(checkout: Path) -> None:
    add_benchmark(checkout, "ledger/assign.py", "raise SystemExit(1)")
    add_benchmark(checkout, "core/_rival.py", "raise SystemExit(1)")
    add_benchmark(checkout, "core/fold.py", MET)
    done = run(checkout, "benchmarks/run.py", "core", "--quick")
    assert done.returncode == 0
    assert run(checkout, "benchmarks/run.py", "cores").returncode == 2


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (MET + "raise SystemExit(3)", "exit code 3"),
        ("print('fold ours=2')", "it printed no claim"),
        ("import sys\nassert sys.argv[1:] != ['--quick']\n" + MET, "exit code 1"),
    ],
)
def test_a_script_that_crashes_or_claims_nothing_fails_the_run(
    checkout: Path, body: str, why: str
) -> None:
    add_benchmark(checkout, "core/fold.py", body)
    done = run(checkout, "benchmarks/run.py", "--quick")
    assert done.returncode == 1
    assert why in done.stderr
    assert done.stdout == ""


# CI and skipped tests

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_ran" />
<testcase classname="tests.unit.test_a" name="test_flawed">
  <skipped type="pytest.xfail" message="known" />
</testcase>
<testcase classname="tests.unit.test_a" name="test_skipped">
  <skipped type="pytest.skip" message="{}" />
</testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("reason", "shared_present", "exit_code"),
    [
        ("psql is not installed", False, 1),
        ("the data folder is not beside this checkout", False, 0),
        ("the data folder is not beside this checkout", True, 1),
        ("other users may not enter this checkout", True, 0),
    ],
)
def test_only_where_the_checkout_lies_excuses_a_skip_in_ci(
    checkout: Path, reason: str, shared_present: bool, exit_code: int
) -> None:
    (checkout / "tests.xml").write_text(REPORT.format(reason))
    if shared_present:
        (checkout.parent / "shared").mkdir()
    done = run(checkout, "scripts/unexpected_skips.py", str(checkout / "tests.xml"))
    assert done.returncode == exit_code
    assert ("tests.unit.test_a::test_skipped: " + reason in done.stderr) == (exit_code == 1)
    assert "test_flawed" not in done.stderr
