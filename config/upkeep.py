"""What is done every week: how long each task may take, and which policies are put away."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from config.section import Count, Number, Section, setting

MAINTENANCE_MAX: Final = timedelta(hours=6)
"""How long all tasks of the weekly maintenance may take together: its job ends then."""


class Purge(Section):
    """Which policies the weekly maintenance puts away; they can be taken back."""

    max_age_days: Count = setting(
        60, meaning="A policy older than this goes.", unit="days", ge=1, le=36500
    )
    pf_min: Number = setting(
        1.2, meaning="A policy whose profit factor is lower goes.", unit="ratio", ge=0, le=100
    )
    active_min: Count = setting(
        3,
        meaning="So many active policies stay, whatever they are.",
        unit="policies",
        ge=1,
        le=1000,
    )


class Maintenance(Section):
    """How long each task of the weekly maintenance may take; together six hours at most."""

    snapshot_seconds_max: Count = setting(
        1200, meaning="Limit of the task snapshot.", unit="seconds", ge=1, le=21600
    )
    retrain_seconds_max: Count = setting(
        10800, meaning="Limit of the task retrain.", unit="seconds", ge=1, le=21600
    )
    optuna_seconds_max: Count = setting(
        5400, meaning="Limit of the task optuna.", unit="seconds", ge=1, le=21600
    )
    purge_seconds_max: Count = setting(
        600, meaning="Limit of the task purge.", unit="seconds", ge=1, le=21600
    )
    database_seconds_max: Count = setting(
        2400, meaning="Limit of the task database.", unit="seconds", ge=1, le=21600
    )
    verify_seconds_max: Count = setting(
        1080, meaning="Limit of the task verify.", unit="seconds", ge=1, le=21600
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        most = round(MAINTENANCE_MAX.total_seconds())
        total = sum(getattr(self, key) for key in type(self).model_fields)
        if total > most:
            rule = "must have limits of {most} seconds in all at most: the job ends then"
            raise PydanticCustomError("together", rule, {"most": most, "of": f"{total} in all"})
        return self
