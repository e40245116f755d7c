"""The TabNet that learns: the network of pytorch-tabnet, and out of it the tensors that act.

Imports torch: only what trains imports this module. Nothing of pytorch-tabnet but its network is
used; its files are pickles and archives that we neither write nor read.

    torch.manual_seed(seed)
    module = TabNetModule(form)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    logits, sparsity = module(rows)
    loss = cross_entropy(logits, labels) + 1e-3 * sparsity       # then backward, step
    tensors = tensors_of(module)                                 # for `learners.tabnet`
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_tabnet.tab_network import TabNet
from torch import nn

from bandit.core.errors import InvalidInput
from learners.network import Doubles, require_count
from learners.tabnet import TabNetForm
from learners.tensor_file import Tensor

VIRTUAL_BATCH_ROWS = 128
VIRTUAL_BATCH_ROWS_MAX = 2**20


class TabNetModule(nn.Module):
    """A network to train; a new one is a function of its form and of torch's seed.

    In training every batch is normalised in pieces of about `virtual_batch_rows` (ghost batch
    normalisation, Hoffer et al. 2017, arXiv:1705.08741); the smaller, the more noise. All that it
    learns is in `state_dict`, in which shared layers stand under the name of every block.
    """

    def __init__(self, form: TabNetForm, *, virtual_batch_rows: int = VIRTUAL_BATCH_ROWS) -> None:
        """Build the network with fresh weights, drawn from torch's generator."""
        super().__init__()
        require_count("virtual_batch_rows", virtual_batch_rows, 2, VIRTUAL_BATCH_ROWS_MAX)
        self.form = form
        self.virtual_batch_rows = virtual_batch_rows
        self.net: Any = TabNet(
            form.inputs,
            form.classes,
            n_d=form.width,
            n_a=form.width,
            n_steps=form.steps,
            gamma=form.gamma,
            n_independent=form.independent,
            n_shared=form.shared,
            epsilon=form.epsilon,
            virtual_batch_size=virtual_batch_rows,
            group_attention_matrix=torch.eye(form.inputs),
        )
        # A second one, which nothing reads: it would be weights without a gradient.
        del self.net.tabnet.initial_bn

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, classes) of float32 rows (n, inputs), and the sparsity to be paid for.

        The sparsity is the mean entropy of the masks over rows and steps, in nats: 0 where each
        mask is on one column. Raises `InvalidInput` in training for a batch that leaves one row
        alone in the last of its pieces, which has no variance.
        """
        if self.training and _rows_of_last_piece(len(rows), self.virtual_batch_rows) == 1:
            rule = f"must not leave one row alone in pieces of {self.virtual_batch_rows}"
            raise InvalidInput(field="batch", rule=rule, found=f"{len(rows)} rows")
        logits, negative_entropy = self.net(rows)
        return logits, -negative_entropy


def tensors_of(module: TabNetModule) -> dict[str, Tensor]:
    """Return the tensors that act, by the names of `form.shapes()`: as in evaluation mode, folded.

    Raises `InvalidInput` for what is not finite in float32, as after a training that diverged.
    """
    form, net = module.form, module.net.tabnet
    encoder = net.encoder
    scale, shift = _normalisation(encoder.initial_bn)
    residual = form.residual
    found = {"input.scale": scale, "input.shift": shift}
    found["output.weight"] = _array(net.final_mapping.weight) * residual
    for block, transformer in enumerate([encoder.initial_splitter, *encoder.feat_transformers]):
        for layer, glu in enumerate(_layers(transformer)):
            found |= _folded_layer(f"block.{block}.{layer}", layer, glu)
    for step, attention in enumerate(encoder.att_transformers):
        scale, shift = _normalisation(attention.bn.bn)
        weight = _array(attention.fc.weight) * scale[:, None] * residual
        found |= {f"attention.{step}.weight": weight, f"attention.{step}.bias": shift}
    return {name: _finite(name, found[name]) for name in form.shapes()}


def _layers(transformer: Any) -> list[Any]:
    parts = (transformer.shared, transformer.specifics)
    return [glu for part in parts if not isinstance(part, nn.Identity) for glu in part.glu_layers]


def _folded_layer(name: str, layer: int, glu: Any) -> dict[str, Doubles]:
    scale, shift = _normalisation(glu.bn.bn)
    weight = _array(glu.fc.weight) * scale[:, None]
    # Layer l reads h_(l-1) / s^(l-1) and adds glu / s^(l-1): the gate needs the factor that it
    # reads too little, the value would have it once and is divided by it once.
    factor = np.sqrt(0.5) ** max(layer - 1, 0)
    half = len(shift) // 2
    if layer > 0:
        weight[half:] *= factor
        shift[:half] /= factor
    return {f"{name}.weight": weight, f"{name}.bias": shift}


def _normalisation(norm: nn.BatchNorm1d) -> tuple[Doubles, Doubles]:
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _array(tensor: torch.Tensor | None) -> Doubles:
    assert tensor is not None
    return tensor.detach().cpu().numpy().astype(np.float64)


def _finite(name: str, values: Doubles) -> Tensor:
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(single).all():
        raise InvalidInput(field=name, rule="must be finite", found="NaN or infinite")
    return single


def _rows_of_last_piece(rows: int, piece: int) -> int:
    """Return how many rows the last piece has when torch chunks a batch as evenly as it does."""
    pieces = -(-rows // piece)
    each = -(-rows // pieces) if pieces else 0
    return rows - each * ((rows - 1) // each) if each else 0
