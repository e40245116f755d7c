"""Each import contract of pyproject.toml holds, and refuses an import it is there to refuse."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

DOWN = "data flows down: liveops -> learners | alerts | snapshots | config -> bandit"
INSIDE = "inside bandit: service -> storage -> core"
PURE = "core is pure: standard library, numpy and scipy only"
SQL = "SQL only in bandit.storage"
SMALL = "the SDK is small: nothing of ours but the clock"

# contract, the module that gets a forbidden import, that import
PLANTS = [
    (DOWN, "alerts/planted.py", "import liveops"),
    (DOWN, "learners/planted.py", "import config"),
    (DOWN, "bandit/service/planted.py", "import snapshots"),
    (INSIDE, "bandit/core/planted.py", "import bandit.storage"),
    (INSIDE, "bandit/storage/planted.py", "import bandit.service"),
    (PURE, "bandit/core/planted.py", "import sqlalchemy"),
    (PURE, "bandit/core/allocators/planted.py", "from pathlib import Path"),
    (SQL, "bandit/service/planted.py", "import psycopg"),
    (SMALL, "liveops/client/planted.py", "import liveops.wiring"),
    (SMALL, "liveops/client/planted.py", "import bandit"),
    (SMALL, "liveops/client/planted.py", "import numpy"),
]


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A copy of our packages and their contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in SETTINGS["root_packages"]:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "data")
        )
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_packages_keep_every_contract(source_tree: Path) -> None:
    linted = lint_imports(source_tree)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(("contract", "module", "line"), PLANTS)
def test_a_planted_import_breaks_its_contract(
    source_tree: Path, contract: str, module: str, line: str
) -> None:
    (source_tree / module).write_text(f"{line}\n")
    linted = lint_imports(source_tree)
    assert linted.returncode == 1
    # Behind it stands how many imports the contract ignores, where it does.
    broken = [text.partition(" (")[0] for text in linted.stdout.splitlines()]
    assert f"{contract} BROKEN" in broken


def test_every_contract_has_a_planted_import() -> None:
    assert {contract for contract, _, _ in PLANTS} == {c["name"] for c in SETTINGS["contracts"]}
