"""Blocking asset checks: the judgements of `world4rl.evaluation.gates`, asked by Dagster."""

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    asset_check,
)

from assets.dvc_project import DvcProject
from assets.translator import StageTranslator
from world4rl.config import load_params
from world4rl.evaluation.gates import Gate, judge
from world4rl.paths import Paths


def build_check(project: DvcProject, gate: Gate, translator: StageTranslator) -> AssetChecksDefinition:
    """The blocking asset check of a gate. The bounds are read when it runs."""

    @asset_check(
        asset=translator.get_asset_key(gate.step),
        name=gate.name,
        description=gate.description,
        blocking=True,
        partitions_def=translator.get_partitions_def(project.steps[gate.step]),
    )
    def check(context: AssetCheckExecutionContext) -> AssetCheckResult:
        task = context.partition_key if context.has_partition_key else None
        verdict = judge(gate, Paths(project.root), load_params(project.root / "params.yaml").gates, task)
        return AssetCheckResult(
            passed=verdict.passed,
            description=verdict.reason,
            severity=AssetCheckSeverity.ERROR,
            metadata=dict(verdict.figures),
        )

    return check
