"""The statistics against published figures, hand calculation and simulation."""

from __future__ import annotations

import json
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from world4rl.evaluation.statistics import (
    calibration,
    compare_paired,
    gain_over_seeds,
    mcnemar_exact,
    mean_gain,
    mean_maximum_rank_violation,
    paired_difference_interval,
    pearson,
    wilson_interval,
)


def test_wilson_interval_agrees_with_newcombes_published_table() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_stays_inside_and_refuses_impossible_counts() -> None:
    assert wilson_interval(10, 10)[1] == 1.0
    for successes, trials in [(11, 10), (-1, 10), (0, 0)]:
        with pytest.raises(ValueError, match="trials"):
            wilson_interval(successes, trials)


def test_mcnemar_is_the_sign_test_on_pairs_that_disagree() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 2**5)
    tail = sum(math.comb(54, k) for k in range(36, 55)) / 2**54
    assert mcnemar_exact(36, 18) == pytest.approx(2 * tail)
    assert mcnemar_exact(18, 36) == mcnemar_exact(36, 18)


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17:2635-2650, 1998, table III, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        # Fagerland, Lydersen and Laake, Statistics in Medicine 33:2850-2875, 2014 (there with the sign turned).
        ((1, 7, 1, 12), 0.026, 0.507),
    ],
)
def test_paired_interval_agrees_with_published_examples(
    pairs: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert paired_difference_interval(*pairs) == pytest.approx((low, high), abs=6e-4)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda pairs: sum(pairs) > 0))
@settings(max_examples=60, deadline=None)
def test_paired_interval_holds_the_estimate_and_turns_with_the_policies(pairs: tuple[int, int, int, int]) -> None:
    both, gained, lost, neither = pairs
    low, high = paired_difference_interval(both, gained, lost, neither)
    assert -1 <= low <= (gained - lost) / sum(pairs) <= high <= 1
    assert low < high
    turned = paired_difference_interval(both, lost, gained, neither)
    assert turned == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("pairs", [(0, 0, 0, 0), (-1, 2, 3, 4)])
