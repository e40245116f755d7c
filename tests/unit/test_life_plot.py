"""Pictures of an experiment's life: what is drawn, read back from the artists."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made_up_life import arm, day, life, seen, version
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bandit.core.model import ArmStatus, Rung
from bandit.service.charting import Life
from liveops.life_plot import NARROW, WIDE, Form, draw_life
from liveops.plots import CHALLENGERS, CHAMPION, INK, OTHERS, NothingToDraw, save, svg_of

LONG = "reinforcement_20250707_154526_eee02a74"


def small() -> Life:
    """Ten days in which `new` rises, is proven, and becomes the champion on day 6."""
    return life(
        [
            version(0, new=10.0, slow=2.0),
            version(2, new=15.0),
            version(6, champion="new", old=10.0),
        ],
        [
            arm("old", seen(7, -0.5), seen(9, -1.0), earned={0: 0.0, 1: 1.0, 9: -2.0}),
            arm(
                "new",
                seen(1, 0.5),
                seen(2, 2.0, paper=1.0),
                seen(5, 4.5, paper=6.0, rung=Rung.PROVEN),
                earned={0: 0.0, 3: 2.5},
            ),
            arm("slow", seen(1, 0.0), seen(5, 1.0), status=ArmStatus.HALTED),
        ],
        until=10,
        earned={0: 0.0, 1: 1.0, 3: 3.5},
    )


def panels(figure: Figure) -> tuple[Axes, Axes, Axes]:
    traffic, money, evidence = figure.axes
    return traffic, money, evidence


def lines(axes: Axes) -> dict[str, Line2D]:
    """What is drawn as a line, by its label."""
    return {str(line.get_label()): line for line in axes.lines}


def words(axes: Axes) -> list[str]:
    return [note.get_text() for note in axes.texts]


def days_of(line: Line2D) -> list[float]:
    return [float(x) - day(0).timestamp() / 86_400 for x in np.asarray(line.get_xdata())]


def values_of(line: Line2D) -> list[float]:
    return [round(float(y), 9) for y in np.asarray(line.get_ydata())]


def test_traffic_is_stacked_by_version_from_the_first_champion_up() -> None:
    traffic, _, _ = panels(draw_life(small()))
    # Where each band begins and ends, in percent, just after the opening and at the end.
    found = {}
    for band in traffic.collections:
        corners = np.asarray(band.get_paths()[0].vertices)
        at = [corners[np.isclose(corners[:, 0], x)][:, 1] for x in (corners[:, 0].min(),)]
        last = corners[np.isclose(corners[:, 0], corners[:, 0].max())][:, 1]
        found[str(band.get_label())] = [
            (round(float(y.min()), 6), round(float(y.max()), 6)) for y in (*at, last)
        ]
    assert found == {
        "old": [(0, 88), (0, 10)],
        "new": [(88, 98), (10, 100)],
        "slow": [(98, 100), (100, 100)],
    }
    assert words(traffic) == ["old 10 %", "new 90 %", "slow halted"]
    assert traffic.get_title(loc="left") == "Traffic, % of decisions; champion new"


def test_money_is_drawn_in_percent_by_the_end_of_days_up_to_the_end() -> None:
    _, money, _ = panels(draw_life(small()))
    drawn = lines(money)
    assert days_of(drawn["old"]) == [0, 1, 9, 10]
    assert values_of(drawn["old"]) == [0, 1, -2, -2]
    assert values_of(drawn["account"]) == [0, 1, 3.5, 3.5]
    assert drawn["old"].get_drawstyle() == "steps-post"
    # An arm that has closed nothing has a line, and no words beside it.
    assert set(words(money)) == {
        "new champion",
        "old \N{MINUS SIGN}2.00",
        "new +2.50",
        "account +3.50",
    }


def test_evidence_ends_and_begins_anew_with_another_champion() -> None:
    made = small()
    back = life(
        made.versions,
        [arm("old"), arm("new"), arm("slow", seen(5, 1.0), seen(7, 0.25))],
        until=10,
    )
    _, _, evidence = panels(draw_life(back))
    drawn = lines(evidence)["slow"]
    assert days_of(drawn) == [5, 7, 7]
    assert values_of(drawn)[0::2] == [1, 0.25]
    assert math.isnan(values_of(drawn)[1])
    # Both panels below mark the moment, too.
    for axes in panels(draw_life(back)):
        assert any(days_of(line) == [6, 6] for line in axes.lines)


def test_evidence_on_paper_is_a_line_of_its_own() -> None:
    _, _, evidence = panels(draw_life(small()))
    live, paper = (lines(evidence)[name] for name in ("new", "new on paper"))
    assert values_of(live) == [0.5, 2.0, 4.5]
    assert values_of(paper)[1:] == [1.0, 6.0]
    assert live.get_color() == paper.get_color()
    assert live.get_linestyle() != paper.get_linestyle()
    assert "dotted: on paper" in words(evidence)
    assert "slow on paper" not in lines(evidence)


def test_a_rung_is_marked_where_its_evidence_stands_and_named_when_first_reached() -> None:
    flapping = [Rung.PROVEN, Rung.UNPROVEN, Rung.PROVEN, Rung.ELIGIBLE]
    nights = [seen(i, 4.0 + i, rung=rung) for i, rung in enumerate(flapping, start=1)]
    made = life([version(0, new=10.0)], [arm("old"), arm("new", *nights)], until=5)
    _, _, evidence = panels(draw_life(made))
    marks = [line for line in evidence.lines if line.get_marker() in ("^", "v")]
    assert [(str(m.get_label()), m.get_marker(), values_of(m)) for m in marks] == [
        ("new proven", "^", [5]),
        ("new unproven", "v", [6]),
        ("new proven", "^", [7]),
        ("new eligible", "^", [8]),
    ]
    assert [word for word in words(evidence) if word in tuple(Rung)] == ["proven", "eligible"]
    # The paper's evidence is what stands higher in the other picture.
    (mark,) = [line for line in panels(draw_life(small()))[2].lines if line.get_marker() == "^"]
    assert values_of(mark) == [6.0]


def test_proof_is_one_line_where_all_share_it_and_one_each_where_not() -> None:
    _, _, evidence = panels(draw_life(small()))
    (proof,) = [line for line in evidence.lines if line.get_label() == "proven"]
    assert set(values_of(proof)) == {4.0}
    assert proof.get_color() == INK
    assert words(evidence).count("proven at 4.00") == 1
    made = life(
        [version(0, new=10.0, late=2.0)],
        [
            arm("old"),
            arm("new", seen(1, 0.0), seen(2, 0.0)),
            arm("late", seen(2, 0.0, proof=4.5), seen(3, 0.0, proof=5.2)),
        ],
        until=4,
    )
    _, _, evidence = panels(draw_life(made))
    proofs = [line for line in evidence.lines if line.get_label() == "proven"]
    assert [values_of(line) for line in proofs] == [[4, 4, 4], [4.5, 5.2, 5.2]]
    assert [line.get_color() for line in proofs] == list(CHALLENGERS[:2])
    assert evidence.get_ylim()[1] > 5.2


def test_who_is_not_a_challenger_any_more_has_no_words_at_the_end() -> None:
    _, _, evidence = panels(draw_life(small()))
    assert [word for word in words(evidence) if word.startswith(("old", "new", "slow"))] == [
        "old \N{MINUS SIGN}1.00"
    ]


def test_the_busiest_have_colours_and_the_others_share_one() -> None:
    names = [f"arm-{i}" for i in range(8)]
    parts = {name: 1.0 + i for i, name in enumerate(names)}
    arms = [arm(name, seen(1, 0.0), earned={0: 0.0, 1: 1.0}) for name in names]
    made = life([version(0, **parts)], [arm("old"), *arms], until=2)
    traffic, money, _ = panels(draw_life(made))
    assert [band.get_label() for band in traffic.collections] == ["old", "others", *names[2:]]
    assert "2 others 3 %" in words(traffic)
    colors = {name: line.get_color() for name, line in lines(money).items()}
    assert [colors[name] for name in names] == [OTHERS, OTHERS, *CHALLENGERS]
    assert colors["old"] == CHAMPION
    assert "arm-0 +1.00" not in words(money)


def test_words_at_the_end_do_not_stand_over_each_other() -> None:
    arms = [arm(f"arm-{i}", seen(1, 0.0)) for i in range(6)]
    made = life([version(0)], [arm("old"), *arms], until=2)
    for form in (WIDE, NARROW):
        figure = draw_life(made, form)
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [note.get_window_extent() for note in axes.texts if "arm" in note.get_text()]
            heights = sorted((box.y0, box.y1) for box in boxes)
            assert all(low[1] <= high[0] for low, high in pairwise(heights))
            assert all(box.x1 <= figure.bbox.x1 for box in boxes)


@pytest.mark.parametrize(
    ("form", "shown"), [(WIDE, "reinforcemen…26_eee02a74 0 %"), (NARROW, "reinforc…e02a74 0 %")]
)
def test_a_long_name_keeps_its_beginning_and_its_end(form: Form, shown: str) -> None:
    made = life([version(0)], [arm("old"), arm(LONG, seen(1, 0.0))], until=2)
    traffic, _, _ = panels(draw_life(made, form))
    assert shown in words(traffic)


def test_days_are_those_of_utc() -> None:
    _, _, evidence = panels(draw_life(small()))
    assert [num2date(x) for x in evidence.get_xlim()] == [day(0), day(10)]
    assert evidence.get_xlabel() == "UTC days"


@pytest.mark.parametrize("form", [WIDE, NARROW])
@pytest.mark.parametrize("days", [0.01, 0.1, 0.4, 1, 2, 2.6, 5, 20, 58, 89, 120, 365, 1000, 4000])
def test_a_life_of_any_length_has_days_to_read(form: Form, days: float) -> None:
    made = life([version(0)], [arm("old"), arm("new", seen(days / 2, 0.0))], until=days)
    figure = draw_life(made, form)
    figure.draw_without_rendering()
    _, _, evidence = panels(figure)
    ticks = [tick for tick in evidence.get_xticks() if day(0) <= num2date(tick) <= day(days)]
    assert 1 <= len(ticks) <= 12


def test_without_a_night_there_is_nothing_to_draw() -> None:
    with pytest.raises(NothingToDraw, match="experiment btc has nothing to draw: no night"):
        draw_life(life([version(0, new=10.0)], [arm("old"), arm("new")], until=1))


def test_pictures_follow_from_what_they_show(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.PNG", "b.PNG"):
        save(draw_life(small()), tmp_path / name)
    for suffix in ("svg", "PNG"):
        first, second = (tmp_path / f"{name}.{suffix}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    drawn = svg_of(draw_life(small()))
    assert ">slow halted<" in drawn, "words stay words"
    assert svg_of(draw_life(small()), salt="other") != drawn
    lines = re.findall(r' d="([^"]*)"', drawn)
    assert {len(part) for line in lines for part in re.findall(r"\.(\d+)", line)} <= {1, 2}


def test_what_other_libraries_set_for_the_process_changes_nothing() -> None:
    expected = svg_of(draw_life(small()))
    with rc_context({"axes.edgecolor": "#dddddd", "lines.linewidth": 9.0, "font.size": 30.0}):
        assert svg_of(draw_life(small())) == expected
