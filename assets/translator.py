"""How a step of `dvc.yaml` becomes a Dagster asset. Subclass to change keys, groups, owners or anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dagster import AssetKey, AssetSpec, MetadataValue, PartitionsDefinition, StaticPartitionsDefinition

from assets.dvc_project import DvcProject, Step
from world4rl.paths import Paths

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class StageAsset:
    """What this repository adds to a step of `dvc.yaml`.

    Attributes:
        step: The step's name.
        kinds: What Dagster shows as badges.
        show: Metadata worth a person's look, from the files that the stage wrote; called with the task or None.
        prepare: Called before DVC looks at the stage, with the task or None: makes what no stage makes.
    """

    step: str
    kinds: frozenset[str]
    show: Callable[[Paths, str | None], Metadata]
    prepare: Callable[[Paths, str | None], object] | None = None


@dataclass(frozen=True)
class Layer:
    """A group of assets.

    Attributes:
        name: The Dagster group.
        assets: Its members.
    """

    name: str
    assets: tuple[StageAsset, ...]


class StageTranslator:
    """Translates a step of `dvc.yaml` into an asset spec.

    Each part has a method of its own; a subclass overrides what it wants otherwise and hands itself to
    `pipelines.definitions.build_defs(translator=...)`.

    Example:
        ```python
        class Prefixed(StageTranslator):
            def get_asset_key(self, step):
                return super().get_asset_key(step).with_prefix("lab_3")
        ```
    """

    def get_asset_key(self, step: str) -> AssetKey:
        """The key of a step's asset, also where other assets depend on it."""
        return AssetKey(step)

    def get_source_key(self) -> AssetKey:
        """The key of what no stage makes: the manifests of landed data."""
        return self.get_asset_key("manifest")

    def get_upstream(self, project: DvcProject, step: Step) -> list[str]:
        """The steps that it reads from.

        The report reads from nearly all; of such a last step only those count that the others do not come from, or
        its arrows would hide the graph.
        """
        if any(step.name in other.upstream for other in project.steps.values()):
            return list(step.upstream)
        implied = {above for name in step.upstream for above in _above(project, name)}
        return [name for name in step.upstream if name not in implied]

    def get_group_name(self, layer: Layer, step: Step) -> str:
        """The group: the layer's name."""
        return layer.name

    def get_description(self, layer: Layer, step: Step) -> str:
        """The description: `desc` of `dvc.yaml`, and the stage to run by hand."""
        example = step.stages[0].name
        return f"{step.description}\n\nRuns `{step.stages[0].command}` as the DVC stage `{example}`."

    def get_owners(self, layer: Layer, step: Step) -> list[str]:
        """The owners: one team owns the lineage."""
        return ["team:robot-learning"]

    def get_tags(self, layer: Layer, step: Step) -> dict[str, str]:
        """The tags: the layer and the step, for selections such as `tag:layer=policies`."""
        return {"layer": layer.name, "dvc_step": step.name}

    def get_metadata(self, layer: Layer, step: Step) -> Metadata:
        """What the asset is made from and makes, for its page."""
        stage = step.stages[0]
        return {
            "parameters": MetadataValue.text(", ".join(stage.parameters) or "none"),
            "code": MetadataValue.text(", ".join(stage.code) or "none"),
            "makes": MetadataValue.text(", ".join(stage.outputs + stage.metrics)),
        }

    def get_partitions_def(self, step: Step) -> PartitionsDefinition | None:
        """One partition a task; None for a step that serves all tasks."""
        return StaticPartitionsDefinition(list(step.tasks)) if step.tasks else None

    def get_asset_spec(self, project: DvcProject, layer: Layer, asset: StageAsset) -> AssetSpec:
        """The whole spec."""
        step = project.steps[asset.step]
        sources = [self.get_source_key()] if any(stage.sources for stage in step.stages) else []
        return AssetSpec(
            key=self.get_asset_key(step.name),
            deps=[*sources, *(self.get_asset_key(upstream) for upstream in self.get_upstream(project, step))],
            group_name=self.get_group_name(layer, step),
            description=self.get_description(layer, step),
            owners=self.get_owners(layer, step),
            tags=self.get_tags(layer, step),
            kinds=set(asset.kinds),
            metadata=self.get_metadata(layer, step),
            code_version=project.step_code_version(step),
            partitions_def=self.get_partitions_def(step),
        )


def _above(project: DvcProject, step: str) -> set[str]:
    """All steps that a step is made from."""
    direct = project.steps[step].upstream
    return {*direct, *(above for name in direct for above in _above(project, name))}
