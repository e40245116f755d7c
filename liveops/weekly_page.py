"""The weekly report as a text and as a page for mail readers: the same words in both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bandit import __version__
from bandit.core.model import WHOLE_PPM, ArmStatus
from bandit.core.weekly import (
    AccountWeek,
    ArmFigures,
    Change,
    ExperimentWeek,
    WeeklyReport,
    shown_money,
)
from liveops.markup import Markup, element, joined
from liveops.plots import GRID, INK, PAPER
from liveops.report import shown_factor

# Mail readers drop style sheets: every element has its own.
_BODY: Final = (
    f"margin:0;padding:16px;background:{PAPER};color:{INK};"
    "font:15px/1.45 -apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif"
)
_HEADS: Final = {
    1: ("h1", "font-size:21px;margin:0 0 4px"),
    2: ("h2", f"font-size:17px;margin:26px 0 6px;padding-top:14px;border-top:1px solid {GRID}"),
    3: ("h3", "font-size:15px;margin:16px 0 4px"),
}
_PART: Final = "margin:4px 0"
_NOTE: Final = "margin:0 0 10px;font-size:13px"
_CELL: Final = "padding:2px 0 2px 8px;text-align:right;vertical-align:bottom"
_LINE: Final = f"border-bottom:1px solid {GRID}"
_NAME: Final = "padding:6px 0 0;text-align:left;overflow-wrap:anywhere"
LINES_MAX: Final = 40
"""Of more lines of one kind a mail has the first, and says how many more there are."""

_NOTHING: Final = "Nothing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A heading; the smaller the level, the larger."""

    level: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Sentences, one below the other."""

    lines: tuple[str, ...]
    is_list: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table whose first column is words and whose others are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture by its name, what it shows for who does not see it, and what stands below it."""

    name: str
    alt: str
    caption: str = ""


Block = Head | Points | Grid | Picture


def blocks_of(report: WeeklyReport, pictures: Iterable[str]) -> list[Block]:
    """Return what the report says, in its order, with those of the pictures that there are."""
    drawn = set(pictures)
    week = report.week
    said: list[Block] = [
        Head(level=1, text=report.headline),
        _lines(
            f"Monday {week.start:%Y-%m-%d} 00:00 to Monday {week.end:%Y-%m-%d} 00:00 UTC.",
            f"What is said to be so now was read at {_moment(report.made_at)} UTC.",
        ),
        Head(level=2, text="For you to decide"),
        _list(report.awaiting),
    ]
    for number, account in enumerate(report.accounts, start=1):
        said += _account(account, report, f"account-{number}")
    if not report.accounts:
        said.append(_lines("No account had an experiment in this week."))
    for number, experiment in enumerate(report.experiments, start=1):
        said += _experiment(experiment, number)
    said += [
        Head(level=2, text="Kill switch and performance guards"),
        _list(f"{_moment(e.at)} {e.title}, by {e.by}: {e.reason}" for e in report.events),
        Head(level=2, text="Drift"),
        _list(_drift(report)),
        Head(level=2, text="What people were told"),
        _list(_told(report)),
        _lines(f"liveops {__version__}; `liveops report weekly --date` makes it again."),
    ]
    return [b for b in said if not isinstance(b, Picture) or b.name in drawn]


def _account(account: AccountWeek, report: WeeklyReport, name: str) -> Iterator[Block]:
    percent = "" if account.percent is None else f" ({account.percent:+.2f} %)"
    yield Head(level=2, text=f"Account {account.name}")
    killed = ("It is KILLED: nothing trades.",) if account.is_killed else ()
    yield _lines(
        f"{_money(account.opening)} to {_money(account.closing)} {account.currency}, "
        f"{shown_money(account.pnl)}{percent}, by closed trades and with the capital of then.",
        f"Exact: {account.pnl:f} {account.currency}.",
        f"Now, with what is open: {_money(account.equity_now)} {account.currency}, "
        f"drawdown {account.drawdown_percent_now:.2f} %.",
        *killed,
    )
    levels = ", ".join(_money(level) for level in account.levels(report.week))
    yield Picture(name=name, alt=f"Closed equity from day to day: {levels} {account.currency}.")


def _experiment(experiment: ExperimentWeek, number: int) -> Iterator[Block]:
    yield Head(level=2, text=f"Experiment {experiment.name}")
    if not experiment.trades:
        yield _lines(
            f"No trade closed in this week. Account {experiment.account}, champion "
            f"{experiment.champion}."
        )
    else:
        yield _lines(
            f"{shown_money(experiment.pnl)} {experiment.currency} from {experiment.trades} trades. "
            f"Account {experiment.account}, champion {experiment.champion}."
        )
    yield Picture(name=f"arms-{number}", alt="What each arm earned, added up by day; table below.")
    head = ("arm", "traffic now", "trades", "P&L", "profit factor", "won", "drawdown")
    yield Head(level=3, text="The week")
    rows = ((a.policy, _traffic(a.ppm, a.status), *_figures(a.week)) for a in experiment.arms)
    yield Grid(head=head, rows=tuple(rows))
    yield Head(level=3, text="Since each arm joined")
    rows = ((a.policy, _traffic(a.ppm, a.status), *_figures(a.life)) for a in experiment.arms)
    yield Grid(head=head, rows=tuple(rows))
    yield _lines(
        "P&L is money at the sizes that were traded; profit factor, won and drawdown are of "
        "returns at nominal size, so that arms compare."
    )
    yield Head(level=3, text="Evidence, as of the newest night")
    yield _list(f"{arm.policy}: {arm.evidence}" for arm in experiment.arms)
    yield Head(level=3, text="Decisions and what they moved")
    yield _list(_change(change) for change in experiment.changes)
    alt = f"Traffic, closed results and evidence of {experiment.name} since it was opened."
    caption = (
        "From its opening until now: traffic of each arm; what each has closed, at nominal size; "
        "how strongly decisions speak for each challenger: at the dashed line it is proven."
    )
    yield Picture(name=f"life-{number}", alt=alt, caption=caption)


