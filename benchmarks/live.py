"""The platform as it runs at a site, over a small project: web server, daemon, run workers, DVC, all of them real.

The stages of the project are those of `tests/pipelines/toy_stage.py`: `dvc.yaml` is the repository's own, only each
command takes milliseconds. The browser test and `benchmarks.kills` are built on this.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[1]
MARK = "WORLD4RL_LIVE"  # in the environment of every process that a `Live` started, however far down
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def of_tests(path: str) -> ModuleType:
    """A module of the tests, by its path below `tests`; they are no package."""
    name = path.replace("/", "_").removesuffix(".py")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def build_toy(root: Path) -> Any:
    """The small project, in a new folder."""
    return of_tests("pipelines/conftest.py").build_toy(root)


def record(folder: Path, task: str, number: int) -> Path:
    """A dataset of one episode, another one for each number."""
    from world4rl.demos.recording import Recording, write_dataset

    target = folder / f"dataset-{number:03d}"
    axes = ("x", "y", "z", "grip")
    recording = Recording(task, "corner2", 16, axes, axes, {"source": "expert", "operator": "nobody"})
    episode = of_tests("landing/conftest.py").make_episode(number)
    write_dataset(target, [("train", episode)], recording, image_size=(24, 24))
    return target


def land(dataset: Path, root: Path) -> None:
    """Puts a dataset into the project's landing folder, as `world4rl land` does."""
    from world4rl.config import load_params
    from world4rl.landing.deposit import land
    from world4rl.landing.inbox import open_inbox

    land(dataset, open_inbox(load_params(root / "params.yaml").landing.address, root), name=None, said={})


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for[T](what: str, condition: Callable[[], T], seconds: float = 120.0, pause: float = 0.25) -> T:
    """Asks until the answer is true, and returns it.

    Raises:
        TimeoutError: it never was; names `what`.
    """
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return answer


class Live:
    """Processes over a project.

    Args:
        root: The project: a folder with `workspace.yaml`.
        commands: What to start, by names for people; without any, the daemon and the web server behind `make ui`.
        environment: Variables besides those of this process.
    """

    def __init__(
        self,
        root: Path,
        commands: Mapping[str, Sequence[str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.port = free_port()
        self.mark = uuid.uuid4().hex
        self.log = root / ".runs" / "live.log"
        self.commands = {name: [part.format(port=self.port) for part in command] for name, command in (
            commands or {"ui": ("pipelines.ui", "--root", str(root), "--port", "{port}")}
        ).items()}  # fmt: skip
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DAGSTER_HOME": str(root / ".dagster"),
            MARK: self.mark,
            **(environment or {}),
        }
        self.services: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Of the web server."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            for name in self.commands:
                self.start(name)
            wait_for(f"a web server at {self.url} (log: {self.log})", self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for service in self.services.values():
            service.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            wait_for("an end", lambda: all(s.poll() is not None for s in self.services.values()), 30)
        while processes := self.processes():
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)

    def start(self, name: str) -> None:
        """Starts a service, or starts it again."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.services[name] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[name]],
                cwd=self.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Every process that runs and was started here, or by one that was; also when its parents are gone."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer to a GraphQL query.

        Raises:
            RuntimeError: the query is refused.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        if answer.get("errors"):
            raise RuntimeError(answer["errors"][0]["message"])
        return answer["data"]

    def launch(self, job: str, partition: str | None = None) -> str:
        """Asks for a run of a job, as a click does; returns its id.

        Raises:
            RuntimeError: it is refused.
        """
        tags = [] if partition is None else [{"key": "dagster/partition", "value": partition}]
        answer = self.ask(
            """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }""",
            params={
                "selector": {
                    "repositoryLocationName": "world4rl",
                    "repositoryName": "__repository__",
                    "jobName": job,
                },
                "runConfigData": "{}",
                "executionMetadata": {"tags": tags},
            },
        )["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(f"{job}: {answer}")
        return str(answer["run"]["runId"])

    def runs(self, *statuses: str) -> list[dict[str, Any]]:
        """The newest runs in these states, or in any: runId, status, jobName, tags by key, startTime, endTime."""
        answer = self.ask(
            """query ($filter: RunsFilter) { runsOrError(filter: $filter, limit: 500) {
                 ... on Runs { results { runId status jobName startTime endTime tags { key value } } } } }""",
            filter={"statuses": list(statuses)} if statuses else {},
        )
        return [
            {**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
            for run in answer["runsOrError"]["results"]
        ]

    def status(self, run: str) -> str:
        """Of a run."""
        query = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
        return str(self.ask(query, run=run)["runOrError"]["status"])

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """The newest ticks of a sensor, the last one first: timestamp, status, skipReason, runIds."""
        answer = self.ask(
            """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
                 ... on Sensor { sensorState { ticks(limit: 20) { timestamp status skipReason runIds } } } } }""",
            selector={
                "repositoryLocationName": "world4rl",
                "repositoryName": "__repository__",
                "sensorName": sensor,
            },
        )
        return list(answer["sensorOrError"]["sensorState"]["ticks"])

    def _answers(self) -> bool:
        for name, service in self.services.items():
            if service.poll() is not None:
                raise RuntimeError(f"{name} ended with status {service.returncode}; its log: {self.log}")
        try:
            return bool(self.ask("{ version }"))
        except OSError:
            return False
