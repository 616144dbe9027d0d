"""A run whose process is gone does not stay started."""

import logging
import subprocess
import sys
import time

import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus, job, op
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from pipelines import launcher
from pipelines.instance import OWNER_TAG, owner_tag, prepare_home
from pipelines.launcher import LocalRunLauncher


@op
def nothing() -> None: ...


@job
def work() -> None:
    nothing()


@pytest.fixture
def instance(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")  # `prepare_home` sets it
    with DagsterInstance.from_config(str(prepare_home(tmp_path))) as instance:
        yield instance


def started(instance, pid=None, tags=None):
    run = instance.create_run_for_job(work, status=DagsterRunStatus.STARTED, tags=tags)
    if pid is not None:
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


def ended_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def health(instance, run):
    return instance.run_launcher.check_run_worker_health(run).status


def test_it_is_the_launcher_of_a_new_instance(instance):
    assert isinstance(instance.run_launcher, LocalRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health


def test_a_living_process_is_left_alone(instance):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert health(instance, started(instance, child.pid)) == WorkerStatus.RUNNING
    finally:
        child.kill()
        child.communicate()


def test_before_a_process_is_known_nothing_is_said_about_it(instance):
    assert health(instance, started(instance)) == WorkerStatus.RUNNING


def test_a_process_that_is_gone_is_noticed_also_where_its_number_is_used_again(instance, monkeypatch):
    run = started(instance, ended_process())
    assert health(instance, run) == WorkerStatus.FAILED
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        later = started(instance, child.pid)
        monkeypatch.setattr(launcher, "CLOCK_SECONDS", -1e6)  # as if the process had begun long after the event
        assert health(instance, later) == WorkerStatus.FAILED
    finally:
        child.kill()
        child.communicate()


def test_a_killed_process_that_nobody_reaped_is_gone(instance):
    child = subprocess.Popen([sys.executable, "-c", ""])
    run = started(instance, child.pid)
    process = psutil.Process(child.pid)
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert health(instance, run) == WorkerStatus.FAILED
    child.wait()


def test_runs_of_make_demo_are_judged_by_the_process_that_executes_them(instance):
    assert health(instance, started(instance, tags=owner_tag())) == WorkerStatus.RUNNING
    gone = owner_tag()[OWNER_TAG].partition("-")[2]
    tags = {OWNER_TAG: f"{ended_process()}-{gone}"}
    assert health(instance, started(instance, tags=tags)) == WorkerStatus.FAILED


def test_the_monitor_marks_it_as_failed(instance):
    run = started(instance, ended_process())
    monitor_started_run(instance, None, instance.get_run_record_by_id(run.run_id), logging.getLogger(__name__))
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE
    living = started(instance)
    monitor_started_run(instance, None, instance.get_run_record_by_id(living.run_id), logging.getLogger(__name__))
    assert instance.get_run_by_id(living.run_id).status == DagsterRunStatus.STARTED
