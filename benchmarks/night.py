"""`make benchmark-night`: demonstrations land in the evening, and nobody touches anything until a policy was judged.

In a clone of this repository's commit, `.benchmark/night`, `make demo` runs and the refined policy of one task becomes
its champion. Then more demonstrations of that task land while the daemon and the web server run. What they make of it,
and how long each step takes, lies in `benchmarks/results/night.md`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.copies import check_out, committed_code, environment
from benchmarks.live import UNFINISHED, Live, wait_for
from world4rl import machine
from world4rl.config import Params, dump_params, load_params
from world4rl.errors import DataError, World4RLError
from world4rl.files import write_text
from world4rl.landing.ledger import Event, Ledger
from world4rl.paths import Paths
from world4rl.progress import duration
from world4rl.provenance.decisions import Decisions, Promotion, Rejection
from world4rl.provenance.records import Record

ROOT = Path(__file__).resolve().parents[1]
NIGHT = 8 * 3600.0  # seconds
OPERATOR = "op-7"


@dataclass(frozen=True)
class Night:
    """What was seen.

    Attributes:
        task: Of which demonstrations landed.
        episodes: How many.
        landed: When `world4rl land` had returned, in seconds since 1970.
        events: What the ledger says of the dataset.
        runs: That the daemon started since then, in the order of their starts.
        decision: The gate's.
        audit: What `world4rl audit episodes` says of the refined policy in the morning.
    """

    task: str
    episodes: int
    landed: float
    events: Sequence[Event]
    runs: Sequence[dict[str, Any]]
    decision: Record
    audit: str


def main() -> int:
    """Runs the night and prints what came of it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="button-press-topdown-v3")
    parser.add_argument("--episodes", type=int, default=5, help="demonstrations that land (default: 5)")
    parser.add_argument("--seed", type=int, default=100, help="of these demonstrations (default: 100)")
    arguments = parser.parse_args()
    copy = ROOT / ".benchmark" / "night"
    try:
        code = committed_code(ROOT)
        prepare(copy, arguments.task)
        demonstrations = record(copy, arguments.task, arguments.episodes, arguments.seed)
        night = sleep_through(copy, arguments.task, arguments.episodes, demonstrations)
    except (World4RLError, TimeoutError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    told = describe(night, load_params(copy / "params.yaml"), code)
    write_text(ROOT / "benchmarks" / "results" / "night.md", told)
    print(told)
    return 0


def prepare(copy: Path, task: str) -> None:
    """The evening: the demo has run, and the task has a champion.

    Raises:
        DataError: the demo did not come to its end.
    """
    check_out(ROOT, copy)
    _run(copy, "pipelines.demo")  # its status also says whether a gate was missed, which is no reason to stop
    if not Paths(copy).report.is_file():
        raise DataError(
            "the demo did not come to its end", where=copy, remedy="mend what it printed, and run this again"
        )
    if _run(copy, "world4rl", "challenge", "--task", task):
        raise DataError("there is no champion to begin with", where=copy, remedy="mend what was printed above")


def record(copy: Path, task: str, episodes: int, seed: int) -> Path:
    """Demonstrations of the scripted expert under a seed of their own, as a LeRobot dataset.

    Raises:
        DataError: the simulator did not record them.
    """
    scratch = copy / ".runs" / f"evening-{seed}"
    params = load_params(copy / "params.yaml").model_dump(mode="json")
    params["seed"] = seed
    params["task_parameters"][task]["demonstrations"] = episodes
    params["demonstrations"]["held_out"] = 0
    write_text(scratch / "params.yaml", dump_params(Params.model_validate(params)))
    if _run(copy, "world4rl", "collect-demos", "--task", task, "--root", str(scratch)):
        raise DataError("no demonstrations were recorded", where=scratch, remedy="mend what was printed above")
    return Paths(scratch).raw(task, "expert")


def sleep_through(copy: Path, task: str, episodes: int, demonstrations: Path) -> Night:
    """The night: the dataset lands, and everything else is the daemon's.

    Raises:
        DataError: it could not land.
        TimeoutError: until the morning nothing was decided.
    """
    paths, name = Paths(copy), f"evening-{time.strftime('%Y%m%d-%H%M%S')}"
    before = len(Decisions(paths).read())
    with Live(copy, environment={"PYTHONPATH": str(copy)}) as live:
        wait_for("the first tick", lambda: live.ticks("batch_policy"), 300)
        known = {run["runId"] for run in live.runs()}
        said = ("--task", task, "--operator", OPERATOR, "--consent", "research", "--name", name)
        if _run(copy, "world4rl", "land", str(demonstrations), *said):
            raise DataError("the dataset could not land", where=demonstrations, remedy="mend what was printed above")
        landed = time.time()
        decided = wait_for("a decision", lambda: Decisions(paths).read()[before:], NIGHT, pause=2.0)
        wait_for("the end of all runs", lambda: not live.runs(*UNFINISHED), 1800.0, pause=2.0)
        runs = [run for run in live.runs() if run["runId"] not in known]
    ledger = Ledger(paths.ledger)
    events = ledger.events(name)
    ledger.close()
    asked = [sys.executable, "-m", "world4rl", "audit", "episodes", str(paths.refined(task))]
    audit = subprocess.run(asked, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False).stdout
    runs.sort(key=lambda run: float(run["startTime"] or 0))
    return Night(task, episodes, landed, events, runs, decided[0], audit)


def describe(night: Night, params: Params, code: str) -> str:
    """The night as Markdown."""
    predicate = night.decision.predicate
    assert isinstance(predicate, Promotion | Rejection)
    accepted = next(event.time for event in night.events if event.state == "accepted")
    verdict = "promoted" if isinstance(predicate, Promotion) else "kept back"
    rows = [f"| {duration(accepted - night.landed)} | the dataset is accepted | |"]
    for run in night.runs:
        if run["jobName"] == "take_landed":
            continue
        what = f"{run['jobName']} {run['tags'].get('dagster/partition', '')}".strip()
        took = duration(run["endTime"] - run["startTime"])
        rows.append(f"| {duration(run['startTime'] - night.landed)} | {what}: {run['status'].lower()} | {took} |")
    about = machine.describe()
    return "\n".join(
        [
            f"{night.episodes} demonstrations of {night.task} landed; one had been there before.",
            "",
            "| after landing | what the daemon did | took |",
            "|---|---|---|",
            *rows,
            "",
            f"The challenger was **{verdict}**: {predicate.because}.{_figures(predicate.evidence)}",
            "",
            "What `world4rl audit episodes` says of the new policy:",
            "",
            "```",
            night.audit.partition("\n\nEpisodes\n")[0].strip(),
            "```",
            "",
            f"Machine: {'; '.join(f'{name} {value}' for name, value in about.items())}. Profile `{params.profile}`, "
            f"seed {params.seed}, code `{code}`.",
            "",
        ]
    )


def _figures(evidence: Mapping[str, Any]) -> str:
    """Successes and effect; nothing where a check kept the challenger back before any trial."""
    if "effect_points" not in evidence:
        return ""
    sides = (
        f"{side} {evidence[side]['successes']} of {evidence[side]['trials']}" for side in ("opponent", "challenger")
    )
    low, high = evidence["interval_points"]
    interval = f"{100 * evidence['confidence']:.0f} % interval {low:+.1f} to {high:+.1f}"
    return f" {', '.join(sides).capitalize()}: {evidence['effect_points']:+.1f} points ({interval})."


def _run(copy: Path, module: str, *arguments: str) -> int:
    print(f"$ {module} {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=copy, env=environment(copy)).returncode


if __name__ == "__main__":
    sys.exit(main())
