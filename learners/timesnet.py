"""The TimesNet encoder: a window of bars to an embedding, its form, and what it says, in numpy.

Wu et al., "TimesNet: Temporal 2D-Variation Modeling for General Time Series Analysis", ICLR 2023.
A window of shape (bars, channels) is embedded at every bar by a circular convolution over three
bars and a sinusoid of the position. Each block folds the series along a few periods into images of
shape (cycles, period), runs two inception convolutions with a GELU between over each, unfolds, and
adds the results to its input, weighted by softmax of the amplitudes at those frequencies in that
very series; a layer norm, one for all blocks, follows. Here it differs from the paper:

- The frequencies are part of the form, found once over all training windows (`frequencies_of`). The
  paper takes those of the batch at hand, so that an embedding would depend on its batch mates.
- Inception branches are stored merged: they are linear and averaged, so that one kernel, the mean
  of the branches laid centre on centre, is the same function.
- Windows are not normalised one by one. A forecaster puts level and scale back afterwards; a policy
  needs them, drift shows in them, and the features come scaled by their history already.
- The embedding is tanh of a linear map of the mean over bars. The mean, because no bar is last in
  an image: all see both sides of themselves, and those at an edge see padding. Tanh bounds every
  number and leaves each free, as a divergence between samples needs it; a layer norm would tie
  them to a sphere, on which no covariance has full rank.

Tensors: `embedding.weight` (d_model, channels, 3), oldest bar first; of block `i` the stages
`block.i.widen` and `block.i.narrow`, `.weight` (out, in, side, side) and `.bias` (out,); `norm`
and `projection`, `.weight` and `.bias`. All are float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.network import PARAMETERS_MAX, Doubles, require_count
from learners.tensor_file import Tensor

BARS_MIN, BARS_MAX = 4, 1024
WIDTH_MAX = 256
LAYERS_MAX = 8
KERNELS_MAX = 6
FREQUENCIES_MAX = 8
MULTIPLICATIONS_MAX = 2**30
"""Most multiplications for one window: a graph that answers within a fraction of a second."""

NORM_EPSILON = 1e-5
_WINDOWS_AT_ONCE = 512

# Not SciPy's, which a service that serves would load for this alone; the graph has its own.
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesNetForm:
    """The sizes of an encoder.

    `bars` and `channels` are those of a window. `frequencies` are whole cycles in a window,
    ascending, no two with the same period. `d_model` channels run between blocks and `d_ff` inside
    them; an inception stage averages `kernels` kernels of 1x1, 3x3, 5x5, …; an embedding has
    `embedding` numbers.

    >>> form = TimesNetForm(bars=48, channels=18, frequencies=(1, 2, 7))
    >>> form.periods, form.side, form.shapes()["block.0.widen.weight"]
    ((48, 24, 6), 5, (16, 16, 5, 5))
    """

    bars: int
    channels: int
    frequencies: tuple[int, ...]
    d_model: int = 16
    d_ff: int = 16
    layers: int = 2
    kernels: int = 3
    embedding: int = 16

    def __post_init__(self) -> None:
        """Refuse a form outside the bounds, before anything is built by it."""
        require_count("bars", self.bars, BARS_MIN, BARS_MAX)
        for name in ("channels", "d_model", "d_ff", "embedding"):
            require_count(name, getattr(self, name), 1, WIDTH_MAX)
        require_count("layers", self.layers, 1, LAYERS_MAX)
        require_count("kernels", self.kernels, 1, KERNELS_MAX)
        if not isinstance(self.frequencies, tuple):
            raise InvalidInput(field="frequencies", rule="must be a tuple", found=self.frequencies)
        require_count("how many frequencies", len(self.frequencies), 1, FREQUENCIES_MAX)
        for frequency in self.frequencies:
            require_count("frequencies", frequency, 1, self.bars // 2)
        if len(set(self.periods)) < len(self.periods) or list(self.frequencies) != sorted(
            self.frequencies
        ):
            rule = "must ascend, each to another period"
            raise InvalidInput(field="frequencies", rule=rule, found=self.frequencies)
        require_count("parameters", self.parameters, 1, PARAMETERS_MAX)
        require_count("multiplications", self.multiplications, 1, MULTIPLICATIONS_MAX)

    @property
    def periods(self) -> tuple[int, ...]:
        """Bars in a cycle of each frequency, rounded down, as the paper folds."""
        return tuple(self.bars // frequency for frequency in self.frequencies)

    @property
    def side(self) -> int:
        """Rows and columns of a merged kernel."""
        return 2 * self.kernels - 1

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def multiplications(self) -> int:
        """How many multiplications one window takes, up to lower orders."""
        folded = sum(-(-self.bars // period) * period for period in self.periods)
        block = 2 * folded * self.d_model * self.d_ff * self.side**2
        waves = 2 * len(self.frequencies) * self.bars * self.d_model
        embedded = 3 * self.bars * self.channels * self.d_model
        return embedded + self.layers * (block + waves) + self.d_model * self.embedding

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        shapes: dict[str, tuple[int, ...]] = {
            "embedding.weight": (self.d_model, self.channels, 3),
            "norm.weight": (self.d_model,),
            "norm.bias": (self.d_model,),
            "projection.weight": (self.embedding, self.d_model),
            "projection.bias": (self.embedding,),
        }
        for i in range(self.layers):
            for stage, sizes in (
                ("widen", (self.d_ff, self.d_model)),
                ("narrow", (self.d_model, self.d_ff)),
            ):
                shapes[f"block.{i}.{stage}.weight"] = (*sizes, self.side, self.side)
                shapes[f"block.{i}.{stage}.bias"] = sizes[:1]
        return shapes

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name; `from_json` reads them back."""
        return {**asdict(self), "frequencies": list(self.frequencies)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TimesNetForm:
        """Return the form that `to_json` gave; raises `InvalidInput` for anything else.

        >>> form = TimesNetForm(bars=48, channels=18, frequencies=(1, 2, 7))
        >>> TimesNetForm.from_json(form.to_json()) == form
        True
        """
        names = sorted(made.name for made in fields(cls))
        found = sorted(stored) if isinstance(stored, Mapping) else stored
        if found != names:
            raise InvalidInput(field="encoder", rule=f"must have exactly {names}", found=found)
        frequencies = stored["frequencies"]
        if not isinstance(frequencies, list):
            raise InvalidInput(field="frequencies", rule="must be a list", found=frequencies)
        return cls(**{**stored, "frequencies": tuple(frequencies)})


def frequencies_of(windows: NDArray[np.floating], count: int) -> tuple[int, ...]:
    """Return the `count` strongest frequencies of windows of shape (n, bars, channels).

    Whole cycles in a window, ascending, by the mean amplitude over windows and channels, frequency
    0 left out (`FFT_for_Period` of the paper's code, over all windows in place of a batch). Of
    frequencies that fold to the same period only the strongest counts; of equals, the lowest.
    `windows` may be a view: it is read in parts.

    >>> time = np.arange(48)
    >>> window = np.sin(2 * np.pi * time / 6) + 2 * np.sin(2 * np.pi * time / 16)
    >>> frequencies_of(window[None, :, None], 2)
    (3, 8)

    Raises `InvalidInput` for another shape, for numbers that are not finite, and where a window has
    no `count` different periods.
    """
    if windows.ndim != 3 or not len(windows) or not windows.shape[2]:
        rule = "must have the shape (windows, bars, channels), none of them empty"
        raise InvalidInput(field="windows", rule=rule, found=windows.shape)
    bars = windows.shape[1]
    require_count("bars", bars, BARS_MIN, BARS_MAX)
    amplitudes = np.zeros(bars // 2 + 1)
    for start in range(0, len(windows), _WINDOWS_AT_ONCE):
        part = windows[start : start + _WINDOWS_AT_ONCE].astype(np.float64)
        if not np.isfinite(part).all():
            raise InvalidInput(field="windows", rule="must be finite", found="NaN or infinite")
        amplitudes += np.abs(np.fft.rfft(part, axis=1)).sum(axis=(0, 2))
    strongest: dict[int, int] = {}
    for frequency in np.argsort(-amplitudes[1:], kind="stable") + 1:
        strongest.setdefault(bars // int(frequency), int(frequency))
    require_count("how many frequencies", count, 1, min(FREQUENCIES_MAX, len(strongest)))
    return tuple(sorted(list(strongest.values())[:count]))


def positions(form: TimesNetForm) -> Doubles:
    """Return what a bar's place in the window adds to its embedding: (bars, d_model).

    sin(bar / 10000^(2j / d_model)) in column 2j and the cosine in column 2j + 1 (Vaswani et al.,
    "Attention Is All You Need", 2017, section 3.5).
    """
    columns = np.arange(form.d_model)
    scale = 10_000.0 ** (-2.0 * (columns // 2) / form.d_model)
    angles = np.arange(form.bars)[:, None] * scale
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def waves(form: TimesNetForm) -> Doubles:
    """Return the cosine of each frequency, then the sine of each: (2 * frequencies, bars).

    A product with a series is the real and the imaginary part of its spectrum, but for a sign.
    """
    # The remainder keeps the angle below one turn: exact, where a long product would not be.
    turns = np.outer(form.frequencies, np.arange(form.bars)) % form.bars / form.bars
    return np.concatenate([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)])


def evaluate(
    form: TimesNetForm, tensors: Mapping[str, Tensor], windows: NDArray[np.floating]
) -> Doubles:
    """Return the embeddings (n, embedding) of windows (n, bars, channels), in double precision.

    Independent of any runtime, and of each window's neighbours in the batch. For thousands of
    windows the graph is the way: here one takes milliseconds.

    >>> form = TimesNetForm(bars=12, channels=2, frequencies=(1, 3), embedding=1)
    >>> tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    >>> tensors["projection.bias"][0] = 0.5
    >>> evaluate(form, tensors, np.ones((1, 12, 2))).round(4).tolist()  # tanh(0.5)
    [[0.4621]]

    Raises `InvalidInput` for windows of another shape.
    """
    _require_windows(form, windows)
    weights = {name: tensors[name].astype(np.float64) for name in form.shapes()}
    series = positions(form)
    for tap, shift in enumerate((1, 0, -1)):
        bars = np.roll(windows.astype(np.float64), shift, axis=1)
        series = series + bars @ weights["embedding.weight"][:, :, tap].T
    for i in range(form.layers):
        block = {
            name.removeprefix(f"block.{i}."): weight
            for name, weight in weights.items()
            if name.startswith(f"block.{i}.")
        }
        series = _normed(_through(form, block, series), weights)
    projected = series.mean(axis=1) @ weights["projection.weight"].T + weights["projection.bias"]
    embeddings: Doubles = np.tanh(projected)
    return embeddings


def _require_windows(form: TimesNetForm, windows: NDArray[np.floating]) -> None:
    """Raise `InvalidInput` for windows whose shape is not (n, bars, channels)."""
    if windows.ndim != 3 or windows.shape[1:] != (form.bars, form.channels):
        rule = f"must have the shape (n, {form.bars}, {form.channels})"
        raise InvalidInput(field="windows", rule=rule, found=windows.shape)


def _through(form: TimesNetForm, block: Mapping[str, Doubles], series: Doubles) -> Doubles:
    # One block, with its residual: (n, bars, d_model) to the same.
    parts = waves(form) @ series
    count = len(form.frequencies)
    amplitudes = np.hypot(parts[:, :count], parts[:, count:]).mean(axis=2)
    powers = np.exp(amplitudes - amplitudes.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    mixed = series.copy()
    for i, period in enumerate(form.periods):
        cycles = -(-form.bars // period)
        padded = np.pad(series, ((0, 0), (0, cycles * period - form.bars), (0, 0)))
        image = padded.reshape(len(series), cycles, period, form.d_model)
        wide = _convolved(image, block["widen.weight"], block["widen.bias"])
        wide *= 0.5 + 0.5 * np.asarray(_erf(wide / math.sqrt(2.0)), dtype=np.float64)
        image = _convolved(wide, block["narrow.weight"], block["narrow.bias"])
        unfolded = image.reshape(len(series), -1, form.d_model)[:, : form.bars]
        mixed += shares[:, i, None, None] * unfolded
    return mixed


def _convolved(image: Doubles, weight: Doubles, bias: Doubles) -> Doubles:
    # (n, rows, columns, in) to (n, rows, columns, out), with zeros around the image.
    _, rows, columns, _ = image.shape
    side = weight.shape[-1]
    padded = np.pad(image, ((0, 0), *[(side // 2, side // 2)] * 2, (0, 0)))
    summed = np.broadcast_to(bias, (*image.shape[:3], len(bias))).copy()
    for down in range(side):
        for right in range(side):
            part = padded[:, down : down + rows, right : right + columns]
            summed += part @ weight[:, :, down, right].T
    return summed


def _normed(series: Doubles, weights: Mapping[str, Doubles]) -> Doubles:
    centred = series - series.mean(axis=2, keepdims=True)
    variance = np.square(centred).mean(axis=2, keepdims=True)
    scaled: Doubles = centred / np.sqrt(variance + NORM_EPSILON)
    return scaled * weights["norm.weight"] + weights["norm.bias"]
