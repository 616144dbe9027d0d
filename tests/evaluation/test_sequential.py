"""The sequential test: its error rates hold however often one looks, and it stops early where the answer is clear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from world4rl.config import load_profile
from world4rl.evaluation.sequential import Bettor, Comparison, Verdict, compare

ALPHA, BETA, EFFECT = 0.05, 0.1, 0.1
RUNS, TRIALS = 1500, 200


def simulate(
    champion: float, challenger: float, together: float, seed: int, trials: int = TRIALS
) -> tuple[np.ndarray, np.ndarray]:
    """bool (RUNS, trials) twice: successes with these rates; `together` of the trials are alike for both."""
    rng = np.random.default_rng(seed)
    chance = rng.random((RUNS, trials))
    other = np.where(rng.random((RUNS, trials)) < together, chance, rng.random((RUNS, trials)))
    return chance < champion, other < challenger


def ever(differences: np.ndarray, bettor: Bettor) -> float:
    """Share of runs in which a bet ever reaches its goal."""
    return float(np.mean([(bettor.log_capital(row) >= bettor.goal).any() for row in differences]))


def bound_with_luck(rate: float) -> float:
    """A share that so many runs exceed with probability 0.001 at a true rate."""
    return rate + 3.1 * np.sqrt(rate * (1 - rate) / RUNS)


@pytest.mark.parametrize("planned", [TRIALS, TRIALS // 4])  # the end that the bets are made for, and a later one
@pytest.mark.parametrize("together", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_challenger_that_is_no_better_is_promoted_with_probability_alpha_at_most(
    rate: float, together: float, planned: int
) -> None:
    champion, challenger = simulate(rate, rate, together, seed=1)
    differences = challenger.astype(int) - champion
    assert ever(differences, Bettor(0.0, True, ALPHA, planned)) <= bound_with_luck(ALPHA)


@pytest.mark.parametrize("together", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.85])
def test_a_challenger_with_the_minimum_effect_is_dismissed_with_probability_beta_at_most(
    rate: float, together: float
) -> None:
    champion, challenger = simulate(rate, rate + EFFECT, together, seed=2)
    differences = challenger.astype(int) - champion
    assert ever(differences, Bettor(EFFECT, False, BETA, TRIALS)) <= bound_with_luck(BETA)


@pytest.mark.parametrize(("champion", "challenger"), [(0.3, 0.3), (0.4, 0.6), (0.9, 0.5)])
def test_the_interval_holds_the_truth_at_every_look_together(champion: float, challenger: float) -> None:
    one, other = simulate(champion, challenger, 0.5, seed=3)
    ends = Bettor(0.0, True, ALPHA, TRIALS), Bettor(EFFECT, False, BETA, TRIALS)

    def refuted(row: np.ndarray) -> bool:
        return any((end._capital_against(truth, row, end._planned(row)) >= end.goal).any() for end in ends)

    truth = challenger - champion
    missed = [refuted(row) for row in other.astype(int) - one]
    assert np.mean(missed) <= bound_with_luck(ALPHA + BETA)


def test_a_large_gain_is_seen_early_and_a_loss_too() -> None:
    def median_stop(champion: float, challenger: float, verdict: str) -> float:
        stops = []
        for a, b in zip(*simulate(champion, challenger, 0.5, seed=4), strict=True):
            if len(stops) == 200:
                break
            differences = b.astype(int) - a
            bettor = Bettor(0.0, True, ALPHA, TRIALS) if verdict == "better" else Bettor(EFFECT, False, BETA, TRIALS)
            reached = bettor.log_capital(differences) >= bettor.goal
            stops.append(int(np.argmax(reached)) + 1 if reached.any() else TRIALS)
        return float(np.median(stops))

    assert median_stop(0.4, 0.8, "better") < 50
    assert median_stop(0.6, 0.4, "not better") < 60
    assert median_stop(0.5, 0.5, "better") == TRIALS


def test_the_verdict_is_that_of_the_first_trial_that_allowed_one() -> None:
    won = np.ones(30, bool)
    champion = np.zeros(30, bool)
    first = compare(champion, won, alpha=ALPHA, beta=BETA, minimum_effect=EFFECT, trials=TRIALS)
    assert first.verdict == "better"
    assert first.effect == 1.0
    assert first.interval[0] > 0
    assert first.trials == first.won < 30, "the figures are those at the verdict"
    assert 1 / ALPHA <= first.e_value == pytest.approx(1 / first.p_value)
    after = np.concatenate([won, np.zeros(300, bool)])
    before = np.concatenate([champion, np.ones(300, bool)])
    assert compare(before, after, alpha=ALPHA, beta=BETA, minimum_effect=EFFECT, trials=TRIALS) == first


def verdicts(champion: float, challenger: float, *, trials: int, seed: int, effect: float) -> list[Verdict]:
    """Of RUNS comparisons that look after every trial, half of them alike for both."""
    pairs = zip(*simulate(champion, challenger, 0.5, seed, trials), strict=True)
    return [compare(a, b, alpha=ALPHA, beta=BETA, minimum_effect=effect, trials=trials).verdict for a, b in pairs]


@pytest.fixture
def without_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost most of the time and decide nothing."""
    monkeypatch.setattr(Bettor, "refuted", lambda bettor, differences: bettor.mean)


