"""Runs a recorded stage again, in a working tree of its own, and compares what comes out with the record.

The tree is the lineage commit that brought the record, or the present state where none has it yet; its inputs come
from DVC's cache or remote and are compared with the record before anything runs. Its own cache keeps what is made
there apart: an old value of a parameter must never bring back the outcome of a reproduction.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from assets.dvc_project import DvcProject, Stage, lend
from assets.lineage_ref import commit_of_record, snapshot
from assets.recording import figures_of
from assets.stage_runner import THREAD_VARIABLES
from world4rl import machine, progress
from world4rl.audit.answers import Answer, Table, answer, count
from world4rl.audit.answers import Verdict as Goodness
from world4rl.audit.book import Book
from world4rl.errors import ConfigError, DataError
from world4rl.files import locked, locked_if_free
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_file, digest_folder, digest_json
from world4rl.provenance.git import Git
from world4rl.provenance.notes import LOCK_FILE
from world4rl.provenance.records import Chain, Record, Run
from world4rl.provenance.reproduction import Comparison, Made, compare

CACHE = "world4rl-cache"  # the project's cache, as a remote of the working tree
STDERR = 2
DIGEST = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Reproduction:
    """A stage that ran again.

    Attributes:
        stage: Its name.
        record: File of the record that it was compared with.
        commit: The tree that it ran in.
        otherwise: What was not as it was then: `code`, `packages`, `processor`, `driver`.
        comparison: What came out.
    """

    stage: str
    record: str
    commit: str
    otherwise: tuple[str, ...]
    comparison: Comparison


def find_record(root: Path, what: str) -> tuple[Path, Record[Run]]:
    """The newest record that a file or folder, a stage or a digest stands for.

    Args:
        root: The project's folder.
        what: A path, the name of a stage, or at least eight digits of the SHA-256 of a file, folder or record.

    Raises:
        DataError: there is none, or the chain of records is broken.
    """
    chain = Chain(Paths(root).records, (Run,))
    records = list(zip(chain.files(), chain.read(), strict=True))[::-1]
    path = root / what
    if path.exists():
        digest = digest_folder(path) if path.is_dir() else digest_file(path)
        remedy = "was it changed, or never recorded? `world4rl record` records what DVC made"
        same = [each for each in records if digest in _digests(each[1])]
        found = [each for each in same if _names(each[1], path.resolve(), root.resolve())] or same  # a copy elsewhere
    else:
        remedy = "give a path, the name of a stage in dvc.yaml, or eight digits of a SHA-256"
        found = [each for each in records if each[1].predicate.stage == what]
        if not found and DIGEST.fullmatch(what):
            found = [each for each in records if any(digest.startswith(what) for digest in _digests(each[1]))]
    if not found:
        raise DataError("there is no run record of it", where=what, remedy=remedy)
    return found[0]


def _names(record: Record[Run], path: Path, root: Path) -> bool:
    return any(root / one.name == path for one in (*record.subject, *record.predicate.outputs))


def _digests(record: Record[Run]) -> set[str]:
    return {record.digest, *(one.sha256 for one in (*record.subject, *record.predicate.outputs))}


def reproduce(root: Path, what: str, tolerance: float) -> Reproduction:
    """Runs a recorded stage again and compares.

    Args:
        root: The project's folder. Nothing in it changes, `.runs` apart.
        what: See `find_record`.
        tolerance: See `provenance.reproduction.compare`.

    Raises:
        DataError: there is no record, its inputs cannot be had, or the stage failed.
        MachineError: Git failed.
    """
    root = root.resolve()
    file, record = find_record(root, what)
    run = record.predicate
    commit = commit_of_record(root, file.name) or snapshot(root)
    with _tree(root, commit, run.stage) as tree:
        project = DvcProject(tree)
        if run.stage not in project.stages:
            raise ConfigError(f"the code of {commit[:12]} has no stage {run.stage!r}", where=file)
        stage = project.stages[run.stage]
        progress.log(f"inputs of {stage.name} as of {commit[:12]}")
        _pull(root, tree, stage, run)
        otherwise = tuple(_otherwise(project, stage, run))
        progress.log(f"running {stage.name}")
        _run(tree, stage, run)
        comparison = compare(_recorded(record, stage), _made(tree, stage), tolerance)
    return Reproduction(stage.name, file.name, commit, otherwise, comparison)


def tell(book: Book, what: str, found: Reproduction) -> Answer:
    """The answer to whether something comes out again.

    Args:
        book: The records.
        what: As it was asked for.
        found: What came of it.
    """
    comparison = found.comparison
    sentences = [f"Compared with the record {found.record}, in the tree of {found.commit[:12]}."]
    sentences += [f"Not as it was then: {', '.join(found.otherwise)}."] if found.otherwise else []
    sentences.append(f"{count(comparison.compared, 'figure')} compared, tolerance {comparison.tolerance:g}.")
    verdicts: dict[str, Goodness] = {"bit-equal": "good", "metric-equal": "doubt", "different": "bad"}
    return answer(
        book,
        f"Does {what} come out again?",
        f"{found.stage} is {comparison.verdict}.",
        verdicts[comparison.verdict],
        asdict(found),
        sentences=sentences,
        blocks=(
            Table("Other bytes", ("file",), [(name,) for name in comparison.files]),
            Table(
                "Other figures",
                ("name", "then", "now"),
                [(pair.name, pair.recorded, pair.again) for pair in comparison.figures],
            ),
        ),
    )


def discard_abandoned(root: Path) -> None:
    """Removes the working trees, with the inputs in them, that killed reproductions left."""
    for folder in sorted(each for each in _trees(root).glob("*") if each.is_dir()):
        with locked_if_free(_lock(folder)) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
                Git(root).run("worktree", "prune")


def _trees(root: Path) -> Path:
    return root / ".runs" / "reproduce"


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _tree(root: Path, commit: str, name: str) -> Iterator[Path]:
    """The project's folder in a working tree of its own, which is gone when the block ends."""
    git = Git(root)
    folder = _trees(root) / name
    with locked(_lock(folder)):
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        git.run("worktree", "prune")
        git.run("-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder / git.prefix()
        finally:
            git.run("worktree", "remove", "--force", "--force", str(folder))


def _pull(root: Path, tree: Path, stage: Stage, run: Run) -> None:
    """Brings the inputs into the tree, and makes sure that they are those of the record."""
    sources = set(stage.sources)
    # What landed is made by no stage: it lies in the outputs of the stage that verifies it.
    targets = [one.name for one in run.inputs if one.name not in sources] + [*(stage.outputs if sources else ())]
    lend(root, tree, CACHE)
    if targets and not (
        _dvc(tree, "pull", "--quiet", "--remote", CACHE, *targets) == 0 or _dvc(tree, "pull", *targets) == 0
    ):
        raise DataError(
            f"the inputs of {stage.name} cannot be had",
            where=", ".join(targets),
            remedy="restore access to the DVC remote that they were pushed to",
        )
    for one in run.inputs:
        path = tree / one.name
        if one.sha256 != (digest_folder(path) if path.is_dir() else digest_file(path)):
            raise DataError(
                "the lineage no longer has this input as the record names it",
                where=one.name,
                remedy=f"bring {one.sha256[:16]} back from a backup; `world4rl reproduce` a newer run of {stage.name}",
            )


def _run(tree: Path, stage: Stage, run: Run) -> None:
    if _dvc(tree, "repro", "--single-item", "--force", stage.name, threads=run.machine.get("threads")):
        raise DataError(f"{stage.name} failed when it ran again", where=stage.command, remedy="see its output above")


def _dvc(tree: Path, *arguments: str, threads: int | None = None) -> int:
    """Runs DVC in the tree, with the tree's own code, its output on standard error."""
    environment = {
        **os.environ,
        **({} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))),
        "PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=STDERR).returncode


def _recorded(record: Record[Run], stage: Stage) -> Made:
    below = tuple(f"{path}/" for path in stage.outputs)
    files = {one.name: one.sha256 for one in record.subject if one.name in stage.outputs or one.name.startswith(below)}
    return Made(files, record.predicate.metrics)


def _made(tree: Path, stage: Stage) -> Made:
    paths = [tree / path for path in stage.outputs]
    single = [path for path in paths if path.is_file()]
    single += [path for folder in paths for path in sorted(folder.rglob("*")) if path.is_file()]
    return Made({path.relative_to(tree).as_posix(): digest_file(path) for path in single}, figures_of(tree, stage))


def _otherwise(project: DvcProject, stage: Stage, run: Run) -> Iterator[str]:
    """What is not as it was when the record was made, as far as the record says."""
    if run.code.digest != digest_json(dict(project.code_hashes(stage))):
        yield "code"
    lock = project.root / LOCK_FILE
    if run.code.lock is not None and (not lock.is_file() or digest_file(lock) != run.code.lock):
        yield "packages"
    here = machine.describe_fully()
    for name in ("processor", "driver"):
        if name in run.machine and run.machine[name] != here.get(name):
            yield name
