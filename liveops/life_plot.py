"""The life of an experiment as one picture: traffic, money and evidence over its UTC days."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bandit.core.model import ArmStatus, PolicyName, Rung
from bandit.service.charting import ArmLife, Life, NightSeen, Point
from liveops.plots import (
    CHALLENGERS,
    CHAMPION,
    INK,
    OTHERS,
    PAPER,
    NothingToDraw,
    in_own_style,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATIOS: Final = (3.0, 3.0, 3.4)
_TEXT: Final = 8.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How large a picture is, in inches, and how many characters a name may have in it."""

    width: float
    height: float
    name_max: int


WIDE: Final = Form(width=9.0, height=7.8, name_max=24)
NARROW: Final = Form(width=4.3, height=8.2, name_max=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What stands at the right end of a curve, at the height of its last value."""

    text: str
    color: str
    height: float


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is drawn: arms with a colour of their own, and all the others in one."""

    named: tuple[ArmLife, ...]
    others: tuple[ArmLife, ...]
    colors: Mapping[PolicyName, str]


@in_own_style
def draw_life(life: Life, form: Form = WIDE) -> Figure:
    """Draw traffic, closed results and evidence of an experiment, one below the other.

    Raises `NothingToDraw` while no night has looked at a challenger.
    """
    if not life.nights:
        raise NothingToDraw(
            f"experiment {life.experiment} has nothing to draw: no night has looked at a "
            "challenger yet"
        )
    figure = Figure(figsize=(form.width, form.height), layout="constrained", facecolor=PAPER)
    traffic, money, evidence = figure.subplots(3, 1, sharex=True, height_ratios=_RATIOS)
    cast = cast_of(life)
    labels = (
        (traffic, _draw_traffic(traffic, life, cast, form)),
        (money, _draw_money(money, life, cast, form)),
        (evidence, _draw_evidence(evidence, life, cast, form)),
    )
    for axes in (traffic, money, evidence):
        for version in life.successions:
            axes.axvline(_day(version.since), color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    _scale_days(evidence, life, form)
    for (axes, found), ratio in zip(labels, _RATIOS, strict=True):
        _label(axes, found, height=form.height * ratio / sum(_RATIOS))
    return figure


def _scale_days(axes: Axes, life: Life, form: Form) -> None:
    most = 8 if form.width > NARROW.width else 5
    # With three ticks at least it would find none for some lengths of time.
    locator = AutoDateLocator(tz=UTC, minticks=2, maxticks=most)  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.get_offset_text().set(fontsize=_TEXT, color=INK)
    axes.set_xlabel("UTC days", loc="left", fontsize=_TEXT, color=INK)
    axes.set_xlim(_day(life.opened_at), _day(life.until))


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return heights near the wanted ones, at least `gap` apart, between `low` and `high`.

    The order stays, and the sum of the squares of all moves is the least there is.

    >>> spread([0.0, 0.1, 5.0], gap=1.0, low=-9.0, high=9.0)
    [-0.45, 0.55, 5.0]
    """
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    moved = isotonic_regression(np.asarray(wanted, dtype=np.float64)[order] - steps).x
    places = np.empty(len(order))
    places[order] = np.clip(moved, low, max(low, high - gap * (len(order) - 1))) + steps
    return [round(float(place), 9) for place in places]


def cast_of(life: Life) -> Cast:
    """Give colours to the champion that the experiment opened with and to the busiest others."""
    first = life.versions[0].champion
    others = [arm for arm in life.arms if arm.policy != first]
    ranked = sorted(others, key=lambda arm: (_most(life, arm), _strongest(arm)), reverse=True)
    chosen = {arm.policy for arm in ranked[: len(CHALLENGERS)]}
    named = [arm for arm in others if arm.policy in chosen]
    colors = {arm.policy: color for arm, color in zip(named, CHALLENGERS, strict=False)}
    return Cast(
        named=(*(arm for arm in life.arms if arm.policy == first), *named),
        others=tuple(arm for arm in others if arm.policy not in chosen),
        colors={first: CHAMPION, **colors},
    )


def _most(life: Life, arm: ArmLife) -> float:
    return max(version.parts.get(arm.policy, 0.0) for version in life.versions)


def _strongest(arm: ArmLife) -> float:
    return max((_height(seen) for seen in arm.nights), default=-math.inf)


def _height(seen: NightSeen) -> float:
    return seen.live if seen.paper is None else max(seen.live, seen.paper)


def _draw_traffic(axes: Axes, life: Life, cast: Cast, form: Form) -> list[Label]:
    """Stack the parts of all arms, the first champion at the bottom."""
    now = _name(life.versions[-1].champion, form)
    plain(axes, f"Traffic, % of decisions; champion {now}")
    at = [_day(version.since) for version in life.versions] + [_day(life.until)]
    champion, *named = cast.named
    bands = [(champion.policy, [champion]), (None, list(cast.others))]
    bands += [(arm.policy, [arm]) for arm in named]
    floor, labels = np.zeros(len(at)), []
    for policy, arms in bands:
        parts = [100.0 * sum(v.parts.get(a.policy, 0.0) for a in arms) for v in life.versions]
        top = floor + np.array([*parts, parts[-1]])
        color = OTHERS if policy is None else cast.colors[policy]
        if arms:
            name = f"{len(arms)} others" if policy is None else _name(policy, form)
            area = axes.fill_between(at, floor, top, step="post", label=policy or "others")
            area.set(facecolor=color, edgecolor=PAPER, linewidth=0.4)
            stopped = {arm.status for arm in arms} - {ArmStatus.ACTIVE}
            held = f"{parts[-1]:.3g} %" if policy is None or not stopped else min(stopped)
            height = float(floor[-1] + top[-1]) / 2.0
            labels.append(Label(text=f"{name} {held}", color=color, height=height))
        floor = top
    axes.set_ylim(0.0, 100.0)
    axes.set_yticks([0, 25, 50, 75, 100])
    return labels


def _draw_money(axes: Axes, life: Life, cast: Cast, form: Form) -> list[Label]:
    """Draw what every arm and the account have earned by the end of each day."""
    plain(axes, "Closed results, % of capital; arms at nominal size")
    axes.axhline(0.0, color=CHAMPION, linewidth=0.7)
    labels = []
    for arm in (*cast.others, *cast.named):
        color = cast.colors.get(arm.policy, OTHERS)
        width = 1.2 if arm.policy in cast.colors else 0.8
        earned = _draw_curve(axes, arm.earned, life, label=arm.policy, color=color, width=width)
        if arm.policy in cast.colors and len(arm.earned) > 1:
            text = f"{_name(arm.policy, form)} {_signed(earned)}"
            labels.append(Label(text=text, color=color, height=earned))
    earned = _draw_curve(axes, life.earned, life, label="account", color=INK, width=1.4)
    labels.append(Label(text=f"account {_signed(earned)}", color=INK, height=earned))
    _name_champions(axes, life, form)
    return labels


def _name_champions(axes: Axes, life: Life, form: Form) -> None:
    """Say who became the champion, on the side of the moment that has more room."""
    for version in life.successions:
        late = version.since - life.opened_at > (life.until - life.opened_at) / 2
        _note(
            axes,
            f"{_name(version.champion, form)} champion",
            (_day(version.since), axes.get_ylim()[1]),
            move=(-3, -3) if late else (3, -3),
            ha="right" if late else "left",
            va="top",
        )


def _draw_curve(
    axes: Axes, curve: Sequence[Point], life: Life, *, label: str, color: str, width: float
) -> float:
    """Draw money as steps at the end of days; return where it ends, in percent."""
    at = [_day(point.at) for point in curve] + [_day(life.until)]
    earned = [100.0 * point.earned for point in curve]
    axes.plot(
        at,
        [*earned, earned[-1]],
        drawstyle="steps-post",
        color=color,
        linewidth=width,
        label=label,
    )
    return earned[-1]


def _draw_evidence(axes: Axes, life: Life, cast: Cast, form: Form) -> list[Label]:
    """Draw each challenger's evidence night by night, what proves it, and its rungs."""
    arms = [arm for arm in (*cast.others, *cast.named) if arm.nights]
    newest = max(seen.at for arm in arms for seen in arm.nights)
    plain(axes, "Evidence beside the champion, log e-value")
    if any(seen.paper is not None for arm in arms for seen in arm.nights):
        note = axes.text(0.01, 0.02, "dotted: on paper", transform=axes.transAxes)
        note.set(fontsize=_TEXT - 1, color=INK)
    axes.axhline(0.0, color=CHAMPION, linewidth=0.7)
    labels = []
    for arm in arms:
        color = cast.colors.get(arm.policy, OTHERS)
        at, live, paper = _evidence(arm, life)
        axes.plot(at, live, color=color, linewidth=1.4, label=arm.policy)
        if not np.isnan(paper).all():
            name = f"{arm.policy} on paper"
            axes.plot(at, paper, color=color, linewidth=1.4, linestyle=(0, (1, 1.2)), label=name)
        if arm.policy not in cast.colors:
            continue
        _mark_rungs(axes, arm, color)
        last = arm.nights[-1]
        if last.at == newest:
            text = f"{_name(arm.policy, form)} {_signed(last.live)}"
            labels.append(Label(text=text, color=color, height=last.live))
    _draw_proof(axes, arms, cast, life)
    return labels


def _evidence(arm: ArmLife, life: Life) -> tuple[Floats, Floats, Floats]:
    """Return times, and evidence live and on paper, with a gap where it began anew."""
    rows: list[tuple[float, float, float]] = []
    before = arm.nights[0].at
    for seen in arm.nights:
        if any(before < version.since <= seen.at for version in life.successions):
            rows.append((_day(seen.at), math.nan, math.nan))
        rows.append((_day(seen.at), seen.live, math.nan if seen.paper is None else seen.paper))
        before = seen.at
    at, live, paper = np.array(rows).T
    return at, live, paper


def _mark_rungs(axes: Axes, arm: ArmLife, color: str) -> None:
    """Mark the nights on which an arm came to another rung, and name each when first reached."""
    order = list(Rung)
    before, highest = Rung.UNPROVEN, Rung.UNPROVEN
    for seen in arm.nights:
        if seen.rung is before:
            continue
        rose = order.index(seen.rung) > order.index(before)
        before = seen.rung
        place = (_day(seen.at), _height(seen))
        (mark,) = axes.plot(*place, "^" if rose else "v", color=color, markersize=7.5, zorder=4)
        mark.set(markeredgecolor=PAPER, label=f"{arm.policy} {seen.rung}")
        if order.index(seen.rung) <= order.index(highest):
            continue
        highest = seen.rung
        _note(axes, seen.rung.value, place, move=(0, 6), ha="center")


def _draw_proof(axes: Axes, arms: Sequence[ArmLife], cast: Cast, life: Life) -> None:
    """Draw from which height on arms are proven: one line for all that share it."""
    sharing: dict[tuple[float, ...], list[ArmLife]] = {}
    for arm in arms:
        heights = tuple(height for height, _ in groupby(seen.proof for seen in arm.nights))
        sharing.setdefault(heights, []).append(arm)
    said = set()
    for together in sharing.values():
        proofs = {seen.at: seen.proof for arm in together for seen in arm.nights}
        at = sorted(proofs)
        first, last = proofs[at[0]], proofs[at[-1]]
        (line,) = axes.plot(
            [*map(_day, at), _day(life.until)],
            [*(proofs[each] for each in at), last],
            drawstyle="steps-post",
            label="proven",
        )
        is_alone = len(sharing) > 1 and len(together) == 1
        line.set(color=cast.colors.get(together[0].policy, OTHERS) if is_alone else INK)
        line.set(linewidth=0.9, linestyle=(0, (5, 3)))
        if first not in said:
            said.add(first)
            _note(axes, f"proven at {first:.2f}", (_day(at[0]), first), move=(3, 2))
    axes.margins(y=0.12)


def _label(axes: Axes, labels: Sequence[Label], *, height: float) -> None:
    """Write at the right of a panel of so many inches what its curves are, none over another."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    # A line of text in units of the scale, in a panel of which a fifth is title and ticks.
    gap = 1.35 * _TEXT / (0.8 * 72.0 * height) * (high - low)
    places = spread([label.height for label in labels], gap=gap, low=low, high=high)
    across = axes.get_yaxis_transform()
    for label, place in zip(labels, places, strict=True):
        (square,) = axes.plot(1.02, place, "s", color=label.color, markersize=4.5)
        square.set(transform=across, clip_on=False)
        axes.annotate(
            label.text,
            xy=(1.02, place),
            xycoords=across,
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=_TEXT,
            color=INK,
            annotation_clip=False,
        )


def _note(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    *,
    move: tuple[float, float],
    ha: str = "left",
    va: str = "bottom",
) -> None:
    """Write beside a place in a diagram, so many points away, on a patch of paper."""
    note = axes.annotate(text, xy=place, xytext=move, textcoords="offset points", ha=ha, va=va)
    note.set(fontsize=_TEXT - 1, color=INK, zorder=3)
    note.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.6})


def _name(policy: PolicyName, form: Form) -> str:
    """Return a name that fits: its beginning and its end."""
    if len(policy) <= form.name_max:
        return policy
    end = form.name_max // 2 - 1
    return f"{policy[: form.name_max - end - 1]}…{policy[-end:]}"


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\N{MINUS SIGN}")


def _day(moment: datetime) -> float:
    """Return a time as matplotlib counts it: in days since 1970."""
    return moment.timestamp() / 86_400.0
