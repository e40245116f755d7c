"""What a stored policy sees: features scaled as in training, and embeddings by its encoder.

The same words for a whole series (backtest, replay) and for one bar (service).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from bandit.core.verdicts import known
from learners.artifact import SPEC, Artifact
from learners.artifact_spec import DescribedPart, PolicyArtifactSpec
from learners.canonical_json import canonical
from learners.embedding import ServedEncoder
from learners.encoder_artifact import EncoderArtifact
from learners.environment import OWN_COLUMNS
from learners.market.features import Features, FeatureSpec
from learners.market.scaler import Scaler
from learners.sealed_files import ArtifactRefused
from learners.tensor_file import Tensor

CLIP_MAX = 1e6


class Seen(NamedTuple):
    """A series as a policy sees it: `rows` (bars, width), 0 where they are not known.

    `features` are those it was made from, complete only where all of a row is known.
    """

    rows: NDArray[np.float64]
    features: Features


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """How candles become what a policy sees, but for what is held.

    >>> scaler = Scaler(mean=(0.0,) * 18, scale=(1.0,) * 18, clip=5.0)
    >>> Sight(spec=FeatureSpec(), scaler=scaler).width
    18
    """

    spec: FeatureSpec
    scaler: Scaler
    encoder: ServedEncoder | None = None

    @property
    def width(self) -> int:
        """Return how many columns are seen."""
        embedded = 0 if self.encoder is None else self.encoder.form.embedding
        return len(self.spec.names) + embedded

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return (*self.spec.names, *(() if self.encoder is None else self.encoder.names))

    @property
    def history_bars(self) -> int:
        """Return how many bars before the present one are needed; 0 without an encoder."""
        return 0 if self.encoder is None else self.encoder.form.bars - 1

    def of(self, features: Features) -> Seen:
        """Return a series as it is seen."""
        rows = np.nan_to_num(self.scaler.apply(features.values), nan=0.0)
        if self.encoder is None:
            return Seen(rows, features)
        embeddings, is_known = self.encoder.embed_series(rows, features.complete)
        warm_up = int(is_known.argmax()) if is_known.any() else len(is_known)
        rows = np.concatenate([rows, embeddings.astype(np.float64)], axis=1)
        return Seen(rows, replace(features, complete=is_known, warm_up=warm_up))

    def scaled(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """Return one bar's features, scaled; raises `InvalidInput` for one that is not finite."""
        row = [features[name] for name in self.spec.names]
        for name, found in zip(self.spec.names, row, strict=True):
            if known(found) is None:
                raise InvalidInput(field=f"features.{name}", rule="must be finite", found=found)
        with np.errstate(over="ignore"):  # beyond the largest double lies the clip
            return self.scaler.apply(np.array(row))

    def window(self, history: NDArray[np.float64], present: NDArray[np.float64]) -> Tensor:
        """Return the window that an encoder embeds, (1, bars, channels).

        `history` (`history_bars`, features) are the rows before the present one, not scaled, the
        oldest first; `present` is scaled. Raises `InvalidInput` for another shape, and for numbers
        that are not finite.
        """
        shape = (self.history_bars, len(self.spec.names))
        if history.shape != shape:
            rule = f"must have the {shape[0]} bars before this one"
            raise InvalidInput(field="history", rule=rule, found=history.shape)
        if not np.isfinite(history).all():
            raise InvalidInput(field="history", rule="must be finite", found="NaN or infinite")
        with np.errstate(over="ignore"):
            scaled = self.scaler.apply(history)
        return np.concatenate([scaled, present[None]])[None].astype(np.float32)


def sight_of(artifact: Artifact) -> Sight:
    """Return what a stored policy sees, its encoder ready to embed.

    Raises `ArtifactRefused` where features and scaler cannot be read, where features, scaler,
    encoder and network do not fit one another, and as `ServedEncoder`.
    """
    spec, encoder = artifact.spec, artifact.encoder
    try:
        features = FeatureSpec.from_json(spec.features.body)
        scaler = Scaler.from_json(spec.scaler.body)
    except InvalidInput as error:
        rule = f"{error.field} {error.rule}"
        raise ArtifactRefused(file=SPEC, rule=rule, found=error.found) from error
    _require_whole(spec, encoder, features, scaler)
    served = None if encoder is None else ServedEncoder(encoder)
    return Sight(spec=features, scaler=scaler, encoder=served)


def _require_whole(
    spec: PolicyArtifactSpec,
    encoder: EncoderArtifact | None,
    features: FeatureSpec,
    scaler: Scaler,
) -> None:
    """Refuse parts that contradict one another, however they came to stand in one file."""
    columns = len(features.names)
    scaler_digest = hashlib.sha256(canonical(dict(spec.scaler.body))).hexdigest()
    seen = columns + (0 if encoder is None else encoder.spec.form.embedding)
    _require(
        ("features.digest must be that of its body", features.digest, spec.features.digest),
        ("scaler.digest must be that of its body", scaler_digest, spec.scaler.digest),
        (f"scaler must have the {columns} columns of features", columns, len(scaler.mean)),
        (
            f"network.inputs must be {seen} columns and what is held",
            seen + OWN_COLUMNS,
            spec.network.inputs,
        ),
    )
    if encoder is not None:
        for name in ("features", "scaler"):
            own: DescribedPart = getattr(spec, name)
            theirs: DescribedPart = getattr(encoder.spec, name)
            rule = f"{name} must be those of its encoder"
            _require((rule, theirs.to_document(), own.to_document()))
        channels = encoder.spec.form.channels
        _require((f"encoder must have the {columns} channels of features", columns, channels))
    if scaler.clip > CLIP_MAX:  # else a lawful feature could be none in float32
        rule = f"scaler.clip must be at most {CLIP_MAX:g}"
        raise ArtifactRefused(file=SPEC, rule=rule, found=scaler.clip)


def _require(*rules: tuple[str, object, object]) -> None:
    for rule, expected, found in rules:
        if found != expected:
            raise ArtifactRefused(file=SPEC, rule=rule, found=found)
