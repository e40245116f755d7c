"""Does a classifier with an encoder find an edge that only the bars before tell?

Fresh synthetic markets, one a seed. A memory of the first feature, eight bars and more ago, tells
the next return; the row of a bar says nothing of it. TimesNet, TabNet and trees train on the first
part and are measured on the rest, after costs; TabNet and trees on the rows alone beside them; and
both on markets of pure noise, by the rule of the policy card.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.learners._planted import SPEC, backtested, mean_return, planted_before
from benchmarks.learners.planted_edge import PASSING_MAX, SIGMAS, share_passing
from learners.backtest import Backtest
from learners.classifier import (
    Bench,
    class_rows,
    embedded,
    taught_classifier,
    taught_encoder,
)
from learners.classifier_plan import ClassifierPlan, EncoderPlan
from learners.embedding import series_embedded
from learners.serving import session_of
from learners.tensor_file import Tensor
from learners.timesnet_graph import EMBEDDING, INPUT, graph
from liveops.clock import monotonic

SEED = 61_100_000
SEEDS = 1 if QUICK else 20
BARS, TRAINED = (2_400, 1_800) if QUICK else (12_000, 9_000)
EDGE = 0.0012
EPOCHS = 1 if QUICK else 6
WITH_ENCODER = ClassifierPlan(
    seed=1, horizon_bars=6, encoder=EncoderPlan(bars=32, epochs=EPOCHS), epochs=EPOCHS
)
KINDS = {"timesnet": WITH_ENCODER, "rows_alone": replace(WITH_ENCODER, encoder=None)}

Doubles = NDArray[np.float64]


def trained(plan: ClassifierPlan, *, edge: float, seed: int) -> tuple[float, Backtest]:
    """Return what a classifier earns in an episode of bars it has not seen, and in all of them."""
    candles, features = planted_before(bars=BARS, edge=edge, seed=seed)
    complete, classes = np.ones(BARS, dtype=np.bool_), len(SPEC.targets)
    with TemporaryDirectory() as folder:
        bench = Bench(folder=Path(folder), clock=monotonic, report=lambda _: None)
        learned = class_rows(
            candles,
            features,
            complete,
            bars=range(TRAINED),
            spec=SPEC,
            horizon_bars=plan.horizon_bars,
        )
        markets, seen = [learned], features
        if plan.encoder is not None:
            encoder = taught_encoder(plan, markets, classes=classes, bench=bench)
            own = {name: encoder.tensors[name] for name in encoder.form.shapes()}
            session = session_of(graph(encoder.form, own))

            def embed(windows: NDArray[np.floating]) -> Tensor:
                [found] = session.run([EMBEDDING], {INPUT: windows.astype(np.float32)})
                embeddings: Tensor = found
                return embeddings

            embed_series = partial(series_embedded, embed, encoder.form)
            markets = embedded(markets, embed_series)
            seen = np.concatenate([features, embed_series(features, complete)[0]], axis=1)
        made = taught_classifier(plan, markets, classes=classes, bench=bench)
    rest = range(TRAINED, BARS)
    earned = mean_return(made.form, dict(made.tensors), candles, seen, rest)
    return earned, backtested(made.form, dict(made.tensors), candles, seen, rest)


def main() -> None:
    """Train in every market with and without an encoder, and print the claims."""
    for kind, plan in KINDS.items():
        earned: dict[str, Doubles] = {}
        for name, edge in (("edge", EDGE), ("noise", 0.0)):
            made = [trained(plan, edge=edge, seed=SEED + i) for i in range(SEEDS)]
            found = earned[name] = np.array([mean for mean, _ in made])
            progress(f"{kind} {name}: {np.round(100 * found, 2).tolist()} % an episode")
            passing = share_passing([backtest for _, backtest in made])
            progress(f"{kind} {name}: {100 * passing:.0f} % pass the card's rule")
            if name == "noise":
                claim(
                    f"learners.sequence_edge.noise_passes.{kind}",
                    ours=f"{passing:.2f}",
                    yardstick=f"{PASSING_MAX:.2f}",
                    ratio=passing / PASSING_MAX,
                    side=Target.AT_MOST,
                    target=1.0,
                )
        share = float(np.mean(earned["edge"] > 0.0))
        if kind == "timesnet":
            claim(
                "learners.sequence_edge.found.timesnet",
                ours=f"{share:.2f}",
                yardstick="1",
                ratio=share,
                side=Target.AT_LEAST,
                target=1.0,
            )
        else:
            mean = float(earned["edge"].mean())
            error = float(np.std(earned["edge"], ddof=1)) / math.sqrt(SEEDS) if SEEDS > 1 else 1.0
            claim(
                "learners.sequence_edge.found.rows_alone",
                ours=f"{100 * mean:.2f}%",
                yardstick="0%",
                ratio=mean / error if error else 0.0,
                side=Target.AT_MOST,
                target=SIGMAS,
            )


if __name__ == "__main__":
    main()
