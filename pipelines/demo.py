"""`make demo`: walks the whole lineage through Dagster, on the project's persistent instance.

Runs of different tasks go side by side, each in a lane of its own. What has run is there to see in `make ui`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

from pipelines.display import Display
from pipelines.instance import prepare_home
from pipelines.lane import Done, News, Order, Stop, serve
from world4rl.config import load_params
from world4rl.errors import World4RLError
from world4rl.files import read_json
from world4rl.paths import Paths
from world4rl.progress import duration

ROOT = Path(__file__).resolve().parents[1]
INTERRUPTED = 130
PATIENCE = 30.0  # seconds that interrupted stages get to stop
LEAST_P = 0.001  # that is printed as a number


class WalkError(World4RLError):
    """Part of the lineage did not run to its end."""


def main(root: Path = ROOT) -> int:
    """Runs the lineage of this repository; returns the exit status."""
    try:
        return walk(root)
    except World4RLError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1


def walk(root: Path) -> int:
    """Runs the lineage of a project, or what of it is not up to date.

    Returns:
        0; 1 when the refined policy failed its check, after the report was written, or when the results could not be
        pushed; 130 when interrupted.

    Raises:
        World4RLError: the parameters are wrong, or a stage or a check failed and what needs it did not run.
    """
    began = time.monotonic()
    tasks = load_params(root / "params.yaml").tasks
    prepare_home(root)
    _interrupt_on_termination()
    with Display() as display:
        lanes = Lanes(root, min(len(tasks), os.cpu_count() or 1), display)
        try:
            lanes.run([Order("collect", task) for task in tasks])
            lanes.run([Order("imagine", None)])
            unmet = lanes.run([Order("refine", task) for task in tasks], report_checks=True)
            lanes.run([Order("write_report", None)])
        except KeyboardInterrupt:
            display.say("stopping")
            lanes.stop()
            display.say("interrupted: the same command continues where it stopped")
            return INTERRUPTED
        finally:
            lanes.close()
    unmet += _push(root)
    print(summary(Paths(root), time.monotonic() - began, display.ran))
    for reason in unmet:
        print(f"\nnot met: {reason}", file=sys.stderr)
    return 1 if unmet else 0


@dataclass
class _Lane:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    busy: bool = False


class Lanes:
    """Processes that execute runs side by side.

    Args:
        root: The project's folder.
        count: How many.
        display: Hears what the stages do.
    """

    def __init__(self, root: Path, count: int, display: Display) -> None:
        self._display = display
        self._log = root / ".runs" / "logs"
        context = multiprocessing.get_context("spawn")
        self._lanes: list[_Lane] = []
        task_threads = max(1, (os.cpu_count() or 1) // count)
        for number in range(count):
            ours, theirs = context.Pipe()
            log = self._log / f"lane-{number + 1}.log"
            process = context.Process(target=serve, args=(root, theirs, log, task_threads), daemon=True)
            process.start()
            theirs.close()
            self._lanes.append(_Lane(process, ours))

    def run(self, orders: Sequence[Order], *, report_checks: bool = False) -> list[str]:
        """Executes the orders, as many at once as there are lanes, and waits for all.

        Args:
            orders: The runs.
            report_checks: Whether checks that were not passed are returned and nothing is raised for them.

        Returns:
            The checks that were not passed.

        Raises:
            WalkError: a stage or a check failed.
            KeyboardInterrupt: this process or a lane was interrupted.
        """
        waiting, results = deque(orders), list[Done]()
        while len(results) < len(orders):
            for lane in self._lanes:
                if waiting and not lane.busy:
                    lane.connection.send(waiting.popleft())
                    lane.busy = True
            busy = {lane.connection: lane for lane in self._lanes if lane.busy}
            for connection in _ready(busy, timeout=1):
                message = self._receive(busy[connection])
                if isinstance(message, Done):
                    results.append(message)
        if any(result.interrupted for result in results):
            raise KeyboardInterrupt
        failures = [reason for result in results for reason in result.failures]
        checks = [f"blocking check not passed: {reason}" for result in results for reason in result.checks]
        if failures or (checks and not report_checks):
            raise WalkError(
                "\n\n".join(failures + checks),
                remedy="mend the cause and run the same command again: what is done stays done. "
                "`make ui` shows every run.",
            )
        return checks

    def stop(self) -> None:
        """Interrupts what runs, and waits for it to end."""
        for lane in self._lanes:
            if lane.busy:
                with suppress(ConnectionError):
                    lane.connection.send(Stop())
        end = time.monotonic() + PATIENCE
        while (busy := {lane.connection: lane for lane in self._lanes if lane.busy}) and time.monotonic() < end:
            for connection in _ready(busy, timeout=0.5):
                self._receive(busy[connection])

    def close(self) -> None:
        """Ends the lanes."""
        for lane in self._lanes:
            lane.connection.close()
        for lane in self._lanes:
            lane.process.join(timeout=5)
            if lane.process.is_alive():
                lane.process.kill()

    def _receive(self, lane: _Lane) -> News | Done:
        try:
            message: News | Done = lane.connection.recv()
        except (EOFError, ConnectionError):
            message = Done(failures=[f"a process that runs stages was killed\n  where: {self._log}"])
        if isinstance(message, Done):
            lane.busy = False
        else:
            self._display.show(message)
        return message


def _ready(connections: Iterable[Connection], timeout: float) -> list[Connection]:
    """The connections that have something to read, or have ended, within the time."""
    return [one for one in wait(list(connections), timeout) if isinstance(one, Connection)]


def summary(paths: Paths, seconds: float, ran: int) -> str:
    """The figures of `reports/summary.json` as a table, and where the report lies."""
    figures = read_json(paths.summary)
    lines = ["", f"{'task':<28}{'cloned':>10}{'refined':>10}{'gain':>9}{'interval':>18}{'p':>8}"]
    for task, result in figures["tasks"].items():
        rates = [f"{100 * result[p]['successes'] / result[p]['trials']:.0f} %" for p in ("bc", "refined")]
        low, high = result["gain_interval"]
        p = f"{result['p_value']:.3f}" if result["p_value"] >= LEAST_P else f"<{LEAST_P}"  # never certain
        lines.append(
            f"{task:<28}{rates[0]:>10}{rates[1]:>10}{result['gain_points']:>+9.1f}"
            f"{f'{low:+.1f} to {high:+.1f}':>18}{p:>8}"
        )
    work = f"{ran} stages ran" if ran else "nothing had changed"
    lines += ["", f"{work}; {duration(seconds)}", f"report: {paths.report.resolve()}"]
    return "\n".join(lines)


def _push(root: Path) -> list[str]:
    """Pushes the newest state of the lineage where there is a remote; returns why that could not be done."""
    if not load_params(root / "params.yaml").lineage.push:
        return []
    from assets.lineage_ref import push_lineage

    try:
        push_lineage(root)
    except World4RLError as error:
        return [str(error)]
    return []


def _interrupt_on_termination() -> None:
    """Makes a polite kill, or a closed terminal, the same as Ctrl-C; and Ctrl-C heard where a shell had it ignored."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


if __name__ == "__main__":
    sys.exit(main())
