"""Small TimesNet encoders with drawn weights, and what another implementation makes of windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from learners.tensor_file import Tensor
from learners.timesnet import TimesNetForm

REFERENCE = Path(__file__).parent / "data" / "timesnet_reference.npz"

FORMS = {
    "as it comes": TimesNetForm(bars=48, channels=18, frequencies=(1, 2, 7)),
    "nothing padded": TimesNetForm(bars=24, channels=3, frequencies=(1, 3), layers=1, kernels=2),
    "all odd": TimesNetForm(
        bars=23, channels=5, frequencies=(2, 5, 7, 10), d_model=7, d_ff=9, kernels=4, embedding=3
    ),
    "the least": TimesNetForm(
        bars=4, channels=1, frequencies=(2,), d_model=1, d_ff=1, layers=1, kernels=1, embedding=1
    ),
}


def weights_of(form: TimesNetForm, *, seed: int = 5) -> dict[str, Tensor]:
    """Weights of about the size that training starts with; biases and norms are drawn, too."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in form.shapes().items():
        inputs = max(1, int(np.prod(shape[1:])))
        centre = 1.0 if name == "norm.weight" else 0.0
        values = centre + rng.standard_normal(shape) / np.sqrt(inputs)
        drawn[name] = values.astype(np.float32)
    return drawn


def windows_of(form: TimesNetForm, count: int, *, seed: int = 6) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, form.bars, form.channels))
    return drawn.astype(np.float32)


def reference(case: str) -> dict[str, np.ndarray]:
    """What tests/data/timesnet_reference.py stored of one case."""
    with np.load(REFERENCE, allow_pickle=False) as stored:
        start = f"{case}/"
        return {name.removeprefix(start): stored[name] for name in stored if name.startswith(start)}


def reference_form(case: str, *, layers: int) -> TimesNetForm:
    """The form of a case, its embedding as wide as the series: see `reference_weights`."""
    found = reference(case)
    bars, channels = found["window"].shape
    d_ff, d_model = found["weight/blocks.0.conv.0.kernels.0.weight"].shape[:2]
    return TimesNetForm(
        bars=bars,
        channels=channels,
        frequencies=tuple(found["frequencies"].tolist()),
        d_model=d_model,
        d_ff=d_ff,
        layers=layers,
        kernels=sum(name.startswith("weight/blocks.0.conv.0") for name in found) // 2,
        embedding=d_model,
    )
