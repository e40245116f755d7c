"""The state of a numpy generator as an array of words, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput

Words = NDArray[np.uint64]

_WORD = 2**64
_COUNT = 6


def generator_words(rng: np.random.Generator) -> Words:
    """Return the state of a PCG64 generator: state and increment, high word first, and a half word.

    >>> rng, other = np.random.default_rng(1), np.random.default_rng(2)
    >>> restore_generator(other, generator_words(rng))
    >>> rng.integers(100, size=3).tolist() == other.integers(100, size=3).tolist()
    True
    """
    state = rng.bit_generator.state
    assert state["bit_generator"] == "PCG64", state["bit_generator"]
    inner = state["state"]
    halves = [*divmod(inner["state"], _WORD), *divmod(inner["inc"], _WORD)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def restore_generator(rng: np.random.Generator, words: Words) -> None:
    """Bring a generator to where `generator_words` was taken; `InvalidInput` for no such state."""
    if words.shape != (_COUNT,) or words.dtype != np.uint64:
        found = f"{words.dtype} {words.shape}"
        raise InvalidInput(field="generator", rule=f"must be {_COUNT} words", found=found)
    high, low, inc_high, inc_low, has_half, half = words.tolist()
    if inc_low % 2 != 1 or has_half > 1 or half >= 2**32:
        raise InvalidInput(field="generator", rule="must be a state of PCG64", found=words.tolist())
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high * _WORD + low, "inc": inc_high * _WORD + inc_low},
        "has_uint32": has_half,
        "uinteger": half,
    }
