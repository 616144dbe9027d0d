"""Builds the Dagster asset that runs a step of `dvc.yaml`."""

from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    asset,
)

from assets import auditing, showing
from assets.dvc_project import DvcProject, Recorded, Stage
from assets.recording import Kept, record_stage
from assets.stage_runner import Outcome, StageRunner
from assets.translator import Layer, StageAsset, StageTranslator
from world4rl.errors import DataError
from world4rl.paths import Paths


def build_layer(project: DvcProject, layer: Layer, translator: StageTranslator) -> list[AssetsDefinition]:
    """The assets of a layer."""
    return [build_asset(project, layer, member, translator) for member in layer.assets]


def build_asset(project: DvcProject, layer: Layer, member: StageAsset, translator: StageTranslator) -> AssetsDefinition:
    """An asset that brings one DVC stage up to date and tells what it made.

    What it tells comes from `dvc.lock` and the stage's own files, whether the stage ran or was up to date already.
    """
    spec = translator.get_asset_spec(project, layer, member)

    @asset(
        key=spec.key,
        deps=list(spec.deps),
        group_name=spec.group_name,
        description=spec.description,
        owners=list(spec.owners),
        tags={key: value for key, value in spec.tags.items() if not key.startswith("dagster/kind/")},
        kinds=set(spec.kinds),
        metadata=dict(spec.metadata),
        code_version=spec.code_version,
        partitions_def=spec.partitions_def,
        required_resource_keys={"dvc"},
        # A stage for all tasks has a pool of its own: two runs never train the same model. Runs of one task follow
        # each other by the limit on its partition (pipelines/instance.py). DVC's own lock stands behind both.
        pool=None if spec.partitions_def else member.step,
    )
    def run_stage(context: AssetExecutionContext) -> MaterializeResult:
        runner: StageRunner = context.resources.dvc
        stage = project.stage(member.step, context.partition_key if context.has_partition_key else None)
        if member.prepare is not None:
            member.prepare(Paths(project.root), stage.task)
        outcome = runner.run(context, project, stage)
        recorded = lock_entry(project, stage)
        kept = record_stage(project, stage, recorded)
        return describe(project, stage, outcome, member, recorded, kept)

    return run_stage


def lock_entry(project: DvcProject, stage: Stage) -> Recorded:
    """What `dvc.lock` says about a stage that is up to date.

    Raises:
        DataError: it does not know the stage.
    """
    recorded = project.recorded(stage)
    if recorded is None:
        raise DataError(
            f"DVC ran {stage.name} but recorded nothing",
            where=project.root / "dvc.lock",
            remedy="check that no other program edits dvc.lock, and run the stage again",
        )
    return recorded


def describe(
    project: DvcProject, stage: Stage, outcome: Outcome, member: StageAsset, recorded: Recorded, kept: Kept
) -> MaterializeResult:
    """The materialisation of a stage that is up to date."""
    metadata: dict[str, Any] = {
        "cached": outcome.cached,
        "size": showing.size(recorded.size),
        "files": recorded.files,
        "stage": MetadataValue.text(stage.name),
        "code version of this stage": MetadataValue.text(recorded.code_version),
        "run record": showing.link(project.root, kept.record),
    }
    if outcome.log is not None:
        metadata["log"] = showing.link(project.root, outcome.log)
    metadata.update(member.show(Paths(project.root), stage.task))
    metadata.update(auditing.pages(Paths(project.root), stage))
    return MaterializeResult(metadata=metadata, data_version=DataVersion(recorded.data_version))
