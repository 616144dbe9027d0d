"""What Dagster and DVC cost beside the work: the lineage whose stages take milliseconds, walked and done by hand.

    .venv/bin/python -m benchmarks.orchestration [--walks 3]

Runs each stage's bare command, one after the other, then the same lineage as `make demo` does, and then that again
with nothing to do. The stages are those of `tests/pipelines/toy_stage.py`, so that nothing but the cost is left.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.live import ROOT, build_toy

WALK = "import sys; from pathlib import Path; from pipelines.demo import main; sys.exit(main(Path(sys.argv[1])))"


def main() -> None:
    """Runs the benchmark and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=3)
    arguments = parser.parse_args()
    cost, again, loading = [], [], []
    for number in range(arguments.walks):
        with tempfile.TemporaryDirectory() as folder:
            toy = build_toy(Path(folder) / "walked")
            stages = len(toy.project.stages)
            bare = _by_hand(build_toy(Path(folder) / "bare"))
            walked = _walk(toy)
            cost.append((walked - bare) / stages)
            again.append(_walk(toy))
            loading.append(_seconds([sys.executable, "-c", "import pipelines.definitions"], ROOT))
        print(f"walk {number + 1}: bare {bare:.1f} s, walked {walked:.1f} s, again {again[-1]:.1f} s", flush=True)
    print(f"{stages} stages, {arguments.walks} walks; median and slowest")
    for what, seconds in (
        ("cost of an asset over its bare command", cost),
        ("the whole graph with nothing to do", again),
        ("loading the definitions", loading),
    ):
        print(f"{what}: {statistics.median(seconds):.2f} s, {max(seconds):.2f} s")


def _by_hand(toy: Any) -> float:
    """Seconds of all commands of the stages, in their order; upstream stages come first in it."""
    return sum(_seconds(shlex.split(stage.command), toy.root) for stage in toy.project.stages.values())


def _walk(toy: Any) -> float:
    return _seconds([sys.executable, "-c", WALK, str(toy.root)], ROOT)


def _seconds(command: Sequence[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
