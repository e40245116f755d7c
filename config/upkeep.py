"""What is done every week: how long each task may take, and which policies are put away."""

from __future__ import annotations

from config.section import Count, Number, Section, setting


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
        1200, meaning="Limit of the task snapshot.", unit="seconds", ge=1, le=604800
    )
    retrain_seconds_max: Count = setting(
        10800, meaning="Limit of the task retrain.", unit="seconds", ge=1, le=604800
    )
    optuna_seconds_max: Count = setting(
        5400, meaning="Limit of the task optuna.", unit="seconds", ge=1, le=604800
    )
    purge_seconds_max: Count = setting(
        600, meaning="Limit of the task purge.", unit="seconds", ge=1, le=604800
    )
    database_seconds_max: Count = setting(
        2400, meaning="Limit of the task database.", unit="seconds", ge=1, le=604800
    )
    verify_seconds_max: Count = setting(
        1080, meaning="Limit of the task verify.", unit="seconds", ge=1, le=604800
    )
