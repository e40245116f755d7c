"""Pictures of the weekly report, as PNG: mail readers show no SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from bandit.core.model import PolicyName
from bandit.core.week import Week
from bandit.core.weekly import AccountWeek, ArmWeek, ExperimentWeek
from bandit.service.charting import Life
from liveops.life_plot import WIDE, cast_of, draw_life
from liveops.plots import CHALLENGERS, CHAMPION, GRID, INK, OTHERS, PAPER, in_own_style, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 110
_SIZE = (6.2, 2.6)
_TEXT = 8.0


def account_picture(account: AccountWeek, week: Week) -> bytes:
    """Draw an account's closed equity through the week, and what each day earned."""
    return _drawn_account(account, week)


def arms_picture(experiment: ExperimentWeek, week: Week, life: Life) -> bytes | None:
    """Draw what each arm earned in the week, added up by day; None where none closed a trade.

    Arms have the colours that the picture of the `life` gives them.
    """
    if not experiment.trades:
        return None
    return _drawn_arms(experiment, week, cast_of(life).colors)


def life_picture(life: Life) -> bytes | None:
    """Draw the whole life of an experiment; None where no night has looked at a challenger."""
    if not life.nights:
        return None
    return _png(draw_life(life, WIDE))


@in_own_style
def _drawn_account(account: AccountWeek, week: Week) -> bytes:
    figure, axes = _panel(f"Equity of {account.name}, {account.currency}, closed trades")
    levels = [float(level) for level in account.levels(week)]
    axes.plot(range(8), levels, drawstyle="steps-post", color=CHALLENGERS[0], linewidth=1.8)
    axes.plot(range(8), levels, "o", color=CHALLENGERS[0], markersize=3.5)
    for place, (low, high) in enumerate(pairwise(levels), start=1):
        if high != low:
            said = f"{high - low:+,.2f}".replace("-", "\N{MINUS SIGN}")
            axes.annotate(
                said,
                xy=(place, high),
                xytext=(0, 6 if high > low else -6),
                textcoords="offset points",
                ha="center",
                va="bottom" if high > low else "top",
                fontsize=_TEXT - 1,
                color=INK,
            )
    axes.margins(y=0.25)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    _name_days(axes, week.days)
    return _png(figure)


@in_own_style
def _drawn_arms(experiment: ExperimentWeek, week: Week, colors: Mapping[PolicyName, str]) -> bytes:
    figure, axes = _panel(f"Earned in {experiment.name} by arm, {experiment.currency}")
    axes.axhline(0.0, color=CHAMPION, linewidth=0.7)
    # The champion last, so that its grey hides nobody.
    for arm in sorted(experiment.arms, key=lambda arm: arm.policy == experiment.champion):
        if not arm.week.trades:
            continue
        color = colors.get(arm.policy, OTHERS)
        earned = _added_up(arm, week.days)
        axes.plot(range(8), earned, color=color, linewidth=1.6, marker="o", markersize=3)
        axes.plot(
            [], [], color=color, linewidth=1.6, label=f"{_short(arm.policy)} {earned[-1]:+,.2f}"
        )
    axes.margins(y=0.1)
    _name_days(axes, week.days)
    legend = axes.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=_TEXT
    )
    for text in legend.get_texts():
        text.set(color=INK, parse_math=False)
    return _png(figure)


def _added_up(arm: ArmWeek, days: Sequence[date]) -> list[float]:
    total, points = Decimal(0), [0.0]
    for day in days:
        total += arm.by_day.get(day, Decimal(0))
        points.append(float(total))
    return points


def _panel(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor=PAPER)
    axes = figure.subplots()
    plain(axes, title)
    axes.title.set_parse_math(False)
    return figure, axes


def _name_days(axes: Axes, days: Sequence[date]) -> None:
    """Name the ends of days: what stands over a name is what there was when that day was over."""
    names = ["start", *(f"{day:%a} {day.day}" for day in days)]
    axes.set_xticks(range(8), names)
    axes.set_xlim(-0.2, 7.4)
    axes.grid(axis="x", color=GRID, linewidth=0.3)


def _short(policy: str) -> str:
    return policy if len(policy) <= 22 else f"{policy[:12]}…{policy[-9:]}"


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
    return drawn.getvalue()
