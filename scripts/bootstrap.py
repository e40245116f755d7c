#!/usr/bin/env python3
"""Set up `.venv`, once: `bootstrap.py core` to serve, `learners` to train, `dev` to test.

Each profile contains the ones before it. Standard library only, in syntax that an older Python can
still read, so that it can say what it needs. Doing nothing is the common case: a stamp in `.venv`
holds the digest of everything the installation is made from. Exit codes: 0 ready, 1 cannot be set
up, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

UV = "uv==0.13.8"
PYTHON_MIN = (3, 11)
DISK_FREE_MIN_GIB = {"core": 2, "learners": 4, "dev": 5}
PROFILES = tuple(DISK_FREE_MIN_GIB)
PROJECT = "liveops-bandit"
_TORCH = "torch takes 190 MB of it in its build for the CPU, and gigabytes more in that for CUDA"
DOWNLOADS = {
    "core": "about 200 MB",
    "learners": f"about 450 MB; {_TORCH}",
    "dev": f"about 700 MB; {_TORCH}",
}
"""What a first set-up fetches, at most."""


class CannotSetUp(Exception):
    """The machine or the network lacks something; the message says what, and what to do."""


def say(message: str) -> None:
    """Tell the person what goes on, at once."""
    print(message, file=sys.stderr, flush=True)


# What the installation is made from, and whether it is there


def contained(profile: str) -> tuple[str, ...]:
    """Every profile that this one contains, itself last."""
    return PROFILES[: PROFILES.index(profile) + 1]


def digest(root: Path, profile: str) -> str:
    """Fingerprint of every file that decides what `profile` installs."""
    names = ["pyproject.toml", "scripts/bootstrap.py"]
    names += [f"requirements/{known}.txt" for known in contained(profile)]
    return hashlib.sha256(b"\0".join((root / name).read_bytes() for name in names)).hexdigest()


def home(root: Path) -> list[str]:
    """Where the environment lives and on which Python: it survives a change of neither."""
    return [str(root), os.path.realpath(root / ".venv/bin/python")]


def read_stamp(root: Path) -> dict[str, object]:
    """What the last set-up left behind; empty where there was none."""
    try:
        stamp = json.loads((root / ".venv/.set-up.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(root: Path, *, profile: str, finished: bool) -> None:
    """Record the set-up in one rename; an unfinished one has no digest, so it is done again."""
    stamp = {
        "home": home(root),
        "profile": profile,
        "digest": digest(root, profile) if finished else None,
    }
    draft = root / ".venv/.set-up.json.new"
    draft.write_text(json.dumps(stamp))
    draft.replace(root / ".venv/.set-up.json")


def is_ready(root: Path, profile: str) -> bool:
    """Whether a finished set-up of `profile`, or of one that contains it, still holds."""
    stamp = read_stamp(root)
    done = str(stamp.get("profile"))
    return (
        done in PROFILES
        and profile in contained(done)
        and stamp.get("home") == home(root)
        and stamp.get("digest") == digest(root, done)
        and (root / ".venv/bin/python").exists()
    )


def foreign_owners(root: Path) -> dict[str, str]:
    """Top-level packages of ours that another distribution also installs, and which one.

    Site-packages come before this checkout on the import path: the security linter `bandit`, for
    one, would silently replace the domain.
    """
    import tomllib  # Python 3.11, which main() has made sure of

    project = tomllib.loads((root / "pyproject.toml").read_text())
    ours = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    found = {}
    for site in (root / ".venv/lib").glob("python*/site-packages"):
        for name in ours:
            files = [f for f in (f"{name}/__init__.py", f"{name}.py") if (site / f).exists()]
            for record in site.glob("*.dist-info/RECORD") if files else ():
                owner = record.parent.name.split("-")[0].replace("_", "-")
                if owner != PROJECT and f"\n{files[0]}," in "\n" + record.read_text():
                    found[name] = owner
    return found


def refuse_foreign_owners(root: Path) -> None:
    """Raise where another distribution would replace a package of ours."""
    for name, owner in foreign_owners(root).items():
        raise CannotSetUp(
            f"the distribution {owner!r} in .venv also installs a package named {name!r} and "
            f"would replace ours.\nRemove it: .venv/bin/python -m pip uninstall {owner}"
        )


# Where packages come from


def uv_environment(pip_config: str, *, root: Path) -> dict[str, str]:
    """The package sources that `pip config list` prints, as uv's environment variables.

    Variables and not options, because an address may carry a password. As in pip, the environment
    wins over `install`, which wins over `global`, and a local folder that is absent is passed over.
    """
    rank = {"global": 0, "install": 1, ":env:": 2}
    chosen: dict[str, tuple[int, list[str]]] = {}
    for line in pip_config.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if option in ("find-links", "index-url", "extra-index-url") and section in rank:
            sources = [s for s in ast.literal_eval(value).split() if source_exists(s, root=root)]
            if rank[section] >= chosen.get(option, (0, []))[0]:
                chosen[option] = (rank[section], sources)
    found = {option: sources for option, (_, sources) in chosen.items() if sources}
    variables = {}
    if "find-links" in found:
        variables["UV_FIND_LINKS"] = ",".join(found["find-links"])
    if "index-url" in found:
        variables["UV_DEFAULT_INDEX"] = found["index-url"][0]
    if "extra-index-url" in found:
        variables["UV_EXTRA_INDEX_URL"] = " ".join(found["extra-index-url"])
        # uv stops at the first index that knows a name; pip, whose set-up this is, asks them all.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


def source_exists(source: str, *, root: Path) -> bool:
    """Whether a package source is remote, or a local path that is there."""
    parts = urlsplit(source)
    if parts.scheme not in ("", "file"):
        return True
    return (root / unquote(parts.path)).exists()


# Doing it


def run(command: list[str], *, root: Path, extra: Mapping[str, str] | None = None) -> bool:
    """Run a command with its output shown; whether it succeeded."""
    environment = {**(extra or {}), **os.environ}
    try:
        return subprocess.run(command, cwd=root, env=environment).returncode == 0
    except OSError as error:
        say(f"  {command[0]}: {error.strerror}")
        return False


def check_machine(root: Path, profile: str) -> None:
    """Refuse, in plain words, what would fail half-way."""
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise CannotSetUp(
                f"Python {version} at {sys.executable} has no `{module}` module, and virtual "
                f"environments need it.\nOn Debian and Ubuntu: apt install python{version}-venv; "
                f"then run the same command again."
            )
    free = shutil.disk_usage(root).free
    if free < DISK_FREE_MIN_GIB[profile] * 1024**3:
        raise CannotSetUp(
            f"the disk under {root} has {free / 1024**3:.1f} GiB free; the set-up asks for "
            f"{DISK_FREE_MIN_GIB[profile]} GiB. Make room and run the same command again."
        )


def ensure_venv(root: Path) -> None:
    """Create `.venv`, or create it anew where it was moved, broken or left half-made."""
    python = root / ".venv/bin/python"
    probe = f"import sys, pip; sys.exit(sys.version_info < {PYTHON_MIN})"
    moved = read_stamp(root).get("home", home(root)) != home(root)
    if python.exists() and not moved:
        probed = subprocess.run([python, "-I", "-c", probe], stderr=subprocess.DEVNULL)
        if probed.returncode == 0:
            return
    say(f"  creating .venv with {sys.executable}")
    if not run([sys.executable, "-I", "-m", "venv", "--clear", str(root / ".venv")], root=root):
        raise CannotSetUp("the virtual environment could not be created; the lines above say why")


def has_uv(root: Path) -> bool:
    """Whether the pinned uv is in `.venv`, after trying to put it there."""
    uv = root / ".venv/bin/uv"
    if uv.exists():
        shown = subprocess.run([uv, "--version"], capture_output=True, text=True).stdout
        if shown.split()[1:2] == [UV.partition("==")[2]]:
            return True
    say(f"  fetching {UV}, which installs quickly")
    return run([*pip(root), "install", UV], root=root)


def pip(root: Path) -> list[str]:
    """The command of the environment's own pip."""
    # -I: a PYTHONPATH or user site of the caller must not decide what pip finds installed.
    return [str(root / ".venv/bin/python"), "-I", "-m", "pip", "--disable-pip-version-check"]


