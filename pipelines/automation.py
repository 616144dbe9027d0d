"""What runs by itself, as Dagster's automation page shows it.

The sensor `batch_policy`, the schedule `nightly`, and the job `retrain`, with which a person asks for what is stale.
Only the sensor starts runs that train. The schedule and the job ask it to, so that nothing is asked for twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time as now

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    DagsterInvalidDefinitionError,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    JobDefinition,
    MaterializeResult,
    OpExecutionContext,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    asset,
    in_process_executor,
    job,
    op,
    schedule,
    sensor,
)

from pipelines.jobs import JOBS, PRIORITY_TAG, TAKING, Passage
from pipelines.retraining import (
    OFF,
    PLAN_KEY,
    RETRAIN,
    WHY_TAG,
    Retrainer,
    plan_event,
    plan_metadata,
    plan_rows,
    read_memory,
)
from world4rl.config import Retraining, load_params
from world4rl.errors import ConfigError

INTERVAL_SECONDS = 15


@dataclass(frozen=True)
class Automation:
    """Parts of the definitions."""

    plan: AssetsDefinition
    jobs: Sequence[JobDefinition]
    sensors: Sequence[SensorDefinition]
    schedules: Sequence[ScheduleDefinition]


def build_automation(root: Path, passages: Sequence[Passage]) -> Automation:
    """What runs by itself.

    Args:
        root: The project's folder.
        passages: The jobs of the lineage.

    Raises:
        ConfigError: the nightly schedule is none.
    """
    rules = load_params(root / "params.yaml").retraining
    retrainer = Retrainer(root, passages)
    retrain = _retrain_job(retrainer)
    nightly = _nightly(retrainer, rules, retrain, root)
    return Automation(_plan(retrainer), [retrain], [_batch_policy(retrainer, rules)], [nightly] if nightly else [])


def _plan(retrainer: Retrainer) -> AssetsDefinition:
    @asset(
        key=PLAN_KEY,
        group_name="landing",
        description="What would run now, and why: *Materialize* looks and runs nothing. Each time that a retraining "
        "begins, what was going to run.",
        kinds={"markdown"},
    )
    def plan(context: AssetExecutionContext) -> MaterializeResult:
        found, behind = retrainer.stale(context.instance)
        return MaterializeResult(metadata=plan_metadata(found, "nobody: this is a look", behind))

    return plan


def _retrain_job(retrainer: Retrainer) -> JobDefinition:
    @op
    def ask(context: OpExecutionContext) -> None:
        plan, behind = retrainer.stale(context.instance)
        why = context.run.tags.get(WHY_TAG, f"asked for by run {context.run_id[:8]}")
        context.log.info(f"{why}: {plan}")
        for name, action, reasons in plan_rows(plan, behind):
            context.log.info(f"{name} {action}: {reasons}")
        context.log_event(plan_event(plan, why, behind))

    @job(
        name=RETRAIN,
        executor_def=in_process_executor,
        description="Asks for all that is stale, whatever has gathered; the sensor batch_policy starts it. What was "
        "tried in vain is tried again.",
        tags={PRIORITY_TAG: TAKING},
    )
    def retrain() -> None:
        ask()

    return retrain


def _batch_policy(retrainer: Retrainer, rules: Retraining) -> SensorDefinition:
    @sensor(
        jobs=list(JOBS),
        name="batch_policy",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description=f"Retrains a task when {rules.episodes} accepted episodes of it have gathered, or the oldest has "
        f"waited {rules.hours:g} h, or some were withdrawn; and carries out what `nightly` or the job `retrain` ask "
        "for (retraining in params.yaml).",
    )
    def batch_policy(context: SensorEvaluationContext) -> SensorResult:
        tick = retrainer.tick(context.instance, read_memory(context.cursor), now())
        opened = tick.memory.round
        return SensorResult(
            run_requests=list(tick.requests),
            skip_reason=None if tick.requests else SkipReason(tick.why),
            cursor=tick.memory.model_dump_json(),
            asset_events=[plan_event(tick.plan, opened.why)] if tick.plan and opened else [],
        )

    return batch_policy


def _nightly(retrainer: Retrainer, rules: Retraining, retrain: JobDefinition, root: Path) -> ScheduleDefinition | None:
    if rules.nightly is None:
        return None
    try:

        @schedule(
            job=retrain,
            name="nightly",
            cron_schedule=rules.nightly,
            execution_timezone=rules.timezone,
            default_status=DefaultScheduleStatus.RUNNING,
            description="Asks for what is stale, and for nothing where nothing is (retraining.nightly in params.yaml).",
        )
        def nightly(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
            if not load_params(root / "params.yaml").retraining.enabled:
                return SkipReason(OFF)
            if not retrainer.ever_made():
                return SkipReason("nothing was ever made here: `make demo` or the job `retrain` begins it")
            plan, behind = retrainer.stale(context.instance)
            if plan.going or behind:
                at = context.scheduled_execution_time.isoformat(timespec="minutes")
                return RunRequest(run_key=at, tags={WHY_TAG: f"nightly schedule, {at}"})
            blocked = [f"{planned.stage.name}: {'; '.join(planned.reasons)}" for planned in plan.of("blocked")]
            return SkipReason("; ".join(["nothing can run", *blocked]) if blocked else f"nothing changed: {plan}")

    except DagsterInvalidDefinitionError as error:
        raise ConfigError(
            f"retraining.nightly or retraining.timezone cannot be used: {error}",
            where=root / "params.yaml",
            remedy="give a cron expression of five fields, e.g. '0 2 * * *', and a time zone such as Europe/Berlin",
        ) from error
    return nightly
