"""`liveops doctor`: what usually goes wrong, found before it costs anything."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

from bandit.core.backups import BackupKind
from bandit.core.errors import BanditError
from bandit.core.health import Vitals, backup_ages
from bandit.service import backups, experiments
from bandit.service.ledger import newest_close
from bandit.storage import migrate, roles
from bandit.storage.engine import connect
from learners.sealed_files import ArtifactRefused
from liveops.api.access import Keyring
from liveops.clock import SystemClock
from liveops.deciders import artifact_home, loaded
from liveops.latch import latch_of
from liveops.ledger_server import backup_dir, ledger_server, state_home
from liveops.wiring import backup_rule_of, require_common_clock

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings

OUR_PACKAGES = ("alerts", "bandit", "config", "learners", "liveops", "migrations", "snapshots")
OUR_DISTRIBUTION = "liveops-bandit"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FREE_BYTES_MIN = 1_000_000_000
OUTCOME_AGE_MAX = timedelta(hours=168)


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: how it went, and what to do when it did not go well."""

    check: str
    level: Level
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the finding for `--json`."""
        return {"check": self.check, "level": self.level.value, "message": self.message}


def checkup(settings: Settings, *, demo: bool) -> list[Finding]:
    """Run every check; a check that cannot run is a finding, not an error."""
    return [
        _packages(),
        _disk(settings),
        _keys(settings),
        *(_port(*listener) for listener in _listeners(settings)),
        _latch(settings, demo=demo),
        *_ledger(settings, demo=demo),
    ]


def _packages() -> Finding:
    owners = packages_distributions()
    for package in OUR_PACKAGES:
        foreign = set(owners.get(package, [])) - {OUR_DISTRIBUTION}
        if foreign:
            message = (
                f"{', '.join(sorted(foreign))} also installs a package named {package!r}: "
                "remove it from this environment"
            )
            return Finding(check="packages", level=Level.FAIL, message=message)
    return Finding(check="packages", level=Level.OK, message="no other owner of our packages")


def _disk(settings: Settings) -> Finding:
    home = state_home(settings)
    existing = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    enough = free >= FREE_BYTES_MIN
    message = f"{free / 1e9:.1f} GB free for {home}" + ("" if enough else ": make room")
    return Finding(check="disk", level=Level.OK if enough else Level.FAIL, message=message)


def _keys(settings: Settings) -> Finding:
    ring = Keyring.of(settings)
    if ring.is_empty:
        far = [host for _, host, _ in _listeners(settings) if host not in LOOPBACK]
        if not far:
            message = "no API key: anyone on this machine may call the API on loopback"
            return Finding(check="keys", level=Level.WARN, message=message)
        message = f"no API key, so the service will not listen on {far[0]}: `liveops key new`"
        return Finding(check="keys", level=Level.FAIL, message=message)
    ending = ring.ending(now=SystemClock().now())
    if ending:
        names = ", ".join(sorted({key.name for key in ending}))
        message = f"expired or about to: the keys of {names}; `liveops key new` makes the next"
        return Finding(check="keys", level=Level.WARN, message=message)
    count = len(ring.keys)
    message = "an API key is set" if count == 1 else f"{count} API keys are set"
    return Finding(check="keys", level=Level.OK, message=message)


def _listeners(settings: Settings) -> list[tuple[str, str, int]]:
    server = settings.server
    public = ("port", server.host, server.port)
    beside = [
        ("admin port", server.admin_host, server.admin_port),
        ("health port", server.health_host, server.health_port),
    ]
    return [public, *(listener for listener in beside if listener[2])]


def _port(check: str, host: str, port: int) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex((host, port)) == 0
    message = f"{host}:{port} " + (
        "answers: the service runs, or another program holds it" if taken else "is free"
    )
    return Finding(check=check, level=Level.WARN if taken else Level.OK, message=message)


def _latch(settings: Settings, *, demo: bool) -> Finding:
    latch = latch_of(settings, demo=demo)
    if latch.is_set():
        message = f"{latch.reason()}: no decision is made until `liveops release` removes it"
        return Finding(check="latch", level=Level.WARN, message=message)
    return Finding(check="latch", level=Level.OK, message=f"not set ({latch.path})")


def _ledger(settings: Settings, *, demo: bool) -> list[Finding]:
    try:
        with ledger_server(settings, demo=demo, create=False) as server:
            migrate.require_head(server.url)
            engine = connect(server.url)
            try:
                require_common_clock(engine)
                newest = _newest_outcome(engine)
                stored = _stored_policies(settings, engine)
                rights = _rights(server.url)
                backup = _newest_backup(settings, engine, demo=demo)
            finally:
                engine.dispose()
    except BanditError as error:
        return [Finding(check="ledger", level=Level.FAIL, message=str(error))]
    return [
        Finding(check="ledger", level=Level.OK, message="answers, with the schema of this release"),
        Finding(check="clocks", level=Level.OK, message="ours and the database's agree"),
        rights,
        newest,
        stored,
        backup,
    ]


def _rights(url: str) -> Finding:
    if roles.as_application(url) is None:
        message = (
            f"services keep their user's right to change the schema: let it make roles, or make "
            f"the role {roles.APPLICATION_ROLE}, grant it to the user, and see docs/security.md"
        )
        return Finding(check="rights", level=Level.WARN, message=message)
    message = "services can append and read, and not change the schema"
    return Finding(check="rights", level=Level.OK, message=message)


def _stored_policies(settings: Settings, engine: Engine) -> Finding:
    root = artifact_home(settings)
    records = [experiments.load(engine, name) for name in experiments.listed(engine)]
    shas = {arm.policy_sha for record in records for arm in record.kept_arms}
    refused, deciding = [], 0
    for sha in sorted(shas):
        try:
            deciding += loaded(root, sha) is not None
        except ArtifactRefused as error:
            refused.append(str(error))
    if refused:
        message = f"{'; '.join(refused)}: restore it, or retire its arm; nobody decides by it"
        return Finding(check="stored policies", level=Level.FAIL, message=message)
    message = f"{deciding} of {len(shas)} policies of arms are stored here and can decide"
    return Finding(check="stored policies", level=Level.OK, message=message)


def _newest_backup(settings: Settings, engine: Engine, *, demo: bool) -> Finding:
    known = backups.known(engine).newest
    newest = max(known.values(), key=lambda taken: taken.taken_at, default=None)
    if newest is None or known.keys() <= {BackupKind.STATE}:
        message = "the ledger was never backed up: `liveops backup take`, and see docs/backups.md"
        return Finding(check="last backup", level=Level.WARN, message=message)
    rule, now = backup_rule_of(settings), SystemClock().now()
    ages = backup_ages(Vitals(now=now, backups={k: b.taken_at for k, b in known.items()}))
    old = sorted(kind.value for kind, age in ages.items() if age > rule.of(kind))
    message = f"{newest.name} in {backup_dir(settings, demo=demo)}"
    if old:
        message = f"that of the {' and the '.join(old)} is old: `liveops backup take --kind KIND`"
    return Finding(check="last backup", level=Level.WARN if old else Level.OK, message=message)


def _newest_outcome(engine: Engine) -> Finding:
    newest = newest_close(engine)
    if newest is None:
        message = "none yet: has a bot reported to this ledger?"
        return Finding(check="last outcome", level=Level.WARN, message=message)
    age = SystemClock().now() - newest
    old = age > OUTCOME_AGE_MAX
    message = f"closed {newest:%Y-%m-%d %H:%M} UTC" + (
        f", more than {OUTCOME_AGE_MAX.total_seconds() / 3600:.0f} h ago" if old else ""
    )
    return Finding(check="last outcome", level=Level.WARN if old else Level.OK, message=message)