def _figures(found: ArmFigures) -> tuple[str, ...]:
    won, deepest = found.win_rate, found.drawdown_percent
    return (
        str(found.trades),
        shown_money(found.pnl),
        shown_factor(found.profit_factor),
        "-" if won is None else f"{100 * won:.0f} %",
        "archived" if deepest is None else f"{deepest:.2f} %",
    )


def _traffic(ppm: int, status: ArmStatus) -> str:
    return f"{100 * ppm / WHOLE_PPM:.1f} %" if status is ArmStatus.ACTIVE else status.value


def _change(change: Change) -> str:
    whom = f" {change.policy}" if change.policy else ""
    moved = "; ".join(move.text for move in change.moves) or "no part moved"
    return f"{_moment(change.at)} {change.kind}{whom}, by {change.by}: {change.reason}. {moved}."


def _drift(report: WeeklyReport) -> Iterator[str]:
    for state in report.drift:
        checked = f"of {state.checks} checks at {_moment(state.checked_at)}"
        if state.drifted:
            yield f"{state.subject}: DRIFTED in {', '.join(state.drifted)}, {checked}."
        else:
            yield f"{state.subject}: none {checked} failed."
    if not report.drift:
        yield "No drift check was made since the week began."


def _told(report: WeeklyReport) -> Iterator[str]:
    if report.notices:
        yield ", ".join(f"{kind}: {n}" for kind, n in report.notices.items())
    by_channel: dict[str, list[str]] = {}
    for (channel, state), n in report.told.items():
        by_channel.setdefault(channel, []).append(f"{n} {state.replace('_', ' ')}")
    yield from (f"{channel}: {', '.join(states)}" for channel, states in by_channel.items())


def _lines(*lines: str) -> Points:
    return Points(lines=lines)


def _list(lines: Iterable[str]) -> Points:
    said = tuple(lines) or (_NOTHING,)
    if len(said) > LINES_MAX:
        more = f"And {len(said) - LINES_MAX} more: `liveops report weekly --json` has them all."
        said = (*said[:LINES_MAX], more)
    return Points(lines=said, is_list=True)


def _money(amount: object) -> str:
    return f"{amount:,.2f}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def as_text(blocks: Iterable[Block]) -> str:
    """Return the report for a terminal, and for who reads mail as text."""
    return "\n".join(line for block in blocks for line in _text_of(block)).strip() + "\n"


def _text_of(block: Block) -> Iterator[str]:
    match block:
        case Head():
            if block.level > 1:
                yield ""
            yield block.text
            yield {1: "=", 2: "-", 3: ""}[block.level] * len(block.text)
        case Points():
            mark = "- " if block.is_list else ""
            yield from (mark + " ".join(line.split()) for line in block.lines)
        case Grid():
            cells = (block.head, *block.rows)
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            for row in cells:
                first, *others = zip(row, widths, strict=True)
                said = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
                yield "  ".join(said)
        case Picture():
            return


def as_page(blocks: Iterable[Block], *, title: str, source: Callable[[str], str]) -> str:
    """Return the report as a page that loads nothing; `source` says where a picture is."""
    body = joined(_markup_of(block, source) for block in blocks)
    head = joined(
        (
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="color-scheme" content="light">'),
            element("title", title),
        )
    )
    main = element("div", body, style="max-width:680px;margin:0 auto")
    page = element("body", main, style=_BODY)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{page}</html>\n'


def _markup_of(block: Block, source: Callable[[str], str]) -> Markup:
    match block:
        case Head():
            tag, style = _HEADS[block.level]
            return element(tag, block.text, style=style)
        case Points():
            if not block.is_list:
                return joined(element("p", line, style=_PART) for line in block.lines)
            items = (element("li", line, style=_PART) for line in block.lines)
            return element("ul", *items, style="margin:4px 0;padding-left:20px")
        case Grid():
            return _table(block)
        case Picture():
            style = "display:block;width:100%;max-width:680px;height:auto;margin:10px 0"
            place = Markup(f'<img src="{source(block.name)}" width="680" style="{style}" alt=')
            below = element("p", block.caption, style=_NOTE) if block.caption else ""
            return joined((place, Markup(_quoted(block.alt)), Markup(">"), below))


def _quoted(text: str) -> str:
    escaped = str(joined((text,)))
    return f'"{escaped}"'


def _table(grid: Grid) -> Markup:
    """Return a table that fits a telephone: what a row is of stands on a line of its own."""
    width = str(len(grid.head) - 1)

    def line(cells: Sequence[str], tag: str, style: str) -> Markup:
        return element("tr", *(element(tag, cell, style=style) for cell in cells))

    lines = [line(grid.head[1:], "th", f"{_CELL};{_LINE};font-weight:normal")]
    for of, *numbers in grid.rows:
        name = element("th", of, colspan=width, scope="rowgroup", style=_NAME)
        lines += [element("tr", name), line(numbers, "td", f"{_CELL};{_LINE}")]
    return element("table", *lines, style="border-collapse:collapse;width:100%;font-size:13px")
