"""What torch trains is the published encoder, and the tensors of its form say the same."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_encoder import FORMS, reference, reference_form, weights_of, windows_of

pytest.importorskip("torch", reason="the learners' packages are not installed")

import torch
from torch import nn
from torch.nn import functional

from bandit.core.errors import InvalidInput
from learners.timesnet import TimesNetForm, evaluate
from learners.timesnet_module import (
    Inception,
    TimesNetModule,
    convolved,
    load_tensors,
    tensors_of,
)


def module_of(form: TimesNetForm, *, seed: int = 3) -> TimesNetModule:
    torch.manual_seed(seed)
    return TimesNetModule(form).eval()


def branched(stage: Inception, image: torch.Tensor) -> torch.Tensor:
    """The paper's block: every branch on its own, then their mean."""
    pairs = zip(stage.weights, stage.biases, strict=True)
    made = [functional.conv2d(image, w, b, padding=i) for i, (w, b) in enumerate(pairs)]
    return torch.stack(made, dim=-1).mean(-1)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_stored_tensors_say_what_the_module_says(form: TimesNetForm) -> None:
    module = module_of(form)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    windows = windows_of(form, 30)
    with torch.no_grad():
        found = module(torch.from_numpy(windows)).numpy()
    tensors = tensors_of(module)
    assert {name: tensor.shape for name, tensor in tensors.items()} == form.shapes()
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert np.abs(found - evaluate(form, tensors, windows)).max() < 1e-5


@pytest.mark.parametrize("kernels", [1, 2, 3, 6])
def test_the_merge_is_the_branches_in_value_and_in_gradient(kernels: int) -> None:
    torch.manual_seed(1)
    stage = Inception(5, 4, kernels).double()
    for bias in stage.biases:
        nn.init.normal_(bias)
    image = torch.randn(3, 5, 4, 9, dtype=torch.float64)
    toward = torch.randn(3, 4, 4, 9, dtype=torch.float64)
    values, gradients = [], []
    for made in (branched(stage, image), convolved(image, stage.merged())):
        values.append(made)
        gradients.append(torch.autograd.grad((made * toward).sum(), list(stage.parameters())))
    assert (values[0] - values[1]).abs().max() < 1e-12
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() < 1e-12


def test_branches_start_as_published() -> None:
    torch.manual_seed(2)
    stage = Inception(16, 32, 3)
    assert [tuple(weight.shape) for weight in stage.weights] == [
        (32, 16, side, side) for side in (1, 3, 5)
    ]
    # Kaiming by fan-out: a variance of 2 / (outputs x side x side).
    for weight, side in zip(stage.weights, (1, 3, 5), strict=True):
        assert weight.std().item() == pytest.approx((2 / (32 * side**2)) ** 0.5, rel=0.1)
    assert not any(bias.any() for bias in stage.biases)


