"""Is a challenger better than the champion? A paired test that may stop at any trial and keeps its error rates.

Both policies are tried on the same seeds. A trial gives a difference d in {-1, 0, 1}: only the champion succeeded, both
or neither did, only the challenger did. Whoever bets against "the mean difference is at most m" with a fraction of the
capital on each trial has, if that is true, a capital that is expected never to grow: by Ville's inequality it ever
reaches 1/alpha with probability alpha at most, however often one looks (Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", 2024). No distribution is assumed, and each fraction may hang on all that came
before. Half of the capital is spread evenly over constant fractions, which show a large effect early. The other half
knows how many trials there will be: nearly what a test of that fixed size finds, it finds, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

FRACTIONS = np.linspace(0.02, 0.98, 25)  # of the largest stake that cannot ruin the bettor
PLANNED = 0.5  # share of the capital whose fractions change
HOPELESS = 1e-9  # of what that share is to become: it is bet no more
SQUARE, WEIGHT = 0.5, 4.0  # of a difference, as it is expected before the first trial; and how many trials that counts
STEPS = 24  # halvings that find an end of the interval
ROUNDING = 1e-9  # of a rate times a number of trials
NORMAL = NormalDist()

Verdict = Literal["better", "not better", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """What the trials up to the verdict say; all of them where there is none yet.

    Attributes:
        verdict: `better`: the challenger is, with error probability alpha at most, and it gained the minimum effect.
            `not better`: it gains less than that, with error probability beta at most. `undecided`: neither yet.
        trials: Pairs that were tried.
        effect: Mean difference of the success rates, in [-1, 1].
        interval: Holds the true mean difference with probability 1 - alpha - beta at all trials together: alpha at the
            lower end and beta at the upper, as in the verdict, so that a `better` challenger's interval lies above 0,
            and that of one that is `not better` below the minimum effect.
        won: Trials in which only the challenger succeeded.
        lost: Trials in which only the champion did.
        e_value: Capital, from 1, of whoever bet that the challenger is better.
        p_value: One over the largest such capital so far, in (0, 1].
    """

    verdict: Verdict
    trials: int
    effect: float
    interval: tuple[float, float]
    won: int
    lost: int
    e_value: float
    p_value: float


@dataclass(frozen=True)
class Bettor:
    """Bets that the mean difference is above a value, or that it is below.

    Attributes:
        mean: The value, in [-1, 1].
        above: Whether the bet is that the true mean is above it (else: below).
        error: Probability of a capital that ever reaches 1/error though the bet is wrong, in (0, 1).
        trials: How many trials there will be. With fewer or more the bets are fair, too, but not as good.
    """

    mean: float
    above: bool
    error: float
    trials: int

    @property
    def goal(self) -> float:
        """Log of the capital that shows the point."""
        return -math.log(self.error)

    def log_capital(self, differences: np.ndarray) -> np.ndarray:
        """Log of the capital after each trial.

        Args:
            differences: (n,), in [-1, 1].

        Returns:
            float64 (n,). If the bet is wrong, exp of this is a supermartingale from 1.
        """
        return self._capital_against(self.mean, differences, self._planned(differences))

    def refuted(self, differences: np.ndarray) -> float:
        """The end of the interval: the mean up to which (above: from -1; else from 1) all are refuted at some trial.

        The same fractions are bet against every mean, and one that lies farther out pays more at each trial: what is
        refuted has no gaps, and `mean` is among it just where the goal was reached.

        Args:
            differences: (n,), in [-1, 1].

        Returns:
            In [-1, 1]; where it begins if nothing is refuted.
        """
        planned = self._planned(differences)
        inside, outside = (1.0, -1.0) if self.above else (-1.0, 1.0)
        for mean in (outside, self.mean):  # the second one exactly, that the interval agrees with the verdict
            if not (self._capital_against(mean, differences, planned) >= self.goal).any():
                inside = mean
                break
            outside = mean
        for _ in range(STEPS):
            middle = (inside + outside) / 2
            if (self._capital_against(middle, differences, planned) >= self.goal).any():
                outside = middle
            else:
                inside = middle
        return outside

    def _capital_against(self, mean: float, differences: np.ndarray, planned: np.ndarray) -> np.ndarray:
        centred, largest_loss = self._bet(mean, differences)
        if largest_loss <= 0:
            return np.where(np.cumsum(centred > 0) > 0, np.inf, 0.0)  # nothing can be lost: any gain proves the point
        constant = np.log1p(np.outer(FRACTIONS / largest_loss, centred))
        growth = np.cumsum(np.vstack((constant, np.log1p(planned * centred / largest_loss))), axis=1)
        shares = np.append(np.full(len(FRACTIONS), (1 - PLANNED) / len(FRACTIONS)), PLANNED)
        highest = growth.max(axis=0, initial=-np.inf)
        return highest + np.log(shares @ np.exp(growth - highest))

    def _bet(self, mean: float, differences: np.ndarray) -> tuple[np.ndarray, float]:
        """What a stake of one gains at each trial, and the most that it can lose."""
        centred = differences.astype(np.float64) - mean
        return (centred, 1.0 + mean) if self.above else (-centred, 1.0 - mean)

    def _planned(self, differences: np.ndarray) -> np.ndarray:
        """Fractions of the largest stake, (n,), each chosen by the trials before it, to reach the goal in time.

        Many small gains are a Brownian motion. From a distance y, with a variance s^2 yet to come, it ever reaches its
        goal with probability 2 Phi(-y / s) if the bet is wrong: so much of the goal is worth having now. The capital
        thus says how far it is to the goal, and the derivative how much to bet (a one-touch option, and its hedge).
        """
        centred, largest_loss = self._bet(self.mean, differences)
        fractions = np.zeros(len(centred))
        worth, squares = self.error * PLANNED, SQUARE * WEIGHT
        for trial, gain in enumerate(centred[: self.trials].tolist()):
            if not HOPELESS < worth < 1.0:
                break
            to_come = squares / (WEIGHT + trial) * (self.trials - trial)
            stake = 2 * NORMAL.pdf(NORMAL.inv_cdf(worth / 2)) / math.sqrt(to_come) / worth
            fractions[trial] = min(stake * largest_loss, FRACTIONS[-1])
            worth *= 1.0 + fractions[trial] * gain / largest_loss
            squares += gain * gain
        return fractions


def compare(
    champion: np.ndarray, challenger: np.ndarray, *, alpha: float, beta: float, minimum_effect: float, trials: int
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
        trials: How many there will be at most, those that are yet to come included.
    """
    if len(champion) != len(challenger):
        raise ValueError(f"{len(champion)} and {len(challenger)} trials are not paired")
    differences = challenger.astype(np.int64) - champion.astype(np.int64)
    gains, too_little = Bettor(0.0, True, alpha, trials), Bettor(minimum_effect, False, beta, trials)
    capital = gains.log_capital(differences)
    highest = np.maximum.accumulate(capital)  # Ville's inequality is about ever reaching the bound
    enough = minimum_effect * np.arange(1, len(differences) + 1) - ROUNDING
    better = (highest >= gains.goal) & (np.cumsum(differences) >= enough)
    worse = too_little.log_capital(differences) >= too_little.goal
    verdict, stop = _first(better, worse)
    seen = differences[:stop]
    return Comparison(
        verdict=verdict,
        trials=stop,
        effect=float(seen.mean()) if stop else 0.0,
        interval=(gains.refuted(seen), too_little.refuted(seen)),
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
