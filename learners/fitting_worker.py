"""The process that fits: TimesNet with a head, and TabNet, by Adam, on one thread."""

from __future__ import annotations

import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch._dynamo  # every optimiser needs it: imported late, each worker would wait seconds
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from bandit.core.errors import BanditError, InvalidInput
from learners import tabnet_module, tensor_file, timesnet_module
from learners.checkpoints import (
    ARRAYS,
    TENSORS,
    Checkpoint,
    Contents,
    Counters,
    read_checkpoint,
    set_aside,
    stored_steps,
    write_checkpoint,
)
from learners.fitting import FittingOrder
from learners.fitting_plan import HEAD_BIAS, HEAD_WEIGHT, FittingPlan, LabelledRows
from learners.sealed_files import ArtifactRefused
from learners.tensor_file import Tensor
from learners.timesnet import TimesNetForm
from learners.training_events import (
    Begun,
    CheckpointUnfit,
    CheckpointWritten,
    Fitted,
    Refused,
    encoded,
)
from learners.training_pace import Pace

GRADIENT_MAX = 1.0
"""Gradients are clipped to this norm: one odd batch must not undo what was learned."""

_MOMENTS = ("exp_avg", "exp_avg_sq")
_LOSSES = "losses"  # of the first epoch and the last one, as far as known


