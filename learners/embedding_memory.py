"""Embeddings that were worked out already; loads no runtime."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from learners.embedding import ServedEncoder
    from learners.tensor_file import Tensor

EMBEDDINGS_KEPT = 256
"""Embeddings kept in memory; what was asked for longest ago makes room."""


class Embeddings:
    """Embeddings by encoder and window, each worked out once; for use on one thread.

    A bar has one window, however many arms and units ask for it.
    """

    def __init__(self, *, kept_max: int = EMBEDDINGS_KEPT) -> None:
        """Know nothing yet."""
        self._kept_max = kept_max
        self._kept: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()

    def of(self, encoder: ServedEncoder, window: Tensor) -> Tensor:
        """Return the embedding (embedding,) of a window (1, bars, channels)."""
        key = (encoder.sha, window.tobytes())
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
            return known
        [found] = encoder.embed(window)
        self._kept[key] = found
        if len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)
        embedding: Tensor = found
        return embedding
