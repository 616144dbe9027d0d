"""Retraining by itself, tick by tick, on a toy project and a Dagster instance of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    RunRequest,
    build_sensor_context,
)
from dagster._core.storage.tags import PARTITION_NAME_TAG

from pipelines import automation
from pipelines.definitions import build_defs
from world4rl.config import load_profile
from world4rl.landing.inbox import Arrival
from world4rl.landing.ledger import Ledger
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_bytes
from world4rl.provenance.manifests import Acceptance, LandedEpisode, write_acceptance, write_manifests
from world4rl.provenance.statement import Statement

ONE, OTHER = load_profile("ci").tasks
SHARED = {"world_model", "success_classifier", "fidelity", "report"}
OF_A_TASK = ("landed", "demo_store", "bc", "policy_rollouts", "rollout_store", "refined", "evaluation")


def of(task: str, *steps: str) -> set[str]:
    return {f"{step}@{task}" for step in steps or OF_A_TASK}


def asked(requests: Sequence[RunRequest]) -> list[tuple[str | None, str | None]]:
    return [(request.job_name, request.partition_key) for request in requests]


class Site:
    """A toy project with its automation; time passes when it is told to."""

    def __init__(self, toy: Any, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.toy, self.instance = toy, instance
        self.paths = Paths(toy.root)
        self.cursor: str | None = None
        self.skipped: str | None = None
        self.events: list[Any] = []
        self.later = 0.0
        self._landed = 0
        monkeypatch.setattr(automation.time, "time", lambda: self._clock() + self.later)
        self._clock = time.monotonic if False else _real_time
        self.load()

    def load(self) -> None:
        self.definitions: Definitions = build_defs(root=self.toy.root)

    def land(self, task: str, episodes: int = 1, role: Any = "expert", at: float | None = None) -> str:
        """Accepts a dataset, as the job `take_landed` leaves it."""
        self._landed += 1
        name = f"recordings-{self._landed}"
        digest = digest_bytes(name.encode())
        members = tuple(
            LandedEpisode(
                episode=number, task=task, length=10, success=True, digest=digest_bytes(f"{name}/{number}".encode())
            )
            for number in range(episodes)
        )
        acceptance = Acceptance(
            id=digest[:16], name=name, digest=digest, statement=Statement(source=role), episodes=members
        )
        ledger = Ledger(self.paths.ledger)
        moment = _real_time() + self.later if at is None else at
        ledger.observe([Arrival(name, True, False, digest)], [], now=moment, quiet_seconds=0)
        entry = ledger.claim(name, "a run", moment)
        assert entry is not None
        write_acceptance(acceptance, self.paths)
        write_manifests([ONE, OTHER], self.paths)
        ledger.settle(entry, "accepted", moment, digest=digest, detail={"why": "good"})
        ledger.close()
        return acceptance.id

    def withdraw(self, dataset: str) -> None:
        (self.paths.accepted / f"{dataset}.json").unlink()
        write_manifests([ONE, OTHER], self.paths)

    def tick(self, *, seconds: float = 0.0, forget: bool = False) -> list[RunRequest]:
        """A tick of the sensor; `forget`: its cursor is not kept, as when the daemon dies before it could be."""
        self.later += seconds
        sensor = (
            self.definitions.resolve_sensor_def("batch_policy")
            if hasattr(self.definitions, "resolve_sensor_def")
            else self.definitions.get_sensor_def("batch_policy")
        )
        context = build_sensor_context(instance=self.instance, cursor=self.cursor, definitions=self.definitions)
        data = sensor.evaluate_tick(context)
        self.skipped, self.events = data.skip_message, list(data.asset_events)
        if not forget:
            self.cursor = data.cursor
        return list(data.run_requests or [])

    def execute(self, requests: Sequence[RunRequest]) -> list[bool]:
        """Executes runs as Dagster does; whether each ended well."""
        return [self._execute(request) for request in requests]

    def _execute(self, request: RunRequest) -> bool:
        assert request.job_name is not None
        result = self.definitions.resolve_job_def(request.job_name).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or []),
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        return result.success

    def go_on(self) -> list[tuple[str | None, str | None]]:
        """Ticks and executes until a tick asks for nothing; what was asked for, in order."""
        found = []
        while requests := self.tick():
            found += asked(requests)
            assert all(self.execute(requests))
            assert len(found) < 20, "it never ends"
        return found

    def begin(self, request: RunRequest) -> str:
        """Creates the run of a request and leaves it unfinished."""
        job = self.definitions.resolve_job_def(str(request.job_name))
        tags = dict(request.tags) | ({PARTITION_NAME_TAG: request.partition_key} if request.partition_key else {})
        return self.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED).run_id

    def retrain(self) -> None:
        """Somebody starts the job `retrain`."""
        assert self.definitions.resolve_job_def("retrain").execute_in_process(instance=self.instance).success

    def plan(self, *arguments: str) -> dict[str, Any]:
        import subprocess
        import sys

        output = subprocess.run(
            [sys.executable, "-m", "world4rl", "plan", "--json", "--root", str(self.toy.root), *arguments],
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        return json.loads(output)


_real_time = time.time


@pytest.fixture(scope="module")
def made(make_toy: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project where everything was made once, and five episodes a task are what makes a batch."""
    toy = make_toy(tmp_path_factory.mktemp("made") / "project")
    toy.set("retraining/episodes", 5)
    assert toy.dvc("repro").returncode == 0
    toy.ran()
    return toy


@pytest.fixture
def site(made: Any, make_copy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "instance").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        yield Site(make_copy(made, tmp_path / "project"), instance, monkeypatch)


def test_an_episode_of_one_task_rebuilds_that_task_and_what_is_shared_and_then_nothing(site: Site) -> None:
    site.land(ONE, 5)
    assert site.go_on() == [("collect", ONE), ("imagine", None), ("refine", ONE), ("write_report", None)]
    ran = site.toy.ran()
    assert set(ran) == of(ONE) | SHARED
    assert len(ran) == len(set(ran)), "nothing twice"
    assert "done: 5 episodes of" in str(site.skipped)
    for _ in range(2):
        assert site.tick() == []
    assert site.toy.ran() == []
    assert site.skipped == f"{ONE}: nothing new; {OTHER}: nothing new"
