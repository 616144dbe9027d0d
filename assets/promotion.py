"""The champion of every task: not a DVC stage, because who is champion is decided and not computed.

The asset runs `world4rl challenge`, which decides once about a challenger and tells it again ever after.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, DataVersion, MaterializeResult, MetadataValue, asset

from assets import auditing, showing
from assets.dvc_project import DvcProject
from assets.stage_runner import Command, StageRunner
from assets.translator import Layer, StageTranslator
from world4rl.config import load_params
from world4rl.files import read_json
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_json

CHAMPION = "champion"
LAYER = Layer("promotion", ())  # no step of dvc.yaml
UPSTREAM = ("evaluation", "fidelity")
DESCRIPTION = """The policy of a task that robots should run.

Runs `world4rl challenge --task TASK`: the refined policy and the champion try the same simulator seeds, or are compared
by the trials that landed from a robot, until the answer is clear. The decision is a signed record in `data/decisions`;
docs/promotion.md explains the rule."""
CHALLENGE = (sys.executable, "-m", "world4rl", "challenge")
NOBODY = "none"  # the data version where no policy is champion


def build_champion(
    project: DvcProject, translator: StageTranslator, challenge: Sequence[str] = CHALLENGE
) -> AssetsDefinition:
    """The asset; its data version is the champion's digest, so that a champion that was kept does not look changed.

    Args:
        project: The stages.
        translator: Names the asset.
        challenge: The command; `--task TASK` is added.
    """
    step = project.steps[UPSTREAM[0]]
    params = load_params(project.root / "params.yaml")

    @asset(
        key=translator.get_asset_key(CHAMPION),
        deps=[translator.get_asset_key(upstream) for upstream in UPSTREAM],
        group_name=LAYER.name,
        description=DESCRIPTION,
        owners=translator.get_owners(LAYER, step),
        tags={"layer": LAYER.name},
        kinds={"mujoco", "pytorch"},
        metadata={"parameters": MetadataValue.text("promotion, gates, simulation, seed")},
        code_version=digest_json([params.promotion.model_dump(mode="json"), params.gates.model_dump(mode="json")])[:16],
        partitions_def=translator.get_partitions_def(step),
        required_resource_keys={"dvc"},
    )
    def champion(context: AssetExecutionContext) -> MaterializeResult:
        task, paths = context.partition_key, Paths(project.root)
        runner: StageRunner = context.resources.dvc
        command = Command(f"{CHAMPION}@{task}", task, (*challenge, "--task", task))
        outcome = runner.run_command(context, project.root, command)
        found = read_json(paths.challenge_report(task))
        metadata = describe(paths, found) | auditing.pages(paths)
        if outcome.log is not None:
            metadata["log"] = showing.link(project.root, outcome.log)
        return MaterializeResult(metadata=metadata, data_version=DataVersion(found["champion"] or NOBODY))

    return champion


def describe(paths: Paths, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a challenge came to, for a person: `found` is what `world4rl challenge` wrote."""
    evidence = found["evidence"]
    metadata: dict[str, Any] = {
        "verdict": found["verdict"],
        "why": MetadataValue.text(found["why"]),
        "decided now": found["decided"],
        "champion": MetadataValue.text(found["champion"] or NOBODY),
        "challenger": MetadataValue.text(found["challenger"]),
        "report": showing.link(paths.root, paths.challenge_report(found["task"])),
    }
    if found["record"] is not None:
        metadata["decision"] = showing.link(paths.root, paths.root / found["record"])
    if found["champion"] is not None:
        metadata["policy"] = showing.file(paths.champions(found["task"]) / found["champion"][:16])
    if "checks" in evidence:
        rows = [(check["check"], "yes" if check["passed"] else "NO", check["reason"]) for check in evidence["checks"]]
        metadata["checks"] = showing.table(["check", "passed", "reason"], rows)
    if "effect_points" in evidence:
        metadata |= _figures(evidence)
    return metadata


def _figures(evidence: Mapping[str, Any]) -> dict[str, Any]:
    low, high = evidence["interval_points"]
    names = (("challenger", "challenger"), ("opponent", evidence["opponent"]["is"]))
    rows = [
        (name, evidence[side]["successes"], evidence[side]["trials"], showing.percent(_rate(evidence[side])))
        for side, name in names
    ]
    return {
        "effect (points)": round(float(evidence["effect_points"]), 1),
        "interval": f"{low:+.1f} to {high:+.1f} points ({100 * evidence['confidence']:.0f} %)",
        "trials": int(evidence["challenger"]["trials"]),
        "p": round(float(evidence["p_value"]), 4),
        "test": MetadataValue.text(evidence["test"]),
        "comparison": showing.table(["policy", "successes", "trials", "rate"], rows),
    }


def _rate(side: Mapping[str, Any]) -> float:
    return float(side["successes"] / side["trials"])
