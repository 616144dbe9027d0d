"""The landing folder as Dagster sees it: a sensor that looks, a job that takes one dataset, and what shows the rest.

`manifest` and `quarantine` are made by no run of the lineage: the job that takes a dataset says when they changed.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    AssetMaterialization,
    AssetSpec,
    Config,
    DagsterInstance,
    DefaultSensorStatus,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    PartitionsDefinition,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    asset_check,
    in_process_executor,
    job,
    op,
    sensor,
)
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import RUN_KEY_TAG

from assets import auditing, showing
from pipelines.jobs import PRIORITY_TAG, TAKING
from world4rl.config import load_params
from world4rl.landing.inbox import open_inbox
from world4rl.landing.ledger import Entry, Ledger, Quarantined
from world4rl.landing.watch import Look, look
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_json
from world4rl.provenance.manifests import read_manifest

INTERVAL_SECONDS = 10
ASKED = 20  # runs at once; Dagster is asked about each of them at every look, and gives a look a minute
GROUP = "landing"
QUARANTINE_KEY = AssetKey("quarantine")
QUARANTINE_CHECK = "nothing_quarantined"
SHOWN = 100  # newest quarantine entries in a table
QUARANTINE_HEADER = ("entry", "dataset", "episode", "check", "reason", "evidence", "checker")


class Dataset(Config):
    """Which dataset of the landing folder a run takes."""

    name: str


def landing_specs(manifest: AssetKey, tasks: PartitionsDefinition | None) -> list[AssetSpec]:
    """Where data comes in, and what was kept out.

    Args:
        manifest: Key of the manifests.
        tasks: A partition a task.
    """
    return [
        AssetSpec(
            manifest,
            group_name=GROUP,
            partitions_def=tasks,
            description="The accepted episodes of a task, a role at a time. Its data version is that of the episodes: "
            "it moves when a dataset is accepted, released from quarantine or withdrawn.",
            kinds={"lerobot"},
        ),
        AssetSpec(
            QUARANTINE_KEY,
            group_name=GROUP,
            description="Episodes and datasets that are kept out of training, with reason, evidence and the checker "
            "that found it. `world4rl quarantine` shows and releases them.",
            kinds={"pandera"},
        ),
    ]


def build_take_job(root: Path, manifest: AssetKey) -> JobDefinition:
    """The job that takes one dataset; any number of runs may race for it, one gets it."""

    @op
    def take_dataset(context: OpExecutionContext, config: Dataset) -> None:
        from world4rl.landing.page import write_page  # both decode frames: more than the definitions need
        from world4rl.landing.take import take

        params, paths = load_params(root / "params.yaml"), Paths(root)
        ledger = Ledger(paths.ledger)
        taken = take(
            config.name,
            context.run_id,
            inbox=open_inbox(params.landing.address, root),
            ledger=ledger,
            params=params,
            paths=paths,
            clock=time.time,
        )
        if taken is None:
            context.log.info(f"{config.name}: somebody else has it, it changed while it was read, or it is settled")
            return
        context.log.info(f"{config.name} {taken.state}: {taken.detail['why']}")
        kept_out = _kept_out(ledger)
        for entry in kept_out:
            if entry.name == taken.name:
                context.log.warning(
                    f"quarantined: {_episode(entry)} of {entry.name}: {entry.checks}: {entry.reason} "
                    f"({entry.evidence or 'no evidence kept'}; {entry.checker})"
                )
        accepted = () if taken.acceptance is None else (episode.task for episode in taken.acceptance.episodes)
        audited = auditing.pages(paths)
        for task in sorted({*taken.manifests, *accepted}):  # again where a run died before it told
            context.log_event(_changed(paths, task, taken.name, kept_out, manifest, audited))
            # Told within the run: without one, Dagster keeps one such event a partition for ever. Its annotation leaves
            # checks out, its body takes them.
            context.log_event(_evaluation(paths, task, kept_out, manifest))  # type: ignore[arg-type]
        page = write_page(root)
        context.log_event(_quarantine(root, kept_out, page))
        told = {key: value if isinstance(value, int | float) else str(value) for key, value in taken.detail.items()}
        context.add_output_metadata({"became": taken.state, **told, "quarantine": showing.link(root, page)})

    @job(
        executor_def=in_process_executor,
        description="Takes one dataset out of the landing folder.",
        tags={PRIORITY_TAG: TAKING},
    )
    def take_landed() -> None:
        take_dataset()

    return take_landed


def build_manifest_check(root: Path, manifest: AssetKey, tasks: PartitionsDefinition | None) -> AssetChecksDefinition:
    """The check that shows a task's quarantined episodes. It warns and blocks nothing: they are kept out already."""

    @asset_check(
        asset=manifest,
        name=QUARANTINE_CHECK,
        description="No episode of the task's accepted datasets is in quarantine.",
        partitions_def=tasks,
    )
    def check(context: AssetCheckExecutionContext) -> AssetCheckResult:
        paths = Paths(root)
        return _result(_of_task(paths, context.partition_key, _kept_out(Ledger(paths.ledger))))

    return check


