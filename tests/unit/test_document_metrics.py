"""Every metric that the five documents name is there, or its absence is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from alerts.catalogue import CATALOGUE, render_page
from alerts.document_metrics import NAMED, NamedMetric

SEEDS = Path(__file__).resolve().parents[3] / "shared" / "seeds"
SERIES = {m.name for m in CATALOGUE} | {name for m in CATALOGUE for name in m.series}

# By hand, from the documents: where metrics stand, from which words, to which, and how one begins.
ASKING = (
    ("001", "| Metric | Expected Band", "**Prometheus alerts", r"\| (`\w+`) \|"),
    ("002", "cat logs/bot_status.json | jq '", "'\n", r"(\.[a-z_.]+)"),
    ("003", "### Metrics Dashboard", "---", r"^- (.+)$"),
    ("003", "self.rollback_threshold = {", "}", r"('[a-z]\w+': [\d.]+)"),
    ("004", "### Key Metrics to Monitor", "### Alerting Rules", r"- (\*\*\w+\*\*):"),
)


def document(number: str) -> str:
    found = next(iter(SEEDS.glob(f"{number}_*.txt")), None)
    if found is None:
        pytest.skip("the documents are not beside this checkout")
    return found.read_text(encoding="utf-8")


def asked_for() -> Iterator[tuple[str, str]]:
    """Number and words of each metric that a document lists."""
    for number, begin, end, one in ASKING:
        part = document(number).split(begin, 1)[1].split(end, 1)[0]
        found = re.findall(one, part, flags=re.MULTILINE)
        assert found, begin
        yield from ((number, words) for words in found)


def test_every_metric_of_the_documents_is_named() -> None:
    asked = list(asked_for())
    # 4 of the checklist, 3 of the status file, 18 and 3 of the automation, 12 of the runbook.
    assert len(asked) == 40
    named = {(each.document, each.quote) for each in NAMED}
    # The Sharpe ratio's fall is what a rollout compares: it comes with rollouts.
    assert set(asked) - named == {("003", "'sharpe_ratio_drop': 0.20")}


@pytest.mark.parametrize("number", sorted({each.document for each in NAMED}))
def test_named_metrics_stand_in_their_documents(number: str) -> None:
    text = document(number)
    quotes = [each.quote for each in NAMED if each.document == number]
    assert [quote for quote in quotes if quote not in text] == []


@pytest.mark.parametrize("named", NAMED, ids=lambda each: f"{each.document}: {each.quote}")
def test_a_named_metric_is_here_or_its_absence_is_explained(named: NamedMetric) -> None:
    assert set(named.here) <= SERIES
    assert named.here or named.why
    told = set(re.findall(r"`(liveops_\w+)`", named.why))
    assert told <= SERIES
    assert f"| {named.document} | {named.quote} |" in render_page()
