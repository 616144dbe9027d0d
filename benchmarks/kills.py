"""Kills the platform's processes at random moments, again and again, and looks at what is left.

    .venv/bin/python -m benchmarks.kills [--kills 100] [--seed 0] [--folder FOLDER]

The real web server, daemon, run workers, DVC and supervisors run a lineage whose trainers are toys: they take seconds,
keep their state as ours do, and notice when two of them work on one stage. Meanwhile datasets land. SIGKILL goes to the
daemon, a code server, a run worker, a supervisor, DVC or a trainer, each as often as any other. As at a site somebody
starts the daemon again and asks for the runs that are missing; nothing else is mended by hand. At the end everything
must be whole, and every byte that of a lineage that was never disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil
import yaml

from benchmarks.live import UNFINISHED, Live, build_toy, land, record

WEB = ("pipelines.webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", "{port}")
DAEMON = ("dagster._daemon", "run", "-w", "workspace.yaml")
TRAINED = {"bc": 20, "world_model": 40, "success_classifier": 20, "refined": 30}  # steps of 0.05 s
KINDS = ("daemon", "code server", "run worker", "supervisor", "dvc", "trainer")
PAUSE = (0.1, 3.0)  # seconds between two kills, at least
WAIT_SECONDS = 60.0  # for a process of the chosen kind; then another kind is chosen
LOOK_SECONDS = 1.0  # between two looks at what is missing
PATIENCE = 900.0  # seconds after a kill until the next one, or until everything is done


@dataclass
class Result:
    """What happened, and what was found.

    Attributes:
        kills: How often each kind of process was killed.
        runs: Dagster's runs by status.
        datasets: That landed.
        seconds: From the first process to the last stage.
        faults: What is not as it must be, a sentence each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    datasets: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def table(self) -> str:
        """For people."""
        rows = [(f"kills: {kind}", str(count)) for kind, count in sorted(self.kills.items())]
        rows += [("kills", str(self.kills.total())), ("datasets landed", str(self.datasets))]
        rows += [(f"runs: {status.lower()}", str(count)) for status, count in sorted(self.runs.items())]
        rows += [("seconds", f"{self.seconds:.0f}"), ("faults", str(len(self.faults)))]
        return "\n".join([*(f"{name:<28}{value:>8}" for name, value in rows), *self.faults])


def kill_at_random(folder: Path, kills: int, seed: int, say: Callable[[str], None] = print) -> Result:
    """Runs the lineage under fire in `folder/project`, and undisturbed in `folder/reference`, and compares.

    Args:
        folder: An empty folder.
        kills: How many.
        seed: Of their kinds and moments.
        say: Hears about every kill.

    Raises:
        TimeoutError: after the last kill the lineage does not come to its end.
    """
    from pipelines.instance import POSTGRES, open_instance, prepare_home

    os.environ.pop(POSTGRES, None)  # whoever keeps runs there does not want these
    toy = _toy(folder / "project")
    prepare_home(toy.root)
    open_instance().dispose()  # makes its tables: two programs that do at once disturb each other
    result = Result()
    began = time.monotonic()
    with Live(toy.root, {"web": WEB, "daemon": DAEMON}) as live:
        site = _Site(toy, live, folder / "datasets")
        attack = _Attack(live, random.Random(seed), kills, say)
        end = time.monotonic() + PATIENCE
        while True:
            if live.services["daemon"].poll() is not None:
                live.start("daemon")
            if attack.go_on():
                end = time.monotonic() + PATIENCE
            time.sleep(0.25)
            if site.is_done():
                if not attack.left:
                    break
                site.land_another()
            if time.monotonic() > end:
                raise TimeoutError(f"{PATIENCE:g} s after the last kill, missing: {site.missing()}; log: {live.log}")
        result.seconds = time.monotonic() - began
        result.kills = attack.kills
        result.runs = Counter(run["status"] for run in live.runs())
        result.datasets = len(site.datasets)
    result.faults = [*_faults(toy), *_differences(toy, _undisturbed(folder / "reference", site.datasets))]
    return result


