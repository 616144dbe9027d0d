"""The report of a run: one self-contained HTML page for people, one JSON file for machines.

Everything on the page comes from the files that the stages left, read strictly; the same files give the same bytes on
the same machine. Images and videos are inside the page, so that it can be mailed or archived as it is.
"""

from __future__ import annotations

import base64
import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from world4rl import machine, pages, progress
from world4rl.config import Params, dump_params
from world4rl.envs.tasks import is_simulated
from world4rl.errors import DataError
from world4rl.evaluation import wording
from world4rl.evaluation.figures import (
    GainRow,
    Level,
    Series,
    gain_chart,
    line_chart,
    number,
    percent,
    points,
    rate_bar,
    reliability_chart,
)
from world4rl.evaluation.metrics import (
    ClassifierMetrics,
    Fidelity,
    RobotEvaluation,
    RolloutMetrics,
    StoreMetrics,
    Summary,
    TaskEvaluation,
    Timed,
    read_metrics,
)
from world4rl.evaluation.statistics import Bounds, ReliabilityBin, mean_gain, wilson_interval
from world4rl.evaluation.tables import compare_trials, missing_output, read_curve, read_trials
from world4rl.files import write_json, write_text
from world4rl.paths import Paths, Source
from world4rl.stages import STAGES

PACKAGES = (
    "world4rl", "torch", "diffusers", "torchvision", "lerobot", "metaworld", "mujoco", "gymnasium", "zarr", "numpy",
    "pandas", "pandera", "scipy", "dvc", "dagster",
)  # fmt: skip
FILTERS: dict[str, Callable[..., str]] = {
    "pretty": wording.pretty,
    "percent": percent,
    "points": points,
    "number": number,
    "duration": progress.duration,
}
STAGE_NAMES = {
    "demos": "Record demonstrations",
    "demo_store": "Check and store demonstrations",
    "bc": "Clone the demonstrations",
    "policy_rollouts": "Record rollouts of the cloned policy",
    "random_rollouts": "Record random rollouts",
    "rollout_store": "Check and store rollouts",
    "world_model": "Train the world model",
    "success_classifier": "Train the success classifier",
    "fidelity": "Measure the world model",
    "refined": "Refine in imagination",
    "evaluation": "Try both policies in the simulator",
}
COLLECTING: dict[Source, tuple[str, str]] = {  # stage and its command
    "expert": ("demos", "collect-demos"),
    "policy": ("policy_rollouts", "collect-policy"),
    "random": ("random_rollouts", "collect-random"),
}
BC_CURVE = ("step", "train_nll", "validation_nll")
LOSS_CURVE = ("step", "loss")
REFINED_CURVE = ("iteration", "imagined_success", "approx_kl", "bc_kl", "sigma")


@dataclass(frozen=True)
class Findings:
    """Everything that the stages left, read and checked.

    Dictionaries are by task, in the order of the parameters.
    """

    evaluations: dict[str, TaskEvaluation]  # of the tasks that the simulator has
    robot: dict[str, RobotEvaluation]  # of the others
    data: dict[str, dict[Source, StoreMetrics]]
    fidelity: Fidelity
    classifier: ClassifierMetrics
    stage_seconds: dict[str, float]  # by the stage's name in dvc.yaml, `name@task` where it runs once a task
    bc_curves: dict[str, pd.DataFrame]
    refined_curves: dict[str, pd.DataFrame]
    world_model_curve: pd.DataFrame
    classifier_curve: pd.DataFrame


