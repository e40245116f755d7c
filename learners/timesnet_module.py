"""The TimesNet encoder as torch trains it, and the way between it and the tensors of its form.

What is trained are the branches of the paper, so that an optimiser makes the paper's steps: the
middle of a kernel has one parameter for each branch that covers it. What is computed is one
convolution with their merge, made anew from the branches once for each block and pass. Branches are
linear, so that this is the same function with the same gradients, up to rounding, at a fraction of
the cost; images lie channels last, which is how folding leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bandit.core.errors import InvalidInput
from learners.tensor_file import Tensor
from learners.timesnet import NORM_EPSILON, TimesNetForm, positions, waves

Kernel = tuple[torch.Tensor, torch.Tensor]
"""A weight (out, in, side, side) and a bias (out,)."""


class Inception(nn.Module):
    """The mean of convolutions with kernels of 1x1, 3x3, 5x5, … (the paper's Inception_Block_V1).

    Weights start as Kaiming's normal by fan-out, biases at zero, as published.
    """

    def __init__(self, inputs: int, outputs: int, kernels: int) -> None:
        super().__init__()
        sides = [2 * i + 1 for i in range(kernels)]
        self.weights = nn.ParameterList(torch.empty(outputs, inputs, s, s) for s in sides)
        self.biases = nn.ParameterList(torch.zeros(outputs) for _ in sides)
        for weight in self.weights:
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def merged(self) -> Kernel:
        """Return the one kernel that does what the branches do together."""
        outermost = len(self.weights) - 1
        laid = [functional.pad(w, [outermost - i] * 4) for i, w in enumerate(self.weights)]
        return torch.stack(laid).mean(dim=0), torch.stack(list(self.biases)).mean(dim=0)

    @torch.no_grad()
    def split(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Give the branches the smallest values whose merge is this kernel, up to rounding.

        A number of the merged kernel is shared equally among the branches that cover it.
        """
        count = len(self.weights)
        for i, (branch, its_bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            reach = torch.arange(-i, i + 1).abs()
            covering = count - torch.maximum(reach[:, None], reach[None, :])
            inside = slice(count - 1 - i, count + i)
            branch.copy_(weight[..., inside, inside] * count / covering)
            its_bias.copy_(bias)


class Block(nn.Module):
    """Folds a series along each period, convolves, unfolds and mixes: the paper's TimesBlock."""

    waves: torch.Tensor

    def __init__(self, form: TimesNetForm) -> None:
        super().__init__()
        self.form = form
        self.widen = Inception(form.d_model, form.d_ff, form.kernels)
        self.narrow = Inception(form.d_ff, form.d_model, form.kernels)
        self.register_buffer("waves", torch.from_numpy(waves(form)).float(), persistent=False)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Return series (n, bars, d_model) of the same shape."""
        count = len(self.form.frequencies)
        parts = (self.waves @ series).view(len(series), 2, count, -1)
        # Not sqrt: a series without that frequency would have no gradient but NaN.
        amplitudes = torch.linalg.vector_norm(parts, dim=1).mean(dim=2)
        shares = torch.softmax(amplitudes, dim=1)
        mixed = series
        for i, image in enumerate(self.images(series)):
            unfolded = image.permute(0, 2, 3, 1).flatten(1, 2)[:, : self.form.bars]
            mixed = mixed + shares[:, i, None, None] * unfolded
        return mixed

    def images(self, series: torch.Tensor) -> list[torch.Tensor]:
        """Return what both stages make of the image (n, d_model, cycles, period) of each period."""
        widen, narrow = self.widen.merged(), self.narrow.merged()
        return [
            convolved(functional.gelu(convolved(folded(series, period), widen)), narrow)
            for period in self.form.periods
        ]


def folded(series: torch.Tensor, period: int) -> torch.Tensor:
    """Return series (n, bars, width) as images (n, width, cycles, period), zeros at the end."""
    count, bars, width = series.shape
    padded = functional.pad(series, (0, 0, 0, -bars % period))
    return padded.reshape(count, -1, period, width).permute(0, 3, 1, 2)


def convolved(image: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """Convolve images with a kernel of odd side, zeros around them."""
    weight, bias = kernel
    weight = weight.contiguous(memory_format=torch.channels_last)
    return functional.conv2d(image, weight, bias, padding=weight.shape[-1] // 2)


class TimesNetModule(nn.Module):
    """The encoder of `learners.timesnet`, with dropout after the embedding of bars, as published.

    Weights are drawn from torch's global generator: seed it for the same start.

    >>> form = TimesNetForm(bars=12, channels=2, frequencies=(1, 3))
    >>> TimesNetModule(form)(torch.zeros(5, 12, 2)).shape
    torch.Size([5, 16])
    """

    positions: torch.Tensor

    def __init__(self, form: TimesNetForm, *, dropout: float = 0.1) -> None:
        """Draw the weights; `dropout` is the share of numbers dropped while training, in [0, 1)."""
        super().__init__()
        if not 0 <= dropout < 1:
            raise InvalidInput(field="dropout", rule="must be in [0, 1)", found=dropout)
        self.form = form
        self.embedding = nn.Conv1d(
            form.channels, form.d_model, 3, padding=1, padding_mode="circular", bias=False
        )
        nn.init.kaiming_normal_(self.embedding.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(form) for _ in range(form.layers))
        self.norm = nn.LayerNorm(form.d_model, eps=NORM_EPSILON)
        self.projection = nn.Linear(form.d_model, form.embedding)
        places = torch.from_numpy(positions(form)).float()
        self.register_buffer("positions", places, persistent=False)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, embedding) of windows (n, bars, channels), float32."""
        embedded = self.embedding(windows.transpose(1, 2)).transpose(1, 2)
        series = self.dropout(embedded + self.positions)
        for block in self.blocks:
            series = self.norm(block(series))
        return torch.tanh(self.projection(series.mean(dim=1)))


def tensors_of(module: TimesNetModule) -> dict[str, Tensor]:
    """Return the tensors of the form: float32, the branches merged."""
    with torch.no_grad():
        found = {
            "embedding.weight": module.embedding.weight,
            "norm.weight": module.norm.weight,
            "norm.bias": module.norm.bias,
            "projection.weight": module.projection.weight,
            "projection.bias": module.projection.bias,
        }
        for name, stage in _stages(module).items():
            found[f"{name}.weight"], found[f"{name}.bias"] = stage.merged()
        return {
            name: np.ascontiguousarray(found[name].cpu().numpy(), dtype=np.float32).copy()
            for name in module.form.shapes()
        }


@torch.no_grad()
def load_tensors(module: TimesNetModule, tensors: Mapping[str, Tensor]) -> None:
    """Let the module go on from tensors of its form.

    Merged kernels are split into branches, so that `tensors_of` gives kernels back up to rounding
    and everything else to the bit. Raises `InvalidInput` for other names or shapes.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != module.form.shapes():
        rule = "must have the names and shapes of the form"
        raise InvalidInput(field="tensors", rule=rule, found=shapes)
    given = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    module.embedding.weight.copy_(given["embedding.weight"])
    for name, layer in (("norm", module.norm), ("projection", module.projection)):
        layer.weight.copy_(given[f"{name}.weight"])
        layer.bias.copy_(given[f"{name}.bias"])
    for name, stage in _stages(module).items():
        stage.split(given[f"{name}.weight"], given[f"{name}.bias"])


def _stages(module: TimesNetModule) -> dict[str, Inception]:
    return {
        f"block.{i}.{stage}": cast("Inception", getattr(block, stage))
        for i, block in enumerate(module.blocks)
        for stage in ("widen", "narrow")
    }
