"""The persistent Dagster instance of a project, in its folder `.dagster`."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from world4rl.files import write_text
from world4rl.provenance.digests import digest_file

if TYPE_CHECKING:
    from dagster import DagsterInstance

OWNER_TAG = "world4rl/process"

SETTINGS = """\
# Written once by pipelines/instance.py; edit it as you like.
telemetry:
  enabled: false
nux: # no sign-up dialog
  enabled: false

concurrency:
  runs:
    # Many, because taking a dataset out of the landing folder must not wait for a training that takes hours.
    max_concurrent_runs: 10
    tag_concurrency_limits:
      # So many passages of the lineage (pipelines/jobs.py) at once; those that wait go by dagster/priority.
      - key: world4rl/passage
        limit: 2
      # So many datasets are read at once.
      - key: world4rl/dataset
        limit: 2
      # Runs of the same task follow each other, so that no stage is asked for twice at once.
      - key: dagster/partition
        value:
          applyLimitPerUniqueValue: true
        limit: 1
  pools:
    # Each stage that serves all tasks is a pool of its own.
    default_limit: 1
    granularity: op

run_monitoring:
  # A run whose process died is marked as failed, and what it held is free again.
  enabled: true
  free_slots_after_run_end_seconds: 60
"""

# SHA-256 of settings that earlier versions wrote: where nobody edited them, the new ones take their place.
FORMER = frozenset({"b24f36eac9ab1f82452038e3e34ae580d56a6dc44970f87553dbbd361088497d"})


def prepare_home(root: Path) -> Path:
    """The instance's folder, with settings if it had none; sets DAGSTER_HOME for this process and its children."""
    home = (root / ".dagster").resolve()
    settings = home / "dagster.yaml"
    if not settings.exists() or digest_file(settings) in FORMER:
        write_text(settings, SETTINGS)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    return home


def open_instance() -> DagsterInstance:
    """The instance at DAGSTER_HOME, its databases made, and runs of killed processes marked as failed.

    One process at a time: SQLite tables that two create at once are an error.
    """
    from dagster import DagsterInstance  # takes a second, which the program that starts the lanes need not spend

    with (Path(os.environ["DAGSTER_HOME"]) / "open.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        instance = DagsterInstance.get()
        _close_orphans(instance)
    return instance


def owner_tag() -> dict[str, str]:
    """Marks a run as executed inside this process."""
    return {OWNER_TAG: _owner(psutil.Process())}


def _close_orphans(instance: DagsterInstance) -> None:
    """Marks runs as failed whose process was killed, and frees the pools that they held."""
    from dagster import DagsterRunStatus, RunsFilter

    unfinished = RunsFilter(
        statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED]
    )
    orphans = [
        run for run in instance.get_runs(unfinished) if OWNER_TAG in run.tags and not _alive(run.tags[OWNER_TAG])
    ]
    for run in orphans:
        instance.report_run_failed(run, "the process that executed this run was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _owner(process: psutil.Process) -> str:
    return f"{process.pid}-{int(process.create_time())}"


def _alive(owner: str) -> bool:
    try:
        return _owner(psutil.Process(int(owner.partition("-")[0]))) == owner
    except psutil.NoSuchProcess:
        return False
