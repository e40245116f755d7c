"""The pictures of docs/evidence.md, and the figures that it quotes.

`python -m benchmarks.evidence.pictures` writes docs/pictures anew, with `--quick` a directory that
goes again. Everything is simulated in the setting `real` beside a champion of profit factor 1.3,
with twenty trades a day.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure

from bandit.core.evidence import Floats
from bandit.core.ladder import Family, LadderRule
from bandit.core.limits import Limits
from bandit.core.model import WHOLE_PPM, Profile
from bandit.core.reading import ChecklistRule, RampRule, Rules
from bandit.core.simulation import REAL, HypotheticalArm, Luck, Market, returns
from bandit.core.trial import Trial
from bandit.core.trial_plan import TrialPlan
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._paths import DAY, Comparison, first_time, paths
from benchmarks.evidence._trials import of_each
from benchmarks.evidence.nights import CHAMPION, SILENT, plan
from liveops.plots import CHALLENGERS, GRID, INK, plain, save
from liveops.plots import CHAMPION as GRAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = 40_270_000
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
BYTES_MAX = 60_000
LOGS = 400 if QUICK else 40_000
RUNS = 4 if QUICK else 120
NIGHTS = 12 if QUICK else 120
NIGHTS_THROTTLED = 12 if QUICK else 90
PATHS = 20 if QUICK else 400
DAYS = 60 if QUICK else 500
EVERY = 10
DRAWN = 6
WINDOW = ChecklistRule().window
THROTTLE = ChecklistRule().pf_throttle
FACTORS = (0.9, 1.3, 1.7, 2.4)
GREAT = HypotheticalArm(profit_factor=2.4)
# Of one arm that joined on the first day.
PROOF = -math.log(Family(generation=1, size=1, promotions=0).level(LadderRule()))
BLUE, RED, GREEN, *_ = CHALLENGERS
_SMALL: Final = 8.0


def factors_of(arm: HypotheticalArm, *, seed: int) -> Floats:
    """Return the profit factors of many logs of thirty trades; infinite where nothing was lost."""
    rng = np.random.default_rng(seed)
    market = Market.drawn(REAL, runs=LOGS, opportunities=WINDOW, rng=rng)
    earned = returns(arm, market, Luck.drawn(market, rng))
    gain, loss = (np.maximum(sign * earned, 0.0).sum(axis=1) for sign in (1.0, -1.0))
    factors: Floats = np.divide(gain, loss, out=np.full(LOGS, math.inf), where=loss > 0.0)
    return factors


def thirty_trades(folder: Path) -> None:
    """Draw how far apart the profit factors of thirty trades lie from the true one."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    plain(axes, "Profit factor of thirty trades, by the true one")
    edges = np.geomspace(0.2, 20.0, 61)
    middles = np.sqrt(edges[1:] * edges[:-1])
    # The limit among them, so that both parts of a hill meet there.
    at = np.sort([*middles, THROTTLE])
    for row, (truth, color) in enumerate(zip(FACTORS, (RED, GRAY, BLUE, GREEN), strict=True)):
        found = factors_of(HypotheticalArm(profit_factor=truth), seed=SEED + row)
        under = float((found < THROTTLE).mean())
        low, high = np.quantile(found, (0.05, 0.95))
        progress(
            f"true {truth:g}: {under:.3f} of {LOGS} logs of {WINDOW} trades under {THROTTLE:g}, "
            f"90 % from {low:.2f} to {high:.2f}"
        )
        share = np.interp(at, middles, np.histogram(found, bins=edges)[0] / LOGS)
        height = row + 0.8 * share / 0.045
        axes.fill_between(at, row, height, color=color, alpha=0.35, linewidth=0)
        axes.fill_between(at, row, height, where=at <= THROTTLE, color=color, linewidth=0)
        axes.text(0.21, row + 0.5, f"true {truth:g}", fontsize=9, color=INK)
        text = f"{100 * under:.0f} % under {THROTTLE:g}"
        axes.text(19.0, row + 0.5, text, fontsize=9, color=INK, ha="right")
    axes.axvline(THROTTLE, color=INK, linewidth=0.9)
    axes.set_xscale("log")
    ticks = (0.25, 0.5, 1, 1.6, 2, 4, 8, 16)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, len(FACTORS)), yticks=[])
    _write(figure, folder / "thirty_trades.svg")


