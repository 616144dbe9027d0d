"""The lineage in Git, as Dagster's daemon keeps it: a sensor that commits after every run, a job that pushes."""

from pathlib import Path

from dagster import (
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    OpExecutionContext,
    RunRequest,
    RunStatusSensorContext,
    SensorDefinition,
    SkipReason,
    in_process_executor,
    job,
    op,
    run_status_sensor,
)

from assets.dvc_project import has_remote
from assets.lineage_ref import commit_lineage, push_lineage
from world4rl.config import load_params


def build_push_job(root: Path) -> JobDefinition:
    """The job that pushes the newest state to DVC's default remote: that may take longer than a sensor may."""

    @op(pool="push")
    def push(context: OpExecutionContext) -> None:
        pushed = push_lineage(root)
        context.log.info("pushed" if pushed else "there is no remote, or nothing to push")

    @job(executor_def=in_process_executor, description="Pushes what the newest lineage commit names to DVC's remote.")
    def push_results() -> None:
        push()

    return push_results


def build_lineage_sensor(root: Path, push_job: JobDefinition) -> SensorDefinition:
    """The sensor that commits the state after every run that went well, whoever started it."""

    @run_status_sensor(
        run_status=DagsterRunStatus.SUCCESS,
        name="lineage",
        request_job=push_job,
        default_status=DefaultSensorStatus.RUNNING,
        description="Commits the state that a run left to refs/world4rl/lineage, and has it pushed.",
    )
    def lineage(context: RunStatusSensorContext) -> RunRequest | SkipReason:
        run = context.dagster_run
        if run.job_name == push_job.name:
            return SkipReason("pushing changes nothing")
        committed = commit_lineage(root, run=run.run_id, job=run.job_name)
        if committed is None:
            return SkipReason("nothing has changed since the last commit of the lineage")
        if not (load_params(root / "params.yaml").lineage.push and has_remote(root)):
            return SkipReason(f"committed {committed.commit[:12]}; there is no remote to push to")
        return RunRequest(run_key=committed.commit, tags={"world4rl/lineage": committed.commit})

    return lineage
