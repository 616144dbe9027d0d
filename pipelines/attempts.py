"""How often something was tried on a Dagster instance, and whether it may be tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import PARTITION_NAME_TAG

from world4rl.progress import duration

KEY_TAG = "world4rl/key"  # names what a run is made from: the same key, the same inputs
BACK_OFF = (60.0, 600.0, 3600.0)  # seconds between the end of an attempt and the next one; then a person is needed
LOOKED_AT = 50  # newest runs of a job and task


@dataclass(frozen=True)
class Standing:
    """Where an undertaking stands.

    Attributes:
        state: `go`: may be tried. `running`: it is, or what it needs. `later`: after `until`. `stop`: needs a person.
        why: For people, where it is not `go`.
        until: Seconds since 1970, where it is `later`.
        key: Names what it would be made from.
        after: The newest run with this key; empty where there is none.
    """

    state: Literal["go", "running", "later", "stop"]
    why: str = ""
    until: float = 0.0
    key: str = ""
    after: str = ""


def standing(instance: DagsterInstance, job: str, task: str | None, key: str, *, since: float, now: float) -> Standing:
    """Whether a job may be run for a task.

    A run that ended well does not count for less than one that failed: after both there is work left.

    Args:
        instance: Where its runs are.
        job: The job.
        task: The partition; None for a job without partitions.
        key: Names what it would be made from: other inputs are another undertaking.
        since: Attempts before this time do not count, in seconds since 1970.
        now: Seconds since 1970.
    """
    tags = {} if task is None else {PARTITION_NAME_TAG: task}
    newest = instance.get_run_records(RunsFilter(job_name=job, tags=tags), limit=LOOKED_AT)
    active = [record for record in newest if not record.dagster_run.is_finished]
    if active:
        state = active[0].dagster_run.status.value.lower().replace("_", " ")
        return Standing("running", f"is {state} (run {_name(active[0])})")
    # Asked for by themselves: among all runs, those of a value that somebody went back to may be far away.
    same = instance.get_run_records(RunsFilter(job_name=job, tags={**tags, KEY_TAG: key}), limit=LOOKED_AT)
    after = same[0].dagster_run.run_id if same else ""
    tried = [record for record in same if record.create_timestamp.timestamp() >= since]
    if not tried:
        return Standing("go", key=key, after=after)
    last = tried[0]
    if last.dagster_run.status == DagsterRunStatus.CANCELED:
        return Standing("stop", f"stays as it is: somebody ended run {_name(last)}; the job `retrain` starts it again")
    if len(tried) > len(BACK_OFF):
        return Standing(
            "stop",
            f"needs a person: tried {len(tried)} times with the same inputs, last in run {_name(last)}; mend the "
            "cause, then start the job `retrain`",
        )
    until = (last.end_time or last.update_timestamp.timestamp()) + BACK_OFF[len(tried) - 1]
    if now < until:
        ended = "failed" if last.dagster_run.status == DagsterRunStatus.FAILURE else "did not finish the work"
        return Standing(
            "later",
            f"waits: run {_name(last)} {ended}; attempt {len(tried) + 1} of {len(BACK_OFF) + 1} in "
            f"{duration(until - now)}",
            until=until,
        )
    return Standing("go", key=key, after=after)


def _name(record: RunRecord) -> str:
    return record.dagster_run.run_id[:8]
