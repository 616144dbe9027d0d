"""The code location. Loading it reads dvc.yaml, params.yaml and the code, no data: it takes about a second."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import AssetsDefinition, Definitions, PreviewWarning

from assets import demos, evaluation, policies, rollouts, world_model
from assets.checks import build_check
from assets.dvc_project import DvcProject
from assets.factory import build_layer
from assets.promotion import CHALLENGE, build_champion
from assets.translator import StageTranslator
from pipelines.automation import build_automation
from pipelines.jobs import JOBS, passages
from pipelines.landing import build_landing_sensor, build_manifest_check, build_take_job, landing_specs
from pipelines.lineage import build_lineage_sensor, build_push_job
from pipelines.refreshing import build_refresh_job
from pipelines.resources import build_resources
from world4rl.evaluation.gates import GATES

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (demos.LAYER, rollouts.LAYER, world_model.LAYER, policies.LAYER, evaluation.LAYER)


def build_defs(
    *,
    root: Path = ROOT,
    translator: StageTranslator | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    more_assets: Sequence[AssetsDefinition] = (),
    challenge: Sequence[str] | None = CHALLENGE,
) -> Definitions:
    """Fresh definitions; a test or another site replaces single parts.

    Args:
        root: The project's folder.
        translator: Makes asset specs of the steps in `dvc.yaml`.
        resource_overrides: Resources in place of those of `build_resources`.
        more_assets: Assets that run no stage. Those made from `refined` or `evaluation` belong to the job `refine` and
            are retrained with it.
        challenge: The command that has a task's refined policy challenge its champion; `--task TASK` is added.
            None: there are no champions.

    Raises:
        ConfigError: `dvc.yaml` or the parameters are wrong.
    """
    project = DvcProject(root)
    translator = translator or StageTranslator()
    stages = [asset for layer in LAYERS for asset in build_layer(project, layer, translator)]
    champions = [] if challenge is None else [build_champion(project, translator, challenge)]
    lineage = [*stages, *champions, *more_assets]
    steps = {translator.get_asset_key(step): step for step in project.steps}
    automation = build_automation(root, passages(lineage, steps))
    manifest = translator.get_source_key()
    take_job, push_job = build_take_job(root, manifest), build_push_job(root)
    tasks = translator.get_partitions_def(project.steps["landed"])
    with warnings.catch_warnings():
        # A check a partition is marked as preview in Dagster 1.13. Without it one task's verdict would replace the
        # other's.
        warnings.simplefilter("ignore", PreviewWarning)
        return Definitions(
            assets=[*landing_specs(manifest, tasks), automation.plan, *lineage],
            asset_checks=[
                build_manifest_check(root, manifest, tasks),
                *(build_check(project, gate, translator) for gate in GATES),
            ],
            jobs=[*JOBS, take_job, push_job, build_refresh_job(root), *automation.jobs],
            schedules=automation.schedules,
            sensors=[
                build_landing_sensor(root, take_job, manifest),
                build_lineage_sensor(root, push_job),
                *automation.sensors,
            ],
            resources={**build_resources(), **(resource_overrides or {})},
        )


defs = build_defs()
