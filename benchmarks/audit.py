"""How long each of the auditor's questions takes, over 100,000 episodes and 1,000 versions of artefacts.

    .venv/bin/python -m benchmarks.audit [--tasks 30] [--episodes 480] [--keep FOLDER] [--json FILE]

Builds a made-up repository (`benchmarks.lineage`): real records, manifests and signatures about small files, so that
what is measured is the reading of records and not the reading of models. Every question is asked as a person asks it,
by its command in a new process, start included. The repository is kept where `--keep` says, for another time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lineage import MadeUp
from world4rl.audit.book import read_book
from world4rl.audit.versions import history_of
from world4rl.files import write_json
from world4rl.paths import Paths

TARGET = 2.0  # seconds a question
DATASETS, GENERATIONS = 5, 3


def main() -> None:
    """Builds the repository, asks every question and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=480, help="of a dataset; a task has seven")
    parser.add_argument("--keep", type=Path, help="build there, or use what was built there before")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (arguments.keep or Path(folder)) / "repository"
        if not root.exists():
            build(root, arguments.tasks, arguments.episodes)
        figures = measure(root)
    if arguments.json:
        write_json(arguments.json, figures)


def build(root: Path, tasks: int, episodes: int) -> None:
    """A repository of three generations, with five demonstration datasets a task."""
    names = [f"task-{number:02}-v3" for number in range(tasks)]
    made = MadeUp(root, names)
    for number, task in enumerate(names):
        for each in range(DATASETS):
            operator = f"operator-{(number + each) % 12}"
            made.land([task], episodes, manifests=False, operator=operator, robot_id=f"arm-{each}", consent="training")
    for generation in range(GENERATIONS):
        made.write_manifests()
        made.repro()
        for task in names:
            policy = made.promote(task)
            made.deploy(f"arm-of-{task}", task, policy)
            if generation < GENERATIONS - 1:
                made.land([task], episodes, role="policy", manifests=False, policy=policy, operator="operator-0")


def measure(root: Path) -> dict[str, float]:
    """Seconds by question, printed as they come."""
    book = read_book(Paths(root))
    history = history_of(book)
    episodes = {episode.digest for one in book.sets.values() for episode in one.episodes}
    episode, dataset = next(iter(book.sets.values())).episodes[0].digest, book.acceptances[0]
    task = dataset.episodes[0].task
    print(f"{len(episodes):,} episodes, {len(history.made_by):,} versions of artefacts, {book.holds}")
    questions = {
        "episodes of a world model": ["episodes", str(root / "models" / "world_model")],
        "episodes of a policy": ["episodes", str(root / "models" / task / "refined")],
        "reach of an episode": ["reach", "--episode", episode],
        "reach of an operator": ["reach", "--operator", "operator-0"],
        "reach of a dataset": ["reach", "--dataset", dataset.id],
        "verify a policy": ["verify", str(root / "models" / task / "refined")],
        "verify everything": ["verify"],
        "stale": ["stale"],
        "stale, artefacts read": ["stale", "--disk"],
        "who made a policy": ["who", str(root / "models" / task / "refined")],
        "overview page": ["page", "--out", str(root / "reports" / "audit" / "index.html")],
    }
    figures: dict[str, float] = {"episodes": len(episodes), "versions": len(history.made_by)}
    for name, words in questions.items():
        took, busy = _ask([*words, "--root", str(root)])
        figures[name] = took
        late = "" if took <= TARGET else f"  more than {TARGET:g} s"
        print(f"{name:<28} {took:6.2f} s  (processor {busy:.2f} s){late}")
    return figures


def _ask(words: list[str]) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "world4rl", "audit", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])),
        },
    )
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
