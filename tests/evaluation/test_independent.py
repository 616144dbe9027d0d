"""Trials that are not paired: an exact test, asked once, and an interval from the literature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from world4rl.evaluation.independent import compare_independent, difference_interval

RUNS = 4000


# Newcombe (1998), table II, method 10.
@pytest.mark.parametrize(
    ("second", "first", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_interval_is_newcombes(second: tuple[int, int], first: tuple[int, int], low: float, high: float) -> None:
    assert difference_interval(first, second, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_a_challenger_that_is_no_better_is_promoted_with_probability_alpha_at_most(rate: float) -> None:
    rng = np.random.default_rng(0)
    seen: dict[tuple[int, int], bool] = {}
    promoted = 0
    for one, other in zip(rng.binomial(20, rate, RUNS).tolist(), rng.binomial(20, rate, RUNS).tolist(), strict=True):
        if (one, other) not in seen:
            seen[one, other] = compare_independent((one, 20), (other, 20), alpha=0.05, minimum_effect=0.05).better
        promoted += seen[one, other]
    assert promoted / RUNS <= 0.05 + 3.1 * np.sqrt(0.05 * 0.95 / RUNS)


def test_what_twenty_trials_can_tell() -> None:
    def better(one: int, other: int) -> bool:
        return compare_independent((one, 20), (other, 20), alpha=0.05, minimum_effect=0.05).better

    assert better(12, 18)
    assert not better(12, 15)
    assert not better(18, 12)


def test_a_certain_gain_below_the_minimum_does_not_count() -> None:
    found = compare_independent((500, 1000), (545, 1000), alpha=0.05, minimum_effect=0.05)
    assert found.p_value <= 0.05
    assert not found.better
    just_enough = compare_independent((110, 200), (120, 200), alpha=0.2, minimum_effect=0.05)
    assert just_enough.better, "0.6 - 0.55 is a little less than 0.05 in binary"


@given(
    first=st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    second=st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
)
def test_the_interval_holds_the_difference_and_turns_with_the_sides(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    low, high = difference_interval(first, second, 0.9)
    difference = second[0] / second[1] - first[0] / first[1]
    assert -1 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1
    assert difference_interval(second, first, 0.9) == pytest.approx((-high, -low))