def test_paired_interval_refuses_impossible_counts(pairs: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        paired_difference_interval(*pairs)


@pytest.mark.parametrize(
    "cells",
    [(0.45, 0.30, 0.12, 0.13), (0.30, 0.10, 0.10, 0.50), (0.88, 0.08, 0.02, 0.02), (0.55, 0.40, 0.02, 0.03)],
    ids=["gain of 18", "no gain", "near the ceiling", "gain of 38"],
)
def test_paired_interval_covers_the_truth_as_often_as_it_says(cells: tuple[float, float, float, float]) -> None:
    """100 pairs, the demo's number: the simulated coverage is never more than 1.5 points short of 95 %."""
    interval = lru_cache(maxsize=None)(paired_difference_interval)
    draws = np.random.default_rng(20).multinomial(100, cells, size=3000).tolist()
    truth = cells[1] - cells[2]
    covered = 0
    for pairs in draws:
        low, high = interval(*pairs)
        covered += low <= truth <= high
    assert 0.935 <= covered / len(draws) <= 0.985


def test_compare_paired_counts_each_kind_of_pair() -> None:
    first = [1, 1, 1, 0, 0, 0, 0, 1]
    second = [1, 1, 0, 1, 1, 1, 0, 1]
    result = compare_paired(first, second)
    assert (result.trials, result.first_successes, result.second_successes) == (8, 4, 6)
    assert (result.gained, result.lost) == (3, 1)
    assert result.gain_points == 25.0
    assert result.p_value == mcnemar_exact(3, 1)
    low, high = paired_difference_interval(3, 3, 1, 1)
    assert result.gain_interval == (100 * low, 100 * high)


@pytest.mark.parametrize(("first", "second"), [([1, 0], [1]), ([], []), ([[1]], [[1]])])
def test_compare_paired_refuses_rows_that_do_not_pair(first: list[int], second: list[int]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        compare_paired(first, second)


def test_mean_gain_adds_margins_in_quadrature() -> None:
    mean, (low, high) = mean_gain([10.0, 20.0], [(7.0, 14.0), (16.0, 23.0)])
    assert mean == 15.0
    assert low == pytest.approx(15 - math.hypot(3, 4) / 2)
    assert high == pytest.approx(15 + math.hypot(4, 3) / 2)
    assert mean_gain([10.0], [(7.0, 14.0)]) == (10.0, (7.0, 14.0))
    with pytest.raises(ValueError, match="1 gains with 0 intervals"):
        mean_gain([1.0], [])


def test_mean_gain_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    cells = np.array([[0.45, 0.30, 0.12, 0.13], [0.30, 0.35, 0.05, 0.30]])
    truth = 100 * float((cells[:, 1] - cells[:, 2]).mean())
    interval = lru_cache(maxsize=None)(paired_difference_interval)
    covered, repeats = 0, 1000
    for _ in range(repeats):
        pairs = [rng.multinomial(100, each).tolist() for each in cells]
        bounds = [interval(*each) for each in pairs]
        _, (low, high) = mean_gain([each[1] - each[2] for each in pairs], [(100 * a, 100 * b) for a, b in bounds])
        covered += low <= truth <= high
    assert 0.925 <= covered / repeats <= 0.985


def test_gain_over_seeds_is_students_t_by_hand() -> None:
    mean, (low, high) = gain_over_seeds([[10.0, 20.0], [20.0, 20.0], [20.0, 30.0]])
    assert mean == 20.0
    assert high - mean == pytest.approx(4.302653 * 5 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    assert gain_over_seeds([12.0, 12.0]) == (12.0, (12.0, 12.0))
    with pytest.raises(ValueError, match="at least two"):
        gain_over_seeds([[10.0, 20.0]])


def test_gain_over_three_seeds_covers_where_a_bootstrap_does_not() -> None:
    """Why `gain_over_seeds` uses t: two tasks that share their seed's luck, three seeds."""
    rng = np.random.default_rng(5)
    repeats, covered_by_t, covered_by_bootstrap = 1500, 0, 0
    for _ in range(repeats):
        gains = 15 + rng.normal(0, 8, size=(3, 1)) + rng.normal(0, 6, size=(3, 2))
        _, (low, high) = gain_over_seeds(gains)
        covered_by_t += low <= 15 <= high
        resampled = rng.choice(gains.mean(axis=1), size=(400, 3)).mean(axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        covered_by_bootstrap += low <= 15 <= high
    assert covered_by_t / repeats >= 0.93
    assert covered_by_bootstrap / repeats < 0.8


def test_calibration_by_hand() -> None:
    result = calibration([0.05, 0.15, 0.15, 0.95, 1.0], [0, 0, 1, 1, 0])
    expected = (1 * abs(0.05 - 0) + 2 * abs(0.15 - 0.5) + 2 * abs(0.975 - 0.5)) / 5
    assert result.ece == pytest.approx(expected)
    assert len(result.bins) == 10
    assert [each.count for each in result.bins] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert result.bins[2].confidence is None
    assert result.bins[2].frequency is None
    assert json.loads(json.dumps(result.bins_as_json()))[1] == {
        "low": 0.1,
        "high": 0.2,
        "count": 2,
        "confidence": pytest.approx(0.15),
        "frequency": 0.5,
    }


def test_calibration_of_a_calibrated_predictor_is_near_zero() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(50_000)
    assert calibration(predicted, rng.random(50_000) < predicted).ece < 0.01
    assert calibration(predicted, rng.random(50_000) < predicted**3).ece > 0.2


@pytest.mark.parametrize("predicted", [[1.2], [-0.1], [math.nan]])
def test_calibration_refuses_what_is_no_probability(predicted: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        calibration(predicted, [1])


def test_pearson_and_where_it_is_not_defined() -> None:
    assert pearson([0.1, 0.5, 0.9], [0.2, 0.6, 1.0]) == pytest.approx(1.0)
    assert pearson([0.1, 0.5, 0.9], [0.9, 0.5, 0.1]) == pytest.approx(-1.0)
    assert pearson([0.1, 0.5], [0.3, 0.3]) is None
    assert pearson([0.1], [0.3]) is None
    with pytest.raises(ValueError, match="equally long"):
        pearson([0.1, 0.2], [0.1])


def test_rank_violation_by_hand() -> None:
    real = [0.1, 0.5, 0.6]
    assert mean_maximum_rank_violation(real, [0.0, 0.2, 0.9]) == 0.0
    # The model swaps the last two: both are 0.1 out of order, the first is in order with either.
    assert mean_maximum_rank_violation(real, [0.0, 0.9, 0.2]) == pytest.approx((0 + 0.1 + 0.1) / 3)
    # Wholly reversed: the worst pair of each counts.
    assert mean_maximum_rank_violation(real, [0.9, 0.5, 0.1]) == pytest.approx((0.5 + 0.4 + 0.5) / 3)
    with pytest.raises(ValueError, match="at least one"):
        mean_maximum_rank_violation([], [])
