"""Trials in the simulator: champion and challenger on the same seeds, until the answer is clear or the trials are over.

What was tried is kept after every batch, so that a challenge that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from world4rl import progress
from world4rl.config import Params, Promotion
from world4rl.demos.seeds import episode_seeds
from world4rl.evaluation.sequential import Comparison, compare
from world4rl.evaluation.trials import try_in_turn
from world4rl.files import read_json, write_json
from world4rl.machine import select_device
from world4rl.policies.folder import load_policy
from world4rl.promotion.verdicts import Judged
from world4rl.provenance.digests import digest_json

TEST = "paired and sequential, by betting: both on the same simulator seeds, until the answer is clear"
SEEDS = 1 << 14  # of the stream that the trials are drawn from
STATE = "trials.json"


@dataclass
class Tried:
    """Outcomes so far, a seed after the other.

    Attributes:
        pair: Names what was tried: both policies, the seeds and the simulator's settings.
        opponent: Whether the champion, or who stands for it, succeeded.
        challenger: Whether the challenger did.
    """

    pair: str
    opponent: list[bool] = field(default_factory=list)
    challenger: list[bool] = field(default_factory=list)

    @classmethod
    def read(cls, pair: str, folder: Path) -> Tried:
        """What a challenge of the same pair left when it was killed; nothing where there is none."""
        try:
            found = cls(**read_json(folder / STATE))
        except (OSError, ValueError, TypeError):
            return cls(pair)
        return found if found.pair == pair and len(found.opponent) == len(found.challenger) else cls(pair)


def pair_seeds(run_seed: int, task: str, opponent: str, challenger: str, count: int) -> list[int]:
    """The seeds of a comparison: no dataset and no report has them, and every pair of policies gets its own.

    With the same seeds for all, a champion would keep the luck that made it champion. A longer list begins with the
    shorter one, so that a rule that allows more trials goes on with the same ones.

    Args:
        run_seed: `seed` of the parameters.
        task: The task.
        opponent: Digest of the policy to beat.
        challenger: Digest of the challenger.
        count: Seeds wanted, at most 16,384.
    """
    stream = episode_seeds(run_seed, task, "evaluation", "validation", SEEDS)
    draw = np.random.default_rng(int(digest_json([task, opponent, challenger]), 16))
    return [stream[index] for index in draw.permutation(SEEDS)[:count]]


def judge_in_simulator(
    params: Params, task: str, digests: Mapping[str, str], folders: Mapping[str, Path], state: Path
) -> Judged:
    """Tries both policies and says whether the challenger is better.

    Args:
        params: Rule, simulator and seed.
        task: The task.
        digests: Of `opponent` and `challenger`.
        folders: Of both.
        state: Folder for what a killed challenge leaves.

    Raises:
        DataError: a policy cannot be loaded.
    """
    rule = params.promotion
    seeds = pair_seeds(params.seed, task, digests["opponent"], digests["challenger"], rule.trials)
    settings = params.simulation.model_dump(mode="json", exclude={"workers"})
    tried = Tried.read(digest_json([dict(digests), seeds[0], settings]), state)
    found = _look(tried, rule)
    if found.verdict == "undecided" and len(tried.opponent) < len(seeds):
        attempts = _attempts(params, task, folders, seeds[len(tried.opponent) :])
        found = _go_on(tried, len(seeds), rule, attempts, state)
    return Judged(found.verdict == "better", _why(found, rule), _evidence(found, tried, rule))


def _attempts(
    params: Params, task: str, folders: Mapping[str, Path], seeds: Sequence[int]
) -> Generator[dict[str, bool], None, None]:
    """Whether each policy succeeds, a seed after the other."""
    device = select_device(params.device)
    policies = {name: load_policy(folder, device).eval() for name, folder in folders.items()}
    with closing(try_in_turn(task, params.simulation, seeds, policies)) as pairs:
        for pair in pairs:
            yield {name: episode.success for name, episode in pair.items()}


def _go_on(
    tried: Tried, total: int, rule: Promotion, attempts: Generator[dict[str, bool], None, None], state: Path
) -> Comparison:
    with (
        closing(attempts),
        progress.track("try champion and challenger", total, unit="seed", start=len(tried.opponent)) as bar,
    ):
        for pair in attempts:
            tried.opponent.append(pair["opponent"])
            tried.challenger.append(pair["challenger"])
            done = len(tried.opponent)
            bar.advance(1, champion=sum(tried.opponent) / done, challenger=sum(tried.challenger) / done)
            if done % rule.batch == 0:
                write_json(state / STATE, asdict(tried))
                if _look(tried, rule).verdict != "undecided":
                    break
    return _look(tried, rule)


def _look(tried: Tried, rule: Promotion) -> Comparison:
    return compare(
        np.array(tried.opponent[: rule.trials], bool),
        np.array(tried.challenger[: rule.trials], bool),
        alpha=rule.alpha,
        beta=rule.beta,
        minimum_effect=rule.minimum_effect / 100,
        trials=rule.trials,
    )


def _why(found: Comparison, rule: Promotion) -> str:
    gain = f"{100 * found.effect:+.1f} points over {found.trials} seeds"
    if found.verdict == "better":
        return f"it is better: {gain}"
    if found.verdict == "not better":
        return f"it does not gain {rule.minimum_effect:g} points: {gain}"
    if found.p_value <= rule.alpha:
        return f"it is better, but by less than {rule.minimum_effect:g} points: {gain}"
    return f"not shown to be better within the {rule.trials} seeds that the rule allows: {gain}"


def _evidence(found: Comparison, tried: Tried, rule: Promotion) -> dict[str, Any]:
    used = slice(0, found.trials)
    counts = {
        name: {"successes": sum(outcomes[used]), "trials": found.trials}
        for name, outcomes in (("opponent", tried.opponent), ("challenger", tried.challenger))
    }
    return {
        **counts,
        "test": TEST,
        "verdict": found.verdict,
        "effect_points": 100 * found.effect,
        "interval_points": [100 * bound for bound in found.interval],
        "confidence": 1 - rule.alpha - rule.beta,
        "won": found.won,
        "lost": found.lost,
        "e_value": found.e_value,
        "p_value": found.p_value,
    }
