"""Writes timesnet_reference.npz: what neuralforecast's TimesNet makes of drawn weights and windows.

Run it where neuralforecast is installed (3.3.0 wrote the file); nothing else here needs it:

    python tests/data/timesnet_reference.py

Each case is a window on its own, because the reference chooses its periods for a whole batch. A
draw counts only if both blocks choose the same frequencies, since our form has one choice for all.
Weights are float32; what is made of them is computed in double precision. Names: `case/window`,
`case/frequencies`, `case/periods`, `case/embedded`, `case/series.i` after block `i` and the layer
norm, and `case/weight/…` with neuralforecast's own names of its parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_suffix(".npz")

# bars, channels, d_model, d_ff, kernels, periods; sine waves of `WAVE` cycles lie in the windows.
CASES = {
    "even": (24, 3, 8, 6, 3, 2),
    "odd": (31, 2, 6, 5, 2, 3),
    "one": (16, 1, 4, 4, 1, 1),
}
WAVE = 3
LAYERS = 2


def model_of(sizes: tuple[int, ...]) -> Any:
    """The reference's parts with drawn parameters, biases and norm included."""
    import torch
    from neuralforecast.common._modules import DataEmbedding
    from neuralforecast.models.timesnet import TimesBlock
    from torch import nn

    bars, channels, d_model, d_ff, kernels, count = sizes
    parts = nn.ModuleDict(
        {
            "embedding": DataEmbedding(channels, 0, d_model, dropout=0.0),
            "norm": nn.LayerNorm(d_model),
            "blocks": nn.ModuleList(
                TimesBlock(bars, 0, count, d_model, d_ff, kernels) for _ in range(LAYERS)
            ),
        }
    )
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return parts.double().eval()


def attempt(sizes: tuple[int, ...], seed: int) -> dict[str, np.ndarray] | None:
    """What the reference says of one draw; None where its blocks choose different frequencies."""
    import torch

    torch.manual_seed(seed)
    bars, channels, *_, count = sizes
    parts = model_of(sizes)
    wave = torch.sin(2 * torch.pi * WAVE * torch.arange(bars) / bars)
    window = torch.randn(1, bars, channels) + 2 * wave[None, :, None]
    with torch.no_grad():
        series = parts["embedding"](window.double())
        found = {"window": window[0].numpy(), "embedded": series[0].numpy()}
        choices = []
        for i, block in enumerate(parts["blocks"]):
            choices.append(chosen(series, count))
            series = parts["norm"](block(series))
            found[f"series.{i}"] = series[0].numpy()
    periods = {bars // frequency for frequency in choices[0]}
    if choices[0] != choices[1] or len(periods) < count:
        return None
    found |= {"frequencies": np.array(choices[0]), "periods": np.array(sorted(periods))}
    weights = {f"weight/{name}": p.detach().numpy() for name, p in parts.named_parameters()}
    return found | {name: weight.astype(np.float32) for name, weight in weights.items()}


def chosen(series: Any, count: int) -> list[int]:
    """The frequencies that the reference chooses, by the amplitudes that it tells."""
    import torch
    from neuralforecast.models.timesnet import FFT_for_Period

    periods, amplitudes = FFT_for_Period(series, count)
    spectrum = torch.fft.rfft(series, dim=1).abs().mean(dim=-1)[0]
    frequencies = [int((spectrum - amplitude).abs().argmin()) for amplitude in amplitudes[0]]
    assert [series.shape[1] // frequency for frequency in frequencies] == periods.tolist()
    return sorted(frequencies)


def main() -> None:
    """Write the file."""
    stored = {}
    for case, sizes in CASES.items():
        attempts = (attempt(sizes, seed) for seed in range(1000))
        found = next(made for made in attempts if made is not None)
        stored |= {f"{case}/{name}": array for name, array in found.items()}
    np.savez_compressed(GOLDEN, **stored)


if __name__ == "__main__":
    main()
