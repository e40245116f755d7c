"""The report as a page: complete, escaped, and asking nobody for anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evidence_history import prove
from ledger import (
    BEST,
    BETTER,
    CHALLENGER,
    FALLEN,
    NIGHT,
    arms,
    change,
    market,
    open_btc,
    open_eth,
    promote,
    roll_back,
    scale,
    set_budget,
)
from sqlalchemy import Engine, text

from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.service import charting, killing, reporting
from liveops.cli import live_ops_monitor as monitor_main
from liveops.cli import main
from liveops.report_page import report_page

ARM = "arm-00"
MADE = datetime(2026, 4, 1, 12, 30, tzinfo=UTC)
HOSTILE = "</style></title><script>alert(\"1\")</script> & <b>bold</b> 'x'"
VOID = {"meta"}


class Page(HTMLParser):
    """A page that was read: its elements, words, names with their values, and rows of tables."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.terms: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self._term = ""
        self.feed(page)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "dt":
            self._term = ""
        elif tag == "dd":
            self.terms.append((self._term, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "dt" in self._open:
            self._term += data
        elif "dd" in self._open:
            name, value = self.terms[-1]
            self.terms[-1] = (name, value + data)
        elif self._open[-1:] and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def trading(engine: Engine) -> None:
    """Two nights; one of the challengers is proven, another is halted by its drawdown."""
    open_btc(engine, challengers=arms(2))
    set_budget(engine, "1000000")
    market(engine, BETTER, arm_00=BEST, arm_01=FALLEN)
    prove(engine, ARM, 0.1)
    scale(engine)
    scale(engine, now=NIGHT + timedelta(days=1))


def page_of(engine: Engine, *names: str) -> str:
    return report_page(
        [charting.illustrated(engine, name) for name in names or ("btc",)], made_at=MADE
    )


def leaves(told: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Names and values as the page has to show them."""
    for key, value in told.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{within}{key}.")
        elif isinstance(value, bool):
            yield f"{within}{key}", "yes" if value else "no"
        elif isinstance(value, float):
            yield f"{within}{key}", f"{value:.6g}"
        elif value != "":
            yield f"{within}{key}", "-" if value is None else str(value)


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def test_every_number_of_the_report_stands_on_the_page(engine: Engine) -> None:
    trading(engine)
    told = reporting.report(engine, "btc").to_json()
    page = Page(page_of(engine))
    for arm in told["arms"]:
        numbers = {k: v for k, v in arm.items() if k not in ("checklist", "evidence", "claims")}
        assert set(leaves(numbers)) <= set(page.terms)
    overall = {k: v for k, v in told.items() if k not in ("arms", "decisions", "draws", "guards")}
    assert set(leaves(overall)) <= set(page.terms)
    for guard in told["guards"]:
        numbers = {k: v for k, v in guard.items() if k != "reasons"}
        assert set(leaves(numbers)) <= set(page.terms)
    account = reporting.report(engine, "btc").account.to_json()
    assert f"equity {float(account['equity']):.2f} USD" in page.text


def test_checklist_evidence_and_decisions_stand_there_with_their_reasons(engine: Engine) -> None:
    trading(engine)
    told = reporting.report(engine, "btc").to_json()
    page = Page(page_of(engine))
    asked = [told["draws"], *(reason for guard in told["guards"] for reason in guard["reasons"])]
    asked += [reason for arm in told["arms"] for reason in arm["evidence"]]
    for decision in told["decisions"]:
        asked += [reason for reasons in decision["reasons"].values() for reason in reasons]
        assert decision["reason"] in page.text
        assert ("actor", decision["actor"]) in page.terms
        assert ("inputs_digest", decision["inputs_digest"]) in page.terms
    assert len(asked) > 20
    for reason in asked:
        check = reason["check"] + reason["note"]
        row = [check, shown(reason["value"]), shown(reason["limit"]), reason["verdict"]]
        assert row in page.rows
    for arm in told["arms"]:
        for row in arm["checklist"]:
            verdict = row["verdict"] + (f": {row['action']}" if row["flagged"] else "")
            low, high = row["band"]
            assert [
                row["metric"] + row["note"],
                shown(row["value"]),
                f"{low:g} to {high:g}",
                shown(row["limit"]),
                verdict,
            ] in page.rows
    assert "Evidence beside the champion, night of 2026-03-04: proven" in page.text
    assert "RESCALE" in page.text
    assert "HALT" in page.text


def test_arms_are_compared_with_intervals(engine: Engine) -> None:
    trading(engine)
    page = Page(page_of(engine))
    (row,) = [row for row in page.rows if row[:1] == ["prod"]]
    # Fifteen wins of two and fifteen losses of one: twice the interval that test_reporting has.
    assert row[1:3] == ["77.5%", "champion"]
    assert row[6:9] == ["2.00", "2.000.93 to 4.29", "2.000.93 to 4.29"]


def test_the_picture_is_drawn_in_two_sizes_with_the_colours_of_the_page(engine: Engine) -> None:
    trading(engine)
    written = page_of(engine)
    page = Page(written)
    assert page.tags.count("svg") == 2
    assert page.values("role") == ["img", "img"]
    assert "arm-01 halted" in page.text
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", written))
    light, dark = written.split("@media (prefers-color-scheme: dark)", 1)
    (light,) = re.findall(r":root \{(.*)\}", light)
    dark = dark[: dark.index("}\n}")]
    for theme in (light, dark):
        assert used <= set(re.findall(r"--([a-z0-9-]+):", theme))
    pictures = written[written.index("<figure") : written.index("</figure")]
    assert re.findall("#[0-9a-fA-F]{6}", pictures) == []


def test_decisions_of_every_kind_have_their_place(engine: Engine) -> None:
    trading(engine)
    with engine.begin() as connection:
        by_hand = (
            "UPDATE bandit_arms SET traffic_allocation = 0.05 WHERE traffic_allocation = 0.225"
        )
        connection.execute(text(by_hand))
    later = NIGHT + timedelta(days=2)
    change(engine, ArmVerb.THROTTLE, ARM, reason="a look at it", now=later)
    change(engine, ArmVerb.RESUME, ARM, now=later)
    promote(engine, ARM)
    roll_back(engine)
    page = Page(page_of(engine))
    for decision in reporting.decision_history(engine, "btc", newest=10):
        assert f"{decision.kind} " in page.text
        assert decision.reason in page.text
    assert "arm-00 champion" in page.text
    assert "a look at it" in page.text


def test_whatever_people_wrote_stays_words(engine: Engine) -> None:
    trading(engine)
    change(engine, ArmVerb.THROTTLE, ARM, reason=HOSTILE, now=NIGHT + timedelta(days=2))
    killing.kill(engine, None, cause=KillCause.HAND, reason=HOSTILE, now=MADE, actor="<i>ann</i>")
    page = Page(page_of(engine))
    assert not {"script", "b", "i"} & set(page.tags)
    assert page.tags.count("style") == page.tags.count("title") + 2 == 3  # one in each picture
    # In the arm's line and number, in the decision's head, and in the account's line.
    assert page.text.count(HOSTILE) == 4
    assert "by <i>ann</i> (hand)" in page.text


def test_the_page_runs_nothing_and_asks_nobody(engine: Engine) -> None:
    trading(engine)
    written = page_of(engine)
    page = Page(written)
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    links = page.values("href") + page.values("xlink:href")
    links += re.findall(r"url\(([^)]*)\)", written)
    assert links
    assert all(link.startswith("#") for link in links)
    assert "@import" not in written
    assert "default-src 'none'; style-src 'unsafe-inline'" in page.values("content")


def test_ids_are_unique_and_found_also_with_many_experiments(engine: Engine) -> None:
    trading(engine)
    open_eth(engine)
    written = page_of(engine, "btc", "eth", "btc")
    page = Page(written)
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 100
    meant = re.findall(r"url\(#([^)]*)\)", written) + [
        link[1:] for link in page.values("href") + page.values("xlink:href")
    ]
    assert set(meant) <= set(ids)
    assert page.tags.count("h1") == 3


def test_before_the_first_night_the_page_has_no_picture_and_all_else(engine: Engine) -> None:
    open_btc(engine)
    page = Page(page_of(engine))
    assert "svg" not in page.tags
    assert "There is nothing to draw yet: no night has looked at a challenger." in page.text
    assert ("policy", CHALLENGER) in page.terms
    assert "opened with the experiment" in page.text


def test_without_an_experiment_the_page_says_so() -> None:
    page = Page(report_page([], made_at=MADE))
    assert "No experiment is open yet." in page.text
    assert "Report: no experiment" in page.text


def test_the_same_ledger_gives_the_same_page(engine: Engine) -> None:
    trading(engine)
    assert page_of(engine) == page_of(engine)
    assert "Made 2026-04-01 12:30 UTC" in page_of(engine)


# The commands


def ended(capsys: pytest.CaptureFixture[str], run: Any, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        run(arguments)
    assert isinstance(end.value.code, int)
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_both_report_commands_write_the_page_instead(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    open_btc(engine)
    open_eth(engine)
    file = tmp_path / "report.html"
    for run, arguments, headings in (
        (main, ("report", "btc"), 1),
        (main, ("report",), 2),
        (monitor_main, ("--policy-sha", CHALLENGER, "--mode", "report"), 1),
    ):
        code, out, _ = ended(capsys, run, *arguments, "--html", str(file))
        assert (code, out) == (0, f"written to {file}\n")
        assert Page(file.read_text(encoding="utf-8")).tags.count("h1") == headings
        file.unlink()
    code, out, _ = ended(capsys, main, "report", "btc", "--json")
    assert json.loads(out)[0]["experiment"] == "btc"


def test_a_page_that_cannot_be_is_refused(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    open_btc(engine)
    file = str(tmp_path / "report.html")
    scaling = ("--policy-sha", CHALLENGER, "--mode", "scale", "--html", file)
    for run, arguments, said in (
        (main, ("report", "btc", "--json", "--html", file), "html: is instead of --json"),
        (monitor_main, scaling, "html: is for --mode report"),
        (main, ("report", "btc", "--html", str(tmp_path)), "html: must be a file"),
        (main, ("report", "btc", "--html", f"{file}/x"), "html: must lie in a directory"),
        (main, ("report", "eth", "--html", file), "no experiment is registered as 'eth'"),
    ):
        code, out, error = ended(capsys, run, *arguments)
        assert (code, out) == (2, "")
        assert said in error
    assert list(tmp_path.iterdir()) == []
    assert len(reporting.decision_history(engine, "btc")) == 1, "nothing was scaled"
