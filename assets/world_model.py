"""The diffusion world model, the success classifier, and how far both can be trusted."""

from __future__ import annotations

from assets import showing
from assets.translator import Layer, Metadata, StageAsset
from world4rl.files import read_json
from world4rl.paths import Paths


def _show_world_model(paths: Paths, task: str | None) -> Metadata:
    return showing.figures(paths.world_model_metrics) | {
        "learning curve": showing.curves(paths.world_model_curve, ["loss", "learning_rate"]),
        "model": showing.file(paths.world_model),
    }


def _show_classifier(paths: Paths, task: str | None) -> Metadata:
    metrics = read_json(paths.classifier_metrics)
    frames = (("real", metrics), ("generated", metrics["generated"]))
    rows = [
        (name, showing.percent(values["precision"]), showing.percent(values["recall"]), values["ece"])
        for name, values in frames
    ]
    thresholds = metrics["thresholds"]
    by_task = [
        (task, thresholds[task], name, showing.percent(values["precision"]), showing.percent(values["recall"]))
        for task, own in metrics["tasks"].items()
        for name, values in (("real", own), ("generated", own["generated"]))
    ]
    each = {f"threshold of {task}": value for task, value in thresholds.items()}  # numbers: Dagster plots them
    return (
        showing.figures(paths.classifier_metrics)
        | each
        | {
            "held-out rollouts": showing.table(["frames", "precision", "recall", "calibration error"], rows),
            "task by task": showing.table(["task", "threshold", "frames", "precision", "recall"], by_task),
            "learning curve": showing.curves(paths.classifier_curve, ["loss"]),
            "model": showing.file(paths.classifier),
        }
    )


def _show_fidelity(paths: Paths, task: str | None) -> Metadata:
    metrics = read_json(paths.fidelity_metrics)
    horizons = sorted(metrics["open_loop_mse"], key=int)
    errors = [(steps, metrics["open_loop_mse"][steps], metrics["copy_last_mse"][steps]) for steps in horizons]
    replay = metrics["replay"]
    seen = [
        (name, showing.percent(replay[f"{key}_recall"]))
        for name, key in (
            ("expert success seen as success", "expert_success"),
            ("policy success seen as success", "policy_success"),
            ("policy failure seen as failure", "policy_failure"),
        )
    ]
    strips = sorted(paths.fidelity.glob("**/*.png"))[:4]
    return (
        showing.figures(paths.fidelity_metrics)
        | {
            "open-loop error": showing.table(["steps", "world model", "copying the last frame"], errors),
            "replay of held-out episodes": showing.table(["what happened", "rate"], seen),
            "all film strips": showing.file(paths.fidelity),
        }
        | {f"film strip {strip.stem}": showing.picture(paths.root, strip) for strip in strips}
    )


LAYER = Layer(
    "world_model",
    (
        StageAsset("world_model", frozenset({"pytorch", "diffusers", "dvc"}), _show_world_model),
        StageAsset("success_classifier", frozenset({"pytorch", "dvc"}), _show_classifier),
        StageAsset("fidelity", frozenset({"pytorch", "dvc"}), _show_fidelity),
    ),
)
