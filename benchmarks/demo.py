"""`make benchmark-demo`: the demo with three seeds, refined against cloned policy with an interval over seeds.

Each seed runs in a clone of this repository's commit, `.benchmark/seed-N`, with only the seed changed in `params.yaml`.
A seed that has finished with the same code is not run again; one that was interrupted goes on where it stopped. The
result lies in `benchmarks/results/demo.json` and `demo.md`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.copies import check_out, committed_code, environment
from world4rl import machine
from world4rl.config import load_params
from world4rl.errors import DataError, World4RLError
from world4rl.evaluation.benchmark import Benchmark, aggregate, markdown
from world4rl.evaluation.metrics import Summary, read_summary
from world4rl.files import read_json, write_json, write_text
from world4rl.paths import Paths
from world4rl.progress import duration

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
COMMAND = (sys.executable, "-m", "pipelines.demo")


def main() -> int:
    """Runs what is missing and prints the tables; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="at least two (default: 0 1 2)")
    arguments = parser.parse_args()
    try:
        result = benchmark(ROOT, arguments.seeds)
    except World4RLError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command continues where it stopped", file=sys.stderr)
        return 130
    print(markdown(result))
    return 0 if all(target.met for target in result.targets) else 1


def benchmark(root: Path, seeds: Sequence[int], command: Sequence[str] = COMMAND) -> Benchmark:
    """Runs the seeds that have not finished and writes the joint result.

    Args:
        root: The repository.
        seeds: At least two different seeds.
        command: What carries a working copy from demonstrations to `reports/summary.json`.

    Raises:
        World4RLError: the working tree has uncommitted changes, or a seed did not finish.
    """
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise DataError("an interval over seeds needs at least two different ones", remedy="name them after --seeds")
    code = committed_code(root)
    runs: dict[int, Summary] = {}
    wall_seconds: dict[int, float] = {}
    for seed in seeds:
        record = root / ".benchmark" / f"seed-{seed}.json"
        done = read_json(record) if record.is_file() else {}
        if done.get("code") == code and done["summary"] is not None:
            print(f"seed {seed}: finished before", flush=True)
        else:
            spent = done["wall_seconds"] if done.get("code") == code else 0.0
            _run_seed(root, seed, code, command, record, spent)
            done = read_json(record)
        runs[seed], wall_seconds[seed] = Summary.model_validate(done["summary"]), done["wall_seconds"]
    result = aggregate(runs, wall_seconds=wall_seconds, machine=machine.describe(), code=code)
    write_json(root / "benchmarks" / "results" / "demo.json", result.model_dump(mode="json"))
    write_text(root / "benchmarks" / "results" / "demo.md", markdown(result))
    return result


def _run_seed(root: Path, seed: int, code: str, command: Sequence[str], record: Path, spent: float) -> None:
    """Runs a seed in its working copy; `spent` seconds went into it before it was interrupted."""
    copy = record.with_suffix("")
    check_out(root, copy)
    _set_seed(Paths(copy).params, seed)
    paths = Paths(copy)
    paths.summary.unlink(missing_ok=True)  # so that one from before cannot pass for this run's; DVC brings it back
    print(f"seed {seed}: running in {copy}", flush=True)
    began = time.monotonic()
    summary = None
    try:
        status = _run(command, copy)
        if paths.summary.is_file():
            summary = read_summary(paths.summary)
    finally:
        wall_seconds = spent + time.monotonic() - began
        found = None if summary is None else summary.model_dump(mode="json")
        write_json(record, {"code": code, "wall_seconds": wall_seconds, "summary": found})
    # A gate that was missed is part of the result: the command says so by its status, but the summary is there.
    if summary is None:
        raise DataError(
            f"seed {seed} did not finish: the demo ended with status {status}",
            where=copy,
            remedy="mend the cause that it printed above and run the benchmark again: it goes on where it stopped",
        )
    print(f"seed {seed}: finished in {duration(wall_seconds)}", flush=True)


def _set_seed(file: Path, seed: int) -> None:
    """Changes the one line of the parameter file that names the seed, so that every other byte stays as committed."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    found = [index for index, line in enumerate(lines) if line.startswith("seed:")]
    if len(found) != 1:
        raise DataError("no line, or several, that begin with `seed:`", where=file, remedy="restore it: `make params`")
    lines[found[0]] = f"seed: {seed}\n"
    write_text(file, "".join(lines))
    load_params(file)


def _run(command: Sequence[str], copy: Path) -> int:
    """Runs the demo in a working copy, with that copy's code; its output goes to this terminal."""
    process = subprocess.Popen(command, cwd=copy, env=environment(copy))
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # the terminal sent it the same signal: let it leave a state that it can continue from
        raise


if __name__ == "__main__":
    sys.exit(main())
