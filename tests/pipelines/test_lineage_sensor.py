"""The daemon's side of the lineage: a commit after every run that went well, a push where there is a remote."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    RunRequest,
    SkipReason,
    build_run_status_sensor_context,
    in_process_executor,
    job,
    op,
)

from assets.dvc_project import has_remote
from pipelines.lineage import build_lineage_sensor, build_push_job
from world4rl.provenance.git import LINEAGE


@op
def nothing() -> None:
    pass


@job(executor_def=in_process_executor)
def some_job() -> None:
    nothing()


@pytest.fixture
def toy(toy):
    assert toy.dvc("repro", "demos").returncode == 0
    return toy


def tick(root: Path, which: Any = some_job) -> Any:
    push = build_push_job(root)
    with DagsterInstance.ephemeral() as instance:
        result = (push if which == "push" else which).execute_in_process(instance=instance)
        assert result.success
        context = build_run_status_sensor_context(
            "lineage", result.get_run_success_event(), instance, result.dagster_run
        )
        return build_lineage_sensor(root, push)(context)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_every_run_that_changed_something_is_committed_once(toy) -> None:
    found = tick(toy.root)
    assert isinstance(found, SkipReason)
    assert "no remote" in str(found.skip_message)
    commit = git(toy.root, "rev-parse", LINEAGE)
    assert "Dagster-Job: some_job" in git(toy.root, "log", "-1", "--format=%B", LINEAGE)
    assert "nothing has changed" in str(tick(toy.root).skip_message)
    assert git(toy.root, "rev-parse", LINEAGE) == commit


def test_where_there_is_a_remote_it_is_pushed_by_a_run_of_its_own(toy, tmp_path) -> None:
    toy.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    assert has_remote(toy.root)
    found = tick(toy.root)
    assert isinstance(found, RunRequest)
    assert found.run_key == git(toy.root, "rev-parse", LINEAGE)
    assert isinstance(tick(toy.root, "push"), SkipReason), "a push asks for no push"
    assert any((tmp_path / "store" / "files").rglob("*"))
    toy.set("lineage/push", False)
    assert isinstance(tick(toy.root), SkipReason)
