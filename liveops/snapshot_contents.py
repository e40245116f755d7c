"""What goes into a snapshot: sound artefacts, policies, settings without secrets, allocations."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandit import __version__
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from bandit.service.snapshots import LedgerState, ledger_state
from learners.sealed_files import MANIFEST, ArtifactRefused
from liveops.deciders import artifact_home
from liveops.ledger_server import state_home
from snapshots.manifest import (
    ALLOCATION,
    CONFIGURATION,
    POLICIES,
    Entry,
    EntryKind,
    Manifest,
)

_SHA_DIGITS = 64

if TYPE_CHECKING:
    from config.settings import SettingRow, Settings
    from learners.artifact import Artifact
    from learners.encoder_artifact import EncoderArtifact
    from liveops.wiring import App


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A snapshot that is not stored yet: its manifest, and its files by SHA-256."""

    manifest: Manifest
    bodies: Mapping[str, bytes | Path]


@dataclass(slots=True)
class _Gathering:
    entries: dict[str, Entry] = field(default_factory=dict)
    bodies: dict[str, bytes | Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(
        self, path: str, body: bytes | Path, *, sha256: str, size: int, kind: EntryKind
    ) -> None:
        self.entries[path] = Entry(path=path, sha256=sha256, size=size, kind=kind)
        self.bodies[sha256] = body

    def add_bytes(self, path: str, content: bytes, kind: EntryKind) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        self.add(path, content, sha256=sha256, size=len(content), kind=kind)

    def add_document(self, path: str, document: object, kind: EntryKind) -> None:
        text = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
        self.add_bytes(path, f"{text}\n".encode(), kind)


def contents(app: App, settings: Iterable[SettingRow], *, day: date) -> Contents:
    """Return what the snapshot of a day holds: everything as it is now.

    An artefact or a card that is not sound is left out, and the manifest says why. `settings` are
    the rows of `config.settings.describe`, whose secrets are masked.
    """
    state, found = ledger_state(app.engine), _Gathering()
    for sha in state.placed:
        _add_policy(found, app.settings, sha)
    found.add_document(POLICIES, state.policies, EntryKind.POLICY)
    found.add_document(ALLOCATION, _allocation(app, state), EntryKind.ALLOCATION_STATE)
    chosen = [{"key": row.key, "value": row.value, "source": row.source.value} for row in settings]
    found.add_document(CONFIGURATION, chosen, EntryKind.CONFIGURATION)
    manifest = Manifest(
        date=day,
        made_at=app.clock.now(),
        ledger=state.identity,
        schema=state.revision,
        version=__version__,
        entries=tuple(found.entries[path] for path in sorted(found.entries)),
        left_out=found.left_out,
    )
    return Contents(manifest=manifest, bodies=found.bodies)


def _allocation(app: App, state: LedgerState) -> dict[str, Any]:
    return state.allocation | {"latch_is_set": app.latch.is_set()}


def _add_policy(found: _Gathering, settings: Settings, sha: PolicySha) -> None:
    from learners.artifact import read
    from learners.ensemble import Ensemble

    root = artifact_home(settings)
    if len(sha) != _SHA_DIGITS or not os.path.lexists(root / sha):
        return  # trained and served elsewhere: only its name and hash are ours
    try:
        artifact = read(root, sha)
    except ArtifactRefused as error:
        found.left_out[f"artifacts/{sha}"] = str(error)
        return
    is_classifier = isinstance(artifact.spec.network, Ensemble)
    _add_artifact(found, root, artifact, EntryKind.TABNET if is_classifier else EntryKind.POLICY)
    if artifact.encoder is not None:
        _add_artifact(found, root, artifact.encoder, EntryKind.ENCODER)
    _add_card(found, state_home(settings) / "cards" / f"{sha}.json")


def _add_artifact(
    found: _Gathering, root: Path, artifact: Artifact | EncoderArtifact, kind: EntryKind
) -> None:
    from learners.canonical_json import canonical

    folder = f"artifacts/{artifact.sha}"
    for name, facts in artifact.manifest["files"].items():
        found.add(f"{folder}/{name}", root / artifact.sha / name, kind=kind, **facts)
    found.add_bytes(f"{folder}/{MANIFEST}", canonical(dict(artifact.manifest)), kind)


def _add_card(found: _Gathering, path: Path) -> None:
    from learners.policy_card import read_card

    try:
        content = path.read_bytes()
        read_card(content)
    except FileNotFoundError:
        return
    except InvalidInput as error:
        found.left_out[f"cards/{path.name}"] = str(error)
        return
    found.add_bytes(f"cards/{path.name}", content, EntryKind.POLICY)
