"""A tick of the landing sensor when there is nothing to do, with as many settled datasets as a lab gathers in years.

    .venv/bin/python -m benchmarks.landing [--datasets 10000] [--ticks 5]

Makes a landing folder and a ledger in a temporary place, every dataset whole, marked and accepted, and evaluates the
sensor itself, as Dagster's daemon does. A tick looks at every name and examines some of the settled datasets again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from world4rl.config import dump_params, load_profile
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import Ledger
from world4rl.landing.marker import MARKER
from world4rl.paths import Paths

WHOLE = b'{"format": 1, "files": {}}'
FILES = ("meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/world4rl.json")
PARTS = ("meta/episodes", "data", "videos/observation.images.front")  # a Parquet file or a video in each


def main() -> None:
    """Runs the benchmark and prints the seconds of a tick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=10_000)
    parser.add_argument("--ticks", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_up(root, arguments.datasets)
        seconds = measure(root, arguments.ticks)
    print(f"{arguments.datasets} settled datasets, {len(seconds)} ticks with nothing to do")
    print(f"seconds a tick: median {statistics.median(seconds):.3f}, slowest {max(seconds):.3f}")


def make_up(root: Path, datasets: int) -> None:
    """A landing folder of marked datasets that were all accepted."""
    paths = Paths(root)
    paths.params.write_text(dump_params(load_profile("demo")))
    for number in range(datasets):
        folder = root / "landing" / f"dataset-{number:06}"
        for file in (*FILES, *(f"{part}/chunk-000/file-000" for part in PARTS)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        (folder / MARKER).write_bytes(WHOLE)
    inbox, ledger = Inbox(str(root / "landing")), Ledger(paths.ledger)
    arrivals = [arrival for name in inbox.names() if (arrival := inbox.look(name)) is not None]
    ledger.observe(arrivals, [], now=0.0, quiet_seconds=0.0)
    ledger.close()
    _settle(paths.ledger)


def _settle(path: Path) -> None:
    """Marks all as accepted, in one transaction: one each, as runs do it, would take minutes here."""
    import sqlite3

    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE arrivals SET state = 'accepted', digest = hex(randomblob(32))")
        database.execute(
            "INSERT INTO events (time, name, state, digest, detail) "
            "SELECT 0, name, 'accepted', digest, '{}' FROM arrivals"
        )
    database.close()


def measure(root: Path, ticks: int) -> list[float]:
    """Seconds of each tick."""
    from dagster import AssetKey, DagsterInstance, build_sensor_context

    from pipelines.landing import build_landing_sensor, build_take_job

    manifest = AssetKey("manifest")
    sensor = build_landing_sensor(root, build_take_job(root, manifest), manifest)
    seconds, cursor = list[float](), ""
    with DagsterInstance.ephemeral() as instance:
        for _ in range(ticks):
            began = time.perf_counter()
            with build_sensor_context(instance=instance, cursor=cursor) as context:
                data = sensor.evaluate_tick(context)
            seconds.append(time.perf_counter() - began)
            cursor = data.cursor or ""
            assert not data.run_requests, "everything is settled"
    return seconds


if __name__ == "__main__":
    main()
