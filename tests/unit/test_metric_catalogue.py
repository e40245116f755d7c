from __future__ import annotations

import re
from pathlib import Path

from alerts.catalogue import CATALOGUE, render_page
from alerts.metric import ARM, ARTIFACT, BOT, GPU, MetricKind

SEED_NAMES = {
    "pf_challenger_30",
    "dd_challenger_pct",
    "pf_150",
    "pf_prod",
    "dd_150",
    "traffic_allocation",
    "encoder_kl_divergence",
    "gpu_util_pct",
    "bot_running",
    "api_connected",
    "open_positions",
    "trading_halted",
    "total_equity",
}


def test_every_name_stands_once() -> None:
    names = [name for metric in CATALOGUE for name in metric.series]
    assert len(names) == len(set(names))


def test_the_names_of_the_documents_are_there() -> None:
    assert {alias.name for metric in CATALOGUE for alias in metric.aliases} == SEED_NAMES


def test_names_follow_prometheus() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"liveops_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        # Base units only: percentages and milliseconds belong to no name of ours.
        assert not re.search(r"_(percent|pct|ms|millis|minutes)(_|$)", metric.name)
        assert metric.unit != "ratio" or metric.name.endswith(("_ratio", "_profit_factor"))


def test_every_metric_says_what_it_means_and_when_it_is_absent() -> None:
    for metric in CATALOGUE:
        assert metric.help.endswith(".")
        assert metric.absent
        for alias in metric.aliases:
            assert alias.labels == metric.labels[: len(alias.labels)]
            assert alias.labels in (ARM, ARTIFACT, BOT, GPU, ("account",), ())


def test_the_page_is_a_fresh_render() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == render_page()
