"""The report's plain words: what the figures say, and what they do not.

Nothing is called better unless its interval lies above zero; what missed a bound is said outright.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from world4rl.config import Gates
from world4rl.evaluation.figures import number, percent, points
from world4rl.evaluation.metrics import ClassifierMetrics, Fidelity, TaskEvaluation
from world4rl.evaluation.statistics import Bounds

Judgement = Literal["better", "unclear", "worse"]

# What a good run reaches (README, targets); the blocking checks' own bounds are the parameters `gates`.
IMAGINED_GAP = 0.15
EXPERT_SUCCESS_RECALL = 0.9
POLICY_FAILURE_RECALL = 0.95
# Random actions take the robot elsewhere: an error that they raise by less than a fifth hardly depends on the actions.
RANDOM_ACTION_RATIO = 1.2


@dataclass(frozen=True)
class Verdict:
    """The first thing on the page."""

    judgement: Judgement
    headline: str
    sentences: tuple[str, ...]
    gain: float  # points, mean over the tasks
    interval: Bounds


def pretty(task: str) -> str:
    """A task's name for people: `button-press-topdown-v3` becomes `Button press topdown`."""
    words = [word for word in task.split("-") if not (word.startswith("v") and word[1:].isdigit())]
    return " ".join(words).capitalize()


def policy_name(policy: str) -> str:
    """Who acts in an episode, for people."""
    return {"bc": "cloned policy", "refined": "refined policy", "expert": "scripted expert"}.get(policy, policy)


def video_caption(stem: str) -> str:
    """A video's caption from its name, `POLICY_OUTCOME_SEED` or anything else."""
    policy, *rest = stem.split("_")
    text = " ".join(rest).replace("-", " ")
    if rest and rest[-1].isdigit():
        text = f"{' '.join(rest[:-1])} (seed {rest[-1]})"
    name = policy_name(policy)
    return f"{name[:1].upper()}{name[1:]}{': ' if text else ''}{text}"


def judge(interval: Bounds) -> Judgement:
    """What the interval of a gain (in points) allows to say."""
    low, high = interval
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def apart(imagined: float, real: float) -> bool:
    """Whether imagined and real success differ by more than the bound (exactly the bound is still within)."""
    return round(abs(imagined - real), 9) > IMAGINED_GAP


def verdict(results: Mapping[str, TaskEvaluation], gain: float, interval: Bounds, confidence: float) -> Verdict:
    """The answer to: did refinement help, by how much, how sure?

    Args:
        results: The evaluation of every task.
        gain: Mean gain over the tasks, in points.
        interval: Its interval.
        confidence: Of the interval, in (0, 1).
    """
    if not results:
        said = ("No task has a simulator. What the robot's trials say stands below.",)
        return Verdict("unclear", "Only the robot can tell.", said, gain, interval)
    judgement = judge(interval)
    headline = {
        "better": "Yes: practising in imagination made the policies better.",
        "unclear": "Not proven: after practising in imagination the policies are not clearly better.",
        "worse": "No: practising in imagination made the policies worse.",
    }[judgement]
    before = sum(each.bc.rate for each in results.values()) / len(results)
    after = sum(each.refined.rate for each in results.values()) / len(results)
    trials = sum(each.bc.trials for each in results.values())
    over = f"Over {len(results)} tasks and {trials} trials a policy" if len(results) > 1 else f"Over {trials} trials"
    low, high = interval
    sure = f"With {percent(confidence)} confidence the true change lies between {points(low)} and {points(high)} points"
    judged = {
        "better": f"{sure}: above zero, so this is more than luck.",
        "unclear": f"{sure}. That range holds zero, so the difference may be luck.",
        "worse": f"{sure}: below zero, so this is more than bad luck. Keep the policies as they were cloned.",
    }[judgement]
    size = points(gain, 1)
    change = "stayed the same" if size == "±0" else f"{'rose' if gain > 0 else 'fell'} by {size[1:]} points"
    sentences = (
        f"{over}, success {change}: from {percent(before, 1)} for the policies cloned from demonstrations to "
        f"{percent(after, 1)} after refinement in the world model.",
        judged,
        _by_task(results),
    )
    return Verdict(judgement, headline, tuple(filter(None, sentences)), gain, interval)


def _by_task(results: Mapping[str, TaskEvaluation]) -> str:
    if len(results) == 1:
        return ""
    groups: dict[Judgement, list[str]] = {"better": [], "unclear": [], "worse": []}
    for task, result in results.items():
        groups[judge(result.gain_interval)].append(pretty(task).lower())
    if len(groups["better"]) == len(results):
        return "Each task on its own is clearly better too."
    texts = {"better": "clearly better", "unclear": "not clearly different", "worse": "clearly worse"}
    parts = [f"{texts[judgement]}: {_listed(tasks)}" for judgement, tasks in groups.items() if tasks]
    return f"Taken one by one, {'; '.join(parts)}."