def traffic(_: TrialPlan, lived: Trial) -> list[float]:
    """Return the first challenger's part of the traffic, night by night."""
    found: list[float] = (lived.ppm[:, 0] / WHOLE_PPM).tolist()
    return found


def traffic_in(made: TrialPlan, *, seed: int) -> Floats:
    """Return the traffic of many runs: shape (runs, nights + 1)."""
    return np.array(of_each(made, traffic, runs=RUNS, seed=seed))


def draw_band(axes: Axes, parts: Floats, color: str, text: str) -> None:
    """Draw the median and the middle nine tenths of runs, and say at the end what they are."""
    low, median, high = 100.0 * np.quantile(parts, (0.05, 0.5, 0.95), axis=0)
    nights = np.arange(parts.shape[1])
    axes.fill_between(nights, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(nights, median, color=color, linewidth=1.8)
    progress(
        f"{text}: after {nights[-1]} nights {median[-1]:.1f} % in the median, 90 % from "
        f"{low[-1]:.1f} to {high[-1]:.1f}; in the mean over all nights {100 * parts.mean():.1f} %"
    )


def identical_arm(folder: Path) -> None:
    """Draw what the bare rule and the ladder give to a challenger that is no better."""
    ceiling, cap = RampRule().ceiling_ppm / WHOLE_PPM, Limits().unproven_cap_ppm / WHOLE_PPM
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    plain(axes, "Traffic of a challenger that is exactly as good as the champion, %")
    letter, guarded = (
        traffic_in(
            plan((CHAMPION,), profile=profile, days=NIGHTS, rules=Rules(checklist=SILENT)),
            seed=SEED + 1_000,
        )
        for profile in (Profile.SEED_EXACT, Profile.GUARDED)
    )
    draw_band(axes, letter, RED, "identical, to the letter")
    draw_band(axes, guarded, BLUE, "identical, guarded")
    reached = float((letter[:, :91].max(axis=1) >= ceiling).mean())
    progress(f"identical, to the letter: {reached:.3f} reach 60 % in 90 nights, {RUNS} runs")
    for height, color, text in (
        (100 * ceiling, RED, "to the letter: steps up to 60 %, none down"),
        (100 * cap, BLUE, "guarded: steps down too; 25 % without proof"),
    ):
        axes.axhline(height, color=color, linewidth=0.8, linestyle=(0, (5, 3)))
        axes.text(NIGHTS, height + 1.5, text, fontsize=9, color=INK, ha="right")
    axes.set(xlim=(0, NIGHTS), ylim=(0, 75))
    axes.set_xlabel("nights", fontsize=_SMALL, color=INK)
    _write(figure, folder / "identical_arm.svg")
    most = float(np.quantile(guarded[:, -1], 0.95))
    claim(
        "evidence.pictures.identical_arm.guarded",
        ours=f"{most:.3f}",
        yardstick=f"{cap:.3f}",
        ratio=most / cap,
        side=Target.AT_MOST,
        target=1.0,
    )


def great_arm(folder: Path) -> None:
    """Draw what becomes of a great challenger while the throttle on thirty trades is on."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    ways: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("to the letter", RED, {"profile": Profile.SEED_EXACT}),
        ("guarded", BLUE, {}),
        ("guarded, told on paper", GREEN, {"on_paper": True}),
    )
    for axes, (name, color, changes) in zip(panels, ways, strict=True):
        plain(axes, name)
        made = plan((GREAT,), days=NIGHTS_THROTTLED, rules=Rules(), agreement=0.5, **changes)
        parts = traffic_in(made, seed=SEED + 2_000)
        draw_band(axes, parts, color, f"great, {name}")
        axes.set(xlim=(0, NIGHTS_THROTTLED), ylim=(0, 100))
        axes.set_xlabel("nights", fontsize=_SMALL, color=INK)
    panels[0].set_ylabel("traffic, %", fontsize=_SMALL, color=INK)
    _write(figure, folder / "great_arm.svg")


def roads_to_proof(folder: Path) -> None:
    """Draw how evidence grows for an arm that is no better, and for arms that are."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    rows: tuple[tuple[float, str, str, dict[str, Any]], ...] = (
        (1.3, "no better than the champion", GRAY, {"share": 0.25}),
        (1.7, "profit factor 1.7", BLUE, {"share": 0.25}),
        (2.4, "profit factor 2.4", GREEN, {"share": 0.25}),
        (1.7, "profit factor 1.7, told on paper", BLUE, {"common": 0.5}),
    )
    ever = 0.0
    for i, (axes, (truth, name, color, routed)) in enumerate(zip(panels.flat, rows, strict=True)):
        arm = HypotheticalArm(profit_factor=truth)
        compared = Comparison(setting=REAL, challenger=arm, opportunities=DAYS * DAY, **routed)
        grown = np.concatenate(
            [
                found[:, DAY - 1 :: DAY, 0, 0]
                for found in paths(compared, runs=PATHS, seed=SEED + 3_000 + i)
            ]
        )
        plain(axes, name)
        # Where results on paper are told too, two ways to be proven share the level.
        needed = PROOF + (math.log(2.0) if "common" in routed else 0.0)
        draw_paths(axes, grown, color, needed=needed)
        took = first_time(grown >= needed)
        low, middle, high = np.quantile(took, (0.1, 0.5, 0.9), method="nearest").tolist()
        share = float(np.isfinite(took).mean())
        ever = share if i == 0 else ever
        progress(
            f"{name}: {share:.3f} of {PATHS} proven in {DAYS} days, half within {middle:.0f} days, "
            f"a tenth within {low:.0f}, nine tenths within {high:.0f}"
        )
    panels[0, 0].text(4, PROOF + 0.25, "proven", fontsize=_SMALL, color=INK)
    for axes in panels[-1]:
        axes.set_xlabel(f"days of {DAY} trades", fontsize=_SMALL, color=INK)
    _write(figure, folder / "roads_to_proof.svg")
    allowed = math.exp(-PROOF)
    claim(
        "evidence.pictures.roads_to_proof.no_better",
        ours=f"{ever:.4f}",
        yardstick=f"{allowed:.4f}",
        ratio=ever / allowed,
        side=Target.AT_MOST,
        target=1.0,
    )