@pytest.mark.usefixtures("without_intervals")
def test_with_the_default_rule_the_error_rates_and_the_power_are_as_documented() -> None:
    """docs/promotion.md states these: a change of the rule's defaults must change both."""
    rule = load_profile("demo").promotion
    assert (rule.alpha, rule.beta, rule.minimum_effect, rule.trials) == (ALPHA, BETA, 5.0, 300)
    effect = rule.minimum_effect / 100

    def share(champion: float, challenger: float, verdict: Verdict) -> float:
        found = verdicts(champion, challenger, trials=rule.trials, seed=6, effect=effect)
        return found.count(verdict) / len(found)

    assert share(0.5, 0.5, "better") <= bound_with_luck(ALPHA)
    assert share(0.5, 0.4, "better") <= bound_with_luck(ALPHA)
    assert share(0.5, 0.5 + effect, "not better") <= bound_with_luck(BETA)
    assert share(0.5, 0.6, "better") >= 0.84, "a test of 300 trials without a look before the end finds 94 %"
    assert share(0.5, 0.65, "better") >= 0.98
    assert share(0.8, 0.9, "better") >= 0.9


def test_a_gain_that_is_certain_but_smaller_than_the_minimum_is_no_reason_to_promote() -> None:
    """Seven gains and no loss are certain at any number of ties; among enough ties they are too few points."""
    champion, challenger = np.zeros(100, bool), np.zeros(100, bool)
    challenger[93:] = True

    def judged(effect: float) -> Comparison:
        return compare(champion, challenger, alpha=ALPHA, beta=1e-6, minimum_effect=effect, trials=100)

    assert judged(0.05).verdict == "better"
    assert judged(0.1).p_value <= ALPHA
    assert judged(0.1).verdict == "undecided"
    assert judged(0.07).verdict == "better", "100 times 0.07 is a little more than 7 in binary"


@given(
    outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80),
    looks=st.lists(st.integers(1, 80), max_size=5),
)
def test_where_one_looks_does_not_change_what_one_sees(outcomes: list[tuple[bool, bool]], looks: list[int]) -> None:
    champion, challenger = np.array(outcomes).T

    def seen(trials: int) -> Comparison:
        return compare(champion[:trials], challenger[:trials], alpha=0.2, beta=0.2, minimum_effect=0.1, trials=80)

    whole = seen(len(outcomes))
    for look in looks:
        part = seen(look)
        assert part.verdict == "undecided" or part == whole


@given(
    outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80),
    alpha=st.sampled_from([0.05, 0.2, 0.4]),
    beta=st.sampled_from([0.1, 0.3, 0.5]),
)
def test_the_interval_agrees_with_the_verdict_whichever_it_is(
    outcomes: list[tuple[bool, bool]], alpha: float, beta: float
) -> None:
    found = compare(*np.array(outcomes).T, alpha=alpha, beta=beta, minimum_effect=EFFECT, trials=80)
    low, high = found.interval
    assert (low >= 0) == (found.p_value <= alpha)
    assert (high <= EFFECT) == (found.verdict == "not better") or found.verdict == "better"


def test_without_trials_nothing_is_known() -> None:
    def judged(champion: int, challenger: int) -> Comparison:
        return compare(
            np.zeros(champion, bool),
            np.zeros(challenger, bool),
            alpha=ALPHA,
            beta=BETA,
            minimum_effect=EFFECT,
            trials=TRIALS,
        )

    nothing = judged(0, 0)
    assert (nothing.verdict, nothing.trials, nothing.interval) == ("undecided", 0, (-1.0, 1.0))
    with pytest.raises(ValueError, match="not paired"):
        judged(1, 2)


BETTORS = st.builds(
    Bettor,
    mean=st.floats(-0.95, 0.95),
    above=st.booleans(),
    error=st.sampled_from([0.01, 0.05, 0.5]),
    trials=st.sampled_from([1, 20, 60, 1000]),
)


@given(differences=st.lists(st.sampled_from([-1, 0, 1]), max_size=60), bettor=BETTORS)
def test_a_bet_is_a_fair_game(differences: list[int], bettor: Bettor) -> None:
    """Whatever came before, the next trial's expected growth is nothing if the mean is as bet against."""
    values = np.array(differences, np.int64)
    before = bettor.log_capital(values)[-1] if len(values) else 0.0
    # The two outcomes -1 and 1 with this mean: probabilities (1 - mean) / 2 and (1 + mean) / 2.
    after = [bettor.log_capital(np.append(values, outcome))[-1] for outcome in (-1, 1)]
    expected = (1 - bettor.mean) / 2 * np.exp(after[0]) + (1 + bettor.mean) / 2 * np.exp(after[1])
    assert expected == pytest.approx(np.exp(before), rel=1e-9)


@given(
    differences=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60),
    bettor=BETTORS,
    means=st.lists(st.floats(-0.999, 0.999), max_size=5),
)
def test_what_is_refuted_has_no_gaps_and_stays_refuted(
    differences: list[int], bettor: Bettor, means: list[float]
) -> None:
    values = np.array(differences, np.int64)
    planned = bettor._planned(values)
    end = bettor.refuted(values)
    for mean in means:
        refuted = (bettor._capital_against(mean, values, planned) >= bettor.goal).any()
        assert refuted == (mean < end if bettor.above else mean > end) or mean == pytest.approx(end, abs=1e-6)
    longer = bettor.refuted(np.append(values, 0))
    assert longer >= end - 1e-6 if bettor.above else longer <= end + 1e-6
