"""Is a challenger better, where the two were never tried on the same start? Trials on a robot, each for itself.

They are judged once, by Boschloo's exact test: whoever looked after every trial and stopped when it suited would find
a winner too often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from world4rl.evaluation.statistics import Bounds, wilson_interval

ROUNDING = 1e-9  # of a difference of two rates
Counts = tuple[int, int]  # successes, trials


@dataclass(frozen=True)
class IndependentComparison:
    """What trials that are not paired say.

    Attributes:
        better: Whether the challenger is, with error probability alpha at most, and gained the minimum effect.
        effect: Difference of the success rates, in [-1, 1].
        interval: Newcombe's, of confidence 1 - 2 alpha: alpha at either end, as in the test.
        p_value: Boschloo's, one-sided, in (0, 1].
    """

    better: bool
    effect: float
    interval: Bounds
    p_value: float


def compare_independent(
    champion: Counts, challenger: Counts, *, alpha: float, minimum_effect: float
) -> IndependentComparison:
    """Judges trials that are not paired; meant to be asked once.

    Args:
        champion: Successes and trials of the champion.
        challenger: Successes and trials of the challenger.
        alpha: Largest probability of calling a challenger better that is not.
        minimum_effect: Gain that is worth a promotion, as a difference of success rates in (0, 1).

    Raises:
        ValueError: the counts are impossible, or there is no trial.
    """
    effect = challenger[0] / challenger[1] - champion[0] / champion[1]
    table = [[challenger[0], champion[0]], [challenger[1] - challenger[0], champion[1] - champion[0]]]
    p_value = min(float(stats.boschloo_exact(table, alternative="greater").pvalue), 1.0)
    return IndependentComparison(
        better=p_value <= alpha and effect >= minimum_effect - ROUNDING,
        effect=effect,
        interval=difference_interval(champion, challenger, 1 - 2 * alpha),
        p_value=p_value,
    )


def difference_interval(first: Counts, second: Counts, confidence: float) -> Bounds:
    """Interval of the difference of two independent success rates: second minus first.

    Newcombe's method 10 (Newcombe, Interval estimation for the difference between independent proportions, Statistics
    in Medicine 17:873-890, 1998): the Wilson intervals of both rates are squared and added.

    Args:
        first: Successes and trials.
        second: Successes and trials.
        confidence: Two-sided confidence in (0, 1).

    Returns:
        Lower and upper bound of the difference, in [-1, 1].

    Raises:
        ValueError: the counts are impossible, or there is no trial.
    """
    low_first, high_first = wilson_interval(*first, confidence)
    low_second, high_second = wilson_interval(*second, confidence)
    rate_first, rate_second = first[0] / first[1], second[0] / second[1]
    difference = rate_second - rate_first
    below = math.hypot(rate_second - low_second, high_first - rate_first)
    above = math.hypot(high_second - rate_second, rate_first - low_first)
    return max(difference - below, -1.0), min(difference + above, 1.0)
