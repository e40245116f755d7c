"""Encoders made alone, and which stored encoder is meant: no policy, no trial, no ledger entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bandit.core.errors import AmbiguousName, InvalidInput, UnknownName
from bandit.core.model import Policy, PolicySha
from bandit.service import policies
from config.settings import Settings
from learners import fitting
from learners.artifact import read
from learners.classifier import Bench
from learners.encoder_artifact import GRAPH
from learners.encoding import EncodingPlan, MadeEncoder, newest_encoder
from learners.installed import versions
from learners.market.candles import Candles
from learners.training_events import TrainingEvent
from liveops.clock import monotonic
from liveops.deciders import artifact_home
from liveops.learning import training_folder
from liveops.wiring import App

_PREFIX: Final = re.compile(r"[0-9a-f]{1,64}")
_SHOWN_DIGITS, _SHOWN_MAX = 12, 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearnedEncoder:
    """An encoder that was made, where it lies, and the encoder it goes on from, if it does."""

    made: MadeEncoder
    path: Path
    refreshed: PolicySha | None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document; entropies are in nats, periods in bars."""
        spec, refresh = self.made.artifact.spec, self.made.refresh
        return {
            "sha": self.made.artifact.sha,
            "artifact": str(self.path),
            "windows": self.made.windows,
            "bars": spec.form.bars,
            "embedding": spec.form.embedding,
            "frequencies": list(spec.form.frequencies),
            "periods": list(spec.form.periods),
            "data_from": spec.training.data_from.isoformat(),
            "data_to": spec.training.data_to.isoformat(),
            "held_out": self.made.score.to_json(),
            "refreshed": None
            if refresh is None
            else {
                "sha": self.refreshed,
                "before": refresh.before.to_json(),
                "moved": refresh.moved,
                "windows_known": refresh.windows_known,
            },
        }


def learn_encoder(
    settings: Settings,
    *,
    plan: EncodingPlan,
    series: Sequence[Candles],
    now: datetime,
    report: Callable[[TrainingEvent], None],
) -> LearnedEncoder:
    """Make an encoder alone from the newest bars of candles, and store it below `home`.

    The same again stores it once. Raises `ExtraMissing` where nothing that trains is installed, and
    as `learners.encoding.newest_encoder`.
    """
    versions(fitting.PACKAGES)  # or nothing is begun
    root = artifact_home(settings)
    bench = Bench(
        folder=training_folder(settings, now=now) / "runs", clock=monotonic, report=report
    )
    made = newest_encoder(plan, series, root=root, bench=bench)
    return LearnedEncoder(
        made=made, path=root / made.artifact.sha, refreshed=plan.training.refreshed
    )


def encoder_of(app: App, reference: str) -> PolicySha:
    """Return the stored encoder that `reference` means.

    A policy's full name or sha means the encoder of that policy; else it is the sha, or the
    beginning of the sha, of one policy or of one encoder below `home`. Raises `UnknownName` where
    nothing is meant and `AmbiguousName` where several are, both naming policies and encoders;
    `ArtifactRefused` for a policy that is not sound, `InvalidInput` for one without an encoder.
    """
    root = artifact_home(app.settings)
    encoders = _stored(root, reference) if _PREFIX.fullmatch(reference) else []
    shown = [f"encoder {sha[:_SHOWN_DIGITS]}" for sha in encoders]
    try:
        policy = policies.find(app.engine, reference).policy
    except AmbiguousName as error:
        raise _ambiguous(reference, [*error.candidates, *shown]) from error
    except UnknownName as error:
        if len(encoders) == 1:
            return encoders[0]
        if encoders:
            raise _ambiguous(reference, shown) from error
        there = [f"encoder {sha[:_SHOWN_DIGITS]}" for sha in _stored(root, "")[:_SHOWN_MAX]]
        known = [*error.known, *there]
        raise UnknownName(kind="policy or encoder", name=reference, known=known) from error
    if encoders and reference not in (policy.name, policy.sha):
        raise _ambiguous(reference, [policy.name, *shown])
    return _own_encoder(root, policy)


def _own_encoder(root: Path, policy: Policy) -> PolicySha:
    encoder = read(root, policy.sha).spec.encoder
    if encoder is None:
        rule = "must be a policy with an encoder, or an encoder"
        raise InvalidInput(field="refresh", rule=rule, found=policy.name)
    return encoder


def _stored(root: Path, prefix: str) -> list[PolicySha]:
    """Return the encoders below `root` whose sha begins so; whoever reads one checks it."""
    found = {graph.parent.name for graph in root.glob(f"{prefix}*/{GRAPH}")}
    return [PolicySha(name) for name in sorted(found) if len(name) == 64]


def _ambiguous(reference: str, candidates: Sequence[str]) -> AmbiguousName:
    return AmbiguousName(name=reference, candidates=candidates, kind="policies or encoders")
