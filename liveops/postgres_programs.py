"""PostgreSQL's own programs, run against a server: which of them, as whom, and to what end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bandit.core.errors import BanditError
from bandit.storage.engine import libpq_url
from liveops import postgres_home as home
from liveops.postgres_home import Major
from liveops.postgres_launch import ENVIRONMENT, RunAs, launch_command

NEWEST: Major = max(home.PACKAGED)


class ProgramFailed(BanditError):
    """A program of PostgreSQL ended badly; `words` are its last ones.

    >>> print(ProgramFailed("psql failed", words="no room"))
    psql failed:
    no room
    """

    code = "program_failed"

    def __init__(self, what: str, *, words: str) -> None:
        super().__init__(f"{what}:\n{words}")
        self.what = what
        self.words = words


class NewerServer(BanditError):
    """The server is newer than the programs that come with the product.

    >>> print(NewerServer(found=19))
    the server is PostgreSQL 19, the packaged programs are 18 at most: use the tools of its own \
release, or a newer release of this product
    """

    code = "newer_server"

    def __init__(self, *, found: int) -> None:
        super().__init__(
            f"the server is PostgreSQL {found}, the packaged programs are {NEWEST} at most: use "
            "the tools of its own release, or a newer release of this product"
        )
        self.found = found


def programs_for(server_major: int) -> Major:
    """Return whose programs speak with a server: the oldest packaged that is not older than it.

    >>> programs_for(16), programs_for(17)
    (16, 18)

    Raises `NewerServer`.
    """
    fitting = [major for major in home.PACKAGED if major >= server_major]
    if not fitting:
        raise NewerServer(found=server_major)
    return min(fitting)


def connection_of(url: str) -> tuple[str, dict[str, str]]:
    """Return how a program reaches the database at an SQLAlchemy URL: conninfo, and variables.

    The password is in neither the arguments, which every user of the machine can read, nor a file.

    >>> connection_of("postgresql+psycopg://bot:s3cret@db/ledger")
    ('user=bot dbname=ledger host=db', {'PGPASSWORD': 's3cret'})
    """
    parts = conninfo_to_dict(libpq_url(url))
    password = parts.pop("password", None)
    return make_conninfo("", **parts), {} if password is None else {"PGPASSWORD": str(password)}


def run_program(
    program: str,
    *arguments: str,
    major: Major = NEWEST,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end, or to ours, and return what it said; raises `ProgramFailed`."""
    done = subprocess.run(  # noqa: S603 - our own program and paths
        command_of(program, *arguments, major=major),
        env={**ENVIRONMENT, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise ProgramFailed(f"{program} failed", words=home.last_lines(done.stderr))
    return done.stdout


def command_of(program: str, *arguments: str, major: Major) -> list[str]:
    """Return the command that runs a packaged program and ends with us."""
    path = home.packaged_binaries(major) / program
    return launch_command(RunAs.OWN_USER, path, *arguments)


def fill_database(
    archive: Path,
    url: str,
    *,
    major: Major,
    options: Sequence[str] = (),
    ending: str,
) -> None:
    """Write all of an archive into the database at `url`, and `ending` behind it, at once.

    One transaction, which `ending` commits: killed at any moment, ours or a program's, it leaves
    the database as it was. Raises `ProgramFailed`.
    """
    conninfo, variables = connection_of(url)
    environment = {**ENVIRONMENT, **variables}
    arguments = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "-d", conninfo)
    with TemporaryFile() as said:
        psql = subprocess.Popen(  # noqa: S603 - our own program and paths
            command_of("psql", *arguments, major=major),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        assert psql.stdin is not None
        failure: BanditError | None = None
        # What reads may end before all is written: then its words tell why.
        with psql, suppress(BrokenPipeError), psql.stdin as script:
            script.write(b"BEGIN;\n")
            script.flush()
            try:
                _write_archive(archive, script, major=major, options=options)
                script.write(ending.encode())
            except ProgramFailed as error:
                failure = error
        if psql.returncode != 0:
            said.seek(0)
            words = home.last_lines(said.read().decode(errors="replace"))
            raise ProgramFailed(f"the database took none of {archive.name}", words=words)
        if failure is not None:  # without its ending nothing was committed
            raise failure


def _write_archive(
    archive: Path, script: IO[bytes], *, major: Major, options: Sequence[str]
) -> None:
    with TemporaryFile() as said:
        done = subprocess.run(  # noqa: S603 - our own program and paths
            command_of("pg_restore", *options, "--file=-", str(archive), major=major),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=script,
            stderr=said,
            check=False,
        )
        if done.returncode != 0:
            said.seek(0)
            words = home.last_lines(said.read().decode(errors="replace"))
            raise ProgramFailed(f"pg_restore cannot read {archive.name}", words=words)
