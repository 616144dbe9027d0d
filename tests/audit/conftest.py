"""A made-up repository of two tasks and three generations; each test that changes something gets a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.lineage import MadeUp, three_generations
from world4rl.audit.book import Book, read_book
from world4rl.audit.versions import History, history_of
from world4rl.paths import Paths
from world4rl.provenance.records import Code, Record, Run, subject

TASKS = ("push-v3", "reach-v3")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return three_generations(tmp_path_factory.mktemp("made") / "repository", TASKS)


@pytest.fixture(scope="session")
def read(made: MadeUp) -> tuple[Book, History]:
    """The repository's records; nobody changes them."""
    return open_book(made.paths.root)


@pytest.fixture
def copy(made: MadeUp, tmp_path: Path) -> MadeUp:
    """The repository to change."""
    shutil.copytree(made.paths.root, tmp_path / "repository")
    return made.at(tmp_path / "repository")


def open_book(root: Path) -> tuple[Book, History]:
    book = read_book(Paths(root))
    return book, history_of(book)


@pytest.fixture
def book_of(tmp_path: Path) -> Callable[[Sequence[Run]], Book]:
    """A book of runs that no file tells of."""

    def make(runs: Sequence[Run]) -> Book:
        files = tuple(tmp_path / f"{number}.json" for number in range(len(runs)))
        records = tuple(
            Record[Run](subject=run.outputs, predicateType=Run.predicate_type, predicate=run) for run in runs
        )
        return Book(Paths(tmp_path), records, files, (), {}, (), ())

    return make


def run_of(stage: str, inputs: dict[str, str], outputs: dict[str, str], minute: int, **said: object) -> Run:
    values = {
        "stage": stage,
        "command": stage,
        "inputs": tuple(subject(*item) for item in inputs.items()),
        "outputs": tuple(subject(*item) for item in outputs.items()),
        "parameters": {},
        "code": Code(commit=None, dirty=False, digest="", lock=None),
        "machine": {},
        "began": "",
        "ended": f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00Z",
        "metrics": {},
        "orchestrator": None,
    }
    return Run.model_validate(values | said)
