"""Demonstrations: recorded from scripted experts, checked, and stored for training."""

from __future__ import annotations

from typing import Any

from assets import showing
from assets.translator import Layer, Metadata, StageAsset
from world4rl.files import read_json
from world4rl.paths import Paths, Source
from world4rl.provenance.manifests import write_manifests


def recording(paths: Paths, task: str, source: Source) -> dict[str, Any]:
    """What a raw dataset holds: episodes and successes a split."""
    folder = paths.raw(task, source)
    record = read_json(folder / "meta" / "world4rl.json")
    splits: dict[str, list[bool]] = {}
    for episode in record["episodes"]:
        splits.setdefault(episode["split"], []).append(bool(episode["success"]))
    rows = [(split, len(successes), sum(successes)) for split, successes in sorted(splits.items())]
    return showing.figures(paths.collect_metrics(task, source)) | {
        "episodes": sum(row[1] for row in rows),
        "successes": sum(row[2] for row in rows),
        "splits": showing.table(["split", "episodes", "successes"], rows),
        "dataset": showing.file(folder),
    }


def store_report(metrics: dict[str, Any]) -> dict[str, Any]:
    """What the checks of a store accepted and refused."""
    quarantined = metrics["quarantined"]
    rows = [(entry["episode"], entry["check"], entry["reason"]) for entry in quarantined]
    return {
        "episodes accepted": metrics["accepted"],
        "episodes quarantined": len(quarantined),
        "frames": metrics["frames"],
        "seconds": metrics["seconds"],
        "quarantine": showing.table(["episode", "check", "reason"], rows or [("none", None, None)]),
    }


def _show_demos(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return recording(paths, task, "expert")


def _show_demo_store(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    return store_report(read_json(paths.store_report(task, "expert"))) | {
        "stores": showing.file(paths.store(task, "expert"))
    }


def _show_landed(paths: Paths, task: str | None) -> Metadata:
    assert task is not None
    report = read_json(paths.landed_report(task))
    rows = [(role, each["datasets"], each["episodes"], each["root"][:16]) for role, each in sorted(report.items())]
    return {
        "episodes": sum(row[2] for row in rows),
        "roles": showing.table(["role", "datasets", "episodes", "Merkle root"], rows),
        "datasets": showing.file(paths.landed(task)),
    }


def _prepare_landed(paths: Paths, task: str | None) -> None:
    assert task is not None
    write_manifests([task], paths)


LAYER = Layer(
    "demos",
    (
        StageAsset("landed", frozenset({"lerobot", "dvc"}), _show_landed, _prepare_landed),
        StageAsset("demos", frozenset({"mujoco", "lerobot", "dvc"}), _show_demos),
        StageAsset("demo_store", frozenset({"zarr", "pandera", "dvc"}), _show_demo_store),
    ),
)