def task_sentence(result: TaskEvaluation) -> str:
    """A task's comparison in a sentence or two."""
    trials, gained, lost = result.bc.trials, result.gained, result.lost
    text = (
        f"On the same {trials} starting positions, refinement solved {gained} that the cloned policy failed, "
        f"and failed {lost} that it had solved."
    )
    if gained == lost:
        return f"{text} That is no change."
    return f"{text} A difference this large would come about by luck {chance(result.p_value)}."


def chance(p_value: float) -> str:
    """A p-value in words."""
    if p_value < 0.001:
        return "less than once in a thousand such comparisons"
    if p_value > 0.4:
        return f"about every other time (p = {number(p_value)})" if p_value < 0.7 else f"easily (p = {number(p_value)})"
    return f"about once in {round(float(f'{1 / p_value:.2g}'))} such comparisons (p = {number(p_value)})"


def shortfalls(
    results: Mapping[str, TaskEvaluation], fidelity: Fidelity, classifier: ClassifierMetrics, gates: Gates
) -> list[str]:
    """What is not as good as it should be, a sentence each; empty when everything reached its bound."""
    found = []
    for task, result in results.items():
        found.extend(_task_shortfalls(task, result, gates))
    found.extend(_replay_shortfalls(fidelity))
    for horizon, error in fidelity.open_loop_mse.items():
        still = fidelity.copy_last_mse[horizon]
        if error >= still:
            found.append(
                f"{horizon} steps ahead the world model predicts no better than repeating the last frame "
                f"(error {number(error)} against {number(still)})."
            )
        elif error > gates.open_loop_ratio * still:
            found.append(
                f"{horizon} steps ahead the world model's error is {number(error / still)} of that of repeating the "
                f"last frame; the bound is {number(gates.open_loop_ratio)}."
            )
    found.extend(_action_shortfalls(fidelity))
    for where, detection in (("real frames", classifier), ("generated frames", classifier.generated)):
        if detection.precision is None:
            found.append(f"On {where} the success classifier called nothing a success: its precision is unknown.")
        elif detection.precision < gates.classifier_precision:
            found.append(
                f"When the success classifier calls {where} a success it is right {percent(detection.precision)} of "
                f"the time; the bound is {percent(gates.classifier_precision)}."
            )
    return found


def _task_shortfalls(task: str, result: TaskEvaluation, gates: Gates) -> list[str]:
    name, (low, high) = pretty(task), result.gain_interval
    judgement = judge(result.gain_interval)
    found = []
    change = f"{points(result.gain_points)} points, {points(low)} to {points(high)}"
    if judgement == "worse":
        found.append(f"{name}: the refined policy is worse than the cloned one ({change}). Use the cloned policy.")
    elif result.gain_points < -gates.refined_margin:
        found.append(
            f"{name}: the refined policy succeeded less often than the cloned one, though perhaps by bad luck "
            f"({change}). Use the cloned policy."
        )
    elif judgement == "unclear":
        found.append(f"{name}: the refined policy is not shown to be better than the cloned one ({change}).")
    for policy, real, imagined in (
        ("cloned", result.bc.rate, result.imagined.bc),
        ("refined", result.refined.rate, result.imagined.refined),
    ):
        if apart(imagined, real):
            verb = "flatters" if imagined > real else "underrates"
            found.append(
                f"{name}: imagination {verb} the {policy} policy: it succeeds {percent(imagined)} of the time there "
                f"and {percent(real)} in the simulator (more than {round(100 * IMAGINED_GAP)} points apart)."
            )
    return found


def _replay_shortfalls(fidelity: Fidelity) -> list[str]:
    found = []
    for recall, bound, kind, seen in (
        (fidelity.replay.expert_success_recall, EXPERT_SUCCESS_RECALL, "expert successes", "successes"),
        (fidelity.replay.policy_failure_recall, POLICY_FAILURE_RECALL, "policy failures", "failures"),
    ):
        if recall is None:
            found.append(f"No held-out {kind} were there to replay inside the model.")
        elif recall < bound:
            found.append(
                f"Replayed inside the model, {percent(recall)} of held-out {kind} are seen as {seen}; at least "
                f"{percent(bound)} should be."
            )
    return found


def _action_shortfalls(fidelity: Fidelity) -> list[str]:
    found = []
    if fidelity.action_controllability <= 1:
        found.append(
            "The world model hardly listens to the actions: shuffling them does not make its prediction worse "
            f"(ratio {number(fidelity.action_controllability)})."
        )
    if fidelity.random_action_ratio < RANDOM_ACTION_RATIO:
        found.append(
            "The world model does not heed what the robot does: with random actions its error is only "
            f"{number(fidelity.random_action_ratio, 3)} times that with the true ones; it should be at least "
            f"{number(RANDOM_ACTION_RATIO)} times."
        )
    return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
