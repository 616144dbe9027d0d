"""The simulator's verdict on cloned and refined policies, and the report."""

from __future__ import annotations

from typing import Any

from assets import showing
from assets.translator import Layer, Metadata, StageAsset
from world4rl.envs.tasks import is_simulated
from world4rl.files import read_json
from world4rl.paths import Paths


def _show_evaluation(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    metrics = read_json(paths.evaluation_metrics(task))
    if not is_simulated(task):
        return _show_robot(paths, task, metrics)
    rows = [
        (
            policy,
            f"{result['successes']} of {result['trials']}",
            showing.percent(result["successes"] / result["trials"]),
            showing.percent(metrics["imagined"][policy]),
            result["steps_mean"],
        )
        for policy, result in (("bc", metrics["bc"]), ("refined", metrics["refined"]))
    ]
    low, high = metrics["gain_interval"]
    folder = paths.evaluation(task)
    videos = [
        (f"[{video.stem}]({showing.link(paths.root, video).url})", f"`{video.resolve()}`")
        for video in sorted(folder.glob("*.mp4"))
    ]
    return showing.figures(paths.evaluation_metrics(task)) | {
        "success rate bc": metrics["bc"]["successes"] / metrics["bc"]["trials"],
        "success rate refined": metrics["refined"]["successes"] / metrics["refined"]["trials"],
        "success": showing.table(["policy", "successes", "rate", "imagined rate", "mean steps to success"], rows),
        "gain": f"{metrics['gain_points']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})",
        "trials": showing.link(paths.root, folder / "trials.csv"),
        "videos": showing.table(["video", "file"], videos or [("none", None)]),
    }


def _show_robot(paths: Paths, task: str, metrics: dict[str, Any]) -> Metadata:
    """What the trials that landed say of a task that no simulator has."""
    rows = [
        (policy, result["trials"], result["successes"], result["steps_mean"])
        for policy, result in (("bc", metrics["bc"]), ("refined", metrics["refined"]))
    ]
    gain = "unknown until both policies have trials on the robot"
    if metrics["gain_points"] is not None:
        low, high = metrics["gain_interval"]
        gain = f"{metrics['gain_points']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
    return showing.figures(paths.evaluation_metrics(task)) | {
        "on the robot": showing.table(["policy", "trials", "successes", "mean rows of a success"], rows),
        "gain": gain,
        "trials": showing.link(paths.root, paths.evaluation(task) / "trials.csv"),
    }


def _show_report(paths: Paths, task: str | None) -> Metadata:
    summary = read_json(paths.summary)
    rows = [
        (
            name,
            f"{result['bc']['successes']} of {result['bc']['trials']}",
            f"{result['refined']['successes']} of {result['refined']['trials']}",
            f"{result['gain_points']:+.1f}",
            result["p_value"],
        )
        for name, result in summary["tasks"].items()
    ]
    return {
        "report": showing.link(paths.root, paths.report),
        "profile": summary["profile"],
        "seconds of all stages": summary["seconds"],
        "success": showing.table(["task", "cloned", "refined", "gain in points", "p"], rows),
    }


LAYER = Layer(
    "evaluation",
    (
        StageAsset("evaluation", frozenset({"mujoco", "pytorch", "dvc"}), _show_evaluation),
        StageAsset("report", frozenset({"html", "dvc"}), _show_report),
    ),
)
