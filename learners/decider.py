"""A stored policy asked as it was trained: raw features and what is held in, what is done out.

decider = Decider(read(root, sha))
action = decider.act(features, Holding(), rules=ActingRules())
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from bandit.core.acting import ActingRules, Action, acted
from bandit.core.errors import InvalidInput
from bandit.core.verdicts import known
from learners.artifact import SPEC, Artifact
from learners.artifact_spec import PolicyArtifactSpec
from learners.canonical_json import canonical
from learners.environment import OWN_COLUMNS, Observations
from learners.holding import Holding
from learners.market.features import FeatureSpec, regime_of
from learners.market.scaler import Scaler
from learners.sealed_files import ArtifactRefused
from learners.serving import ServedPolicy

CLIP_MAX = 1e6


class Decider:
    """A policy in memory with its features and its scaler; safe to share between threads.

    `names` are its features in the order of a row, `features_digest` names how they are computed.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Load the network and read what it says of its inputs.

        Raises `ArtifactRefused` as `ServedPolicy` and as `inputs_of`.
        """
        features, self._scaler = inputs_of(artifact.spec)
        self.sha = artifact.sha
        self.names = features.names
        self.features_digest = features.digest
        self._policy = ServedPolicy(artifact)

    def act(
        self,
        features: Mapping[str, float],
        holding: Holding,
        *,
        rules: ActingRules,
        size_multiplier: float = 1.0,
        confidence_bump: float = 0.0,
    ) -> Action:
        """Return what is done of what the policy wants, by `acted`.

        `features` has every one of `names`, as computed from candles. Raises `InvalidInput` for one
        that is not finite, and where the network's answer is no number.
        """
        choice = self._policy.choose(self.observation(features, holding))
        return acted(
            choice,
            held=holding.held,
            regime=regime_of(features),
            rules=rules,
            size_multiplier=size_multiplier,
            confidence_bump=confidence_bump,
        )

    def observation(self, features: Mapping[str, float], holding: Holding) -> Observations:
        """Return what the policy sees: scaled features, then what is held, all float32."""
        row = [features[name] for name in self.names]
        for name, value in zip(self.names, row, strict=True):
            if known(value) is None:
                raise InvalidInput(field=f"features.{name}", rule="must be finite", found=value)
        with np.errstate(over="ignore"):  # beyond the largest double lies the clip
            scaled = self._scaler.apply(np.array(row))
        return np.array([*scaled.tolist(), *holding.columns], dtype=np.float32)


def inputs_of(spec: PolicyArtifactSpec) -> tuple[FeatureSpec, Scaler]:
    """Read back how a policy's features are computed and scaled.

    Raises `ArtifactRefused` where they cannot be read, and where features, scaler and network do
    not fit one another.
    """
    try:
        features = FeatureSpec.from_json(spec.features.body)
        scaler = Scaler.from_json(spec.scaler.body)
    except InvalidInput as error:
        rule = f"{error.field} {error.rule}"
        raise ArtifactRefused(file=SPEC, rule=rule, found=error.found) from error
    _require_whole(spec, features, scaler)
    return features, scaler


def _require_whole(spec: PolicyArtifactSpec, features: FeatureSpec, scaler: Scaler) -> None:
    """Refuse parts that contradict one another, however they came to stand in one file."""
    columns = len(features.names)
    scaler_digest = hashlib.sha256(canonical(dict(spec.scaler.body))).hexdigest()
    for rule, expected, found in (
        ("features.digest must be that of its body", features.digest, spec.features.digest),
        ("scaler.digest must be that of its body", scaler_digest, spec.scaler.digest),
        (f"scaler must have the {columns} columns of features", columns, len(scaler.mean)),
        (
            f"network.inputs must be {columns} features and what is held",
            columns + OWN_COLUMNS,
            spec.network.inputs,
        ),
    ):
        if found != expected:
            raise ArtifactRefused(file=SPEC, rule=rule, found=found)
    if scaler.clip > CLIP_MAX:  # else a lawful feature could be none in float32
        rule = f"scaler.clip must be at most {CLIP_MAX:g}"
        raise ArtifactRefused(file=SPEC, rule=rule, found=scaler.clip)
