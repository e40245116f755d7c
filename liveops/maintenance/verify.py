"""Whether what is kept is to be relied on: a table of checks, each of which answers by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bandit.core.backups import BackupDamaged, BackupKind
from bandit.core.errors import BanditError, UnknownName
from bandit.core.model import PolicyKind, PolicySha, Verdict
from bandit.core.snapshots import SnapshotEvent
from bandit.service import auditing, experiments, rebuilding
from bandit.service import snapshots as facts
from bandit.storage.experiments import ArmRecord
from learners.sealed_files import ArtifactRefused
from liveops import backups, snapshot_checking
from liveops.anchors import anchor_file
from liveops.archives import archives_of
from liveops.deciders import artifact_home
from liveops.ledger_server import backup_dir
from liveops.snapshotting import places_of
from liveops.wiring import App
from snapshots.backup_files import LATEST

ACTOR: Final = "verify"
_SHA_DIGITS: Final = 64
_NAMED_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCheck:
    """A check of something that is kept; what cannot be checked is INCONCLUSIVE, never a PASS."""

    name: str
    meaning: str
    check: Callable[[App], tuple[Verdict, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check found."""

    name: str
    meaning: str
    verdict: Verdict
    found: str

    def __str__(self) -> str:
        return f"{self.verdict} {self.name}: {self.found}"

    def to_json(self) -> dict[str, str]:
        """Return it as `liveops verify --json` prints it."""
        told = {"check": self.name, "meaning": self.meaning}
        return {**told, "verdict": self.verdict.value, "found": self.found}


def verified(app: App) -> Iterator[Checked]:
    """Make every check, one after the other; one that breaks down does not keep the others."""
    for kept in CHECKS:
        try:
            verdict, found = kept.check(app)
        except BanditError as error:
            verdict, found = Verdict.INCONCLUSIVE, f"{error.code}: {error}"
        yield Checked(name=kept.name, meaning=kept.meaning, verdict=verdict, found=found)


def _audit(app: App) -> tuple[Verdict, str]:
    anchors, archives = anchor_file(app), archives_of(app)
    report = auditing.verify(app.engine, anchors.read(), archive_sha256=archives.sha256)
    if report.findings:
        return Verdict.FAIL, _named([str(finding) for finding in report.findings])
    if report.head is None:
        return Verdict.INCONCLUSIVE, "nothing is sealed: no service has run on this ledger yet"
    anchored = 0 if report.anchored is None else report.anchored.sequence
    found = f"{report.rows} rows, sealed to {report.head.sequence}, anchored to {anchored}"
    return Verdict.PASS if anchored else Verdict.INCONCLUSIVE, found


def _statistics(app: App) -> tuple[Verdict, str]:
    found = rebuilding.compare(app.engine, now=app.clock.now())
    if found.mismatches:
        return Verdict.FAIL, _named([f"{wrong} differs" for wrong in found.mismatches])
    return Verdict.PASS if found.arms else Verdict.INCONCLUSIVE, f"{found.arms} arms counted again"


def _artifacts(app: App) -> tuple[Verdict, str]:
    whole, wrong, foreign = 0, list[str](), list[str]()
    for arm in _deciding(app):
        policy = arm.place.policy
        try:
            stored = _is_whole(app, arm.policy_sha)
        except ArtifactRefused as error:
            wrong.append(f"{policy}: {error}")
            continue
        if stored:
            whole += 1
        elif arm.policy_kind in (PolicyKind.EXTERNAL, PolicyKind.PRODUCTION):
            foreign.append(policy)
        else:
            wrong.append(f"{policy}: nothing is stored here of {arm.policy_sha[:12]}")
    if wrong:
        return Verdict.FAIL, _named(wrong)
    if not whole:
        return Verdict.INCONCLUSIVE, "no policy that decides is stored here"
    beside = f"; {len(foreign)} are kept elsewhere" if foreign else ""
    return Verdict.PASS, f"{whole} stored policies are what their hashes say{beside}"


def _snapshot(app: App) -> tuple[Verdict, str]:
    days = [each.date for each in facts.noted(app.engine) if each.event is SnapshotEvent.STORED]
    if not days:
        return Verdict.INCONCLUSIVE, "no snapshot was taken yet"
    places = places_of(app)
    read_back = snapshot_checking.verify(app, places, day=max(days), actor=ACTOR)
    wrong = [f"{each.date} in {each.store}: {each.problem}" for each in read_back if each.problem]
    if wrong or not read_back:
        return Verdict.FAIL, _named(wrong or [f"{max(days)} is in no store any more"])
    return Verdict.PASS, f"{max(days)} was read back in {_named([e.store for e in read_back])}"


def _backup(app: App) -> tuple[Verdict, str]:
    root = backup_dir(app.settings, demo=app.demo)
    try:
        newest = backups.found(root, LATEST, kinds=(BackupKind.DATABASE,))
        backups.check(newest)
    except UnknownName:
        return Verdict.INCONCLUSIVE, f"no backup of the ledger lies in {root}"
    except BackupDamaged as error:
        return Verdict.FAIL, str(error)
    return Verdict.PASS, f"{newest.name} was read and is whole"


def _deciding(app: App) -> list[ArmRecord]:
    """Return one arm of every policy that decides or is scored somewhere."""
    arms: dict[PolicySha, ArmRecord] = {}
    for name in experiments.listed(app.engine):
        for arm in experiments.load(app.engine, name).kept_arms:
            arms.setdefault(arm.policy_sha, arm)
    return sorted(arms.values(), key=lambda arm: arm.place.policy)


def _is_whole(app: App, sha: PolicySha) -> bool:
    """Read a stored policy and hash it; False where nothing of it lies here."""
    from learners.artifact import read

    root = artifact_home(app.settings)
    if len(sha) != _SHA_DIGITS or not (root / sha).exists():
        return False
    read(root, sha)
    return True


def _named(found: list[str]) -> str:
    more = len(found) - _NAMED_MAX
    return "; ".join(found[:_NAMED_MAX]) + (f"; and {more} more" if more > 0 else "")


CHECKS: Final = (
    KeptCheck(
        name="audit",
        meaning="the audit log and the archives are what was sealed and anchored",
        check=_audit,
    ),
    KeptCheck(
        name="statistics",
        meaning="every arm's numbers are those of its outcomes",
        check=_statistics,
    ),
    KeptCheck(
        name="artifacts",
        meaning="every stored policy that decides is what its hash says",
        check=_artifacts,
    ),
    KeptCheck(
        name="snapshot",
        meaning="the newest snapshot is whole wherever it is kept",
        check=_snapshot,
    ),
    KeptCheck(
        name="backup",
        meaning="the newest backup of the ledger is whole and can be read",
        check=_backup,
    ),
)
"""Every check, in the order they are made. Whatever else is kept adds its own line here."""
