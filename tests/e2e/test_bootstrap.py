"""Setting up `.venv`: what it takes from pip, when it does nothing, and how it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "pyproject.toml",
    "scripts/bootstrap.py",
    "requirements/core.txt",
    "requirements/learners.txt",
    "requirements/dev.txt",
)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load(ROOT / "scripts/bootstrap.py")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, in a path with a space, whose `.venv` looks as if `core` were set up."""
    root = tmp_path / "a checkout"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(sys.executable)
    (root / ".venv/lib/python3.11/site-packages").mkdir(parents=True)
    bootstrap.write_stamp(root, profile="core", finished=True)
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "scripts/bootstrap.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_NO_INDEX": "1"},  # nothing here may reach for the network
    )


def install_fake(root: Path, distribution: str, *files: str) -> None:
    site = root / ".venv/lib/python3.11/site-packages"
    for name in files:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))


def test_nothing_happens_where_all_is_ready(checkout: Path) -> None:
    done = run(checkout, "core")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("changed", FILES[:3])
def test_a_changed_source_of_the_installation_asks_for_a_new_one(
    checkout: Path, changed: str
) -> None:
    assert bootstrap.is_ready(checkout, "core")
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    assert not bootstrap.is_ready(checkout, "core")


def test_a_changed_test_package_leaves_the_core_ready(checkout: Path) -> None:
    (checkout / "requirements/dev.txt").write_text("pytest==1\n")
    assert bootstrap.is_ready(checkout, "core")


@pytest.mark.parametrize(
    ("done", "ready"),
    [
        ("core", {"core"}),
        ("learners", {"core", "learners"}),
        ("dev", {"core", "learners", "dev"}),
        ("another release's", set()),
    ],
)
def test_a_set_up_serves_every_profile_that_it_contains(
    checkout: Path, done: str, ready: set[str]
) -> None:
    stamp = checkout / ".venv/.set-up.json"
    if done in bootstrap.PROFILES:
        bootstrap.write_stamp(checkout, profile=done, finished=True)
    else:
        stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "profile": done}))
    assert {name for name in bootstrap.PROFILES if bootstrap.is_ready(checkout, name)} == ready


def test_a_changed_learner_leaves_the_core_ready_and_asks_for_the_learners(checkout: Path) -> None:
    bootstrap.write_stamp(checkout, profile="learners", finished=True)
    (checkout / "requirements/dev.txt").write_text("pytest==1\n")
    assert bootstrap.is_ready(checkout, "learners")
    (checkout / "requirements/learners.txt").write_text("torch==1\n")
    assert not bootstrap.is_ready(checkout, "learners")


def test_an_interrupted_set_up_is_done_again(checkout: Path) -> None:
    bootstrap.write_stamp(checkout, profile="core", finished=False)
    assert not bootstrap.is_ready(checkout, "core")


def test_a_moved_checkout_and_a_vanished_python_are_set_up_again(
    checkout: Path, tmp_path: Path
) -> None:
    moved = checkout.rename(tmp_path / "moved")
    assert not bootstrap.is_ready(moved, "core")
    back = moved.rename(checkout)
    assert bootstrap.is_ready(back, "core")
    (back / ".venv/bin/python").unlink()
    assert not bootstrap.is_ready(back, "core")


def test_a_stamp_that_is_not_one_counts_for_nothing(checkout: Path) -> None:
    (checkout / ".venv/.set-up.json").write_text("[")
    assert not bootstrap.is_ready(checkout, "core")


def test_the_linter_of_our_name_is_refused_by_name(checkout: Path) -> None:
    install_fake(checkout, "bandit", "bandit/__init__.py")
    done = run(checkout, "core")
    assert done.returncode == 1
    assert "'bandit' in .venv also installs a package named 'bandit'" in done.stderr
    assert "pip uninstall bandit" in done.stderr


def test_a_module_file_of_our_name_is_refused_and_others_are_not(checkout: Path) -> None:
    install_fake(checkout, "some_alerts", "alerts.py")
    install_fake(checkout, "bandits", "bandits/__init__.py", "bandits/bandit/__init__.py")
    assert bootstrap.foreign_owners(checkout) == {"alerts": "some-alerts"}


def test_our_own_wheel_may_own_our_packages(checkout: Path) -> None:
    install_fake(checkout, "liveops_bandit", "bandit/__init__.py", "config/__init__.py")
    assert bootstrap.foreign_owners(checkout) == {}


def test_pip_knows_the_package_sources_and_its_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "index a").mkdir()
    listed = (
        ":env:.find-links='wheels'\n"
        "global.find-links='/nowhere'\n"
        "global.index-url='https://mirror.invalid/simple'\n"
        f"install.extra-index-url='file://{tmp_path}/index%20a file:///nowhere/simple'\n"
        "global.timeout='60'\n"
    )
    assert bootstrap.uv_environment(listed, root=tmp_path) == {
        "UV_FIND_LINKS": "wheels",
        "UV_DEFAULT_INDEX": "https://mirror.invalid/simple",
        "UV_EXTRA_INDEX_URL": f"file://{tmp_path}/index%20a",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_where_pip_has_no_sources_uv_gets_none(tmp_path: Path) -> None:
    listed = "global.find-links='/nowhere'\nglobal.timeout='60'\n"
    assert bootstrap.uv_environment(listed, root=tmp_path) == {}


def test_a_python_without_ensurepip_is_told_what_to_install(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bootstrap.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name
    )
    with pytest.raises(bootstrap.CannotSetUp, match=r"no `ensurepip`.*\n.*apt install python3"):
        bootstrap.check_machine(checkout, "core")


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = SimpleNamespace(free=3 * 2**29)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: nearly_full)
    with pytest.raises(bootstrap.CannotSetUp, match=r"has 1\.5 GiB free; .* asks for 2 GiB"):
        bootstrap.check_machine(checkout, "core")
    nearly_full.free = 3 * 2**30
    bootstrap.check_machine(checkout, "core")
    with pytest.raises(bootstrap.CannotSetUp, match=r"has 3\.0 GiB free; .* asks for 4 GiB"):
        bootstrap.check_machine(checkout, "learners")


