"""How sure the figures are: intervals, paired tests, calibration, and agreement of imagination with the simulator.

Everything here is a pure function of counts or arrays. scipy does the arithmetic where it has the method; what it
lacks (the interval of a paired difference, MMRV) cites its source and is tested against published figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Bounds = tuple[float, float]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Bounds:
    """Wilson's score interval of a success rate (without continuity correction).

    Args:
        successes: Successful trials, 0 to `trials`.
        trials: Independent trials, at least 1.
        confidence: Two-sided confidence in (0, 1).

    Returns:
        Lower and upper bound of the rate, both in [0, 1].

    Raises:
        ValueError: the counts are impossible.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials")
    interval = stats.binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(gained: int, lost: int) -> float:
    """McNemar's exact test that two paired success rates are equal, two-sided.

    Only pairs that disagree carry information: under the hypothesis, each is a gain or a loss with probability 1/2.

    Args:
        gained: Pairs in which only the second policy succeeded.
        lost: Pairs in which only the first policy succeeded.

    Returns:
        The p-value in (0, 1]; 1 when no pair disagrees.
    """
    return 1.0 if gained + lost == 0 else float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def paired_difference_interval(both: int, gained: int, lost: int, neither: int, confidence: float = 0.95) -> Bounds:
    """Interval of the difference of two paired success rates: second policy minus first.

    Newcombe's method 10 (Newcombe, Improved confidence intervals for the difference between binomial proportions
    based on paired data, Statistics in Medicine 17:2635-2650, 1998): the Wilson intervals of both rates are squared
    and added, with their correlation. Chosen over the Wald interval, which covers too seldom at 100 pairs and
    collapses to a point when no pair disagrees, and over Tango's score interval, which covers alike but has no
    closed form.

    Args:
        both: Pairs in which both policies succeeded.
        gained: Pairs in which only the second succeeded.
        lost: Pairs in which only the first succeeded.
        neither: Pairs in which both failed.
        confidence: Two-sided confidence in (0, 1).

    Returns:
        Lower and upper bound of the difference of the rates, in [-1, 1].

    Raises:
        ValueError: a count is negative, or there is no pair.
    """
    trials = both + gained + lost + neither
    if min(both, gained, lost, neither) < 0 or trials == 0:
        raise ValueError(f"impossible counts of pairs: {both=} {gained=} {lost=} {neither=}")
    second, first = (both + gained) / trials, (both + lost) / trials
    second_low, second_high = wilson_interval(both + gained, trials, confidence)
    first_low, first_high = wilson_interval(both + lost, trials, confidence)
    correlation = _phi(both, gained, lost, neither)
    below = _joined(second - second_low, first_high - first, correlation)
    above = _joined(second_high - second, first - first_low, correlation)
    difference = second - first
    return max(difference - below, -1.0), min(difference + above, 1.0)


