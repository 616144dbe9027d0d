"""What has to hold before anything is built on an artefact, as judgements over the metrics that stages wrote.

The bounds are `gates` of the parameters. Dagster asks as blocking asset checks; promotion asks before it believes in a
challenger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from world4rl.config import Gates
from world4rl.envs.tasks import is_simulated
from world4rl.errors import DataError
from world4rl.files import read_json
from world4rl.paths import Paths


@dataclass(frozen=True)
class Verdict:
    """What a gate finds.

    Attributes:
        passed: Whether the bound holds.
        reason: The figure and the bound, in a sentence.
        figures: The numbers behind it.
    """

    passed: bool
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """A bound on what a step made.

    Attributes:
        name: Of the check.
        step: The step whose asset it guards.
        description: What must hold, in a sentence.
        judge: Called with the files, the bounds and the task or None.
        holds: Steps that it holds up beside those that are made from its own.
        spares: Steps and other assets made from its own that it does not hold up.
    """

    name: str
    step: str
    description: str
    judge: Callable[[Paths, Gates, str | None], Verdict]
    holds: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()

    def failure(self, paths: Paths, bounds: Gates, task: str | None) -> str | None:
        """Why it is not passed by what lies there now; None where it is, or where there is nothing yet to judge."""
        try:
            verdict = self.judge(paths, bounds, task)
        except FileNotFoundError:
            return None
        return None if verdict.passed else verdict.reason


def judge(gate: Gate, paths: Paths, bounds: Gates, task: str | None) -> Verdict:
    """What a gate finds.

    Raises:
        DataError: the step has left no metrics, or none that can be read.
    """
    try:
        return gate.judge(paths, bounds, task)
    except (OSError, ValueError, KeyError, TypeError) as error:
        where = getattr(error, "filename", None)
        raise DataError(
            f"the check {gate.name} cannot be judged: {type(error).__name__}: {error}",
            where=where or f"metrics of {gate.step}",
            remedy="run that step again: `dvc repro` does whatever is missing",
        ) from error


def _valid(metrics: Mapping[str, Any]) -> Verdict:
    accepted, quarantined = metrics["accepted"], len(metrics["quarantined"])
    return Verdict(
        accepted > quarantined,
        f"{accepted} episodes accepted, {quarantined} quarantined; more must be accepted than quarantined",
        {"accepted": accepted, "quarantined": quarantined},
    )


def _demos_valid(paths: Paths, gates: Gates, task: str | None) -> Verdict:
    assert task is not None
    return _valid(read_json(paths.store_report(task, "expert")))


def _rollouts_valid(paths: Paths, gates: Gates, task: str | None) -> Verdict:
    assert task is not None
    metrics = read_json(paths.store_report(task, "rollouts"))
    if not is_simulated(task) and not metrics["accepted"] and not metrics["quarantined"]:
        return Verdict(True, "no rollouts have landed yet: the world model knows this task from demonstrations alone")
    return _valid(metrics)


def _classifier_precise(paths: Paths, gates: Gates, task: str | None) -> Verdict:
    metrics = read_json(paths.classifier_metrics)
    bound, precision = gates.classifier_precision, metrics["precision"]
    figures = {"precision": precision, "on generated frames": metrics["generated"]["precision"], "bound": bound}
    if precision is None:
        # Nothing was called a success: a classifier that never rewards cannot mislead, but teaches nothing either.
        return Verdict(bound == 0, "no held-out rollout was called a success, so there is no precision", figures)
    reason = f"precision {precision:.3f} on held-out policy rollouts; at least {bound:.3f} is needed"
    return Verdict(precision >= bound, reason, figures)


def _beats_copying(paths: Paths, gates: Gates, task: str | None) -> Verdict:
    metrics = read_json(paths.fidelity_metrics)
    ratios = {
        steps: error / max(metrics["copy_last_mse"][steps], 1e-12) for steps, error in metrics["open_loop_mse"].items()
    }
    worst = max(ratios, key=lambda steps: ratios[steps])
    return Verdict(
        ratios[worst] <= gates.open_loop_ratio,
        f"open-loop error is {ratios[worst]:.2f} times that of copying the last frame at {worst} steps, the worst "
        f"horizon; at most {gates.open_loop_ratio:.2f} is allowed",
        {f"ratio at {steps} steps": ratio for steps, ratio in ratios.items()},
    )


def _not_worse(paths: Paths, gates: Gates, task: str | None) -> Verdict:
    assert task is not None
    metrics = read_json(paths.evaluation_metrics(task))
    gain = metrics["gain_points"]
    if gain is None:
        tried = " and ".join(f"{metrics[name]['trials']} of the {name} policy" for name in ("bc", "refined"))
        return Verdict(True, f"the robot has not tried both policies yet: {tried} trials have landed")
    return Verdict(
        gain >= -gates.refined_margin,
        f"the refined policy gained {gain:+.1f} points over its parent; it may lose {gates.refined_margin:.1f}",
        {"gain_points": gain, "p_value": metrics["p_value"]},
    )


GATES = (
    Gate("demonstrations_valid", "demo_store", "Most demonstrations passed the data checks.", _demos_valid),
    Gate("rollouts_valid", "rollout_store", "Most rollouts passed the data checks.", _rollouts_valid),
    Gate(
        "classifier_precision",
        "success_classifier",
        "What the classifier calls a success on held-out policy rollouts is one.",
        _classifier_precise,
    ),
    Gate(
        "beats_copying_the_last_frame",
        "fidelity",
        "The world model predicts better than repeating the last frame, at every horizon.",
        _beats_copying,
        holds=("refined",),  # nothing practises in a world model that is no better than a still picture
        spares=("champion",),  # there it is a veto: the challenger is kept back, on record
    ),
    Gate(
        "refined_not_worse_than_bc",
        "evaluation",
        "Refinement did not make the policy worse in the simulator.",
        _not_worse,
        spares=("report", "champion"),  # one tells people of it; the other decides by trials of its own
    ),
)