def gather(params: Params, paths: Paths) -> Findings:
    """Reads what every stage left.

    Raises:
        DataError: a file is missing or wrong; names it and the stage to run.
    """
    tasks = params.tasks

    def timed(path: Path, stage: str) -> float:
        return read_metrics(path, Timed, stage).seconds

    data: dict[str, dict[Source, StoreMetrics]] = {}
    evaluations: dict[str, TaskEvaluation] = {}
    robot: dict[str, RobotEvaluation] = {}
    seconds: dict[str, float] = {}
    for task in tasks:
        expert = read_metrics(paths.store_report(task, "expert"), StoreMetrics, f"store-demos --task {task}")
        rollouts = read_metrics(paths.store_report(task, "rollouts"), RolloutMetrics, f"store-rollouts --task {task}")
        data[task] = {"expert": expert, "policy": rollouts.sources.policy, "random": rollouts.sources.random}
        seconds |= {f"demo_store@{task}": expert.seconds, f"rollout_store@{task}": rollouts.seconds}
        for source, (stage, command) in COLLECTING.items():
            seconds[f"{stage}@{task}"] = timed(paths.collect_metrics(task, source), f"{command} --task {task}")
    fidelity = read_metrics(paths.fidelity_metrics, Fidelity, "evaluate-world-model")
    classifier = read_metrics(paths.classifier_metrics, ClassifierMetrics, "train-classifier")
    seconds |= {f"bc@{task}": timed(paths.bc_metrics(task), f"train-bc --task {task}") for task in tasks}
    seconds["world_model"] = timed(paths.world_model_metrics, "train-world-model")
    seconds["success_classifier"] = classifier.seconds
    seconds["fidelity"] = fidelity.seconds
    seconds |= {f"refined@{task}": timed(paths.refined_metrics(task), f"refine --task {task}") for task in tasks}
    for task in tasks:
        if is_simulated(task):
            evaluations[task] = _read_evaluation(task, paths, params.evaluation.confidence)
            seconds[f"evaluation@{task}"] = evaluations[task].seconds
        else:
            robot[task] = read_metrics(paths.evaluation_metrics(task), RobotEvaluation, f"evaluate --task {task}")
            seconds[f"evaluation@{task}"] = robot[task].seconds
    return Findings(
        evaluations=evaluations,
        robot=robot,
        data=data,
        fidelity=fidelity,
        classifier=classifier,
        stage_seconds=_in_order_of_the_lineage(seconds),
        bc_curves={task: read_curve(paths.bc_curve(task), BC_CURVE, f"train-bc --task {task}") for task in tasks},
        refined_curves={
            task: read_curve(paths.refined_curve(task), REFINED_CURVE, f"refine --task {task}") for task in tasks
        },
        world_model_curve=read_curve(paths.world_model_curve, LOSS_CURVE, "train-world-model"),
        classifier_curve=read_curve(paths.classifier_curve, LOSS_CURVE, "train-classifier"),
    )


def _in_order_of_the_lineage(seconds: Mapping[str, float]) -> dict[str, float]:
    order = list(STAGE_NAMES)
    return dict(sorted(seconds.items(), key=lambda item: order.index(item[0].partition("@")[0])))


def _read_evaluation(task: str, paths: Paths, confidence: float) -> TaskEvaluation:
    """A task's evaluation, counted again from the trials themselves."""
    stage = f"evaluate --task {task}"
    result = read_metrics(paths.evaluation_metrics(task), TaskEvaluation, stage)
    counted = compare_trials(read_trials(paths.evaluation(task) / "trials.csv"), confidence)
    said = (result.bc.trials, result.bc.successes, result.refined.successes, result.gained, result.lost)
    found = (counted.trials, counted.first_successes, counted.second_successes, counted.gained, counted.lost)
    if said != found or result.refined.trials != counted.trials:
        raise DataError(
            f"the metrics say {said} trials, successes of both policies, gained, lost, but trials.csv holds {found}",
            where=paths.evaluation_metrics(task),
            remedy=f"run `world4rl {stage}` again",
        )
    return result


def summarise(findings: Findings, profile: str) -> Summary:
    """The figures for machines."""
    stores = [store for sources in findings.data.values() for store in sources.values()]
    fidelity, classifier = findings.fidelity, findings.classifier
    return Summary.model_validate(
        {
            "profile": profile,
            "seconds": sum(findings.stage_seconds.values()),
            "stage_seconds": findings.stage_seconds,
            "tasks": {
                task: {
                    **{
                        policy: {"successes": result.successes, "trials": result.trials}
                        for policy, result in (("bc", each.bc), ("refined", each.refined))
                    },
                    "gain_points": each.gain_points,
                    "gain_interval": each.gain_interval,
                    "p_value": each.p_value,
                    "imagined": {"bc": each.imagined.bc, "refined": each.imagined.refined},
                }
                for task, each in findings.evaluations.items()
            },
            "robot": {
                task: each.model_dump(include={"bc", "refined", "gain_points", "gain_interval", "p_value"})
                | {policy: getattr(each, policy).model_dump(exclude={"steps_mean"}) for policy in ("bc", "refined")}
                for task, each in findings.robot.items()
            },
            "classifier": {
                **{key: getattr(classifier, key) for key in ("precision", "recall", "ece")},
                "generated": {key: getattr(classifier.generated, key) for key in ("precision", "recall", "ece")},
            },
            "replay": fidelity.replay.model_dump(),
            "world_model": {key: getattr(fidelity, key) for key in ("one_step_mse", "open_loop_mse", "copy_last_mse")},
            "episodes": {
                "accepted": sum(each.accepted for each in stores),
                "quarantined": sum(len(each.quarantined) for each in stores),
            },
        }
    )