class Pupil(ABC):
    """A module that learns to name the class of an example."""

    def __init__(self, module: nn.Module) -> None:
        """Teach `module`."""
        self.module = module

    @abstractmethod
    def loss(self, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what to make small, and the cross entropy in it, of some examples."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what has been learned, as it is stored."""


class EncoderPupil(Pupil):
    """TimesNet, taught by the classes that a linear head reads from its embeddings."""

    def __init__(self, plan: FittingPlan, rows: LabelledRows) -> None:
        """Begin by chance; torch is seeded before."""
        assert isinstance(plan.form, TimesNetForm)
        self._form, self._rows = plan.form, rows
        self._encoder = timesnet_module.TimesNetModule(plan.form, dropout=plan.dropout)
        self._head = nn.Linear(plan.form.embedding, rows.classes)
        super().__init__(nn.ModuleList([self._encoder, self._head]))

    def start(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from stored weights."""
        own = {name: value for name, value in tensors.items() if name in self._form.shapes()}
        timesnet_module.load_tensors(self._encoder, own)
        with torch.no_grad():
            self._head.weight.copy_(torch.from_numpy(np.array(tensors[HEAD_WEIGHT])))
            self._head.bias.copy_(torch.from_numpy(np.array(tensors[HEAD_BIAS])))

    def loss(self, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cross entropy twice."""
        windows = torch.from_numpy(self._rows.windows(chosen, bars=self._form.bars))
        labels = torch.from_numpy(self._rows.labels[chosen])
        entropy = cross_entropy(self._head(self._encoder(windows)), labels)
        return entropy, entropy

    def tensors(self) -> dict[str, Tensor]:
        """Return the encoder's tensors and the head's."""
        head = {HEAD_WEIGHT: self._head.weight, HEAD_BIAS: self._head.bias}
        learned = {name: value.detach().numpy().copy() for name, value in head.items()}
        return {**timesnet_module.tensors_of(self._encoder), **learned}


class TabNetPupil(Pupil):
    """TabNet, which pays for looking at many columns."""

    def __init__(self, plan: FittingPlan, rows: LabelledRows) -> None:
        """Begin by chance; torch is seeded before."""
        assert not isinstance(plan.form, TimesNetForm)
        self._rows, self._sparsity = rows, plan.sparsity
        self._tabnet = tabnet_module.TabNetModule(plan.form)
        super().__init__(self._tabnet)

    def loss(self, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cross entropy with and without the price of looking."""
        seen = torch.from_numpy(self._rows.series[self._rows.ends[chosen]])
        logits, sparsity = self._tabnet(seen)
        entropy = cross_entropy(logits, torch.from_numpy(self._rows.labels[chosen]))
        return entropy + self._sparsity * sparsity, entropy

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that act."""
        return tabnet_module.tensors_of(self._tabnet)


def work(pipe: Connection, order: FittingOrder) -> None:
    """Fit as ordered, and say how it goes and ends; ends early where nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this process
    torch.set_num_threads(1)
    try:
        try:
            messages = _Fitting(pipe, order).messages()
        except BanditError as error:
            messages = [encoded(Refused(reason=str(error)))]
        for message in messages:
            pipe.send_bytes(message)
    except BrokenPipeError:
        return


class _Fitting:
    """A pupil with its optimiser, epoch by epoch."""

    def __init__(self, pipe: Connection, order: FittingOrder) -> None:
        self._order = order
        self._rows = len(order.rows.ends)
        self._batches = order.plan.batches(self._rows)
        self._total = order.plan.epochs * self._batches
        self._pace = Pace(pipe, order, steps_total=self._total)
        self._begin_anew()

    def _begin_anew(self) -> None:
        plan = self._order.plan
        torch.manual_seed(plan.seed)
        self._done = 0
        self._losses = [0.0, 0.0]
        is_encoder = isinstance(plan.form, TimesNetForm)
        self._pupil = (EncoderPupil if is_encoder else TabNetPupil)(plan, self._order.rows)
        if self._order.start is not None:
            assert isinstance(self._pupil, EncoderPupil)
            self._pupil.start(self._order.start)
        self._parameters = list(self._pupil.module.parameters())
        self._adam = torch.optim.Adam(self._parameters, lr=plan.learning_rate)

    def messages(self) -> list[bytes]:
        """Return the ending, and what it announces."""
        self._resume()
        resumed = self._done
        self._pace.say(Begun(steps=resumed))
        self._pupil.module.train()
        while self._done < self._total:
            self._epoch(self._done // self._batches)
            if self._pace.ended is not None:
                return [encoded(self._pace.ended)]
            self._keep()
        fitted = Fitted(
            batches=self._done,
            resumed_batches=resumed,
            loss_first=self._losses[0],
            loss_last=self._losses[1],
        )
        self._pupil.module.eval()
        return [encoded(fitted), tensor_file.encoded(self._pupil.tensors())]

    def _epoch(self, number: int) -> None:
        """Pass over all rows once; what is left to chance follows from the seed and the epoch."""
        seeds = np.random.SeedSequence([self._order.plan.seed, number]).generate_state(2)
        torch.manual_seed(int(seeds[0]))
        shuffled = np.random.default_rng(seeds[1]).permutation(self._rows)
        kept, summed = self._done, 0.0
        for chosen in np.array_split(shuffled, self._batches):
            self._pace.round_begins(self._done, is_learning=True)
            if self._pace.ended is None and self._pace.is_late():
                self._pace.stop_late(kept)
            if self._pace.ended is not None:
                return
            summed += self._learn(chosen) * len(chosen)
            self._done += 1
        mean = summed / self._rows
        self._losses = [mean if number == 0 else self._losses[0], mean]

    def _learn(self, chosen: NDArray[np.int64]) -> float:
        for group in self._adam.param_groups:
            turn = math.pi * self._done / self._total
            group["lr"] = self._order.plan.learning_rate * (1.0 + math.cos(turn)) / 2.0
        self._adam.zero_grad()
        loss, entropy = self._pupil.loss(chosen)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(self._parameters, GRADIENT_MAX)
        self._adam.step()
        return float(entropy.detach())

    # What is kept after an epoch, and gone on from

    def _state(self) -> dict[str, Tensor]:
        """Return weights, running statistics and moments; counters are the checkpoint's own."""
        kept = {
            f"module.{name}": value.detach().numpy().copy()
            for name, value in self._pupil.module.state_dict().items()
            if value.is_floating_point()
        }
        for i, parameter in enumerate(self._parameters):
            state = self._adam.state[parameter]
            for moment in _MOMENTS:
                known = state[moment] if moment in state else torch.zeros_like(parameter)
                kept[f"{moment}.{i}"] = known.detach().numpy().copy()
        kept[_LOSSES] = np.array(self._losses, dtype=np.float32)
        return kept

    def _keep(self) -> None:
        tensors = self._state()
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise InvalidInput(field=name, rule="must stay finite", found="NaN or an infinity")
        counters = Counters(
            run=self._order.run, steps=self._done, updates=self._done, remembered=0, next_row=0
        )
        checkpoint = Checkpoint(counters=counters, tensors=tensors, arrays={})
        write_checkpoint(self._order.folder, checkpoint)
        self._pace.say(CheckpointWritten(steps=self._done))

    def _resume(self) -> None:
        """Go on at the newest sound checkpoint, if there is one."""
        shapes = {name: value.shape for name, value in self._state().items()}
        contents = Contents(tensors=shapes, arrays={})
        values = sum(math.prod(shape) for shape in shapes.values())
        sizes_max = {TENSORS: 4 * values + 1_024 * (len(shapes) + 1), ARRAYS: 1_024}
        for name in stored_steps(self._order.folder):
            try:
                found = read_checkpoint(
                    self._order.folder,
                    name,
                    run=self._order.run,
                    contents=lambda _: contents,
                    sizes_max=sizes_max,
                )
            except ArtifactRefused as error:
                set_aside(self._order.folder, name)
                self._pace.say(CheckpointUnfit(name=name, reason=str(error)))
            else:
                self._restore(found)
                return

    def _restore(self, found: Checkpoint) -> None:
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in found.tensors.items()}
        own = self._pupil.module.state_dict()
        for name, value in own.items():
            if value.is_floating_point():
                value.copy_(tensors[f"module.{name}"])
        self._done = found.counters.steps
        self._losses = tensors[_LOSSES].double().tolist()
        for i, parameter in enumerate(self._parameters):
            moments: dict[str, Any] = {moment: tensors[f"{moment}.{i}"] for moment in _MOMENTS}
            self._adam.state[parameter] = {"step": torch.tensor(float(self._done)), **moments}
