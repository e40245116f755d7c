"""The report as one HTML file: its numbers and its picture, with no script and no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bandit import __version__
from bandit.core.checklist import ArmRow
from bandit.core.guard_rule import GuardState
from bandit.core.model import ArmRole, PolicyName
from bandit.core.profit_factor import Interval
from bandit.core.upkeep import UpkeepRow
from bandit.service.arm_report import ArmReport
from bandit.service.charting import Illustrated, Life
from bandit.service.reporting import ExperimentReport
from bandit.storage.decisions import DecisionRecord
from liveops.decision_lines import moment_of, subject_of
from liveops.guard_lines import line_of
from liveops.life_plot import NARROW, WIDE, Form, cast_of, draw_life
from liveops.markup import Markup, element, joined
from liveops.plots import CHALLENGERS, CHAMPION, GRID, INK, OTHERS, PAPER, svg_of
from liveops.report import (
    account_line,
    advice_lines,
    budget_lines,
    champion_lines,
    limit_warnings,
    shown,
    shown_factor,
)

# Colours of pictures by the names that the page gives them, so that a dark page has its own.
_COLORS: Final[Mapping[str, str]] = {
    "ink": INK,
    "paper": PAPER,
    "grid": GRID,
    "champion": CHAMPION,
    "others": OTHERS,
    **{f"arm-{number}": color for number, color in enumerate(CHALLENGERS, start=1)},
}
_LIGHT: Final[Mapping[str, str]] = {
    **_COLORS,
    "pass": "#0b6b4f",
    "fail": "#b3261e",
    "unsure": "#7a5900",
}
# Nothing of the page may run or ask anybody for anything, whatever stands in it.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_CAPTION: Final = (
    "Traffic of each arm; what each has closed so far, at nominal size, and the account in money; "
    "how strongly decisions speak for each challenger beside the champion, as the natural "
    "logarithm of an e-value: 3 is a factor of 20. At the dashed line a challenger is proven; a "
    "triangle is a night on which it came to another rung."
)
# Of an arm's numbers, what has tables of its own.
_TABLES: Final = ("checklist", "evidence", "claims")


def report_page(
    found: Sequence[Illustrated], *, made_at: datetime, machine: UpkeepRow | None = None
) -> str:
    """Return the page of some experiments' reports, each with its picture where there is one.

    `machine` is the checklist's row of the machine that it is made on, where that was looked at.
    """
    names = ", ".join(each.report.record.experiment.name for each in found)
    head = joined(
        (
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            element("title", f"Report: {names or 'no experiment'}"),
            element("style", Markup(_style())),
        )
    )
    said = [_experiment(each, f"e{i}-") for i, each in enumerate(found, start=1)]
    if said and machine is not None:
        parts = (element("h2", "This machine"), _checklist([machine]))
        said.append(element("section", *parts))
    foot = f"Made {made_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC by liveops {__version__}."
    body = element(
        "body",
        element("main", *(said or [element("p", "No experiment is open yet.")])),
        element("footer", foot),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


def _style() -> str:
    light = " ".join(f"--{name}: {color};" for name, color in _LIGHT.items())
    sheet = Path(__file__).with_name("report_page.css").read_text(encoding="utf-8")
    return f":root {{ color-scheme: light dark; {light} }}\n{sheet}"


_APART: Final = ("arms", "decisions", "draws", "guards")
"""What of a report has a place of its own on the page."""


def _experiment(found: Illustrated, prefix: str) -> Markup:
    report = found.report
    experiment = report.record.experiment
    colors = cast_of(found.life).colors
    account, budget = account_line(report.account).plain, report.exploration
    told = {k: v for k, v in report.to_json().items() if k not in _APART}
    return element(
        "section",
        element("h1", experiment.name),
        element(
            "p",
            f"{experiment.profile}, {experiment.strategy}, champion {experiment.champion}, "
            f"allocation version {report.version}",
        ),
        *(element("p", line) for line in champion_lines(report)),
        *_lines(account, class_="killed" if report.record.is_killed else "account"),
        *(() if budget is None else _lines("\n".join(budget_lines(budget)), class_="account")),
        *(element("p", line.plain, class_="account") for line in limit_warnings(report)),
        *_guards(report),
        _every_number(told),
        _picture(found.life, prefix),
        *(element("p", line, class_="killed") for line in advice_lines(report)),
        element("h2", "Arms"),
        _arms(report, colors),
        *_draws(report),
        element("div", *(_arm(arm, colors) for arm in report.arms), class_="arms"),
        element("h2", "Newest decisions"),
        *(_decision(decision) for decision in report.newest_decisions),
        class_="experiment",
    )


def _lines(text: str, **attributes: str) -> Iterator[Markup]:
    return (element("p", line, **attributes) for line in text.splitlines())


def _picture(life: Life, prefix: str) -> Markup:
    """Return the life as two pictures, of which a page shows the one that fits it."""
    if not life.nights:
        text = "There is nothing to draw yet: no night has looked at a challenger."
        return element("p", text)
    forms = (("wide", WIDE), ("narrow", NARROW))
    drawn = (_embedded(life, form, name=name, prefix=prefix) for name, form in forms)
    return element("figure", *drawn, element("figcaption", _CAPTION))


def _embedded(life: Life, form: Form, *, name: str, prefix: str) -> Markup:
    """Return a picture as an element of the page: in its colours, with ids that nobody else has."""
    svg = svg_of(draw_life(life, form), salt=f"{prefix}{name}")
    for mark in (' id="', "url(#", 'href="#'):
        svg = svg.replace(mark, f"{mark}{prefix}{name}-")
    for color, value in _COLORS.items():
        svg = svg.replace(value, f"var(--{color})")
    opened = re.search(r'<svg [^>]*viewBox="([0-9. ]+)"[^>]*>', svg)
    assert opened is not None
    label = f"Traffic, closed results and evidence of {life.experiment}, day by day"
    attributes = f'class="{name}" role="img" aria-label="{label}" viewBox="{opened[1]}"'
    return Markup(f"<svg {attributes}>{svg[opened.end() :].strip()}")


def _arms(report: ExperimentReport, colors: Mapping[PolicyName, str]) -> Markup:
    head = ("policy", "traffic", "rung", "trades", "won", "P&L", "PF", "pf_30", "pf_150")
    rows = [
        (
            _named(arm, colors),
            f"{100 * arm.arm.place.ppm / 1e6:.1f}%",
            arm.arm.place.rung.value if arm.arm.place.role is ArmRole.CHALLENGER else "champion",
            str(arm.statistics.sums.n_trades),
            _won(arm),
            f"{arm.statistics.sums.pnl:.2f}",
            shown_factor(arm.statistics.sums.profit_factor),
            _with_interval(shown_factor(arm.short.profit_factor), arm.short_interval),
            _with_interval(shown_factor(arm.long.profit_factor), arm.long_interval),
            shown_factor(arm.reading.pf_prod) if arm.checklist else "-",
            f"{arm.reading.dd_long_percent:.2f}%",
        )
        for arm in report.arms
    ]
    return _table((*head, "pf_prod", "dd_150"), rows, words=(0, 2))


def _guards(report: ExperimentReport) -> Iterator[Markup]:
    for guard in report.guards:
        is_paused = guard.record.guard.state is GuardState.PAUSED
        yield from _lines(line_of(guard), class_="killed" if is_paused else "account")
        told = guard.to_json()
        yield _reasons(told.pop("reasons"), caption=f"Guard of {guard.record.kind}")
        yield _every_number(told)


def _draws(report: ExperimentReport) -> Iterator[Markup]:
    if report.draws is not None:
        yield _reasons([report.draws.to_json()], caption="Draws of 30 days")


def _named(arm: ArmReport, colors: Mapping[PolicyName, str]) -> Markup:
    policy = arm.arm.place.policy
    color = colors.get(policy, OTHERS)
    (name,) = (name for name, value in _COLORS.items() if value == color)
    return joined(
        (element("span", class_="swatch", style=f"background: var(--{name})"), str(policy))
    )


def _won(arm: ArmReport) -> str:
    sums = arm.statistics.sums
    return f"{100 * sums.n_wins / sums.n_trades:.0f}%" if sums.n_trades else "-"


def _with_interval(value: str, interval: Interval | None) -> Markup:
    ends = "no interval"
    if interval is not None:
        ends = f"{interval.low:.2f} to {interval.high:.2f}"
    return _noted(value, ends)


def _noted(text: str, note: str) -> Markup:
    """Return a text with a note below it, where there is one."""
    return joined((text, element("span", note, class_="note"))) if note else joined((text,))


def _arm(arm: ArmReport, colors: Mapping[PolicyName, str]) -> Markup:
    place = arm.arm.place
    told = {k: v for k, v in arm.to_json().items() if k not in _TABLES}
    parts = [
        element("h3", _named(arm, colors)),
        element("p", f"{place.role}, {place.status}, {place.mode}: {arm.arm.status_reason}"),
    ]
    if arm.rows:
        parts.append(_checklist(arm.rows))
    if arm.evidence:
        caption = f"Evidence beside the champion, night of {arm.evidence_night}: {place.rung}"
        parts.append(_reasons([reason.to_json() for reason in arm.evidence], caption=caption))
    if arm.claims is not None:
        parts.append(_reasons([arm.claims.to_json()], caption="Claimed decisions of 30 days"))
    return element("section", *parts, _every_number(told), class_=place.role.value)


def _checklist(found: Sequence[ArmRow | UpkeepRow]) -> Markup:
    head = ("metric", "value", "expected", "limit", "verdict")
    rows = [
        (
            _noted(row.metric, row.reason.note),
            shown(row.reason.value),
            f"{row.band[0]:g} to {row.band[1]:g}",
            shown(row.reason.limit),
            _verdict(row.reason.verdict, f": {row.action}" if row.flagged else ""),
        )
        for row in found
    ]
    return _table(head, rows, words=(0, 4), caption="Checklist")


def _reasons(found: Iterable[Mapping[str, Any]], *, caption: str) -> Markup:
    rows = [
        (
            _noted(reason["check"], reason["note"]),
            shown(reason["value"]),
            shown(reason["limit"]),
            _verdict(reason["verdict"]),
        )
        for reason in found
    ]
    return _table(("check", "value", "limit", "verdict"), rows, words=(0, 3), caption=caption)


def _verdict(verdict: str, more: str = "") -> Markup:
    return element("span", f"{verdict}{more}", class_=verdict)


def _decision(decision: DecisionRecord) -> Markup:
    head = f"{moment_of(decision)} {decision.kind.value} {subject_of(decision)}"
    told = {
        "decided_at": decision.decided_at.isoformat(),
        "actor": decision.actor,
        "profile": decision.profile,
        "strategy": decision.strategy,
        "seed": decision.seed,
        "code_version": decision.code_version,
        "inputs_digest": decision.inputs_digest,
        "allocation_version": decision.version,
    }
    tables = (
        _reasons(reasons, caption=policy) for policy, reasons in sorted(decision.reasons.items())
    )
    return element("details", element("summary", head), *tables, _pairs(told))


def _every_number(told: Mapping[str, Any]) -> Markup:
    return element("details", element("summary", "every number"), _pairs(told))


def _pairs(told: Mapping[str, Any]) -> Markup:
    terms = (
        (element("dt", name), element("dd", text)) for name, text in _leaves(told) if text != ""
    )
    return element("dl", *(part for pair in terms for part in pair))


def _leaves(told: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and texts of all numbers; what lies in another is named after it."""
    for key, value in told.items():
        name = f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, float):
            yield name, f"{value:.6g}"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        else:
            yield name, "-" if value is None else str(value)


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[int],
    caption: str | None = None,
) -> Markup:
    """Return a table; columns that are no `words` are numbers, and stand to the right."""
    kinds = [{} if i in words else {"class_": "number"} for i in range(len(head))]
    titles = (
        element("th", title, scope="col", **kind) for title, kind in zip(head, kinds, strict=True)
    )
    lines = (
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, **kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    )
    parts = [] if caption is None else [element("caption", caption)]
    parts += [element("thead", element("tr", *titles)), element("tbody", *lines)]
    return element("div", element("table", *parts), class_="scroll")
