"""Pictures of what happened to traffic and money, as PNG or SVG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bandit.core.errors import InvalidInput

if TYPE_CHECKING:
    from liveops.simulating import Simulation

SUFFIXES = (".png", ".svg")


def checked_plot(path: Path) -> Path:
    """Return the path of a picture that can be drawn; raises `InvalidInput` for other kinds.

    >>> checked_plot(Path("traffic.png")).name
    'traffic.png'
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(field="plot", rule=f"must end in {' or '.join(SUFFIXES)}", found=path)
    if not path.parent.is_dir():
        raise InvalidInput(field="plot", rule="must lie in a directory that exists", found=path)
    return path


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
    figure.savefig(path, dpi=120)
