"""A stored encoder that embeds: windows of bars in, embeddings out, by ONNX Runtime on one thread.

An embedding belongs to the close of a bar: it is made of the window that ends there, of rows that
are all known and follow one another without a gap. It depends on no other window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.encoder_artifact import EncoderArtifact
from learners.serving import require_close, session_of
from learners.tensor_file import Tensor
from learners.timesnet import TimesNetForm
from learners.timesnet_graph import EMBEDDING
from learners.timesnet_graph import INPUT as WINDOW

GOLDEN_TOLERANCE = 1e-4
"""Largest difference from a golden embedding, whose numbers lie in (-1, 1)."""

_WINDOWS_AT_ONCE = 256


class ServedEncoder:
    """An encoder in memory, ready to embed; safe to share between threads."""

    def __init__(self, artifact: EncoderArtifact) -> None:
        """Build the session and ask the golden windows.

        Raises `ArtifactRefused` where this machine's embeddings are not the stored ones.
        """
        self.sha = artifact.sha
        self.form = artifact.spec.form
        self._session = session_of(artifact.graph)
        found = self.embed(artifact.golden["windows"])
        require_close("embeddings", found, artifact.golden["embeddings"], GOLDEN_TOLERANCE)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the numbers of an embedding."""
        return embedding_names(self.form.embedding)

    def embed(self, windows: NDArray[np.floating]) -> Tensor:
        """Return the embeddings (n, embedding) of windows (n, bars, channels), float32.

        Raises `InvalidInput` for another shape and for numbers that are not finite in float32.
        """
        asked = np.ascontiguousarray(windows, dtype=np.float32)
        shape = (self.form.bars, self.form.channels)
        if asked.ndim != 3 or asked.shape[1:] != shape:
            rule = f"must have the shape (n, {shape[0]}, {shape[1]})"
            raise InvalidInput(field="window", rule=rule, found=asked.shape)
        if not np.isfinite(asked).all():
            raise InvalidInput(field="window", rule="must be finite", found="NaN or infinite")
        [found] = self._session.run([EMBEDDING], {WINDOW: asked})
        embeddings: Tensor = found
        return embeddings

    def embed_series(
        self, rows: NDArray[np.floating], complete: NDArray[np.bool_]
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """Return the embedding at every row of a series, and whether there is one.

        `rows` (n, channels) are scaled, `complete` tells which of them are known. Where the window
        is not all known there is none, and zeros stand in its place.
        """
        return series_embedded(self.embed, self.form, rows, complete)

    def embed_at(self, rows: NDArray[np.floating], ends: NDArray[np.integer]) -> Tensor:
        """Return the embeddings (n, embedding) of the windows that end at `ends` in a series.

        `rows` are those of `embed_series`, and all of each window is known.
        """
        return _embedded_at(self.embed, self.form, rows, ends)


def series_embedded(
    embed: Callable[[NDArray[np.floating]], Tensor],
    form: TimesNetForm,
    rows: NDArray[np.floating],
    complete: NDArray[np.bool_],
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return what `ServedEncoder.embed_series` does, of any way to embed windows of a form."""
    embeddings = np.zeros((len(rows), form.embedding), dtype=np.float32)
    known = whole_windows(complete, form.bars)
    embeddings[known] = _embedded_at(embed, form, rows, known.nonzero()[0])
    return embeddings, known


def _embedded_at(
    embed: Callable[[NDArray[np.floating]], Tensor],
    form: TimesNetForm,
    rows: NDArray[np.floating],
    ends: NDArray[np.integer],
) -> Tensor:
    found = np.zeros((len(ends), form.embedding), dtype=np.float32)
    for start in range(0, len(ends), _WINDOWS_AT_ONCE):
        part = slice(start, start + _WINDOWS_AT_ONCE)
        found[part] = embed(rows[ends[part, None] + np.arange(1 - form.bars, 1)])
    return found


def embedding_names(width: int) -> tuple[str, ...]:
    """Return the names of the numbers of an embedding.

    >>> embedding_names(2)
    ('embedding_0', 'embedding_1')
    """
    return tuple(f"embedding_{i}" for i in range(width))


def whole_windows(complete: NDArray[np.bool_], bars: int) -> NDArray[np.bool_]:
    """Tell at which rows the last `bars` rows, with their own, are all complete.

    >>> whole_windows(np.array([True, True, False, True, True]), 2).tolist()
    [False, True, False, False, True]
    """
    counted = np.concatenate(([0], np.cumsum(complete)))
    whole = np.zeros(len(complete), dtype=np.bool_)
    whole[bars - 1 :] = counted[bars:] - counted[:-bars] == bars
    return whole
