"""Rollouts of the cloned policy and of random actions: what world model and success classifier learn from."""

from __future__ import annotations

from assets import showing
from assets.demos import recording, store_report
from assets.translator import Layer, Metadata, StageAsset
from world4rl.files import read_json
from world4rl.paths import Paths


def _show_policy_rollouts(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return recording(paths, task, "policy")


def _show_random_rollouts(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return recording(paths, task, "random")


def _show_rollout_store(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return store_report(read_json(paths.store_report(task, "rollouts"))) | {
        "policy store": showing.file(paths.store(task, "policy")),
        "random store": showing.file(paths.store(task, "random")),
    }


LAYER = Layer(
    "rollouts",
    (
        StageAsset("policy_rollouts", frozenset({"mujoco", "lerobot", "dvc"}), _show_policy_rollouts),
        StageAsset("random_rollouts", frozenset({"mujoco", "lerobot", "dvc"}), _show_random_rollouts),
        StageAsset("rollout_store", frozenset({"zarr", "pandera", "dvc"}), _show_rollout_store),
    ),
)
