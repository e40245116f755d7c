"""How a PostgreSQL program is launched: under which user, and tied to the life of its owner.

Run as a script, this file is the step between fork and exec: it drops to the server's user, asks
Linux to interrupt the program when the owner dies, and becomes the program. It is a script and not
a `preexec_fn` because Python code between fork and exec of a threaded process may deadlock; and it
imports nothing but the standard library because it runs isolated, before any uid is dropped.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import assert_never

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_NOBODY = 65534  # the kernel's overflow uid: on every Linux the user nobody

# No inherited environment: PGPORT, PGDATA or a broken locale of the caller would change the server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class RunAs(StrEnum):
    """Which user the server runs as, best first; PostgreSQL refuses root and users without a name.

    `OWN_USER` is the caller. `NAMESPACE` is the caller, seen as nobody inside a user namespace: the
    files stay the caller's, and so do the server's rights on files. `NOBODY` is the system user of
    that name, and `NOBODY_COPIED` the same with the binaries copied to where it may read them.
    """

    OWN_USER = "own_user"
    NAMESPACE = "namespace"
    NOBODY = "nobody"
    NOBODY_COPIED = "nobody_copied"


def choose_run_as(*, works: Callable[[RunAs], bool]) -> RunAs | None:
    """The best way to run that works here, or None.

    >>> choose_run_as(works=lambda way: way in (RunAs.NOBODY, RunAs.NAMESPACE))
    <RunAs.NAMESPACE: 'namespace'>
    """
    return next((way for way in RunAs if works(way)), None)


def is_open_to_us(run_as: RunAs) -> bool:
    """Whether the user we are may try this way at all."""
    uid = os.geteuid()
    match run_as:
        case RunAs.OWN_USER:
            return uid != 0 and _has_name(uid)
        case RunAs.NAMESPACE:
            return shutil.which("unshare") is not None
        case RunAs.NOBODY | RunAs.NOBODY_COPIED:
            return uid == 0
        case _:
            assert_never(run_as)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def server_user(run_as: RunAs) -> tuple[int, int]:
    """The uid and gid that must own the cluster's files."""
    if run_as in (RunAs.NOBODY, RunAs.NOBODY_COPIED):
        return _NOBODY, _NOBODY
    return os.geteuid(), os.getegid()


def launch_command(run_as: RunAs, program: Path, *arguments: str) -> list[str]:
    """The command that becomes `program` as the server's user and is interrupted when we die."""
    uid, gid = server_user(run_as)
    command = [str(program), *arguments]
    if run_as is RunAs.NAMESPACE:
        seen_as = (f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
        command = [shutil.which("unshare") or "unshare", "--user", *seen_as, "--", *command]
    step = [sys.executable, "-I", "-S", str(Path(__file__).absolute())]
    return [*step, str(os.getpid()), str(uid), str(gid), *command]


def can_run(run_as: RunAs, program: Path, *, data_dir: Path) -> bool:
    """Whether `program` answers `--version` and `data_dir` can be entered, run this way."""
    script = 'cd "$1" && exec "$2" --version'
    shell = launch_command(run_as, Path("/bin/sh"), "-c", script, "sh", str(data_dir), str(program))
    probe = subprocess.run(  # noqa: S603 - our own programs, no shell text from outside
        shell, env=ENVIRONMENT, cwd="/", capture_output=True, check=False
    )
    return probe.returncode == 0


def _become(owner_pid: int, uid: int, gid: int, command: list[str]) -> None:
    if os.geteuid() != uid:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # A shell has what it starts in the background ignore SIGINT, and what is ignored stays so.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        # After the uid change, which clears it. SIGINT is PostgreSQL's fast, clean shutdown.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != owner_pid:  # it died before the signal was armed
        sys.exit("the owner of the server is gone")
    os.execv(command[0], command)  # noqa: S606 - becoming the program is what this step is for


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