def write_report(params: Params, paths: Paths) -> None:
    """Writes `reports/report.html` and `reports/summary.json`.

    Args:
        params: The run's parameters.
        paths: Where its files lie.

    Raises:
        DataError: a stage's result is missing or wrong; names the file and the stage to run. Nothing is written then.
    """
    findings = gather(params, paths)
    summary = summarise(findings, params.profile)
    page = render(params, paths, findings, summary)
    write_json(paths.summary, summary.model_dump(mode="json"))
    write_text(paths.report, page)
    gain, interval = _overall(findings)
    progress.metrics(
        {
            "mean gain (points)": round(gain, 1),
            "interval (points)": f"{interval[0]:.1f} to {interval[1]:.1f}",
            **{f"{task}: gain (points)": each.gain_points for task, each in findings.evaluations.items()},
        }
    )
    progress.log(f"The report is {paths.report}")


def _overall(findings: Findings) -> tuple[float, Bounds]:
    results = findings.evaluations.values()
    if not results:
        return 0.0, (0.0, 0.0)
    return mean_gain([each.gain_points for each in results], [each.gain_interval for each in results])


def render(params: Params, paths: Paths, findings: Findings, summary: Summary) -> str:
    """The HTML page.

    Args:
        params: The run's parameters.
        paths: Where images and videos lie.
        findings: What the stages left.
        summary: The figures for machines.

    Raises:
        DataError: an image that the metrics name is missing.
    """
    gain, interval = _overall(findings)
    evaluation = params.evaluation
    return pages.render(
        "report.html",
        "world4rl.evaluation",
        filters=FILTERS,
        params=params,
        # In the order of their definition. What no stage reads (when to retrain, whom to trust) made nothing here.
        parameters=dump_params(Params.model_validate(params.model_dump()), STAGES["report"].sections),
        findings=findings,
        robot=findings.robot,
        summary=summary,
        confidence=evaluation.confidence,
        verdict=wording.verdict(findings.evaluations, gain, interval, evaluation.confidence),
        shortfalls=wording.shortfalls(findings.evaluations, findings.fidelity, findings.classifier, params.gates),
        tasks=[_task_view(task, findings, evaluation.confidence) for task in findings.evaluations],
        gain_chart=_gain_chart(findings, gain, interval, evaluation.confidence) if findings.evaluations else "",
        videos={task: _videos(paths.evaluation(task), task) for task in params.tasks},
        strips=_strips(findings.fidelity, paths),
        replay=_replay_view(findings.fidelity),
        error_chart=_error_chart(findings.fidelity),
        error_rows=_error_rows(findings.fidelity, params.gates.open_loop_ratio),
        classifier_bars=_classifier_view(findings.classifier, params.gates.classifier_precision),
        classifier_rows=_classifier_rows(findings.classifier),
        reliability=reliability_chart(
            [ReliabilityBin(**each.model_dump()) for each in findings.classifier.reliability],
            "Reliability diagram of the success classifier: dots near the diagonal mean that a stated probability "
            f"comes true as often as it says; expected calibration error {number(findings.classifier.ece)}.",
        ),
        curves=_curves(findings),
        stages=_stage_rows(findings.stage_seconds),
        versions=_versions(),
        hardware=machine.describe(),
        imagined_gap=wording.IMAGINED_GAP,
    )


def _task_view(task: str, findings: Findings, confidence: float) -> dict[str, Any]:
    result = findings.evaluations[task]
    rows = []
    for role, name, policy, imagined in (
        ("bc", "Cloned policy", result.bc, result.imagined.bc),
        ("refined", "Refined policy", result.refined, result.imagined.refined),
    ):
        interval = wilson_interval(policy.successes, policy.trials, confidence)
        description = (
            f"{name}, {wording.pretty(task)}: {policy.successes} of {policy.trials} trials succeeded "
            f"({percent(policy.rate)}, interval {percent(interval[0])} to {percent(interval[1])}); in imagination "
            f"{percent(imagined)}."
        )
        rows.append(
            {
                "name": name,
                "policy": policy,
                "interval": interval,
                "imagined": imagined,
                "apart": wording.apart(imagined, policy.rate),
                "bar": rate_bar(policy.rate, interval, role, description, imagined=imagined),
            }
        )
    return {
        "name": task,
        "result": result,
        "judgement": wording.judge(result.gain_interval),
        "sentence": wording.task_sentence(result),
        "rows": rows,
    }