def install_with_uv(root: Path, lock: str) -> bool:
    """Make `.venv` hold exactly what the lock names, and this checkout; whether uv managed it."""
    if not has_uv(root):
        return False
    config = subprocess.run([*pip(root), "config", "list"], capture_output=True, text=True).stdout
    sources = uv_environment(config, root=root)
    uv, here = str(root / ".venv/bin/uv"), ["--python", str(root / ".venv/bin/python")]
    link = ["--no-deps", "--no-build-isolation", "--editable", "."]
    torch = torch_pin(root, lock)
    backends: list[dict[str, str]] = [{}]
    if torch is not None and wants_backend(sources):
        backends.insert(0, {"UV_TORCH_BACKEND": "auto"})
    say(f"  installing {lock} with uv")
    for backend in backends:
        extra = {**sources, **backend}
        synced = run([uv, "pip", "sync", *here, lock], root=root, extra=extra)
        # What the chosen build wants beside what every build does; nothing, for that of the CPU.
        wanted = [uv, "pip", "install", "--no-config", *here, "--constraints", lock, torch or ""]
        if synced and (torch is None or run(wanted, root=root, extra=extra)):
            return run([uv, "pip", "install", "--offline", *here, *link], root=root)
    return False


def torch_pin(root: Path, lock: str) -> str | None:
    """The lock's line of torch, if it has one."""
    lines = (root / lock).read_text().splitlines()
    return next((line for line in lines if line.startswith("torch==")), None)