@pytest.mark.parametrize("case", ["even", "odd", "one"])
def test_every_block_is_that_of_the_reference(case: str) -> None:
    found = reference(case)
    module = TimesNetModule(reference_form(case, layers=2), dropout=0.0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.startswith("projection"):
                parameter.copy_(torch.from_numpy(found[f"weight/{reference_name(name)}"]))
    seen: list[torch.Tensor] = []
    module.dropout.register_forward_hook(lambda _module, _given, made: seen.append(made))
    module.norm.register_forward_hook(lambda _module, _given, made: seen.append(made))
    with torch.no_grad():
        module(torch.from_numpy(found["window"][None]))
    for name, series in zip(("embedded", "series.0", "series.1"), seen, strict=True):
        assert np.abs(series[0].numpy() - found[name]).max() < 1e-5


def reference_name(name: str) -> str:
    """Their name of a parameter of ours: blocks.0.widen.weights.1 is blocks.0.conv.0.kernels.1."""
    if name == "embedding.weight":
        return "embedding.value_embedding.tokenConv.weight"
    if not name.startswith("blocks"):
        return name
    _, block, stage, kind, branch = name.split(".")
    place = {"widen": 0, "narrow": 2}[stage]
    part = {"weights": "weight", "biases": "bias"}[kind]
    return f"blocks.{block}.conv.{place}.kernels.{branch}.{part}"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_module_goes_on_from_stored_tensors(form: TimesNetForm) -> None:
    weights = weights_of(form)
    module = module_of(form)
    load_tensors(module, weights)
    again = tensors_of(module)
    for name, tensor in weights.items():
        bound = 1e-6 if name.startswith("block") else 0.0
        assert np.abs(again[name] - tensor).max() <= bound
    windows = windows_of(form, 20)
    with torch.no_grad():
        found = module(torch.from_numpy(windows)).numpy()
    assert np.abs(found - evaluate(form, weights, windows)).max() < 1e-5


def test_a_loaded_kernel_is_shared_equally_by_the_branches_that_cover_it() -> None:
    stage = Inception(1, 1, 3)
    stage.split(torch.full((1, 1, 5, 5), 6.0), torch.tensor([0.5]))
    # The mean of three branches is 6: the corner from one, the ring from two, the middle from all.
    corner, ring, middle = stage.weights[2][0, 0, 0, 0], stage.weights[1][0, 0, 0, 1], 6.0
    assert (corner.item(), ring.item()) == (18.0, 9.0)
    assert [weight[0, 0, i, i].item() for i, weight in enumerate(stage.weights)] == [middle] * 3
    assert [bias.item() for bias in stage.biases] == [0.5] * 3


def test_loading_leaves_the_given_tensors_alone() -> None:
    form = FORMS["nothing padded"]
    weights = weights_of(form)
    kept = {name: tensor.copy() for name, tensor in weights.items()}
    for tensor in weights.values():
        tensor.setflags(write=False)
    module = module_of(form)
    load_tensors(module, weights)
    module(torch.ones(2, 24, 3)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert all(np.array_equal(weights[name], kept[name]) for name in kept)
    taken = tensors_of(module)["norm.bias"]
    before = taken.copy()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert np.array_equal(taken, before)


def test_tensors_of_another_form_are_refused() -> None:
    module = module_of(FORMS["nothing padded"])
    weights = weights_of(FORMS["nothing padded"])
    missing = {name: tensor for name, tensor in weights.items() if name != "norm.bias"}
    other = {**weights, "norm.bias": np.zeros(17, dtype=np.float32)}
    for tensors in (missing, other, weights | {"more": np.zeros(1, dtype=np.float32)}):
        with pytest.raises(InvalidInput, match="tensors: must have the names and shapes"):
            load_tensors(module, tensors)


def test_the_seed_decides_the_start() -> None:
    form = FORMS["as it comes"]
    first, same, other = (tensors_of(module_of(form, seed=seed)) for seed in (4, 4, 5))
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["block.1.widen.weight"], other["block.1.widen.weight"])


def test_dropout_is_for_training_only() -> None:
    form = FORMS["as it comes"]
    torch.manual_seed(3)
    module = TimesNetModule(form, dropout=0.5)
    windows = torch.from_numpy(windows_of(form, 2))
    assert not torch.equal(module(windows), module(windows))
    module.eval()
    assert torch.equal(module(windows), module(windows))
    plain = TimesNetModule(form, dropout=0.0)
    assert torch.equal(plain(windows), plain(windows))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_no_such_dropout(dropout: float) -> None:
    with pytest.raises(InvalidInput, match=r"dropout: must be in \[0, 1\)"):
        TimesNetModule(FORMS["nothing padded"], dropout=dropout)


def test_a_series_without_a_frequency_has_gradients() -> None:
    module = module_of(FORMS["nothing padded"])
    with torch.no_grad():
        module.embedding.weight.zero_()
        module.positions.zero_()
    module(torch.ones(2, 24, 3)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


def test_it_learns_which_of_two_cycles_a_window_holds() -> None:
    rng = np.random.default_rng(8)
    kinds = rng.integers(2, size=(200, 1))
    turns = np.where(kinds == 0, 3, 4) * np.arange(24) / 24 + rng.uniform(size=(200, 1))
    noise = rng.standard_normal((200, 24, 1))
    windows = torch.from_numpy(np.sin(2 * np.pi * turns)[..., None] + 0.5 * noise).float()
    labels = torch.from_numpy(kinds[:, 0])
    torch.manual_seed(9)
    form = TimesNetForm(bars=24, channels=1, frequencies=(3, 4), layers=1, kernels=2)
    model = nn.Sequential(TimesNetModule(form), nn.Linear(form.embedding, 2))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        functional.cross_entropy(model(windows[:100]), labels[:100]).backward()
        optimiser.step()
    model.eval()
    right = (model(windows[100:]).argmax(dim=1) == labels[100:]).float().mean()
    assert right > 0.9  # half would be guessed
