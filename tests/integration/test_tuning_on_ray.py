"""A sweep on a real cluster of Ray with two nodes, one of which is killed on the way."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_candles import random_walk
from sqlalchemy import Engine
from sweeps import OPTIONS, STUDY, trials_of, tuner, written

from bandit.service import optimizing, policies, trials

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")
pytest.importorskip("ray", reason="ray is not installed")

ROOT = Path(__file__).resolve().parents[2]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a processor each; their sockets need a short path."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tempfile.mkdtemp(prefix="ray-")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    (Path(folder) / "ray").mkdir()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_lost_node_costs_no_trial_and_none_is_made_twice(
    engine: Engine, database_url: str, tmp_path: Path, cluster: Any
) -> None:
    node = cluster.add_node(**NODE)
    written(random_walk(1_560, seed=5), tmp_path / "BTCUSD.csv")
    settings = tmp_path / "config.yaml"
    settings.write_text(f"tuning:\n  ray_address: {cluster.address}\n")
    environment = {"LIVEOPS_HOME": str(tmp_path), "LIVEOPS_DATABASE_URL": database_url}
    candles = ("--candles", str(tmp_path / "BTCUSD.csv"), "--config", str(settings))
    process = tuner(
        environment,
        *(*OPTIONS, *candles, "--trials", "3", "--workers", "2", "--backend", "ray", "--json"),
    )
    assert process.stderr is not None
    assert process.stdout is not None
    said, at_work = list[str](), set[str]()
    for line in process.stderr:
        said.append(line)
        if ": fold 1," in line:
            at_work.add(line.split(":")[0])
        if len(at_work) == 2 and node is not None:
            cluster.remove_node(node, allow_graceful=False)
            node = None
    out = process.stdout.read()
    assert process.wait() == 0, "".join(said)
    assert any("is begun again, its worker was lost" in line for line in said), "".join(said)
    found = json.loads(out)
    assert (found["state"], found["complete"]) == ("complete", 3)
    tried = trials_of(engine)
    assert [(trial["number"], trial["state"]) for trial in tried] == [
        (number, "COMPLETE") for number in range(3)
    ]
    assert len({json.dumps(trial["parameters"]) for trial in tried}) == 3
    assert len(trials.listed(engine, STUDY)) == 3, "each is recorded once"
    assert policies.find(engine, found["policy"]).policy.sha == found["registered"]["sha"]
    run = optimizing.find(engine, STUDY)
    assert run is not None
    assert run.counts.ended == 3