def wants_backend(sources: Mapping[str, str]) -> bool:
    """Whether uv should look for the smallest build of torch that fits this machine.

    Not where the person has decided: by a variable, or a folder or index of packages of their own.
    """
    own = "UV_FIND_LINKS" in sources or "UV_DEFAULT_INDEX" in sources
    return sys.platform == "linux" and not own and "UV_TORCH_BACKEND" not in os.environ


def install_with_pip(root: Path, lock: str) -> None:
    """Install the lock and this checkout with pip alone."""
    say(f"  installing {lock} with pip; this may take a few minutes")
    torch = torch_pin(root, lock)
    steps = [["--no-compile", "--no-deps", "-r", lock]]
    steps += [] if torch is None else [["--no-compile", "--constraint", lock, torch]]
    steps += [["--no-deps", "--no-build-isolation", "--no-index", "--editable", "."]]
    if not all(run([*pip(root), "install", *step], root=root) for step in steps):
        raise CannotSetUp(
            "the packages could not be installed; the lines above say why.\n"
            "Run the same command again: what was fetched is kept."
        )


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Let one set-up of this checkout work at a time; the others wait, then find it done."""
    with (root / "pyproject.toml").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(root: Path, profile: str) -> None:
    """Bring `.venv` to `profile`, or to what it had where that contains it."""
    with only_one(root):
        if is_ready(root, profile):
            return
        had = str(read_stamp(root).get("profile"))
        if had in PROFILES and profile in contained(had):
            profile = had
        check_machine(root, profile)
        say(f"setting up .venv ({profile}), once; later runs skip this")
        say(f"  to download: {DOWNLOADS[profile]}")
        ensure_venv(root)
        write_stamp(root, profile=profile, finished=False)
        lock = f"requirements/{profile}.txt"
        if not install_with_uv(root, lock):
            say("  uv did not manage it; going on with pip")
            install_with_pip(root, lock)
        write_stamp(root, profile=profile, finished=True)
        say("  .venv is ready")


def main() -> int:
    """Set up what the command line names; the exit code."""
    if sys.version_info < PYTHON_MIN:
        found = ".".join(map(str, sys.version_info[:3]))
        say(f"Python 3.11 or newer is needed; {sys.executable} is {found}.")
        say("If another is installed, name it: make run PYTHON=python3.11")
        return 1
    profile = " ".join(sys.argv[1:])
    if profile not in PROFILES:
        say(f"usage: scripts/bootstrap.py {'|'.join(PROFILES)}")
        return 2
    root = Path(__file__).resolve().parents[1]
    try:
        if not is_ready(root, profile):
            set_up(root, profile)
        refuse_foreign_owners(root)
    except CannotSetUp as error:
        say(f"cannot set up: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next run takes it up again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