class _Attack:
    """Kills, one after the other: each kind as often as any other, at a random moment while one of it is alive."""

    def __init__(self, live: Live, generator: random.Random, kills: int, say: Callable[[str], None]) -> None:
        self.left = kills
        self.kills: Counter[str] = Counter()
        self._live, self._generator, self._say = live, generator, say
        self._choose()

    def go_on(self) -> bool:
        """Kills when the moment has come and there is somebody to kill; returns at once, and whether it killed."""
        if not self.left or time.monotonic() < self._moment:
            return False
        victims = self._alive(self._kind)
        if not victims:
            if time.monotonic() > self._moment + WAIT_SECONDS:
                self._choose()
            return False
        victim = self._generator.choice(victims)
        try:
            victim.kill()
        except psutil.NoSuchProcess:  # it has just ended by itself
            return False
        self.kills[self._kind] += 1
        self.left -= 1
        self._say(f"kill {self.kills.total()}: {self._kind} {victim.pid}")
        self._choose()
        return True

    def _choose(self) -> None:
        self._kind = self._generator.choice(KINDS)
        self._moment = time.monotonic() + self._generator.uniform(*PAUSE)

    def _alive(self, kind: str) -> list[psutil.Process]:
        web = self._live.services["web"].pid  # what asks for the runs stays, and so does what it needs for that
        alive = []
        for process in self._live.processes():
            with suppress(psutil.Error):
                if _kind(process.cmdline()) == kind and process.ppid() != web:
                    alive.append(process)
        return sorted(alive, key=lambda process: process.pid)


def _kind(command: Sequence[str]) -> str | None:
    """What a process is, by its command line; None for what is left alone."""
    words = " ".join(command)
    if "supervisor.py" in words:
        return "supervisor"
    if command[1:2] == ["toy_stage.py"]:
        return "trainer"
    if "-m dvc" in words:
        return "dvc"
    if "dagster._daemon" in words:
        return "daemon"
    if "dagster api grpc" in words:
        return "code server"
    if "spawn_main" in words:
        return "run worker"
    return None