def test_an_old_python_is_told_which_one_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2, "final", 0))
    assert bootstrap.main() == 1
    assert "Python 3.11 or newer is needed" in capsys.readouterr().err


def test_an_unknown_profile_is_a_usage_error(checkout: Path) -> None:
    assert run(checkout, "everything").returncode == 2


@pytest.fixture
def calls(checkout: Path) -> Path:
    """The calls of stand-ins for uv, which fails, and for pip, which fails with a file `no pip`."""
    log, version = checkout / "calls", bootstrap.UV.partition("==")[2]
    scripts = {
        "uv": f'test "$1" = --version && echo "uv {version}"',
        "python": f'case "$*" in *install*) test ! -e "{checkout}/no pip" ;; esac',
    }
    for name, script in scripts.items():
        program = checkout / ".venv/bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{log}"\n{script}\n')
        program.chmod(0o755)
    bootstrap.write_stamp(checkout, profile="core", finished=False)
    return log


def test_where_uv_fails_pip_installs(checkout: Path, calls: Path) -> None:
    done = run(checkout, "core")
    assert done.returncode == 0, done.stderr
    installs = [line.split(" install ")[1] for line in calls.read_text().splitlines()[-2:]]
    assert installs[0].endswith("-r requirements/core.txt")
    assert installs[1].endswith("--editable .")
    assert bootstrap.is_ready(checkout, "core")


def test_torch_is_asked_for_what_its_own_build_needs(checkout: Path, calls: Path) -> None:
    done = run(checkout, "learners")
    assert done.returncode == 0, done.stderr
    installs = [line.split(" install ")[1] for line in calls.read_text().splitlines()[-3:]]
    assert installs[0].endswith("--no-deps -r requirements/learners.txt")
    assert installs[1].startswith("--no-compile --constraint requirements/learners.txt torch==")
    assert installs[2].endswith("--editable .")
    assert "to download: about" in done.stderr


@pytest.mark.parametrize(
    ("sources", "variables", "system", "expected"),
    [
        ({}, {}, "linux", True),
        ({"UV_EXTRA_INDEX_URL": "https://more.invalid/simple"}, {}, "linux", True),
        ({"UV_FIND_LINKS": "wheels"}, {}, "linux", False),
        ({"UV_DEFAULT_INDEX": "https://mirror.invalid/simple"}, {}, "linux", False),
        ({}, {"UV_TORCH_BACKEND": "cu130"}, "linux", False),
        ({}, {}, "darwin", False),
    ],
)
def test_uv_looks_for_the_smallest_torch_where_nobody_has_decided(
    monkeypatch: pytest.MonkeyPatch,
    sources: dict[str, str],
    variables: dict[str, str],
    system: str,
    expected: bool,
) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", system)
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bootstrap.wants_backend(sources) is expected


@pytest.mark.skipif(sys.platform != "linux", reason="uv chooses among builds of torch on Linux")
@pytest.mark.parametrize("reachable", [True, False])
def test_uv_falls_back_to_any_torch_where_the_smallest_is_out_of_reach(
    checkout: Path, calls: Path, reachable: bool
) -> None:
    uv = checkout / ".venv/bin/uv"
    refuse = "" if reachable else '[ "$2" = sync ] && [ -n "$UV_TORCH_BACKEND" ] && exit 1\n'
    uv.write_text(
        uv.read_text().replace("test ", f'echo "backend $UV_TORCH_BACKEND" >>"{calls}"\n{refuse}')
        + "\nexit 0\n"
    )
    done = run(checkout, "learners")
    assert done.returncode == 0, done.stderr
    said = calls.read_text().splitlines()
    tried = [
        backend.removeprefix("backend ")
        for line, backend in pairwise(said)
        if line.startswith("uv pip sync")
    ]
    assert tried == (["auto"] if reachable else ["auto", ""])
    [wanted] = [line for line in said if " torch==" in line]
    assert wanted.startswith("uv pip install --no-config")


def test_where_pip_fails_too_the_set_up_says_so_and_is_not_ready(
    checkout: Path, calls: Path
) -> None:
    (checkout / "no pip").touch()
    done = run(checkout, "core")
    assert done.returncode == 1
    assert "could not be installed" in done.stderr
    assert not bootstrap.is_ready(checkout, "core")


def test_a_checkout_that_had_dev_keeps_it_when_core_changes(checkout: Path, calls: Path) -> None:
    bootstrap.write_stamp(checkout, profile="dev", finished=True)
    (checkout / "requirements/core.txt").write_text("rich==15.0.0\n")
    assert run(checkout, "core").returncode == 0
    assert bootstrap.is_ready(checkout, "dev")