def _phi(both: int, gained: int, lost: int, neither: int) -> float:
    """Correlation of the two outcomes, shrunk towards 0 as Newcombe's method 10 does."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    determinant = float(both * neither - gained * lost)
    if determinant > 0:
        determinant = max(determinant - (both + gained + lost + neither) / 2, 0.0)
    return determinant / math.sqrt(margins)


def _joined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))


@dataclass(frozen=True)
class PairedComparison:
    """Two policies on the same trials. Points are percentage points, in [-100, 100]."""

    trials: int
    first_successes: int
    second_successes: int
    gained: int  # trials that only the second policy solved
    lost: int  # trials that only the first policy solved
    gain_points: float
    gain_interval: Bounds  # points
    p_value: float  # exact McNemar


def compare_paired(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> PairedComparison:
    """Compares two policies on the same trials.

    Args:
        first: (N,) success of the first policy (BC), bool or 0/1.
        second: (N,) success of the second policy (refined) on the same trials, in the same order.
        confidence: Two-sided confidence of the interval.

    Returns:
        The comparison, second minus first.

    Raises:
        ValueError: the shapes differ, or there is no trial.
    """
    before, after = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(f"paired outcomes must be two equally long rows, got shapes {before.shape} and {after.shape}")
    both = int((before & after).sum())
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    neither = int((~before & ~after).sum())
    low, high = paired_difference_interval(both, gained, lost, neither, confidence)
    return PairedComparison(
        trials=before.size,
        first_successes=both + lost,
        second_successes=both + gained,
        gained=gained,
        lost=lost,
        gain_points=100 * (gained - lost) / before.size,
        gain_interval=(100 * low, 100 * high),
        p_value=mcnemar_exact(gained, lost),
    )


@dataclass(frozen=True)
class UnpairedComparison:
    """Two policies on trials of their own. Points are percentage points, in [-100, 100]."""

    gain_points: float
    gain_interval: Bounds  # points
    p_value: float  # Fisher's exact test


def compare_unpaired(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> UnpairedComparison:
    """Compares two policies that were not tried on the same starting positions, as on a robot.

    The interval is Newcombe's hybrid score interval (method 10 for independent proportions, Statistics in Medicine
    17:873-890, 1998): the Wilson intervals of both rates, squared and added.

    Args:
        first: Successes and trials of the first policy (BC).
        second: Those of the second one (refined).
        confidence: Two-sided confidence of the interval.

    Returns:
        The comparison, second minus first.

    Raises:
        ValueError: the counts are impossible, or a policy has no trials.
    """
    (first_low, first_high), (second_low, second_high) = (
        wilson_interval(*each, confidence) for each in (first, second)
    )
    rates = first[0] / first[1], second[0] / second[1]
    below = _joined(rates[1] - second_low, first_high - rates[0], 0.0)
    above = _joined(second_high - rates[1], rates[0] - first_low, 0.0)
    gain = rates[1] - rates[0]
    table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
    return UnpairedComparison(
        gain_points=100 * gain,
        gain_interval=(100 * max(gain - below, -1.0), 100 * min(gain + above, 1.0)),
        p_value=min(1.0, float(stats.fisher_exact(table).pvalue)),
    )


def mean_gain(gains: Sequence[float], intervals: Sequence[Bounds]) -> tuple[float, Bounds]:
    """Mean of independent gains (one a task) with its interval, from the interval of each.

    The margins are squared and added (MOVER: Zou and Donner, Construction of confidence limits about effect
    measures, Statistics in Medicine 27:1693-1702, 2008). The interval speaks of these very policies on new trials,
    not of training them again: for that there is `gain_over_seeds`.

    Args:
        gains: Gain of each task, in points.
        intervals: Interval of each gain, all of the same confidence, in points.

    Returns:
        The mean and its interval, in points.

    Raises:
        ValueError: the lengths differ or are zero.
    """
    if not gains or len(gains) != len(intervals):
        raise ValueError(f"{len(gains)} gains with {len(intervals)} intervals")
    mean = sum(gains) / len(gains)
    below = math.sqrt(sum((gain - low) ** 2 for gain, (low, _) in zip(gains, intervals, strict=True)))
    above = math.sqrt(sum((high - gain) ** 2 for gain, (_, high) in zip(gains, intervals, strict=True)))
    return mean, (mean - below / len(gains), mean + above / len(gains))


def gain_over_seeds(gains: ArrayLike, confidence: float = 0.95) -> tuple[float, Bounds]:
    """Mean gain over seeds, each a repetition of the whole lineage, with Student's t interval.

    The seed is the unit: within a seed the tasks share one world model and classifier, so their gains are not
    independent, and each seed's mean carries the noise of training as well as that of the trials. With three seeds
    a bootstrap over seeds has only ten distinct samples and covers 95 % no more than about three times in four
    (the tests measure it); t with 2 degrees of freedom is wide and right.

    Args:
        gains: (seeds,) or (seeds, tasks), gains in points; at least two seeds.
        confidence: Two-sided confidence in (0, 1).

    Returns:
        The mean and its interval, in points. Equal gains in every seed give an interval of no width.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    values = np.asarray(gains, dtype=np.float64)
    if values.ndim not in (1, 2) or values.shape[0] < 2:
        raise ValueError(f"an interval over seeds needs at least two of them, got gains of shape {values.shape}")
    per_seed = values.reshape(values.shape[0], -1).mean(axis=1)
    mean, error = float(per_seed.mean()), float(stats.sem(per_seed))
    if error == 0:
        return mean, (mean, mean)
    low, high = stats.t.interval(confidence, df=len(per_seed) - 1, loc=mean, scale=error)
    return mean, (float(low), float(high))


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram; the two means are None when the bin is empty."""

    low: float  # inclusive
    high: float  # exclusive, but for the last bin
    count: int
    confidence: float | None  # mean predicted probability
    frequency: float | None  # share of true successes


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error in [0, 1] and the bins it was taken over."""

    ece: float
    bins: tuple[ReliabilityBin, ...]

    def bins_as_json(self) -> list[dict[str, Any]]:
        """The bins as JSON values, in order: what `reliability` in the classifier's metrics holds."""
        return [asdict(each) for each in self.bins]


