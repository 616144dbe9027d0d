"""Is a challenger better than the champion? A paired test that may stop at any trial and keeps its error rates.

Both policies are tried on the same seeds. A trial gives a difference d in {-1, 0, 1}: only the champion succeeded, both
or neither did, only the challenger did. Whoever bets against "the mean difference is at most m" with a fraction of the
capital on each trial has, if that is true, a capital that is expected never to grow: by Ville's inequality it ever
reaches 1/alpha with probability alpha at most, however often one looks (Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", 2024). No distribution is assumed. Which fraction is best depends on what is to be
found out, so the capital is spread evenly over many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

FRACTIONS = np.linspace(0.02, 0.98, 25)  # of the largest stake that cannot ruin the bettor
STEPS = 24  # halvings that find an end of the interval

Verdict = Literal["better", "not better", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """What the trials up to the verdict say; all of them where there is none yet.

    Attributes:
        verdict: `better`: the challenger is, with error probability alpha at most, and it gained the minimum effect.
            `not better`: it gains less than that, with error probability beta at most. `undecided`: neither yet.
        trials: Pairs that were tried.
        effect: Mean difference of the success rates, in [-1, 1].
        interval: Holds the true mean difference with probability 1 - 2 alpha at all trials together: alpha at either
            end, as in the verdict, so that a `better` challenger's interval lies above 0.
        won: Trials in which only the challenger succeeded.
        lost: Trials in which only the champion did.
        e_value: Capital, from 1, of whoever bet that the challenger is better.
        p_value: The smallest alpha at which that bet would have been won by now, at any trial; in (0, 1].
    """

    verdict: Verdict
    trials: int
    effect: float
    interval: tuple[float, float]
    won: int
    lost: int
    e_value: float
    p_value: float


def compare(
    champion: np.ndarray, challenger: np.ndarray, *, alpha: float, beta: float, minimum_effect: float
) -> Comparison:
    """Judges paired trials in the order in which they were made.

    The verdict is that of the first trial that allowed one: later trials cannot take it back, and a caller that stops
    there sees the same one, with the same figures.

    Args:
        champion: bool (n,): successes of the champion.
        challenger: bool (n,): successes of the challenger on the same seeds.
        alpha: Largest probability of calling a challenger better that is not.
        beta: Largest probability of calling one not better that gains the minimum effect.
        minimum_effect: Gain that is worth a promotion, as a difference of success rates in (0, 1). A challenger that
            is certain to be better is called so only while its mean gain is that large.
    """
    if len(champion) != len(challenger):
        raise ValueError(f"{len(champion)} and {len(challenger)} trials are not paired")
    differences = challenger.astype(np.int64) - champion.astype(np.int64)
    capital = log_capital(differences, 0.0, above=True)
    highest = np.maximum.accumulate(capital)  # Ville's inequality is about ever reaching the bound
    gained = np.cumsum(differences) >= minimum_effect * np.arange(1, len(differences) + 1)
    better = (highest >= -np.log(alpha)) & gained
    worse = log_capital(differences, minimum_effect, above=False) >= -np.log(beta)
    verdict, stop = _first(better, worse)
    seen = differences[:stop]
    return Comparison(
        verdict=verdict,
        trials=stop,
        effect=float(seen.mean()) if stop else 0.0,
        interval=confidence_interval(seen, 2 * alpha),
        won=int((seen > 0).sum()),
        lost=int((seen < 0).sum()),
        e_value=float(np.exp(capital[stop - 1])) if stop else 1.0,
        p_value=float(np.exp(-max(highest[stop - 1], 0.0))) if stop else 1.0,
    )


def _first(better: np.ndarray, worse: np.ndarray) -> tuple[Verdict, int]:
    """The verdict of the first trial that has one, and how many trials there were by then."""
    when = [int(np.argmax(reached)) + 1 if reached.any() else len(reached) + 1 for reached in (better, worse)]
    if min(when) > len(better):
        return "undecided", len(better)
    return ("better", when[0]) if when[0] <= when[1] else ("not better", when[1])


def log_capital(differences: np.ndarray, mean: float, *, above: bool) -> np.ndarray:
    """Log of the capital after each trial of whoever bets that the mean is not `mean`.

    Args:
        differences: (n,), in [-1, 1].
        mean: In [-1, 1].
        above: Whether the bet is that the true mean is above it (else: below).

    Returns:
        float64 (n,). If the true mean is `mean`, or on the other side of it, exp of this is a supermartingale from 1.
    """
    centred = differences.astype(np.float64) - mean
    if not above:
        centred = -centred
    largest_loss = 1.0 + mean if above else 1.0 - mean  # of a stake of one
    if largest_loss <= 0:
        return np.where(np.cumsum(centred > 0) > 0, np.inf, 0.0)  # nothing can be lost: any gain proves the point
    stakes = FRACTIONS / largest_loss
    growth = np.cumsum(np.log1p(np.outer(stakes, centred)), axis=1)
    highest = growth.max(axis=0, initial=-np.inf)
    return highest + np.log(np.exp(growth - highest).mean(axis=0))


def confidence_interval(differences: np.ndarray, alpha: float) -> tuple[float, float]:
    """The means that no bet has refuted at any trial so far, with half of alpha for either side.

    Args:
        differences: (n,), in [-1, 1].
        alpha: In (0, 1).

    Returns:
        Lowest and highest mean; (-1, 1) without trials.
    """
    if not len(differences):
        return -1.0, 1.0
    bound = np.log(2.0 / alpha)

    def refuted(mean: float, above: bool) -> bool:
        return bool((log_capital(differences, mean, above=above) >= bound).any())

    return _boundary(lambda mean: refuted(mean, True), -1.0), _boundary(lambda mean: refuted(mean, False), 1.0)


def _boundary(refuted: Callable[[float], bool], start: float) -> float:
    """The mean up to which, from `start`, all are refuted: a bet against a mean that lies farther out pays more."""
    if not refuted(start):
        return start
    inside, outside = -start, start
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return outside
