"""What `liveops run` leaves of its replay in the home: a picture, and its report as a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bandit.service import charting
from config.settings import Settings
from liveops.ledger_server import state_home
from liveops.whole_files import FileNotWritten, write_whole
from liveops.wiring import App

PICTURE: Final = "replay.png"
PAGE: Final = "replay.html"


def forget(settings: Settings) -> None:
    """Remove what an earlier replay left: it would be taken for that of the next one.

    Raises `FileNotWritten`.
    """
    for path in _paths(settings):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FileNotWritten(f"{path} was not removed: {error.strerror or error}") from error


def leave(app: App, experiment: str) -> Iterator[Path]:
    """Write the page, and the picture where there is one to draw; yield where each lies.

    Raises `FileNotWritten`.
    """
    # Here, so that a replay does not begin by waiting for matplotlib.
    from liveops.life_plot import draw_life
    from liveops.plots import save
    from liveops.report_page import report_page

    picture, page = _paths(app.settings)
    found = charting.illustrated(app.engine, experiment)
    write_whole(page, report_page([found], made_at=app.clock.now()).encode())
    yield page
    if found.life.nights:
        save(draw_life(found.life), picture)
        yield picture


def _paths(settings: Settings) -> tuple[Path, Path]:
    home = state_home(settings)
    return home / PICTURE, home / PAGE
