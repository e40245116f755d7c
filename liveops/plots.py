"""Pictures of what happened to traffic and money, as PNG or SVG files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from bandit.core.errors import BanditError, InvalidInput
from liveops.whole_files import checked_file, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from liveops.simulating import Simulation

P = ParamSpec("P")
T = TypeVar("T")
SUFFIXES = (".png", ".svg")
INK: Final = "#1c2126"
PAPER: Final = "#fefefe"
GRID: Final = "#d9dde2"
CHAMPION: Final = "#a3abb5"
OTHERS: Final = "#cdd3d9"
# Okabe and Ito 2008: told apart by all forms of colour vision; their yellow is too pale for a line.
CHALLENGERS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DPI: Final = 120
_PATH: Final = re.compile(r' d="[^"]*"')
_FINER: Final = re.compile(r"(\.\d\d)\d+")
# What matplotlib writes of itself and of today.
_METADATA: Final = ("Date", "Creator", "Format", "Type")


class NothingToDraw(BanditError):
    """There is nothing yet that a picture would show."""

    code = "nothing_to_draw"


def checked_plot(path: Path, *, field: str) -> Path:
    """Return the path of a picture that can be drawn; raises `InvalidInput` for other kinds.

    >>> checked_plot(Path("traffic.png"), field="plot").name
    'traffic.png'
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(field=field, rule=f"must end in {' or '.join(SUFFIXES)}", found=path)
    return checked_file(path, field=field)


def in_own_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw by matplotlib's defaults, whatever another library has set for the whole process."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import style

        with style.context("default"):
            return draw(*args, **kwargs)

    return drawn


@in_own_style
def save(figure: Figure, path: Path) -> None:
    """Write a picture whose bytes follow from what it shows, and from nothing else.

    Raises `FileNotWritten`.
    """
    if path.suffix.lower() == ".svg":
        write_whole(path, svg_of(figure).encode())
        return
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
    write_whole(path, drawn.getvalue())


@in_own_style
def svg_of(figure: Figure, *, salt: str = "liveops") -> str:
    """Return a picture as SVG with its text as text; `salt` goes into the ids of its parts."""
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context(
        {
            "svg.hashsalt": salt,
            "svg.fonttype": "none",
            # The second is as wide as the first, where there is none of that name.
            "font.sans-serif": ["DejaVu Sans", "Verdana"],
        }
    ):
        figure.savefig(written, format="svg", metadata=dict.fromkeys(_METADATA))
    # A hundredth of a point is finer than any screen, and half of the file is what comes after it.
    return _PATH.sub(lambda path: _FINER.sub(r"\1", path[0]), written.getvalue())


def plain(axes: Axes, title: str) -> None:
    """Leave of a diagram what is read: its title, the scales, and faint lines for the values."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=7)
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


@in_own_style
def draw_traffic(simulation: Simulation, path: Path) -> None:
    """Draw each challenger's part of the traffic by day: its median, and 5 to 95 % of the runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, arm in enumerate(simulation.arms):
        low, median, high = 100.0 * arm.traffic.T
        color, days = f"C{number}", range(len(median))
        axes.plot(days, median, color=color, label=arm.policy)
        axes.fill_between(days, low, high, color=color, alpha=0.15, linewidth=0)
    plan = simulation.plan
    axes.set(
        xlabel="days",
        ylabel="traffic, percent",
        ylim=(0.0, 100.0),
        xlim=(0, plan.days),
        title=f"{plan.profile}, {plan.strategy}, {simulation.runs} runs in {plan.setting.name}: "
        "median and 5 to 95 %",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    save(figure, path)