def _gain_chart(findings: Findings, gain: float, interval: Bounds, confidence: float) -> Markup:
    rows = [
        GainRow(wording.pretty(task), result.gain_points, result.gain_interval)
        for task, result in findings.evaluations.items()
    ]
    if len(rows) > 1:
        rows.append(GainRow("All tasks, on average", gain, interval, overall=True))
    said = "; ".join(
        f"{row.name} {points(row.gain, 1)} points ({points(row.interval[0])} to {points(row.interval[1])})"
        for row in rows
    )
    return gain_chart(rows, f"Change in success with {percent(confidence)} intervals: {said}.")


def _videos(folder: Path, task: str) -> list[dict[str, str]]:
    return [
        {
            "source": _data_uri(video, "video/mp4"),
            "caption": wording.video_caption(video.stem),
            "description": f"{wording.pretty(task)}, a trial in the simulator. {wording.video_caption(video.stem)}",
        }
        for video in sorted(folder.glob("*.mp4"))
    ]


def _strips(fidelity: Fidelity, paths: Paths) -> list[dict[str, Any]]:
    views = []
    for strip in fidelity.strips:
        file = paths.root / strip.path
        if not file.is_file():
            raise missing_output(file, "evaluate-world-model")
        foretold = strip.outcome == strip.imagined_outcome
        rows = (
            "What really happened."
            if file.stem.endswith("_real")
            else "What the world model imagined."
            if file.stem.endswith("_imagined")
            else "Above what really happened, below what the world model imagined from the same actions."
        )
        title = f"{wording.pretty(strip.task)}: a {strip.outcome} of the {wording.policy_name(strip.policy)}"
        judged = f"Imagination foretold {'it' if foretold else f'a {strip.imagined_outcome} instead'}."
        views.append(
            {
                "source": _data_uri(file, "image/png"),
                "title": title,
                "text": f"{rows} {judged}",
                "foretold": foretold,
                "description": f"Film strip, {title}. {rows} Time runs from left to right. {judged}",
            }
        )
    return views


def _data_uri(file: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"


def _replay_view(fidelity: Fidelity) -> list[dict[str, Any]]:
    rows = []
    for name, rate, bound in (
        ("Expert successes seen as successes", fidelity.replay.expert_success_recall, wording.EXPERT_SUCCESS_RECALL),
        ("Policy successes seen as successes", fidelity.replay.policy_success_recall, None),
        ("Policy failures seen as failures", fidelity.replay.policy_failure_recall, wording.POLICY_FAILURE_RECALL),
    ):
        rows.append(_bounded_bar(name, rate, bound, "imagined"))
    return rows


def _bounded_bar(name: str, rate: float | None, bound: float | None, role: str) -> dict[str, Any]:
    wanted = "" if bound is None else f" (should reach {percent(bound)})"
    return {
        "name": name,
        "rate": rate,
        "bound": bound,
        "missed": rate is not None and bound is not None and rate < bound,
        "bar": None if rate is None else rate_bar(rate, None, role, f"{name}: {percent(rate)}{wanted}", bound=bound),
    }


def _classifier_view(classifier: ClassifierMetrics, bound: float) -> list[dict[str, Any]]:
    groups = []
    for name, detection in (("Real frames", classifier), ("Generated frames", classifier.generated)):
        groups.append(
            {
                "name": name,
                "ece": detection.ece,
                "rows": [
                    _bounded_bar("Precision: a claimed success is one", detection.precision, bound, "refined"),
                    _bounded_bar("Recall: a success is noticed", detection.recall, None, "refined"),
                ],
            }
        )
    return groups


def _classifier_rows(classifier: ClassifierMetrics) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "first": kind == "real",
            "frames": kind,
            "threshold": classifier.thresholds[task],
            "found": found,
        }
        for task, own in classifier.tasks.items()
        for kind, found in (("real", own), ("generated", own.generated))
    ]


def _error_rows(fidelity: Fidelity, bound: float) -> list[dict[str, Any]]:
    rows = []
    for horizon in sorted(fidelity.open_loop_mse, key=int):
        error, still = fidelity.open_loop_mse[horizon], fidelity.copy_last_mse[horizon]
        missed = error >= still or error > bound * still
        rows.append({"steps": int(horizon), "error": error, "still": still, "missed": missed})
    return rows


