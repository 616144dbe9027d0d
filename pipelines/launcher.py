"""Dagster's own run launcher for one machine, which also notices when the process of a run is gone.

Without that, a run stays started for ever whose process and whose parent were killed together, by a loss of power say:
it holds its place in the queue and what it had claimed, and the next run of the task never begins.
"""

from __future__ import annotations

import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

from pipelines.instance import OWNER_TAG, is_alive

CLOCK_SECONDS = 2.0  # by which the times of a process and of an event may differ


class LocalRunLauncher(DefaultRunLauncher):
    """Named in `.dagster/dagster.yaml`; the monitor of Dagster's daemon asks it after the runs that have started."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It can tell."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process that executes a run is there."""
        if OWNER_TAG in run.tags:  # executed by `make demo`
            gone = not is_alive(run.tags[OWNER_TAG])
        else:
            gone = _worker_is_gone(self._instance, run.run_id)
        if gone:
            return CheckRunHealthResult(WorkerStatus.FAILED, "the process that executed this run was killed")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _worker_is_gone(instance: DagsterInstance, run: str) -> bool:
    """Whether the process that a run's events name is no longer there; False where none is named yet."""
    started = [
        (event.timestamp, data.metadata["pid"].value)
        for event in instance.all_logs(run, of_type=DagsterEventType.ENGINE_EVENT)
        if (data := event.get_dagster_event().engine_event_data) and "pid" in data.metadata
    ]
    if not started:
        return False
    time, pid = started[-1]
    try:
        process = psutil.Process(int(str(pid)))
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > time + CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
