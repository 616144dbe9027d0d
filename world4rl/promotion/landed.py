"""Trials on a robot: landed datasets of role `evaluation` that name the policy that acted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from world4rl.config import Promotion
from world4rl.evaluation.independent import compare_independent
from world4rl.paths import Paths
from world4rl.promotion.history import DIGITS
from world4rl.promotion.verdicts import Judged
from world4rl.provenance.manifests import read_manifest

TEST = "unpaired, asked once: Boschloo's exact test, one-sided, over landed trials on a robot"


@dataclass(frozen=True)
class RobotTrials:
    """The landed trials of a policy.

    Attributes:
        successes: Those that succeeded.
        trials: Those whose outcome is known.
        unknown: Those whose dataset does not say how they ended: they count for nothing.
        datasets: Ids of the datasets.
    """

    successes: int
    trials: int
    unknown: int
    datasets: tuple[str, ...]


def robot_trials(paths: Paths, task: str, policy: str) -> RobotTrials:
    """The landed trials of a policy.

    Raises:
        DataError: the task's manifest is missing or damaged.
    """
    role = read_manifest(paths.manifest(task)).roles["evaluation"]
    datasets = [dataset for dataset in role.datasets if dataset.statement.policy == policy]
    outcomes = [episode.success for dataset in datasets for episode in dataset.episodes]
    known = [outcome for outcome in outcomes if outcome is not None]
    return RobotTrials(sum(known), len(known), len(outcomes) - len(known), tuple(one.id for one in datasets))


def judge_on_robot(rule: Promotion, paths: Paths, task: str, digests: Mapping[str, str]) -> Judged | str:
    """Says whether the challenger is better on the robot, or which trials are missing.

    Args:
        rule: The rule.
        paths: Where the manifests lie.
        task: The task.
        digests: Of `opponent` and `challenger`.

    Raises:
        DataError: the task's manifest is missing or damaged.
    """
    found = {name: robot_trials(paths, task, digest) for name, digest in digests.items()}
    missing = [
        f"{each.trials} of {rule.robot_trials} of {name} {digests[name][:DIGITS]}"
        + (f" (and {each.unknown} that do not say how they ended)" if each.unknown else "")
        for name, each in found.items()
        if each.trials < rule.robot_trials
    ]
    if missing:
        return (
            f"trials on the robot have landed: {', '.join(missing)}; bring more with "
            f"`world4rl land DATASET --task {task} --role evaluation --policy DIGEST`"
        )
    opponent, challenger = found["opponent"], found["challenger"]
    compared = compare_independent(
        (opponent.successes, opponent.trials),
        (challenger.successes, challenger.trials),
        alpha=rule.alpha,
        minimum_effect=rule.minimum_effect / 100,
    )
    gain = f"{100 * compared.effect:+.1f} points over {challenger.trials} and {opponent.trials} trials on the robot"
    if compared.better:
        why = f"it is better: {gain}"
    elif compared.p_value <= rule.alpha:
        why = f"it is better, but by less than {rule.minimum_effect:g} points: {gain}"
    else:
        why = f"not shown to be better: {gain}"
    evidence = {
        **{
            name: {"successes": each.successes, "trials": each.trials, "datasets": list(each.datasets)}
            for name, each in found.items()
        },
        "test": TEST,
        "verdict": "better" if compared.better else "not better",
        "effect_points": 100 * compared.effect,
        "interval_points": [100 * bound for bound in compared.interval],
        "confidence": 1 - 2 * rule.alpha,
        "p_value": compared.p_value,
    }
    return Judged(compared.better, why, evidence)
