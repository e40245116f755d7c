"""How long an embedding takes, and a step of training: TimesNet as stored, and as published.

The same drawn weights, one after the other in each round, one thread. An embedding of one window is
ONNX Runtime on the stored graph beside the module of torch that trained it. A step of training is
forward, backward and Adam on a batch, with the inception branches merged into one convolution
beside a convolution for each branch and the layout of images of the paper's code: the same function
of the same parameters. The form is the one that comes by default, over 18 features and 64 bars; a
second one has six branches, as the paper has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter, thread_time

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from benchmarks.claims import QUICK, Target, alternated, claim, paired
from learners.timesnet import TimesNetForm, evaluate
from learners.timesnet_graph import EMBEDDING, INPUT, graph
from learners.timesnet_module import Block, Inception, TimesNetModule, folded, tensors_of

FORM = TimesNetForm(bars=64, channels=18, frequencies=(1, 2, 5))
FORMS = {"default": FORM, "six_branches": replace(FORM, kernels=6)}
BATCH = 128
ROUNDS = 3 if QUICK else 40
WINDOWS_A_ROUND = 50
STEPS_ROUNDS = 2 if QUICK else 20

P99_MICROSECONDS = 1000.0
BESIDE_TORCH = 0.25
# Merging costs as much whatever the number of branches, and saves more the more there are.
BESIDE_BRANCHES = {"default": 0.6, "six_branches": 0.4}


class BranchedBlock(Block):
    """The paper's block: a convolution for each branch, and their mean."""

    def images(self, series: torch.Tensor) -> list[torch.Tensor]:
        """Return what both stages make of each period's image."""
        return [
            branched(self.narrow, functional.gelu(branched(self.widen, image.contiguous())))
            for image in (folded(series, period) for period in self.form.periods)
        ]


def branched(stage: Inception, image: torch.Tensor) -> torch.Tensor:
    """Convolve with every branch on its own."""
    pairs = zip(stage.weights, stage.biases, strict=True)
    made = [functional.conv2d(image, w, b, padding=i) for i, (w, b) in enumerate(pairs)]
    return torch.stack(made, dim=-1).mean(-1)


def modules_of(form: TimesNetForm) -> tuple[TimesNetModule, TimesNetModule]:
    """The module as it trains and one with the paper's blocks, of equal parameters."""
    torch.manual_seed(1)
    merged, apart = TimesNetModule(form, dropout=0.0), TimesNetModule(form, dropout=0.0)
    apart.blocks = nn.ModuleList(BranchedBlock(form) for _ in range(form.layers))
    apart.load_state_dict(merged.state_dict())
    return merged, apart


def step_of(module: TimesNetModule, windows: torch.Tensor) -> Callable[[], None]:
    """One step of training towards drawn embeddings."""
    optimiser = torch.optim.Adam(module.parameters())
    toward = torch.rand(len(windows), module.form.embedding)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(functional.mse_loss(module(windows), toward))
        optimiser.step()

    return step


def session_of(module: TimesNetModule) -> onnxruntime.InferenceSession:
    """The stored graph, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = graph(module.form, tensors_of(module))
    return onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )


def timed(embed: Callable[[np.ndarray], np.ndarray], windows: np.ndarray) -> dict[str, list[float]]:
    """Embed the windows one by one: the microseconds of each by two clocks."""
    taken: dict[str, list[float]] = {"wall": [], "cpu": []}
    for i in range(len(windows)):
        spent, start = thread_time(), perf_counter()
        embed(windows[i : i + 1])
        taken["wall"].append((perf_counter() - start) * 1e6)
        taken["cpu"].append((thread_time() - spent) * 1e6)
    return taken


def measure_embedding(name: str, form: TimesNetForm) -> None:
    """Claim the median and the 99th percentile of one embedding."""
    module = modules_of(form)[0].eval()
    session = session_of(module)

    def ours(window: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([EMBEDDING], {INPUT: window})[0]
        return found

    @torch.inference_mode()
    def theirs(window: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(window)).numpy()  # type: ignore[no-any-return]

    drawn = np.random.default_rng(2).standard_normal((WINDOWS_A_ROUND, form.bars, form.channels))
    windows = drawn.astype(np.float32)
    expected = evaluate(form, tensors_of(module), windows)
    assert max(np.abs(embed(windows) - expected).max() for embed in (ours, theirs)) < 1e-5
    rounds: dict[str, list[dict[str, list[float]]]] = {"ours": [], "theirs": []}
    work = {
        "ours": lambda: rounds["ours"].append(timed(ours, windows)),
        "theirs": lambda: rounds["theirs"].append(timed(theirs, windows)),
    }
    alternated(work, rounds=ROUNDS)
    for clock in ("wall", "cpu"):
        for percent in (50, 99):
            report(name, clock, percent, rounds)


def report(
    name: str, clock: str, percent: int, rounds: dict[str, list[dict[str, list[float]]]]
) -> None:
    """Print the claims of one clock and percentile."""
    found = {
        side: [float(np.percentile(taken[clock], percent)) for taken in of]
        for side, of in rounds.items()
    }
    ours, theirs = (median(found[side]) for side in ("ours", "theirs"))
    claim(
        f"learners.encoder.{name}.{clock}_p{percent}",
        ours=f"{ours:.0f}us",
        yardstick=f"{theirs:.0f}us",
        ratio=paired(found["ours"], found["theirs"]),
        side=Target.AT_MOST,
        target=BESIDE_TORCH,
    )
    if (clock, percent) == ("cpu", 99):
        claim(
            f"learners.encoder.{name}.cpu_p99_limit",
            ours=f"{ours:.0f}us",
            yardstick=f"{P99_MICROSECONDS:.0f}us",
            ratio=ours / P99_MICROSECONDS,
            side=Target.AT_MOST,
            target=1.0,
        )


def measure_training(name: str, form: TimesNetForm) -> None:
    """Claim a step of training, merged beside branches."""
    windows = torch.randn(BATCH, form.bars, form.channels)
    merged, apart = modules_of(form)
    with torch.no_grad():
        assert (merged(windows) - apart(windows)).abs().max() < 1e-5
    work = {"merged": step_of(merged, windows), "branches": step_of(apart, windows)}
    for step in work.values():
        step()  # the first one imports and allocates
    seconds = alternated(work, rounds=STEPS_ROUNDS)
    ours, theirs = (median(seconds[side]) * 1e3 for side in ("merged", "branches"))
    claim(
        f"learners.encoder.{name}.training_step",
        ours=f"{ours:.1f}ms",
        yardstick=f"{theirs:.1f}ms",
        ratio=paired(seconds["merged"], seconds["branches"]),
        side=Target.AT_MOST,
        target=BESIDE_BRANCHES[name],
    )


def main() -> None:
    """Measure both forms."""
    torch.set_num_threads(1)
    for name, form in FORMS.items():
        measure_embedding(name, form)
        measure_training(name, form)


if __name__ == "__main__":
    main()