def _error_chart(fidelity: Fidelity) -> Markup:
    rows = _error_rows(fidelity, 1.0)
    steps, model, still = ([row[key] for row in rows] for key in ("steps", "error", "still"))
    said = "; ".join(f"{row['steps']} steps: {number(row['error'])} against {number(row['still'])}" for row in rows)
    return line_chart(
        [
            Series("repeating the last frame", steps, still, "bc", dashed=True, markers=True),
            Series("world model", steps, model, "imagined", markers=True),
        ],
        x_label="steps ahead",
        y_label="mean squared error",
        description=f"Prediction error of the world model against repeating the last frame. {said}.",
        ticks_at_x=True,
    )


def _curves(findings: Findings) -> list[dict[str, Any]]:
    """The panels of learning curves, grouped under a title each."""
    groups: list[dict[str, Any]] = []
    for task, result in findings.evaluations.items():
        clone, refined = findings.bc_curves[task], findings.refined_curves[task]
        name = wording.pretty(task)
        groups.append(
            {
                "name": name,
                "panels": [
                    _panel(
                        "Cloning the demonstrations",
                        "How badly the policy guesses the expert's actions; lower is better.",
                        clone,
                        "step",
                        {"train_nll": ("training", "refined"), "validation_nll": ("held-out", "bc")},
                        y_label="negative log-likelihood",
                        said=name,
                    ),
                    _panel(
                        "Practising in imagination",
                        "Success inside the world model while PPO runs, beside what the simulator says.",
                        refined,
                        "iteration",
                        {"imagined_success": ("imagined success", "imagined")},
                        y_label="imagined success",
                        said=name,
                        as_percent=True,
                        y_range=(0.0, 1.0),
                        levels=(
                            Level(result.bc.rate, f"cloned, simulator {percent(result.bc.rate)}", "bc"),
                            Level(result.refined.rate, f"refined, simulator {percent(result.refined.rate)}", "refined"),
                        ),
                    ),
                    _panel(
                        "How far the policy moved",
                        "KL divergence: from the cloned policy, and in each update.",
                        refined,
                        "iteration",
                        {"bc_kl": ("from the cloned policy", "refined"), "approx_kl": ("each update", "bc")},
                        y_label="KL divergence",
                        said=name,
                    ),
                    _panel(
                        "How boldly it explores",
                        "Spread of its actions (σ), of a range from −1 to 1.",
                        refined,
                        "iteration",
                        {"sigma": ("σ", "plain")},
                        y_label="standard deviation",
                        said=name,
                    ),
                ],
            }
        )
    losses = {"loss": ("loss", "imagined")}
    panels = [
        _panel(title, text, curve, "step", losses, y_label="loss (log scale)", said="all tasks", log=True, smooth=True)
        for title, text, curve in (
            ("World model", "How badly it predicts the next frame; lower is better.", findings.world_model_curve),
            ("Success classifier", "How badly it tells success from failure.", findings.classifier_curve),
        )
    ]
    return [{"name": "Shared by all tasks", "panels": panels}, *groups]


def _panel(
    title: str, text: str, curve: pd.DataFrame, x: str, columns: Mapping[str, tuple[str, str]], *, y_label: str,
    said: str, smooth: bool = False, levels: Sequence[Level] = (), **options: Any
) -> dict[str, Any]:  # fmt: skip
    series = [
        Series(name, curve[x].tolist(), curve[column].tolist(), role, dashed=index > 0, smooth=smooth)
        for index, (column, (name, role)) in enumerate(columns.items())
    ]
    series = [each for each in series if any(math.isfinite(value) for value in each.y)]
    ends = []
    for each in series:
        known = [value for value in each.y if math.isfinite(value)]
        ends.append(f"{each.name} from {number(known[0], 3)} to {number(known[-1], 3)}")
    ends.extend(level.name for level in levels)
    description = f"{title}, {said}: {'; '.join(ends) or 'nothing recorded'}."
    chart = line_chart(series, x_label=x, y_label=y_label, description=description, levels=levels, **options)
    return {"title": title, "text": text, "series": series, "levels": levels, "chart": chart}


def _stage_rows(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    longest = max(seconds.values()) or 1.0
    rows = []
    for stage, took in seconds.items():
        name, _, task = stage.partition("@")
        rows.append(
            {
                "stage": stage,
                "name": STAGE_NAMES[name],
                "task": task,
                "seconds": took,
                "share": 100 * took / longest,
            }
        )
    return rows


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # the orchestrator's packages are not needed to run a stage
    return versions