def _changed(
    paths: Paths,
    task: str,
    dataset: str,
    kept_out: Sequence[Quarantined],
    manifest: AssetKey,
    audited: Mapping[str, Any],
) -> AssetMaterialization:
    """The event that a task's manifest has another version."""
    found = read_manifest(paths.manifest(task))
    rows = [
        (role, len(each.datasets), len(each.episodes), each.root[:16]) for role, each in sorted(found.roles.items())
    ]
    own = _of_task(paths, task, kept_out)
    return AssetMaterialization(
        asset_key=manifest,
        partition=task,
        metadata={
            "roles": showing.table(["role", "datasets", "episodes", "Merkle root"], rows),
            "dataset": MetadataValue.text(dataset),
            "episodes": sum(row[2] for row in rows),
            "episodes quarantined": len(own),
            "quarantine": _table(own),
            "manifest": showing.link(paths.root, paths.manifest(task)),
            **audited,
        },
        tags={DATA_VERSION_TAG: found.version},
    )


def _quarantine(root: Path, kept_out: Sequence[Quarantined], page: Path) -> AssetMaterialization:
    """The event that shows all that is kept out."""
    return AssetMaterialization(
        asset_key=QUARANTINE_KEY,
        metadata={"entries": len(kept_out), "quarantine": _table(kept_out), "page": showing.link(root, page)},
        tags={DATA_VERSION_TAG: digest_json([entry.number for entry in kept_out])[:16]},
    )


def _evaluation(paths: Paths, task: str, kept_out: Sequence[Quarantined], manifest: AssetKey) -> AssetCheckEvaluation:
    result = _result(_of_task(paths, task, kept_out))
    return AssetCheckEvaluation(
        asset_key=manifest,
        check_name=QUARANTINE_CHECK,
        passed=result.passed,
        description=result.description,
        severity=result.severity,
        metadata=result.metadata or {},
        partition=task,
    )


def _result(own: Sequence[Quarantined]) -> AssetCheckResult:
    return AssetCheckResult(
        passed=not own,
        severity=AssetCheckSeverity.WARN,
        description=f"{len(own)} quarantined; `world4rl quarantine show ENTRY` tells all about one" if own else "none",
        metadata={"quarantine": _table(own)},
    )


def _kept_out(ledger: Ledger) -> list[Quarantined]:
    return [entry for entry in ledger.quarantined() if entry.kept_out]


def _of_task(paths: Paths, task: str, kept_out: Sequence[Quarantined]) -> list[Quarantined]:
    """Entries of datasets that gave other episodes to the task."""
    manifest = read_manifest(paths.manifest(task))
    digests = {dataset.digest for role in manifest.roles.values() for dataset in role.datasets}
    return [entry for entry in kept_out if entry.digest in digests]


def _table(kept_out: Sequence[Quarantined]) -> MetadataValue:
    rows = [
        (entry.number, entry.name, _episode(entry), entry.checks, entry.reason, entry.evidence or None, entry.checker)
        for entry in list(kept_out)[: -SHOWN - 1 : -1]
    ]
    return showing.table(QUARANTINE_HEADER, rows or [("none", *[None] * (len(QUARANTINE_HEADER) - 1))])


def _episode(entry: Quarantined) -> str:
    return "the whole dataset" if entry.episode is None else f"episode {entry.episode}"


def build_landing_sensor(root: Path, take_job: JobDefinition, manifest: AssetKey) -> SensorDefinition:
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
        ledger = Ledger(Paths(root).ledger)
        found = look(
            open_inbox(params.landing.address, root),
            ledger,
            params,
            Paths(root),
            now=time.time(),
            cursor=context.cursor or "",
            is_dead=lambda run: _is_dead(context.instance, run),
        )
        kept_out = _kept_out(ledger) if found.manifests else ()
        audited = auditing.pages(Paths(root)) if found.manifests else {}
        due = [entry for entry in found.due[:ASKED] if not _given_back(context.instance, ledger, entry)]
        requests = [
            RunRequest(
                run_key=entry.key,
                run_config={"ops": {"take_dataset": {"config": {"name": entry.name}}}},
                tags={"world4rl/dataset": entry.name},
            )
            for entry in due
        ]
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else SkipReason(_nothing(found)),
            cursor=found.cursor,
            asset_events=[
                _changed(Paths(root), task, "left by a run that died", kept_out, manifest, audited)
                for task in found.manifests
            ],
        )

    return landing


def _is_dead(instance: DagsterInstance, run: str) -> bool:
    record = instance.get_run_by_id(run)
    return record is None or record.is_finished


def _given_back(instance: DagsterInstance, ledger: Ledger, entry: Entry) -> bool:
    """Whether the run that was asked for to take a dataset ended before it took it; then another one is due later.

    Dagster starts no second run for a key, so that such a dataset would wait for ever.
    """
    runs = instance.get_runs(RunsFilter(tags={RUN_KEY_TAG: entry.key}))
    if not runs or not all(run.is_finished for run in runs):
        return False
    why = f"run {runs[0].run_id} ended before it took the dataset"
    ledger.give_back(entry.name, time.time(), why, "ready")
    return True


def _nothing(found: Look) -> str:
    if not (found.waiting or found.settled or found.unreadable):
        return "the landing folder is empty"
    unreadable = "; ".join(f"{name!r} cannot be read: {why}" for name, why in found.unreadable.items())
    words = f"nothing to take: {found.waiting} datasets are on their way, {found.settled} are settled"
    return f"{words}; {unreadable}" if unreadable else words
