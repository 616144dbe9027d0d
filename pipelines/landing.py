"""The landing folder as Dagster sees it: a sensor that looks, a job that takes one dataset."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import (
    AssetMaterialization,
    Config,
    DagsterInstance,
    DefaultSensorStatus,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    in_process_executor,
    job,
    op,
    sensor,
)
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from assets import showing
from world4rl.config import load_params
from world4rl.landing.inbox import open_inbox
from world4rl.landing.ledger import Ledger
from world4rl.landing.watch import Look, look
from world4rl.paths import Paths
from world4rl.provenance.manifests import read_manifest

if TYPE_CHECKING:
    from world4rl.landing.take import Taken

INTERVAL_SECONDS = 10
PRIORITY = "20"  # taking a dataset goes before training


class Dataset(Config):
    """Which dataset of the landing folder a run takes."""

    name: str


def build_take_job(root: Path) -> JobDefinition:
    """The job that takes one dataset; any number of runs may race for it, one gets it."""

    @op(tags={"dagster/priority": PRIORITY})
    def take_dataset(context: OpExecutionContext, config: Dataset) -> None:
        from world4rl.landing.take import take  # it decodes frames: more than the definitions need

        params, paths = load_params(root / "params.yaml"), Paths(root)
        taken = take(
            config.name,
            context.run_id,
            inbox=open_inbox(params.landing.address, root),
            ledger=Ledger(paths.ledger),
            params=params,
            paths=paths,
            clock=time.time,
        )
        if taken is None:
            context.log.info(f"{config.name}: somebody else has it, or it is settled")
            return
        context.log.info(f"{config.name} {taken.state}: {taken.detail['why']}")
        for task in taken.manifests:
            context.log_event(_changed(paths, task, taken))

    @job(executor_def=in_process_executor, description="Takes one dataset out of the landing folder.")
    def take_landed() -> None:
        take_dataset()

    return take_landed


def _changed(paths: Paths, task: str, taken: "Taken") -> AssetMaterialization:
    """The event that a task's manifest has another version."""
    manifest = read_manifest(paths.manifest(task))
    rows = [
        (role, len(each.datasets), len(each.episodes), each.root[:16]) for role, each in sorted(manifest.roles.items())
    ]
    return AssetMaterialization(
        asset_key="manifest",
        partition=task,
        metadata={
            "roles": showing.table(["role", "datasets", "episodes", "Merkle root"], rows),
            "dataset": MetadataValue.text(taken.name),
            "manifest": showing.file(paths.manifest(task)),
        },
        tags={DATA_VERSION_TAG: manifest.version},
    )


def build_landing_sensor(root: Path, take_job: JobDefinition) -> SensorDefinition:
    """The sensor that looks at the landing folder and asks for a run a dataset that is whole."""

    @sensor(
        job=take_job,
        name="landing",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Looks at the landing folder; a dataset that is whole is taken by a run of its own.",
    )
    def landing(context: SensorEvaluationContext) -> SensorResult:
        params = load_params(root / "params.yaml")
        found = look(
            open_inbox(params.landing.address, root),
            Ledger(Paths(root).ledger),
            params,
            now=time.time(),
            cursor=context.cursor or "",
            is_dead=lambda run: _is_dead(context.instance, run),
        )
        requests = [
            RunRequest(
                run_key=entry.key,
                run_config={"ops": {"take_dataset": {"config": {"name": entry.name}}}},
                tags={"world4rl/dataset": entry.name},
            )
            for entry in found.due
        ]
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else SkipReason(_nothing(found)),
            cursor=found.cursor,
        )

    return landing


def _is_dead(instance: DagsterInstance, run: str) -> bool:
    record = instance.get_run_by_id(run)
    return record is None or record.is_finished


def _nothing(found: Look) -> str:
    if not (found.waiting or found.settled):
        return "the landing folder is empty"
    return f"nothing to take: {found.waiting} datasets are on their way, {found.settled} are settled"
