"""A small policy for tests of stored policies, and how somebody who means harm would seal files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from bandit.core.model import PolicySha
from learners.artifact import Artifact, read, write
from learners.artifact_spec import ActionSpec, DescribedPart, PolicyArtifactSpec, TrainingRecord
from learners.canonical_json import canonical
from learners.environment_spec import EnvironmentSpec
from learners.market.features import FeatureSpec
from learners.market.paper_market import Costs
from learners.market.scaler import Scaler
from learners.network import Activation, Algorithm, Network
from learners.sealed_files import ArtifactRefused
from learners.serving import ServedPolicy
from learners.tensor_file import Tensor

SPEC, WEIGHTS, GRAPH = "spec.json", "weights.safetensors", "policy.onnx"
GOLDEN, MANIFEST = "golden.safetensors", "manifest.json"
FILES = (SPEC, WEIGHTS, GRAPH, GOLDEN)

ACTIONS = (
    ActionSpec(name="short", position=-1.0),
    ActionSpec(name="flat", position=0.0),
    ActionSpec(name="long", position=1.0),
)


def network_of(
    algorithm: Algorithm = Algorithm.PPO,
    *,
    inputs: int = 4,
    hidden: tuple[int, ...] = (5, 3),
    activation: Activation = Activation.TANH,
    quantiles: int = 1,
    temperature: float = 1.0,
) -> Network:
    return Network(
        algorithm=algorithm,
        inputs=inputs,
        hidden=hidden,
        activation=activation,
        actions=len(ACTIONS),
        quantiles=quantiles,
        temperature=temperature,
    )


def spec_of(network: Network, *, golden: int = 6, seed: int = 7) -> PolicyArtifactSpec:
    return PolicyArtifactSpec(
        network=network,
        actions=ACTIONS,
        features=DescribedPart(digest="a" * 64, body={"windows": [5, 20], "clip": 4.5}),
        scaler=DescribedPart(digest="b" * 64, body={"mean": [0.0, 0.25], "spread": [1.0, 2.0]}),
        environment=DescribedPart(digest="c" * 64, body={"fee_ratio": 0.0005}),
        training=TrainingRecord(
            seed=seed,
            steps=250_000,
            data_digest="d" * 64,
            data_from=datetime(2020, 1, 1, tzinfo=UTC),
            data_to=datetime(2024, 6, 30, 23, tzinfo=UTC),
            packages={"torch": "2.13.0+cpu", "stable-baselines3": "2.9.2"},
        ),
        golden=golden,
    )


def weights_of(network: Network, *, seed: int = 1) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in network.shapes().items()
    }


def observations_of(spec: PolicyArtifactSpec, *, seed: int = 2) -> Tensor:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((spec.golden, spec.network.inputs)).astype(np.float32)


def stored(root: Path, network: Network | None = None, *, seed: int = 1) -> Artifact:
    spec = spec_of(network or network_of())
    weights = weights_of(spec.network, seed=seed)
    return write(root, spec, weights, observations=observations_of(spec))


FEATURES = FeatureSpec(
    return_bars=(1,),
    volatility_bars_short=2,
    volatility_bars_long=4,
    trend_bars=(3,),
    adx_bars=2,
    rsi_bars=2,
    volume_bars=2,
)
ENVIRONMENT = EnvironmentSpec(
    costs=Costs(fee_ratio=0.0005, slippage_ratio=0.0002),
    stop_ratio=0.02,
    take_profit_ratio=0.03,
    holding_bars_max=5,
    shorts_allowed=True,
    position_ratio=1.0,
    funding_ratio=0.0001,
    episode_bars=20,
    equity_ratio_min=0.5,
)
RISING = dict.fromkeys(FEATURES.names, 0.0) | {
    "return_1": 1.0,
    "adx": 31.0,
    "direction": 0.4,
    "volatility_ratio": 1.0,
}
"""A row at which `deciding` is as good as sure that it wants to be long, and nothing forbids it."""


def part_of(body: Mapping[str, object]) -> DescribedPart:
    return DescribedPart(digest=hashlib.sha256(canonical(dict(body))).hexdigest(), body=body)


def deciding_spec(
    features: FeatureSpec = FEATURES, scaler: Scaler | None = None
) -> PolicyArtifactSpec:
    columns = len(features.names)
    fitted = scaler or Scaler(mean=(0.0,) * columns, scale=(1.0,) * columns, clip=5.0)
    return replace(
        spec_of(network_of(inputs=columns + 3, hidden=()), golden=1),
        features=DescribedPart(digest=features.digest, body=features.to_json()),
        scaler=part_of(fitted.to_json()),
    )


def deciding(
    root: Path,
    features: FeatureSpec = FEATURES,
    *,
    spec: PolicyArtifactSpec | None = None,
    slope: float = 5.0,
) -> Artifact:
    """A policy that is long where `return_1` is above 0, else short: softmax of `slope` times it.

    So it wants the side of z with the confidence 1 / (1 + exp(-2 slope |z|)), and never to be flat.
    """
    chosen = spec or deciding_spec(features)
    weights, bias = np.zeros((3, chosen.network.inputs), np.float32), np.zeros(3, np.float32)
    weights[0, 0], weights[2, 0], bias[1] = -slope, slope, -1000.0
    tensors = {"layer.0.weight": weights, "layer.0.bias": bias}
    return write(root, chosen, tensors, observations=np.zeros((1, chosen.network.inputs)))


def files_of(root: Path, sha: PolicySha) -> dict[str, bytes]:
    """The files of an artefact, without its manifest."""
    found = {path.name: path.read_bytes() for path in (root / sha).iterdir()}
    del found["manifest.json"]
    return found


def manifest_for(files: Mapping[str, bytes]) -> dict[str, object]:
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in files.items()
    }
    return {"files": entries, "format": 1}


def planted(root: Path, files: Mapping[str, bytes], manifest: bytes | None = None) -> PolicySha:
    """Seal any files, as somebody would who can also have any hash registered."""
    if manifest is None:
        manifest = json.dumps(
            manifest_for(files), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
    sha = PolicySha(hashlib.sha256(manifest).hexdigest())
    folder = root / sha
    folder.mkdir(parents=True)
    for name, content in {**files, "manifest.json": manifest}.items():
        (folder / name).write_bytes(content)
    return sha


def refusal(root: Path, sha: PolicySha) -> ArtifactRefused:
    """The way in of every caller: read, then serve. It has to end in a refusal."""
    with pytest.raises(ArtifactRefused) as refused:
        ServedPolicy(read(root, sha))
    return refused.value


def trading(
    root: Path, features: FeatureSpec, scaler: Scaler, environment: EnvironmentSpec
) -> Artifact:
    """A policy that is long while its first feature is above its mean, else short; never flat."""
    inputs = len(scaler.mean) + 3
    weights, bias = np.zeros((3, inputs), np.float32), np.zeros(3, np.float32)
    weights[0, 0], weights[2, 0], bias[1] = -1.0, 1.0, -100.0
    spec = replace(
        spec_of(network_of(inputs=inputs, hidden=()), golden=1),
        features=DescribedPart(digest=features.digest, body=features.to_json()),
        scaler=part_of(scaler.to_json()),
        environment=part_of(environment.to_json()),
    )
    tensors = {"layer.0.weight": weights, "layer.0.bias": bias}
    return write(root, spec, tensors, observations=np.zeros((1, inputs)))
