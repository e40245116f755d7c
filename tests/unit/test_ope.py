"""Off-policy evaluation: small logs by hand, and every reason to refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from bandit.core.decision_log import (
    ArmMixture,
    DecisionLog,
    ExternalPolicy,
    Floats,
    Integers,
    overlap,
    single_arm,
)
from bandit.core.errors import InvalidInput
from bandit.core.ope import (
    PRIOR_OUTCOMES,
    Evaluated,
    Refused,
    SupportRule,
    doubly_robust,
    drawn,
    evaluate,
    standard_error,
    stratum_means,
)

LENIENT = SupportRule(decisions_min=50, ess_min=10.0)


def log_of(
    propensities: list[list[float]] | Floats,
    chosen: list[int] | Integers,
    rewards: list[float] | Floats,
    *,
    strata: list[int] | Integers | None = None,
    proposed: list[list[int]] | Integers | None = None,
) -> DecisionLog:
    n = len(rewards)
    return DecisionLog(
        decisions=[f"d{i}" for i in range(n)],
        propensities=np.array(propensities, dtype=float),
        chosen=np.array(chosen, dtype=np.int64),
        rewards=np.array(rewards, dtype=float),
        strata=np.zeros(n, dtype=np.int64) if strata is None else np.array(strata),
        proposed=None if proposed is None else np.array(proposed),
    )


def drawn_log(n: int, share: float, *, seed: int = 1, proposed: bool = False) -> DecisionLog:
    """A log of two arms that was really drawn, three strata, actions that often agree."""
    rng = np.random.default_rng(seed)
    chosen = (rng.random(n) < share).astype(np.int64)
    return log_of(
        np.tile([1.0 - share, share], (n, 1)),
        chosen,
        rng.standard_t(4, n).round(6),
        strata=rng.integers(0, 3, n),
        proposed=rng.integers(0, 2, (n, 2)) if proposed else None,
    )


def answered(log: DecisionLog, candidate: ArmMixture | ExternalPolicy) -> Evaluated:
    answer = evaluate(log, candidate, rule=LENIENT)
    assert isinstance(answer, Evaluated), answer
    return answer


def refused_by(answer: Evaluated | Refused) -> list[str]:
    assert isinstance(answer, Refused)
    return [reason.check for reason in answer.failed]


def test_values_by_hand() -> None:
    # Arm 1 was drawn with 1/4: 25 wins of 1 and 25 losses of 0.5 weigh 4, 150 others weigh 0.
    log = log_of(
        [[0.75, 0.25]] * 200,
        [1] * 50 + [0] * 150,
        [1.0] * 25 + [-0.5] * 25 + [9.0] * 150,
    )
    answer = answered(log, single_arm(1, arms=2))
    assert answer.ips.value == pytest.approx((25 * 4 - 12.5 * 4) / 200)  # 0.25
    assert answer.snips.value == pytest.approx(0.25)
    assert answer.support.ess == pytest.approx(50.0)
    # The fit of the cell before its i-th row: (sum of the rewards before) / (i + 25).
    seen, direct, corrections = 0.0, 0.0, 0.0
    for i, reward in enumerate([1.0] * 25 + [-0.5] * 25):
        fit = seen / (i + PRIOR_OUTCOMES)
        direct += fit
        corrections += 4.0 * (reward - fit)
        seen += reward
    direct += 150 * seen / (50 + PRIOR_OUTCOMES)
    assert answer.dr.value == pytest.approx((direct + corrections) / 200)


@pytest.mark.parametrize("proposed", [False, True])
def test_three_estimates_agree_with_plain_python(proposed: bool) -> None:
    log = drawn_log(400, 0.3, proposed=proposed)
    ips, snips, dr, ess = in_plain_python(log, [0.2, 0.8], weight_max=50.0)
    answer = answered(log, ArmMixture(probabilities=np.array([0.2, 0.8])))
    assert answer.ips.value == pytest.approx(ips, rel=1e-12)
    assert answer.snips.value == pytest.approx(snips, rel=1e-12)
    assert answer.dr.value == pytest.approx(dr, rel=1e-12)
    assert answer.support.ess == pytest.approx(ess, rel=1e-12)


def in_plain_python(
    log: DecisionLog, mixture: list[float], *, weight_max: float
) -> tuple[float, float, float, float]:
    """IPS, SNIPS, DR and effective size, written down from the definitions."""
    fits: dict[tuple[int, int], list[float]] = {}
    weights, weighted, robust = [], [], []
    for i, reward in enumerate(log.rewards.tolist()):
        p = log.propensities[i].tolist()
        acts = [0, 1] if log.proposed is None else log.proposed[i].tolist()
        stratum, done = int(log.strata[i]), acts[int(log.chosen[i])]
        mu: dict[int, float] = {}
        pi: dict[int, float] = {}
        for k, act in enumerate(acts):
            mu[act] = mu.get(act, 0.0) + p[k]
            pi[act] = pi.get(act, 0.0) + mixture[k]
        fit = {act: mean_of(fits.get((stratum, act), [])) for act in mu}
        weight = min(pi[done] / mu[done], weight_max)
        weights.append(weight)
        weighted.append(weight * reward)
        direct = sum(pi[act] * fit[act] for act in mu)
        robust.append(direct + weight * (reward - fit[done]))
        fits.setdefault((stratum, done), []).append(reward)
    n, total = len(weights), math.fsum(weights)
    ess = total**2 / math.fsum(w * w for w in weights)
    return math.fsum(weighted) / n, math.fsum(weighted) / total, math.fsum(robust) / n, ess


def mean_of(rewards: list[float]) -> float:
    return math.fsum(rewards) / (len(rewards) + PRIOR_OUTCOMES)


def test_arms_that_propose_the_same_answer_for_each_other() -> None:
    log = log_of([[0.9, 0.1]] * 2, [0, 0], [1.0, 1.0], proposed=[[5, 5], [5, 6]])
    met = overlap(log, single_arm(1, arms=2), propensity_min=0.02)
    assert drawn(log, met.ratios).tolist() == [1.0, 0.0]
    silent = log_of([[0.9, 0.1]] * 2, [0, 0], [1.0, 1.0])
    met = overlap(silent, single_arm(1, arms=2), propensity_min=0.02)
    assert drawn(silent, met.ratios).tolist() == [0.0, 0.0]


def test_a_row_in_which_an_arm_was_silent_counts_arm_by_arm() -> None:
    log = log_of([[0.5, 0.5]] * 2, [0, 0], [1.0, 1.0], proposed=[[5, 5], [5, -1]])
    met = overlap(log, single_arm(1, arms=2), propensity_min=0.02)
    assert drawn(log, met.ratios).tolist() == [1.0, 0.0]
    # An arm that could not be drawn may be silent: nothing of mu rests on it.
    halted = log_of([[0.5, 0.5, 0.0]], [0], [1.0], proposed=[[5, 5, -1]])
    assert halted.says_actions.tolist() == [True]
    assert overlap(halted, single_arm(2, arms=3), propensity_min=0.02).unsupported.tolist() == [1.0]


def test_an_outside_policy_is_the_arm_that_always_proposes_the_same() -> None:
    log = drawn_log(400, 0.3, proposed=True)
    assert log.proposed is not None
    outside = answered(log, ExternalPolicy(actions=log.proposed[:, 1]))
    inside = answered(log, single_arm(1, arms=2))
    assert outside == inside


def test_an_outside_policy_meets_nothing_where_arms_were_silent() -> None:
    log = drawn_log(400, 0.3)
    answer = evaluate(log, ExternalPolicy(actions=log.chosen), rule=LENIENT)
    assert refused_by(answer) == ["unsupported_ratio", "ess", "ess_trades"]


def test_a_perfect_model_leaves_nothing_to_correct() -> None:
    truth = np.array([[0.5, -1.0], [2.0, 0.25], [0.0, 1.0]])  # by stratum and arm
    log = drawn_log(300, 0.3)
    model = truth[log.strata]
    exact = log_of(log.propensities, log.chosen, drawn(log, model), strata=log.strata)
    met = overlap(exact, single_arm(1, arms=2), propensity_min=0.02)
    scores = doubly_robust(exact, met, drawn(exact, met.ratios), model)
    assert scores == pytest.approx(model[:, 1], rel=1e-12)


def test_the_model_never_sees_the_row_it_corrects_nor_a_later_one() -> None:
    log = drawn_log(60, 0.5)
    before = stratum_means(log)
    later = log.rewards.copy()
    later[30:] += 100.0
    after = stratum_means(log_of(log.propensities, log.chosen, later, strata=log.strata))
    assert after[:31] == pytest.approx(before[:31], abs=1e-9)
    assert np.abs(after[31:] - before[31:]).max() > 1.0  # control: later rows do see them


def test_weights_are_capped_and_the_share_that_was_cut_is_told() -> None:
    # 1 % of the decisions draw arm 1 with 1/100: a weight of 100 becomes 50.
    n = 2000
    shares = np.tile([0.5, 0.5], (n, 1))
    shares[:20] = [0.99, 0.01]
    chosen = np.tile([0, 1], n // 2)
    chosen[:20] = [1] + [0] * 19
    rewards = np.tile([1.0, 1.0, -1.0, -1.0], n // 4)
    answer = answered(log_of(shares, chosen, rewards), single_arm(1, arms=2))
    assert answer.support.capped_ratio == pytest.approx(50.0 / (100.0 + 990 * 2.0))
    assert answer.support.unsupported_ratio == pytest.approx(0.01)
    shares[20] = [0.99, 0.01]
    chosen[20] = 0
    refused = evaluate(log_of(shares, chosen, rewards), single_arm(1, arms=2), rule=LENIENT)
    assert refused_by(refused) == ["unsupported_ratio"]


def test_a_propensity_of_exactly_the_floor_supports() -> None:
    # In floating point the three that agree sum to 0.019999999999999997.
    log = log_of([[0.98, 0.001, 0.001, 0.018]], [0], [1.0], proposed=[[1, 2, 2, 2]])
    met = overlap(log, single_arm(1, arms=4), propensity_min=0.02)
    assert met.unsupported == pytest.approx([0.0], abs=1e-12)


REFUSALS = {
    "decisions": (drawn_log(999, 0.5), SupportRule()),
    "ess": (drawn_log(2000, 0.03), SupportRule()),
}


@pytest.mark.parametrize("check", REFUSALS)
def test_too_little_is_refused_by_name_and_value(check: str) -> None:
    log, rule = REFUSALS[check]
    answer = evaluate(log, single_arm(1, arms=2), rule=rule)
    assert check in refused_by(answer)
    assert isinstance(answer, Refused)
    reason = next(r for r in answer.failed if r.check == check)
    assert reason.value == getattr(answer.support, check)
    assert reason.limit == getattr(rule, f"{check}_min")
    enough = evaluate(drawn_log(1000, 0.5), single_arm(1, arms=2), rule=rule)
    assert isinstance(enough, Evaluated)


def test_a_candidate_that_hardly_trades_is_refused() -> None:
    log = drawn_log(2000, 0.5)
    rare = np.where(np.arange(2000) % 50 == 0, log.rewards, 0.0)
    answer = evaluate(
        log_of(log.propensities, log.chosen, rare), single_arm(1, arms=2), rule=SupportRule()
    )
    assert refused_by(answer) == ["ess_trades"]


def test_propensities_that_nothing_was_drawn_by_are_refused() -> None:
    log = drawn_log(2000, 0.5)
    told = log_of(np.tile([0.7, 0.3], (2000, 1)), log.chosen, log.rewards)
    answer = evaluate(told, single_arm(1, arms=2), rule=SupportRule())
    assert refused_by(answer) == ["weight_deviations"]


def test_deviations_of_weights_by_hand() -> None:
    # Weights of 4 with probability 1/4 have mean 1 and variance 3: 60 of 200 drawn make a sum
    # of 240, which lies 40 / sqrt(600) deviations from 200.
    log = log_of([[0.75, 0.25]] * 200, [1] * 60 + [0] * 140, [1.0, -1.0] * 100)
    support = answered(log, single_arm(1, arms=2)).support
    assert support.weight_deviations == pytest.approx(40.0 / math.sqrt(600.0))


def test_an_empty_log_is_refused_and_not_an_error() -> None:
    empty = log_of(np.empty((0, 2)), [], [])
    assert refused_by(evaluate(empty, single_arm(0, arms=2), rule=LENIENT)) == [
        "decisions",
        "ess",
        "ess_trades",
    ]
    nobody = ExternalPolicy(actions=np.empty(0, dtype=np.int64))
    assert "decisions" in refused_by(evaluate(empty, nobody, rule=LENIENT))


BAD_LOGS: dict[str, tuple[str, Callable[[], object]]] = {
    "NaN reward": ("rewards", lambda: log_of([[1.0]], [0], [math.nan])),
    "infinite reward": ("rewards", lambda: log_of([[1.0]], [0], [math.inf])),
    "absurd reward": ("rewards", lambda: log_of([[1.0]], [0], [1000.0])),
    "sum below 1": ("propensities", lambda: log_of([[0.5, 0.5 - 2e-9]], [0], [1.0])),
    "negative": ("propensities", lambda: log_of([[1.5, -0.5]], [0], [1.0])),
    "NaN propensity": ("propensities", lambda: log_of([[math.nan, 1.0]], [1], [1.0])),
    "chosen with 0": ("propensities", lambda: log_of([[0.0, 1.0]], [0], [1.0])),
    "no arms": ("propensities", lambda: log_of(np.empty((1, 0)), [0], [1.0])),
    "unknown arm": ("chosen", lambda: log_of([[1.0]], [1], [1.0])),
    "short column": ("chosen", lambda: log_of([[1.0], [1.0]], [0], [1.0, 1.0])),
    "negative stratum": ("strata", lambda: log_of([[1.0]], [0], [1.0], strata=[-1])),
    "negative action": ("proposed", lambda: log_of([[1.0]], [0], [1.0], proposed=[[-2]])),
    "mixture": ("probabilities", lambda: ArmMixture(probabilities=np.array([0.5, 0.6]))),
    "whole mixture": (
        "probabilities",
        lambda: ArmMixture(probabilities=np.eye(2, dtype=float)[1:, :, None]),
    ),
    "outside code": ("actions", lambda: ExternalPolicy(actions=np.array([-1]))),
    "outside float": ("actions", lambda: ExternalPolicy(actions=np.array([1.0]))),
    "arm": ("arm", lambda: single_arm(2, arms=2)),
    "cap": ("propensity_min", lambda: SupportRule(propensity_min=0.0)),
    "confidence": ("confidence", lambda: SupportRule(confidence=1.0)),
    "few": ("decisions_min", lambda: SupportRule(decisions_min=49)),
    "thin": ("ess_min", lambda: SupportRule(ess_min=math.nan)),
    "unsupported": ("unsupported_ratio_max", lambda: SupportRule(unsupported_ratio_max=1.0)),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_malformed_input_names_its_field(case: str) -> None:
    field, make = BAD_LOGS[case]
    with pytest.raises(InvalidInput) as refused:
        make()
    assert refused.value.field == field


def test_columns_have_the_types_they_are_read_as() -> None:
    whole = np.array([[1]])
    with pytest.raises(InvalidInput, match="propensities: must be 64-bit floats"):
        DecisionLog(
            decisions=["a"],
            propensities=whole,  # type: ignore[arg-type]
            chosen=np.array([0]),
            rewards=np.array([1.0]),
            strata=np.array([0]),
        )
    assert log_of([[1.0]], [0], [1.0]).actions.tolist() == [[0]]


def test_a_decision_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="decisions: must be 2 different ids, found 1"):
        DecisionLog(
            decisions=["a", "a"],
            propensities=np.ones((2, 1)),
            chosen=np.zeros(2, dtype=np.int64),
            rewards=np.zeros(2),
            strata=np.zeros(2, dtype=np.int64),
        )


def test_a_candidate_of_another_shape_is_refused() -> None:
    log = log_of([[0.5, 0.5]] * 3, [0, 1, 0], [1.0, 2.0, 3.0])
    with pytest.raises(InvalidInput, match="probabilities"):
        evaluate(log, ArmMixture(probabilities=np.array([0.5, 0.25, 0.25])), rule=LENIENT)
    with pytest.raises(InvalidInput, match="actions"):
        evaluate(log, ExternalPolicy(actions=np.array([0])), rule=LENIENT)


def test_intervals_hold_the_truth_where_returns_come_in_runs() -> None:
    # 300 logs: four standard deviations of a coverage of 0.95 are 0.05.
    rng = np.random.default_rng(10)
    held, textbook = 0, 0
    for _ in range(300):
        noise = rng.standard_normal(1200)
        runs = lfilter([1.0], [1.0, -0.8], noise)[200:]  # AR(1) about 0, after 200 to settle
        chosen = rng.integers(0, 2, 1000)
        log = log_of(np.full((1000, 2), 0.5), chosen, runs)
        snips = answered(log, single_arm(1, arms=2)).snips
        held += snips.interval.low <= 0.0 <= snips.interval.high
        own = runs[chosen == 1]
        textbook += abs(own.mean()) <= 1.96 * own.std() / len(own) ** 0.5
    assert 0.90 <= held / 300 <= 1.0
    assert textbook / 300 < 0.80  # control: the interval of independent trades


def test_an_interval_is_six_cosines_of_students_t_on_the_clock_of_the_draw() -> None:
    log = drawn_log(400, 0.5)
    shares = np.where(np.arange(400) < 200, 0.1, 0.5)
    chosen = (np.random.default_rng(2).random(400) < shares).astype(np.int64)
    moved = log_of(np.stack([1.0 - shares, shares], axis=1), chosen, log.rewards)
    ips = answered(moved, single_arm(1, arms=2)).ips
    scores = chosen / shares * log.rewards
    assert ips.standard_error == pytest.approx(standard_error(scores, 1.0 / shares), rel=1e-9)
    assert ips.standard_error != pytest.approx(standard_error(scores, np.ones(400)), rel=1e-3)
    # 2.4469: the 97.5 % quantile of Student's t with six degrees of freedom, from a printed table.
    assert ips.interval.high - ips.value == pytest.approx(2.4469 * ips.standard_error, rel=1e-4)
    snips = answered(moved, single_arm(1, arms=2)).snips
    weights = chosen / shares
    residuals = weights * (log.rewards - snips.value) / weights.mean()
    assert snips.standard_error == pytest.approx(standard_error(residuals, 1.0 / shares), rel=1e-9)
    assert ips.value - ips.interval.low == pytest.approx(2.4469 * ips.standard_error, rel=1e-4)