class _Site:
    """The project, and who looks after it: asks for runs that are missing and drops datasets."""

    def __init__(self, toy: Any, live: Live, datasets: Path) -> None:
        from pipelines.definitions import build_defs
        from pipelines.jobs import JOBS

        self.datasets: list[Path] = []
        self._toy, self._live, self._folder = toy, live, datasets
        self._project = toy.project
        definitions = build_defs(root=toy.root)
        self._steps = {
            job.name: [
                key.to_user_string() for key in definitions.resolve_job_def(job.name).asset_layer.selected_asset_keys
            ]
            for job in JOBS
        }
        self._tasks = self._project.steps["bc"].tasks
        self._looked = 0.0
        self.land_another()

    def land_another(self) -> None:
        """Drops a dataset that nobody has seen."""
        self.datasets.append(record(self._folder, self._tasks[0], len(self.datasets)))
        land(self.datasets[-1], self._toy.root)

    def is_done(self) -> bool:
        """Whether nothing is on its way and nothing is missing; asks for runs that are."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        with suppress(URLError, RuntimeError, ConnectionError):  # the web server may know of a server that was killed
            return not self.missing() and not self._live.runs(*UNFINISHED)
        return False

    def missing(self) -> list[str]:
        """What is not done: datasets, or the runs of the first layer that is out of date, which it asks for."""
        from world4rl.landing.ledger import SETTLED, Ledger
        from world4rl.paths import Paths

        ledger = Ledger(Paths(self._toy.root).ledger)
        try:
            states = {entry.name: entry.state for entry in ledger.entries().values()}
        finally:
            ledger.close()
        waiting = [path.name for path in self.datasets if states.get(path.name) not in SETTLED]
        active = {(run["jobName"], run["tags"].get("dagster/partition")) for run in self._live.runs(*UNFINISHED)}
        for layer in ("collect", "imagine", "refine", "write_report"):
            partitions: Sequence[str | None] = self._tasks if layer in ("collect", "refine") else (None,)
            stale = [partition for partition in partitions if not self._up_to_date(layer, partition)]
            for partition in stale:
                if (layer, partition) not in active:
                    self._live.launch(layer, partition)
            if stale:
                return [*waiting, *(f"{layer} {partition or ''}" for partition in stale)]
        return waiting

    def _up_to_date(self, job: str, partition: str | None) -> bool:
        from assets.dvc_project import StageBusyError

        try:
            return all(
                self._project.unchanged(self._project.stage(step, partition))
                for step in self._steps[job]
                if step in self._project.steps
            )
        except StageBusyError:
            return False


def _toy(root: Path) -> Any:
    toy = build_toy(root)
    toy.wish(train=TRAINED)
    return toy


def _undisturbed(root: Path, datasets: Sequence[Path]) -> Any:
    """The same datasets and the same lineage, by DVC alone."""
    from world4rl.config import load_params
    from world4rl.landing.inbox import open_inbox
    from world4rl.landing.ledger import Ledger
    from world4rl.landing.take import take
    from world4rl.paths import Paths

    toy = _toy(root)
    for dataset in datasets:
        land(dataset, root)
    params, paths = load_params(root / "params.yaml"), Paths(root)
    inbox, ledger = open_inbox(params.landing.address, root), Ledger(paths.ledger)
    arrivals = [arrival for name in inbox.names() if (arrival := inbox.look(name)) is not None]
    ledger.observe(arrivals, (), now=time.time(), quiet_seconds=0)
    for entry in ledger.due(time.time()):
        take(entry.name, "undisturbed", inbox=inbox, ledger=ledger, params=params, paths=paths, clock=time.time)
    ledger.close()
    ran = toy.dvc("repro")
    if ran.returncode:
        raise RuntimeError(f"the undisturbed lineage failed: {ran.stderr}")
    return toy


def _faults(toy: Any) -> list[str]:
    """What is not whole in a project."""
    from world4rl.config import load_params
    from world4rl.errors import DataError
    from world4rl.landing.ledger import Ledger
    from world4rl.paths import Paths
    from world4rl.provenance.manifests import read_acceptances, write_manifests
    from world4rl.provenance.records import Chain, Run

    paths = Paths(toy.root)
    faults = []
    overlaps = toy.root / "overlaps.txt"
    if overlaps.exists():
        faults.append(f"two processes worked at once on: {', '.join(sorted(set(overlaps.read_text().split())))}")
    with sqlite3.connect(paths.ledger) as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        faults.append(f"the ledger is broken: {verdict}")
    ledger = Ledger(paths.ledger)
    faults += [
        f"{entry.name} is {entry.state}: {ledger.events(entry.name)[-1].detail}"
        for entry in ledger.entries().values()
        if entry.state != "accepted"
    ]
    names = [acceptance.name for acceptance in read_acceptances(paths)]
    faults += [f"{name} was accepted {count} times" for name, count in Counter(names).items() if count > 1]
    faults += [f"{name} has no record" for name in ledger.entries().keys() - set(names)]
    ledger.close()
    changed = write_manifests(load_params(paths.params).tasks, paths)
    faults += [f"the manifest of {task} is not what was accepted" for task in changed]
    try:
        Chain(paths.records, [Run]).read()
    except DataError as error:
        faults.append(f"the run records are broken: {error}")
    faults += _unfinished_lineage(toy)
    left = [path for path in toy.root.rglob("*.partial") if ".dvc" not in path.parts]
    left += [path for path in (paths.ledger.parent / "taking").glob("*") if path.is_dir()]
    faults += [f"left behind: {path}" for path in left]
    return faults


def _unfinished_lineage(toy: Any) -> list[str]:
    project = toy.project
    stages = yaml.safe_load((toy.root / "dvc.lock").read_text())["stages"]
    faults = [f"dvc.lock does not know {name}" for name in project.stages.keys() - stages.keys()]
    return faults + [
        f"{name} is not up to date" for name, stage in project.stages.items() if not project.unchanged(stage)
    ]


def _differences(toy: Any, reference: Any) -> list[str]:
    """Files of which the two projects do not have the same bytes. Metrics hold seconds: they are left out."""
    ours, theirs = _digests(toy), _digests(reference)
    different = {name for name, _ in ours.items() ^ theirs.items()}
    return [f"not the bytes of an undisturbed run: {name}" for name in sorted(different)]


def _digests(toy: Any) -> dict[str, str]:
    from world4rl.provenance.digests import digest_file

    outputs = [toy.root / path for stage in toy.project.stages.values() for path in stage.outputs]
    roots = [*outputs, toy.root / "data" / "accepted", toy.root / "data" / "manifests"]
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return {str(file.relative_to(toy.root)): digest_file(file) for file in files if file.is_file()}


def main() -> int:
    """Kills, and prints the table; returns 1 where something is not whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="world4rl-kills-") as temporary:
        result = kill_at_random(options.folder or Path(temporary), options.kills, options.seed)
    print(result.table())
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
