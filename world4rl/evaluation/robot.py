"""The stage `evaluation` of a task that no simulator has: what the trials say that a robot made and that landed.

A trial is an episode of a landed dataset whose role is `evaluation` and whose statement names the policy that acted by
its digest. Trials of other policies than the present two, of an earlier generation say, are counted and left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from world4rl import progress
from world4rl.config import Params
from world4rl.evaluation.statistics import compare_unpaired
from world4rl.evaluation.tables import POLICIES
from world4rl.files import replacing, write_json
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.manifests import RoleManifest, read_role_manifest

COLUMNS = ("policy", "dataset", "episode", "success", "rows")


def evaluate_on_robot(params: Params, paths: Paths, task: str) -> None:
    """Compares the cloned and the refined policy of `task` by their landed trials; writes metrics and `trials.csv`.

    Where a policy has no trials yet, its figures are zero and the gain is null: there is nothing to say so far.

    Raises:
        DataError: a policy or the manifest of the task's evaluations is missing or damaged.
    """
    began = time.monotonic()
    manifest = read_role_manifest(paths.landed(task, "evaluation"))
    folders = dict(zip(POLICIES, (paths.bc(task), paths.refined(task)), strict=True))
    digests = {name: digest_folder(folder) for name, folder in folders.items()}
    trials = trial_rows(manifest, digests)
    with replacing(paths.evaluation(task)) as fresh:
        fresh.mkdir()
        pd.DataFrame(trials, columns=list(COLUMNS)).to_csv(fresh / "trials.csv", index=False, lineterminator="\n")
    results = {name: _result([trial for trial in trials if trial["policy"] == name]) for name in POLICIES}
    metrics = {
        "task": task,
        "judged": "robot",
        **results,
        **_gain(results, params.evaluation.confidence),
        "others": len(manifest.episodes) - len(trials),
        "policies": digests,
        "seconds": round(time.monotonic() - began, 3),
    }
    write_json(paths.evaluation_metrics(task), metrics)
    progress.metrics({name: f"{each['successes']}/{each['trials']}" for name, each in results.items()})
    if metrics["gain_points"] is None:
        progress.log(
            f"{task}: both policies need trials on the robot; land them with --role evaluation --policy DIGEST"
        )


def trial_rows(manifest: RoleManifest, digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """The trials of the policies with the given digests, a row each, in the order of the manifest."""
    named = {digest: name for name, digest in digests.items()}
    return [
        {
            "policy": named[dataset.statement.policy],
            "dataset": dataset.id,
            "episode": episode.episode,
            "success": int(episode.success),
            "rows": episode.length,
        }
        for dataset in manifest.datasets
        if dataset.statement.policy in named
        for episode in dataset.episodes
        if episode.success is not None
    ]


def _result(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lengths = [trial["rows"] for trial in trials if trial["success"]]
    mean = sum(lengths) / len(lengths) if lengths else None
    return {"successes": len(lengths), "trials": len(trials), "steps_mean": mean}


def _gain(results: Mapping[str, Mapping[str, Any]], confidence: float) -> dict[str, Any]:
    first, second = (results[name] for name in POLICIES)
    if not (first["trials"] and second["trials"]):
        return {"gain_points": None, "gain_interval": None, "p_value": None}
    compared = compare_unpaired(
        (first["successes"], first["trials"]), (second["successes"], second["trials"]), confidence
    )
    return {
        "gain_points": compared.gain_points,
        "gain_interval": list(compared.gain_interval),
        "p_value": compared.p_value,
    }
