"""The network that learns and the tensors that act say the same; it learns; it is repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up_classifier import FORMS, model_of, rows_of, run
from torch.nn.functional import cross_entropy

from bandit.core.errors import InvalidInput
from learners.tabnet import TabNetForm, evaluate, importance, masks
from learners.tabnet_graph import nodes
from learners.tabnet_module import TabNetModule, tensors_of


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def module_of(form: TabNetForm, *, seed: int = 11) -> TabNetModule:
    """A module whose every normalisation has something to fold."""
    torch.manual_seed(seed)
    module = TabNetModule(form, virtual_batch_rows=32)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.0)
            torch.nn.init.normal_(part.bias, std=0.2)
    for seed_of_batch in range(20):
        module(torch.from_numpy(2 * rows_of(form.inputs, 128, seed_of_batch) + 1))
    return module.eval()


def require_close(ours: np.ndarray, theirs: np.ndarray, *, magnitude: float) -> None:
    """Three rows of four within 1e-5, and each within what single precision can know of it.

    Where a column is about to enter a mask, a rounding of the first sums grows by a thousand.
    """
    worst = np.abs(ours - theirs).max(axis=1)
    assert np.quantile(worst, 0.75) < 1e-5
    assert worst.max() < 1e-6 * max(1.0, magnitude)


@pytest.mark.parametrize("name", FORMS)
def test_torch_numpy_and_onnx_runtime_say_the_same(name: str) -> None:
    form = FORMS[name]
    module = module_of(form)
    tensors = tensors_of(module)
    assert {key: tensor.shape for key, tensor in tensors.items()} == form.shapes()
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    rows = 2 * rows_of(form.inputs) + 1
    found = evaluate(form, tensors, rows)
    with torch.no_grad():
        logits, _ = module(torch.from_numpy(rows))
    content = model_of(
        nodes(form, tensors, source="rows", prefix=""), inputs=form.inputs, outputs=form.classes
    )
    assert np.abs(found.scores).max() > 0.1
    for others in (logits.numpy(), run(content, rows)):
        require_close(found.scores, others, magnitude=found.magnitude)
    probabilities = torch.softmax(logits, dim=1).numpy()
    require_close(found.probabilities, probabilities, magnitude=found.magnitude)


@pytest.mark.parametrize("name", FORMS)
def test_masks_are_those_that_pytorch_tabnet_explains_with(name: str) -> None:
    form = FORMS[name]
    module = module_of(form)
    rows = 2 * rows_of(form.inputs) + 1
    with torch.no_grad():
        explained, _ = module.net.forward_masks(torch.from_numpy(rows))
    tensors = tensors_of(module)
    found = masks(form, tensors, rows)
    require_close(found, explained.numpy(), magnitude=evaluate(form, tensors, rows).magnitude)
    summed = explained.sum(dim=0)
    assert importance(found) == pytest.approx((summed / summed.sum()).numpy(), abs=1e-5)


def trained(seed: int, *, passes: int) -> TabNetModule:
    """Adam on a planted rule: class 1 where the third column is above the sixth."""
    form = TabNetForm(inputs=8, classes=2)
    torch.manual_seed(seed)
    module = TabNetModule(form, virtual_batch_rows=64)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    rows, labels = planted(1024, seed=1)
    for _ in range(passes):
        for start in range(0, len(rows), 256):
            logits, sparsity = module(rows[start : start + 256])
            loss = cross_entropy(logits, labels[start : start + 256]) + 1e-3 * sparsity
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return module.eval()


def planted(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = rows_of(8, count, seed)
    return torch.from_numpy(rows), torch.from_numpy((rows[:, 2] > rows[:, 5]).astype(np.int64))


def test_a_planted_rule_is_learnt_and_explained() -> None:
    module = trained(3, passes=15)
    rows, labels = planted(1000, seed=2)
    tensors = tensors_of(module)
    found = evaluate(module.form, tensors, rows.numpy())
    # A coin is right 500 times, with a standard deviation of 16.
    assert (found.scores.argmax(axis=1) == labels.numpy()).sum() > 900
    share = importance(masks(module.form, tensors, rows.numpy()))
    assert share[[2, 5]].sum() > 0.6


def test_training_is_a_function_of_the_seed() -> None:
    once, again, other = (tensors_of(trained(seed, passes=1)) for seed in (3, 3, 4))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not all(np.array_equal(once[name], other[name]) for name in once)


def test_a_state_that_was_kept_is_the_whole_network() -> None:
    module = trained(3, passes=1)
    state = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    torch.manual_seed(99)
    fresh = TabNetModule(module.form, virtual_batch_rows=64)
    fresh.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    kept, restored = tensors_of(module), tensors_of(fresh)
    assert all(np.array_equal(kept[name], restored[name]) for name in kept)


def test_sparsity_is_the_mean_entropy_of_the_masks() -> None:
    form = FORMS["default"]
    module = module_of(form)
    rows = torch.from_numpy(rows_of(form.inputs))
    with torch.no_grad():
        _, sparsity = module(rows)
        _, found = module.net.forward_masks(rows)
    each = [mask.numpy().astype(np.float64) for mask in found.values()]
    entropies = [-(mask * np.log(mask + form.epsilon)).sum(axis=1).mean() for mask in each]
    assert float(sparsity) == pytest.approx(np.mean(entropies), abs=1e-5)
    assert float(sparsity) > 0


@pytest.mark.parametrize("name", FORMS)
def test_every_weight_of_the_state_is_learnt(name: str) -> None:
    torch.manual_seed(1)
    module = TabNetModule(FORMS[name])
    logits, sparsity = module(torch.from_numpy(rows_of(FORMS[name].inputs)))
    (logits.square().sum() + sparsity).backward()
    assert all(weight.grad is not None for weight in module.parameters())
    learnt = {key for key, _ in module.named_parameters(remove_duplicate=False)}
    rest = {key.rsplit(".", 1)[1] for key in module.state_dict().keys() - learnt}
    assert rest == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("rows", [1, 7, 10])
def test_a_batch_that_leaves_one_row_alone_is_refused_in_training(rows: int) -> None:
    # Pieces of at most 3: 7 = 3 + 3 + 1, 10 = 3 + 3 + 3 + 1.
    module = TabNetModule(TabNetForm(inputs=4, classes=2), virtual_batch_rows=3)
    with pytest.raises(InvalidInput, match=f"must not leave one row alone .* found {rows} rows"):
        module(torch.zeros(rows, 4))
    logits, _ = module.eval()(torch.zeros(rows, 4))
    assert logits.shape == (rows, 2)


@pytest.mark.parametrize("piece", [2, 3, 5, 16])
def test_what_is_not_refused_is_what_torch_normalises(piece: int) -> None:
    form = TabNetForm(inputs=2, classes=2, steps=1, width=1, shared=1, independent=0)
    module = TabNetModule(form, virtual_batch_rows=piece)
    for rows in range(2, 40):
        sizes = [len(part) for part in torch.zeros(rows, 1).chunk(-(-rows // piece), 0)]
        if min(sizes) > 1:
            module(torch.zeros(rows, 2))
        else:
            with pytest.raises(InvalidInput, match="batch"):
                module(torch.zeros(rows, 2))


@pytest.mark.parametrize("found", [0, 1, 2**21, 3.0])
def test_other_virtual_batches_are_refused(found: int) -> None:
    with pytest.raises(InvalidInput, match="virtual_batch_rows"):
        TabNetModule(FORMS["default"], virtual_batch_rows=found)


@pytest.mark.parametrize("planted_value", [float("nan"), 1e38])
def test_a_training_that_diverged_gives_no_tensors(planted_value: float) -> None:
    module = module_of(FORMS["default"])
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.Linear):
                part.weight.fill_(planted_value)
            if isinstance(part, torch.nn.BatchNorm1d):
                part.weight.fill_(1e3)
    with pytest.raises(InvalidInput, match="must be finite"):
        tensors_of(module)
