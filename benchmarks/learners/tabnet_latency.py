"""How long one decision of a TabNet takes, alone and beside a forest: ONNX Runtime and torch.

The same weights, one after the other in each round, one thread. Ours is the stored graph asked as a
policy is served: one observation to action and confidence. Theirs is `predict_proba` of
pytorch-tabnet with the network that the weights come from, without any forest in both cases: the
yardstick of the ensemble does less than it.

The network is as large as it comes (three steps, n_d = n_a = 8) for 18 features and 8 columns of an
embedding, of 29 that are observed; the forest has 102 trees of depth 6, fitted to a planted rule.
What a network has learnt does not change its time. As in decision_latency.py, the wall clock and
the processor's are both claimed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.claims import QUICK, SECONDS_MAX, Target, claim, paired, progress
from benchmarks.learners._rounds import Round, timed
from learners.boosting_plan import BoostingPlan
from learners.ensemble import Ensemble, evaluate, graph, named
from learners.forest_fitting import fitted
from learners.onnx_graph import ACTION, INPUT, PROBABILITIES
from learners.tabnet import TabNetForm
from learners.tabnet_module import TabNetModule, tensors_of
from learners.tensor_file import Tensor

COLUMNS = 26
OBSERVED = 29
CLASSES = 3
FITTED_ROWS = 5_000
PLAN = BoostingPlan(rounds=34, depth=6)
ROUNDS = 3 if QUICK else 60
DECISIONS_A_ROUND = 20 if QUICK else 200

P99_MICROSECONDS = 300.0
BESIDE_PREDICT = 0.25

Decide = Callable[[np.ndarray], np.ndarray]


def module() -> TabNetModule:
    """A network whose normalisations have seen rows; untrained but for that."""
    torch.manual_seed(1)
    made = TabNetModule(TabNetForm(inputs=COLUMNS, classes=CLASSES))
    rng = np.random.default_rng(1)
    for _ in range(20):
        made(torch.from_numpy(rng.standard_normal((256, COLUMNS)).astype(np.float32)))
    return made.eval()


def policies(made: TabNetModule) -> dict[str, tuple[Ensemble, dict[str, Tensor]]]:
    """The policy with the network alone, and with a forest beside it."""
    tensors = tensors_of(made)
    alone = Ensemble(inputs=OBSERVED, tabnet=made.form, forest_weight=0)
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((FITTED_ROWS, COLUMNS)).astype(np.float32)
    noise = rng.standard_normal((2, FITTED_ROWS))
    labels = ((rows[:, :2].T + noise) > 0).sum(axis=0)
    form, trees = fitted(rows, labels, classes=CLASSES, plan=PLAN, seed=1)
    progress(f"{form.trees} trees of at most {form.nodes} nodes")
    both = replace(alone, forest=form, forest_weight=0.7)
    return {"alone": (alone, named(tensors)), "ensemble": (both, named(tensors, trees))}


def ours(form: Ensemble, tensors: dict[str, Tensor]) -> Decide:
    """The graph in ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = graph(form, tensors)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def decide(row: np.ndarray) -> np.ndarray:
        actions, probabilities = session.run([ACTION, PROBABILITIES], {INPUT: row[None]})
        min(probabilities.item(actions.item()), 1.0)
        return np.asarray(probabilities[0])

    return decide


def theirs(made: TabNetModule) -> Decide:
    """`predict_proba` of pytorch-tabnet with our network in the place of one that it has fitted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports a module that SciPy will drop
        from pytorch_tabnet.tab_model import TabNetClassifier

        classifier: Any = TabNetClassifier(device_name="cpu", verbose=0)
    classifier.network = made.net

    def decide(row: np.ndarray) -> np.ndarray:
        return np.asarray(classifier.predict_proba(row[None, :COLUMNS])[0])

    return decide


def measure(name: str, decide: Decide, yardstick: Decide, observations: np.ndarray) -> None:
    """Claim the median and the 99th percentile of one policy."""
    rounds: dict[str, list[Round]] = {"ours": [], "theirs": []}
    began = perf_counter()
    for i in range(ROUNDS):
        if perf_counter() - began > SECONDS_MAX / 2:
            progress(f"stopped after {i} of {ROUNDS} rounds")
            break
        work = [("ours", decide), ("theirs", yardstick)]
        for who, asked in work if i % 2 else reversed(work):
            rounds[who].append(timed(asked, observations))
    for clock in ("wall", "cpu"):
        for percent in (50, 99):
            found = {
                who: [float(np.percentile(getattr(taken, clock), percent)) for taken in of]
                for who, of in rounds.items()
            }
            mine, other = (median(found[who]) for who in ("ours", "theirs"))
            claim(
                f"learners.tabnet.{name}.{clock}_p{percent}",
                ours=f"{mine:.1f}us",
                yardstick=f"{other:.1f}us",
                ratio=paired(found["ours"], found["theirs"]),
                side=Target.AT_MOST,
                target=BESIDE_PREDICT,
            )
        claim(
            f"learners.tabnet.{name}.{clock}_p99_limit",
            ours=f"{mine:.1f}us",
            yardstick=f"{P99_MICROSECONDS:.0f}us",
            ratio=mine / P99_MICROSECONDS,
            side=Target.AT_MOST,
            target=1.0,
        )


def main() -> None:
    """Measure the network alone and the ensemble, whose answers must be right."""
    torch.set_num_threads(1)
    made = module()
    rng = np.random.default_rng(3)
    observations = rng.standard_normal((DECISIONS_A_ROUND, OBSERVED)).astype(np.float32)
    yardstick = theirs(made)
    for name, (form, tensors) in policies(made).items():
        decide = ours(form, tensors)
        found = np.array([decide(row) for row in observations])
        expected = evaluate(form, tensors, observations).probabilities
        assert np.abs(found - expected).max() < 1e-4
        if form.forest is None:
            assert np.abs(found - [yardstick(row) for row in observations]).max() < 1e-4
        measure(name, decide, yardstick, observations)


if __name__ == "__main__":
    main()
