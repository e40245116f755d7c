"""Sweeps for tests: as small as they can be while every part of them is the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, text

from bandit.core.tunables import parsed_parameters
from config.settings import Settings
from learners.classifier_plan import ClassifierPlan
from learners.market.candles import Candles
from liveops.recipes import Learner, Recipe
from liveops.relearning import plan_of
from liveops.sweep_trials import Sweep

DAY = "2026-03-01"
STUDY = "tune_20260301"
FIXED = (
    *("encoder_bars=12", "encoder_frequencies=1", "encoder_width=4", "encoder_layers=1"),
    *("encoder_embedding=2", "encoder_epochs=1", "tabnet_width=4", "tabnet_epochs=1"),
    *("trend_bars_long=72", "horizon_bars=6", "holding_bars=12"),
)
"""What makes a trial a matter of seconds; the rest is searched."""

OPTIONS = (
    *("--date", DAY, "--train-bars", "800", "--test-bars", "200", "--confidence", "0.34"),
    *(option for fixed in FIXED for option in ("--fix", fixed)),
)


def a_sweep(settings: Settings, series: Sequence[Candles], *, trials: int, **more: Any) -> Sweep:
    """Return a sweep as `liveops tune` would ask for it."""
    options = {"confidence": 0.34, "allow_ranging": None, "train_bars": 800, "test_bars": 200}
    training = ClassifierPlan(seed=1, forest=None, forest_weight=0.0)
    given: dict[str, Any] = {
        "day": date.fromisoformat(DAY),
        "plan": plan_of(settings, training, options, series),
        "series": series,
        "trials": trials,
        "fixed": parsed_parameters(FIXED),
        "recipe": Recipe.of(Learner.CLASSIFIER, candles=None, **options),
        "keep": 2,
        "trial_seconds": 600.0,
        "workers": 1,
    }
    return Sweep(**{**given, **more})


def written(candles: Candles, file: Path) -> Path:
    """Write candles as a file that commands read."""
    columns = candles.numbers()
    lines = ["timestamp," + ",".join(columns)]
    for i, opened in enumerate(np.datetime_as_string(candles.opened_at, unit="s")):
        values = ",".join(repr(float(column[i])) for column in columns.values())
        lines.append(f"{opened}Z,{values}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def tuner(
    environment: Mapping[str, str], *arguments: str, stderr: Any = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Begin `liveops tune` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from liveops.cli import main; main()", "tune", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def swept(environment: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Run `liveops tune` to its end, and return what it prints."""
    process = tuner(environment, *arguments, "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def trials_of(engine: Engine, study: str = STUDY) -> list[dict[str, Any]]:
    """Return the trials of a study as Optuna keeps them, by number: state, value and values tried.

    Numbers are rounded: doubles travel through Optuna's tables as they are, but nothing here hangs
    on their last bits.
    """
    with engine.connect() as connection:
        found = connection.execute(
            text("""
            SELECT t.number, t.state::text AS state, v.value::numeric(20, 12)::text AS value,
                   (SELECT jsonb_object_agg(p.param_name, p.param_value) FROM optuna.trial_params p
                    WHERE p.trial_id = t.trial_id) AS parameters
            FROM optuna.trials t
            JOIN optuna.studies s ON s.study_id = t.study_id
            LEFT JOIN optuna.trial_values v ON v.trial_id = t.trial_id
            WHERE s.study_name = :study ORDER BY t.number
            """),
            {"study": study},
        )
        return [dict(row) for row in found.mappings()]
