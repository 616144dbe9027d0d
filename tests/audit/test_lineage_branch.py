"""A chain that was cut at its end is whole in itself: the lineage branch still has what it lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.lineage import MadeUp
from tests.audit.conftest import open_book
from world4rl.audit.answers import Answer
from world4rl.audit.verify import verify
from world4rl.files import write_json
from world4rl.provenance.git import LINEAGE

OLDER = "0" * 64


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def keep(root: Path, *, records: int | None = None) -> str:
    """A lineage commit of the first records, or of all."""
    files = sorted(str(path.relative_to(root)) for path in (root / "data" / "records").iterdir())
    git(root, "add", "-f", *files[:records], "data/decisions", "data/signatures", "data/generations")
    tree = git(root, "write-tree")
    before = git(root, "for-each-ref", "--format=%(objectname)", LINEAGE)
    commit = git(root, "commit-tree", tree, *(["-p", before] if before else []), "-m", "lineage")
    git(root, "update-ref", LINEAGE, commit)
    git(root, "read-tree", "--empty")
    return commit


@pytest.fixture
def root(copy: MadeUp) -> Path:
    """A repository with what held-out episodes said of its world model, and of one before it."""
    git(copy.paths.root, "init", "-q")
    for model in (copy.digest("models/world_model"), OLDER):
        write_json(copy.paths.generation(model), {"episodes": {}})
    return copy.paths.root


def ask(root: Path) -> tuple[Answer, set[str]]:
    answer = verify(*open_book(root))
    return answer, {f"{one['file']} {one['problem']}" for one in answer.data["differences"]}


def test_a_branch_that_has_the_same_finds_nothing(root: Path) -> None:
    keep(root, records=5)
    keep(root)
    answer, found = ask(root)
    assert answer.ok, found


@pytest.mark.parametrize("pattern", ["data/records/*.json", "data/decisions/*.sig"])
def test_what_was_cut_off_is_named_with_where_it_still_is(root: Path, pattern: str) -> None:
    commit = keep(root)
    last = max(root.glob(pattern))
    name = str(last.relative_to(root))
    content = last.read_bytes()
    last.unlink()
    answer, found = ask(root)
    assert not answer.ok
    assert f"{name} is missing" in found
    (note,) = {one["note"] for one in answer.data["differences"] if one["file"] == name}
    assert f"git show {commit[:12]}:{name}" in note
    shown = subprocess.run(["git", *note.partition("git ")[2].split()], cwd=root, capture_output=True, check=True)
    assert shown.stdout == content


def test_what_nothing_else_vouches_for_is_compared_with_the_branch(root: Path) -> None:
    """Signatures of models that are gone, and the measurements of generations."""
    keep(root)
    book, history = open_book(root)
    current = {version.digest[:16] for version in history.current.values()}
    gone = [one for one in book.paths.signatures.glob("*.sig") if one.stem not in current]
    gone = [one for one in gone if not list(book.paths.all_champions.glob(f"*/{one.stem}"))]
    damaged = [gone[0], *book.paths.generations.glob("*.json")]
    for file in damaged:
        file.write_bytes(file.read_bytes() + b" ")
    gone[1].unlink()
    _, found = ask(root)
    names = {str(one.relative_to(root)) for one in damaged}
    assert found == {f"{name} differs" for name in names} | {f"{gone[1].relative_to(root)} is missing"}


def test_a_run_that_the_branch_does_not_know_may_have_measured_the_world_model_anew(root: Path) -> None:
    keep(root, records=-1)
    book, history = open_book(root)
    for model in (history.current["models/world_model"].digest, OLDER):
        write_json(book.paths.generation(model), {"episodes": {"a": {}}})
    _, found = ask(root)
    assert found == {f"data/generations/{OLDER}.json differs"}


def test_without_the_branch_a_cut_chain_looks_whole(root: Path) -> None:
    max((root / "data" / "records").glob("*.json")).unlink()
    _, found = ask(root)
    assert not any(one.startswith("data/records") for one in found)


def test_an_earlier_state_that_is_checked_out_lacks_nothing(root: Path) -> None:
    early = keep(root, records=-1)
    keep(root)
    max((root / "data" / "records").glob("*.json")).unlink()
    git(root, "update-ref", "--no-deref", "HEAD", early)
    _, found = ask(root)
    assert not any(one.startswith("data/records") for one in found)