def draw_paths(axes: Axes, grown: Floats, color: str, *, needed: float) -> None:
    """Draw some paths of evidence, and the middle nine tenths of all."""
    days = np.arange(0, grown.shape[1] + 1, EVERY)
    begun = np.concatenate([np.zeros((len(grown), 1)), grown], axis=1)[:, days]
    low, median, high = np.quantile(begun, (0.05, 0.5, 0.95), axis=0)
    axes.fill_between(days, low, high, color=color, alpha=0.22, linewidth=0)
    for path in begun[:DRAWN]:
        axes.plot(days, path, color=color, linewidth=0.7, alpha=0.7)
    axes.plot(days, median, color=color, linewidth=2.0)
    axes.axhline(0.0, color=GRID, linewidth=1.0)
    axes.axhline(needed, color=INK, linewidth=0.9, linestyle=(0, (5, 3)))
    axes.set(xlim=(0, DAYS), ylim=(-3.0, 9.0))


def _write(figure: Figure, path: Path) -> None:
    """Save a picture; one that is too large for a page is a failure."""
    save(figure, path)
    size = path.stat().st_size
    progress(f"{path.name}: {size} bytes")
    assert size < BYTES_MAX, size


def main() -> None:
    """Draw all pictures and print the claims."""
    with tempfile.TemporaryDirectory() as gone:
        folder = Path(gone) if QUICK else PICTURES
        folder.mkdir(parents=True, exist_ok=True)
        for draw in (thirty_trades, identical_arm, great_arm, roads_to_proof):
            draw(folder)


if __name__ == "__main__":
    main()
