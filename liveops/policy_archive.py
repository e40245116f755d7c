"""What is stored of policies that were put away: moved aside, and back when they are restored."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bandit.core.errors import BanditError
from bandit.core.model import PolicySha
from bandit.core.purging import Fate, PurgeRule
from bandit.service import policies, purging
from config.settings import Settings
from liveops.deciders import artifact_home
from liveops.ledger_server import state_home
from liveops.wiring import App
from snapshots.durable_files import sync_directory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Which artefacts were moved, or are to be: into the archive, and back out of it."""

    archived: tuple[PolicySha, ...]
    restored: tuple[PolicySha, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge decided of every policy, and the artefacts that it moved, or would."""

    fates: tuple[Fate, ...]
    moved: Moved
    is_dry: bool

    def to_json(self) -> dict[str, object]:
        """Return it as `liveops policy purge --json` prints it."""
        would, moved = ("would ", "would move") if self.is_dry else ("", "moved")
        archived = ("retire", "archive") if self.is_dry else ("retired", "archived")
        done = [
            f"{would}{archived[f.archived]} {f.policy}: {f.reason}" for f in self.fates if f.purged
        ]
        done += [f"{moved} artefact {sha[:12]} to the archive" for sha in self.moved.archived]
        done += [f"{moved} artefact {sha[:12]} back" for sha in self.moved.restored]
        return {"done": done, "policies": [fate.to_json() for fate in self.fates]}


def archive_home(settings: Settings) -> Path:
    """Return the directory that holds what is stored of archived policies."""
    return state_home(settings) / "archived_artifacts"


def purge(app: App, rule: PurgeRule, *, dry_run: bool, as_of: datetime, actor: str) -> Purged:
    """Put away what the rule takes away, and what is stored of it; see `service.purging.purge`.

    The ledger comes first. Killed in between, the next purge moves what was left.
    """
    if dry_run:
        decided = purging.would_purge(app.engine, rule, now=as_of)
    else:
        now = app.clock.now()
        decided = purging.purge(app.engine, rule, as_of=as_of, now=now, actor=actor)
    going = {fate.policy for fate in decided if fate.archived}
    known = {record.policy.sha: record.policy.name for record in policies.listed(app.engine)}
    away = set(purging.archived(app.engine)) | {s for s, name in known.items() if name in going}
    moved = _settle(app, away, set(known) - away, dry_run=dry_run)
    return Purged(fates=decided, moved=moved, is_dry=dry_run)


def restore(app: App, reference: str, *, reason: str, actor: str) -> bool:
    """Take a policy back with what is stored of it; False where it was not archived."""
    sha = policies.find(app.engine, reference).policy.sha
    now = app.clock.now()
    changed = purging.restore(app.engine, sha, reason=reason, now=now, actor=actor)
    _settle(app, (), {sha}, dry_run=False)
    return changed


def bring_back(app: App) -> None:
    """Bring back what lies aside of policies that the ledger does not call archived.

    So it is where the ledger is older than its files: restored as of before a purge.
    """
    try:
        away = purging.archived(app.engine).keys()
        known = {record.policy.sha for record in policies.listed(app.engine)}
        moved = _settle(app, (), known - away, dry_run=False)
    except (BanditError, OSError) as error:
        log.warning("what lies aside of policies cannot be brought back: %s", error)
        return
    for sha in moved.restored:
        log.info("brought back what is stored of a policy", extra={"sha": sha})


def _settle(
    app: App, away: Collection[PolicySha], kept: Collection[PolicySha], *, dry_run: bool
) -> Moved:
    """Let what is stored of policies lie where the ledger says: aside for those that are away.

    An artefact never changes, so one that lies in both places stays in both. The demo moves
    nothing: it shares its artefacts with the real ledger.
    """
    if app.demo:
        return Moved(archived=(), restored=())
    home, archive = artifact_home(app.settings), archive_home(app.settings)
    return Moved(
        archived=_moved(home, archive, away, dry_run=dry_run),
        restored=_moved(archive, home, kept, dry_run=dry_run),
    )


def _moved(
    source: Path, target: Path, shas: Collection[PolicySha], *, dry_run: bool
) -> tuple[PolicySha, ...]:
    found = [sha for sha in sorted(shas) if (source / sha).is_dir() and not (target / sha).exists()]
    if found and not dry_run:
        target.mkdir(parents=True, exist_ok=True)
        for sha in found:
            (source / sha).rename(target / sha)
        sync_directory(target)
        sync_directory(source)
    return tuple(found)
