"""What the promotion gate's default rule can tell: verdicts over simulated challenges of policies with known rates.

    .venv/bin/python -m benchmarks.promotion [--challenges 4000] [--seed 0]

Half of the trials are alike for both policies, as on the same simulator seeds. The table is that of docs/promotion.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter

import numpy as np

from world4rl.config import Promotion
from world4rl.evaluation.sequential import Comparison, compare

RATES = ((0.5, 0.4), (0.5, 0.5), (0.5, 0.55), (0.5, 0.6), (0.5, 0.65), (0.8, 0.9), (0.2, 0.4))
ALIKE = 0.5  # share of trials that end alike for policies of one rate


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--challenges", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rule = Promotion()
    print(f"{arguments.challenges} challenges each, {rule}")
    print("| champion → challenger | promoted | found not to gain enough | open | seeds, median |")
    print("|---|---|---|---|---|")
    for rates in RATES:
        generator = np.random.default_rng(arguments.seed)
        found = [challenge(*rates, rule, generator) for _ in range(arguments.challenges)]
        counts = Counter(one.verdict for one in found)
        shares = [counts[verdict] / len(found) for verdict in ("better", "not better", "undecided")]
        cells = [f"{rates[0]:.0%} → {rates[1]:.0%}", *(f"{share:.1%}" for share in shares)]
        print(f"| {' | '.join(cells)} | {statistics.median(one.trials for one in found):.0f} |", flush=True)


def challenge(champion: float, challenger: float, rule: Promotion, generator: np.random.Generator) -> Comparison:
    """One challenge of a policy by another, of known success rates."""
    luck = generator.random(rule.trials)
    other = np.where(generator.random(rule.trials) < ALIKE, luck, generator.random(rule.trials))
    return compare(
        luck < champion,
        other < challenger,
        alpha=rule.alpha,
        beta=rule.beta,
        minimum_effect=rule.minimum_effect / 100,
        trials=rule.trials,
    )


if __name__ == "__main__":
    main()
