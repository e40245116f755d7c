"""A policy that is stored here and not registered: what it can be registered as."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from liveops.deciders import artifact_home, loaded
from liveops.ledger_server import state_home

if TYPE_CHECKING:
    from config.settings import Settings
    from learners.artifact import Artifact
    from learners.policy_card import PolicyCard

_WHOLE_HASH = re.compile(r"[0-9a-f]{64}")


def stored_policy(settings: Settings, reference: str) -> Policy | None:
    """Return the policy whose whole content hash this is; None where no such one is stored.

    Its card, if there is one, says its name. Otherwise it is named as policies of the documents
    are: kind, end of the data it was made from, and the first digits of its hash.

    Raises `ArtifactRefused` for what lies there and is not that policy.
    """
    if _WHOLE_HASH.fullmatch(reference) is None:
        return None
    sha, root = PolicySha(reference), artifact_home(settings)
    if loaded(root, sha) is None:
        return None
    from learners.artifact import read

    artifact = read(root, sha)
    card = _card(state_home(settings) / "cards" / f"{sha}.json")
    metadata: dict[str, object] = {"artifact": dict(artifact.manifest)}
    if card is not None:
        metadata["trial"] = card.subject.trial
    kind = _kind(artifact) if card is None else card.subject.kind
    until = artifact.spec.training.data_to
    return Policy(
        name=PolicyName(f"{kind}_{until:%Y%m%d_%H%M%S}_{sha[:8]}" if card is None else card.policy),
        kind=kind,
        sha=sha,
        data_cutoff=until,
        metadata=metadata,
    )


def _card(path: Path) -> PolicyCard | None:
    from learners.policy_card import read_card

    try:
        return read_card(path.read_bytes())
    except FileNotFoundError:
        return None


def _kind(artifact: Artifact) -> PolicyKind:
    from learners.ensemble import Ensemble

    network = artifact.spec.network
    if not isinstance(network, Ensemble):
        return PolicyKind.REINFORCEMENT
    return PolicyKind.TABNET if network.forest is None else PolicyKind.ENSEMBLE
