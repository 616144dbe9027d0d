"""Seconds from a dataset that has landed to its acceptance, and to the queued run of its retraining.

    .venv/bin/python -m benchmarks.latency [--datasets 10]

The real daemon, as `make ui` starts it, with its defaults; every dataset holds one episode, and one is a batch. Each
lands at a random moment after what the one before it started has ended.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.live import Live, build_toy, land, record, wait_for

TICK = 30.0  # seconds; the daemon looks at least so often


def main() -> None:
    """Runs the benchmark and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toy = build_toy(Path(folder) / "project")
        toy.set("retraining/episodes", 1)
        made = toy.dvc("repro")
        if made.returncode:
            raise RuntimeError(made.stderr)
        generator = random.Random(0)
        with Live(toy.root) as live:
            wait_for("the first tick", lambda: live.ticks("batch_policy"))
            found = []
            for number in range(arguments.datasets):
                time.sleep(generator.uniform(0, TICK))
                found.append(
                    _follow(toy, live, record(Path(folder) / "datasets", toy.project.steps["bc"].tasks[0], number))
                )
                print(
                    f"{number + 1}: accepted after {found[-1][0]:.1f} s, queued after {found[-1][1]:.1f} s", flush=True
                )
    for what, seconds in zip(("landed to accepted", "landed to queued"), zip(*found, strict=True), strict=True):
        print(f"{what}: median {statistics.median(seconds):.1f} s, slowest {max(seconds):.1f} s")


def _follow(toy: Any, live: Live, dataset: Path) -> tuple[float, float]:
    """Lands a dataset and waits until nothing runs any more; seconds to its acceptance and to the queued run."""
    from world4rl.landing.ledger import Ledger
    from world4rl.paths import Paths

    known = {run["runId"] for run in live.runs()}
    land(dataset, toy.root)
    began = time.time()
    queued = wait_for(
        "a queued run",
        lambda: [run for run in live.runs() if run["runId"] not in known and run["jobName"] == "collect"],
    )
    seconds = time.time() - began
    assert queued
    ledger = Ledger(Paths(toy.root).ledger)
    accepted = next(event.time for event in ledger.events(dataset.name) if event.state == "accepted")
    ledger.close()
    wait_for("the end of the round", lambda: _is_done(live, since=began), 600.0, pause=2.0)
    return accepted - began, seconds


def _is_done(live: Live, since: float) -> bool:
    """Whether the sensor has said since then that what it asked for is made."""
    return any(
        tick["timestamp"] > since and str(tick["skipReason"]).startswith("done") for tick in live.ticks("batch_policy")
    )


if __name__ == "__main__":
    main()