def calibration(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> Calibration:
    """Expected calibration error over bins of equal width (Guo et al., On Calibration of Modern Networks, 2017).

    Args:
        probabilities: (N,) predicted probability of success, in [0, 1].
        outcomes: (N,) whether it was one, bool or 0/1.
        bins: Number of bins over [0, 1].

    Returns:
        The error, sum over bins of |mean probability - success rate| weighted by the bin's share, and the bins.

    Raises:
        ValueError: the shapes differ, there is no prediction, or a probability lies outside [0, 1].
    """
    predicted, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=bool)
    if predicted.shape != happened.shape or predicted.ndim != 1 or not predicted.size:
        raise ValueError(f"need two equally long rows, got shapes {predicted.shape} and {happened.shape}")
    if not (np.isfinite(predicted).all() and predicted.min() >= 0 and predicted.max() <= 1):
        raise ValueError("probabilities must lie in [0, 1]")
    index = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    rows, error = [], 0.0
    for number in range(bins):
        inside = index == number
        count = int(inside.sum())
        confidence = float(predicted[inside].mean()) if count else None
        frequency = float(happened[inside].mean()) if count else None
        if confidence is not None and frequency is not None:
            error += count / predicted.size * abs(confidence - frequency)
        rows.append(ReliabilityBin(number / bins, (number + 1) / bins, count, confidence, frequency))
    return Calibration(error, tuple(rows))


def pearson(real: ArrayLike, imagined: ArrayLike) -> float | None:
    """Pearson's correlation of real with imagined success over checkpoints.

    Args:
        real: (N,) success rates in the simulator.
        imagined: (N,) success rates of the same checkpoints in the world model.

    Returns:
        The correlation in [-1, 1]; None where it is not defined (fewer than two checkpoints, or a constant row).

    Raises:
        ValueError: the shapes differ.
    """
    one, other = _paired_rates(real, imagined)
    if one.size < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.pearsonr(one, other).statistic)


def mean_maximum_rank_violation(real: ArrayLike, imagined: ArrayLike) -> float:
    """MMRV: how badly the world model misorders checkpoints (Li et al., SIMPLER, 2024, section IV).

    For each checkpoint i the worst violation is the largest |real_i - real_j| over all j that the model orders the
    other way round than reality, [imagined_i < imagined_j] != [real_i < real_j]; MMRV is their mean.

    Args:
        real: (N,) success rates in the simulator, in [0, 1].
        imagined: (N,) success rates of the same checkpoints in the world model.

    Returns:
        MMRV in [0, 1]; 0 is a perfect order.

    Raises:
        ValueError: the shapes differ, or there is no checkpoint.
    """
    one, other = _paired_rates(real, imagined)
    if not one.size:
        raise ValueError("MMRV needs at least one checkpoint")
    misordered = (one[:, None] < one[None, :]) != (other[:, None] < other[None, :])
    return float((np.abs(one[:, None] - one[None, :]) * misordered).max(axis=1).mean())


def _paired_rates(real: ArrayLike, imagined: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(real, dtype=np.float64), np.asarray(imagined, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"need two equally long rows, got shapes {one.shape} and {other.shape}")
    return one, other
