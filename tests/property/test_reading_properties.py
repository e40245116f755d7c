"""What a night read comes back from its JSON, bit for bit; what is not all of it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.allocators.posterior import Moments
from bandit.core.claims import Claims
from bandit.core.errors import InvalidInput
from bandit.core.ladder import Family, Standing
from bandit.core.limits import ArmPlace
from bandit.core.merits import MarkedTrade, performance_of
from bandit.core.model import ArmMode, ArmRole, ArmStatus, PolicyName, Ppm, Rung, Verdict
from bandit.core.profit_factor import ProfitFactor, profit_factor
from bandit.core.reading import ArmReading

results = st.lists(st.floats(-1.0, 1.0), max_size=8)
numbers = st.floats(-1e6, 1e6)
counts = st.integers(0, 10**6)
factors: st.SearchStrategy[ProfitFactor] = results.map(profit_factor)
standings = st.builds(
    Standing,
    trades=counts,
    days=counts,
    mean_up=numbers,
    mean_down=numbers,
    factor_up=numbers,
    worst_block=st.none() | numbers,
    paper_up=st.none() | numbers,
    decay=st.none() | numbers,
    champion_decay=st.none() | numbers,
    fill_gap=st.sampled_from(Verdict),
    family=st.builds(
        Family, generation=st.integers(1, 99), size=st.integers(1, 64), promotions=counts
    ),
)
moments = st.lists(st.floats(-9.0, 9.0), max_size=9).map(
    lambda found: Moments(
        n=float(len(found)), total=sum(found), squares=sum(x * x for x in found) + 1.0
    )
)
performances = results.map(
    lambda found: performance_of(
        [marked(day, result) for day, result in enumerate(found)], starting_capital=Decimal(9)
    )
)


def marked(day: int, result: float) -> MarkedTrade:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return MarkedTrade(
        closed_at=at,
        unit=f"{day}",
        pnl=Decimal(str(result)),
        opened_at=at,
        entry_value=Decimal(1),
        worst_excursion=None if day % 5 else 0.1,
    )


@st.composite
def readings(draw: st.DrawFn) -> ArmReading:
    role = draw(st.sampled_from(ArmRole))
    place = ArmPlace(
        policy=PolicyName("an-arm"),
        role=role,
        status=draw(st.sampled_from(ArmStatus)),
        mode=draw(st.sampled_from(ArmMode)),
        ppm=Ppm(draw(st.integers(0, 10**6))),
        trades=draw(counts),
        rung=draw(st.sampled_from(Rung)),
    )
    drawdowns = st.floats(0.0, 100.0)
    nothing = ProfitFactor(gross_profit=0.0, gross_loss=0.0, n=0, n_losses=0)
    return ArmReading(
        place=place,
        pf_short=draw(factors),
        pf_long=draw(factors),
        dd_long_percent=draw(drawdowns),
        pf_prod=nothing if role is ArmRole.CHAMPION else draw(factors),
        resumed=draw(st.none() | st.tuples(factors, drawdowns)),
        standing=draw(st.none() | standings),
        moments=draw(st.none() | moments),
        shown=draw(st.none() | performances),
        claims=draw(st.none() | st.builds(Claims, n=counts, failed=counts)),
    )


def written(reading: ArmReading) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(reading.to_json(), allow_nan=False))
    return stored


@given(readings())
def test_a_reading_survives_its_json(reading: ArmReading) -> None:
    assert ArmReading.from_json(written(reading)) == reading


@given(readings(), st.data())
def test_a_reading_without_one_of_its_fields_is_refused(
    reading: ArmReading, data: st.DataObject
) -> None:
    stored = written(reading)
    # What an earlier release did not count yet, it did not write down either.
    missing = data.draw(st.sampled_from(sorted(stored.keys() - {"claims", "shown"})))
    del stored[missing]
    with pytest.raises(InvalidInput, match=f"must have {missing}, found nothing"):
        ArmReading.from_json(stored)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "emperor"},
        {"pf_30": None},
        {"pf_30": {"n": 1}},
        {"dd_150_percent": "deep"},
        {"standing": {"trades": 3}},
        {"moments": {"n": 1.0, "total": 1.0, "squares": 1.0, "cubes": 1.0}},
        {"resumed": 4.0},
        {"claims": {"n": 3}},
    ],
)
def test_what_this_release_never_wrote_down_is_refused(changes: dict[str, object]) -> None:
    factor = profit_factor([0.1, -0.1])
    place = ArmPlace(
        policy=PolicyName("an-arm"),
        role=ArmRole.CHALLENGER,
        status=ArmStatus.ACTIVE,
        mode=ArmMode.LIVE,
        ppm=Ppm(0),
        trades=2,
    )
    reading = ArmReading(
        place=place, pf_short=factor, pf_long=factor, dd_long_percent=1.0, pf_prod=factor
    )
    with pytest.raises(InvalidInput, match="reading: must"):
        ArmReading.from_json(written(reading) | changes)
