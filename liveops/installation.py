"""Where this installation lies and what it runs with, as cron and systemd have to be told.

Neither of them sees a person's shell: what the settings take from its variables has to be written
into their files, or, if it is secret, into `.env`.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Final

from bandit.core.errors import BanditError, InvalidInput
from config.secrets import KEY_FILE_VARIABLE
from config.section import leaves
from config.settings import (
    CONFIG_FILE,
    DOTENV_NAME,
    InvalidSettings,
    Settings,
    dotenv_file,
    load_settings,
    settings_file,
)
from liveops.ledger_server import anchor_dir, archive_dir, checkout, state_home
from liveops.postgres_home import fits_a_socket

PROGRAMS: Final = ("liveops", "live_ops_monitor")
HOME_VARIABLE: Final = "LIVEOPS_HOME"
SYSTEM_UID_MAX: Final = 999
"""Up to here logind leaves the shared memory of users alone that have logged out."""

# Each means something to one of cron, systemd and logrotate, and not every version lets it be
# escaped; the last two are no text at all.
_TROUBLE = re.compile(r'["\\$*?\[\x00-\x1f\x7f\ud800-\udfff]')
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


class NotInstalled(BanditError):
    """What cron and systemd would start is not there."""

    code = "not_installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Everything the generated files say about one installation; every path is absolute.

    `root` is where its processes start, `secrets` the file of variables that they read there,
    `writable` what they write besides `home`. A ledger `is_embedded` where no server is configured;
    its socket lies in the temporary directory where the path of `home` `is_long`.
    """

    root: Path
    programs: Path
    home: Path
    config: Path | None
    secrets: Path
    user: str
    group: str
    variables: Mapping[str, str] = field(default_factory=dict)
    writable: tuple[Path, ...] = ()
    is_embedded: bool = True
    is_long: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be written down for all readers, and root."""
        places = (self.root, self.programs, self.home, self.secrets, *self.writable)
        for path in (*places, *([] if self.config is None else [self.config])):
            if _TROUBLE.search(str(path)) or str(path) != str(path).strip():
                rule = 'must have none of " \\ $ * ? [ and no line break, nor end in a blank'
                raise InvalidInput(field="path", rule=rule, found=repr(str(path)))
        for name, value in self.variables.items():
            if _TROUBLE.search(value):
                rule = 'must have none of " \\ $ * ? [ and no line break'
                raise InvalidInput(field=name, rule=rule, found=repr(value))
        if _USER.fullmatch(self.user) is None or self.user == "root":
            rule = "must be an ordinary user: lower-case letters, digits, _ and -, not root"
            raise InvalidInput(field="--user", rule=rule, found=repr(self.user))

    @property
    def logs(self) -> Path:
        """Where jobs of cron leave what they say."""
        return self.home / "logs"

    def options(self) -> tuple[str, ...]:
        """Return the options that every command of this installation is given."""
        return () if self.config is None else ("--config", str(self.config))


def installation_of(
    settings: Settings, *, config: Path | None, environ: Mapping[str, str], user: str
) -> Installation:
    """Return the installation that runs now, for services of `user`.

    Raises `NotInstalled` where the programs do not lie beside this Python.
    """
    programs, root, home = Path(sysconfig.get_path("scripts")), checkout(), state_home(settings)
    for name in PROGRAMS:
        if not (programs / name).is_file():
            raise NotInstalled(f"there is no {programs / name}: run `make` in {root}")
    file = settings_file(config, environ)
    file = None if file is None else file.absolute()
    beside = (root if file is None else file.parent) / DOTENV_NAME
    outside = {anchor_dir(settings), archive_dir(settings)}
    return Installation(
        root=root,
        programs=programs,
        home=home,
        config=file,
        secrets=dotenv_file(file, directory=root) or beside,
        user=user,
        group=_group_of(user),
        variables={HOME_VARIABLE: str(home), **_plain_variables(environ)},
        writable=tuple(sorted(path for path in outside if not path.is_relative_to(home))),
        is_embedded=settings.database.url is None,
        is_long=not fits_a_socket(home / "postgres" / "socket"),
    )


def warnings_of(installation: Installation, settings: Settings) -> Iterator[str]:
    """Say what services of this installation would find otherwise than this process."""
    yield from _settings_otherwise(installation, settings)
    if installation.secrets.is_file() and installation.secrets.stat().st_mode & 0o077:
        yield f"others may read {installation.secrets}: chmod 600 {installation.secrets}"
    about = _user_named(installation.user)
    if installation.is_embedded and about is not None and about.pw_uid > SYSTEM_UID_MAX:
        yield (
            f"when {installation.user} logs out, systemd may take away the shared memory that "
            "PostgreSQL uses: set RemoveIPC=no in /etc/systemd/logind.conf, or choose a --user "
            "made with useradd --system"
        )
    for folder in _closed(installation):
        yield f"{installation.user} may not enter {folder}: chmod o+x it, or choose another --user"


def _settings_otherwise(installation: Installation, settings: Settings) -> Iterator[str]:
    """Load the settings as a service would, and compare."""
    file, beside = installation.config, installation.root / CONFIG_FILE
    if file is None and beside.is_file():
        file = beside
    dotenv = dotenv_file(file, directory=installation.root) or Path(os.devnull)
    try:
        theirs = load_settings(path=file, environ=installation.variables, dotenv=dotenv).settings
    except InvalidSettings as error:
        yield f"services could not read their settings ({error}): see {installation.secrets}"
        return
    for leaf in leaves(Settings):
        path = leaf.key.split(".")
        if leaf.environment == HOME_VARIABLE or (
            reduce(getattr, path, settings) == reduce(getattr, path, theirs)
        ):
            continue
        what = leaf.environment or f"the variables that {leaf.key} is made of"
        yield (
            f"services would not see {leaf.key} as this shell does: put {what} "
            f"into {installation.secrets} (mode 600)"
        )


def _plain_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set here, say something, and are no secret."""
    names = [leaf.environment for leaf in leaves(Settings) if not leaf.secret]
    wanted = [name for name in (*names, KEY_FILE_VARIABLE) if name not in (None, HOME_VARIABLE)]
    return {name: environ[name] for name in wanted if name is not None and environ.get(name)}


def _user_named(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def _group_of(user: str) -> str:
    about = _user_named(user)
    # One that is not made yet: `useradd` gives it a group of its own name.
    return user if about is None else grp.getgrgid(about.pw_gid).gr_name


def _closed(installation: Installation) -> list[Path]:
    """Return the folders on the way to what services read that `user` may not enter."""
    user, uid, groups = _user_named(installation.user), -1, set[int]()
    if user is not None:
        uid, groups = user.pw_uid, set(os.getgrouplist(installation.user, user.pw_gid))
    # A Python that was installed for one person lies in that person's own directory.
    python = Path(sys.executable).resolve().parent
    ways = {installation.root, installation.programs, python, *installation.home.parents}
    ways |= {parent for way in tuple(ways) for parent in way.parents}

    def may_enter(folder: Path) -> bool:
        about = folder.stat()
        if about.st_uid == uid:
            return bool(about.st_mode & stat.S_IXUSR)
        return bool(about.st_mode & (stat.S_IXGRP if about.st_gid in groups else stat.S_IXOTH))

    return sorted(folder for folder in ways if folder.is_dir() and not may_enter(folder))
