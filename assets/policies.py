"""Policies: cloned from demonstrations, refined in imagination."""

from __future__ import annotations

from assets import showing
from assets.translator import Layer, Metadata, StageAsset
from world4rl.paths import Paths


def _show_bc(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return showing.figures(paths.bc_metrics(task)) | {
        "learning curve": showing.curves(paths.bc_curve(task), ["train_nll", "validation_nll"]),
        "policy": showing.file(paths.bc(task)),
    }


def _show_refined(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return showing.figures(paths.refined_metrics(task)) | {
        "learning curve": showing.curves(paths.refined_curve(task), ["imagined_success", "bc_kl", "sigma"]),
        "policy": showing.file(paths.refined(task)),
    }


LAYER = Layer(
    "policies",
    (
        StageAsset("bc", frozenset({"pytorch", "lerobot", "dvc"}), _show_bc),
        StageAsset("refined", frozenset({"pytorch", "lerobot", "dvc"}), _show_refined),
    ),
)
