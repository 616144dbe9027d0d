"""The lineage in Git: after every run that went well, the state of the project as a commit of `refs/world4rl/lineage`.

Such a commit is the tree that is checked out (`HEAD`) with the state put in: `dvc.lock` and what it was made by,
manifests and acceptance records, episode sets, run records, decisions, signatures and public keys. `dvc pull` in it
restores every byte, champions included: a policy that was promoted lies in DVC's cache, and a `.dvc` file that only
the lineage has names it. Branch, index and files of the user are never touched.

A dataset that was accepted but not yet verified by its stage is not part of the state: what `dvc.lock` does not know
could not be pulled. It comes with the next commit. Nor is what a stage made from episodes that were withdrawn, once its
bytes are gone: it comes with the commit after the stage ran again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.dvc_lock import LOCK, stages_of, without
from assets.dvc_project import DvcProject, keep_in_cache, lock_of, md5_of, push_revision
from world4rl.errors import DataError, MachineError
from world4rl.files import locked
from world4rl.paths import Paths
from world4rl.provenance.decisions import Decisions, Withdrawal
from world4rl.provenance.git import LINEAGE, Git

PROJECT = ("dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore")
# Folders of the state; what lies in the first ones never changes once it is written.
WRITTEN_ONCE = ("data/episodes", "data/records", "data/decisions", "data/signatures")
STATE = (*WRITTEN_ONCE, "data/manifests", "data/accepted", "data/generations", "keys", "champions")
PLACES = "data/signatures/places/"  # these do change
SUFFIXES = (".json", ".sig", ".pem", ".txt")
ARTEFACTS = ("data", "models", "reports")
TRIES = 10  # another working tree of the same repository may commit at the same moment


@dataclass(frozen=True)
class Committed:
    """A commit of the lineage.

    Attributes:
        commit: Its id.
        changed: What is new in it, in words.
    """

    commit: str
    changed: tuple[str, ...]


@dataclass(frozen=True)
class _State:
    """Blobs by path below the root, those of the lineage before it, and the stages of dvc.lock."""

    blobs: Mapping[str, str]
    old: Mapping[str, str]
    stages: Mapping[str, Any]


def commit_lineage(root: Path, *, run: str | None = None, job: str | None = None) -> Committed | None:
    """Commits the state of a project to the lineage.

    Args:
        root: The project's folder.
        run: The Dagster run that led to it.
        job: Its job.

    Returns:
        None where nothing has changed, nothing ever ran, or the folder is in no Git repository.

    Raises:
        MachineError: Git failed.
    """
    git = Git(root)
    if not git.found():
        return None
    with locked(root / ".runs" / "lineage.lock"):
        for _ in range(TRIES):
            before = git.resolve(LINEAGE)
            state = _state(root, git, before)
            changed = () if state is None else _changes(git, state)
            if state is None or not changed:
                return None
            commit = git.commit(_tree(git, state), before, _message(git, changed, run, job))
            if git.point(LINEAGE, commit, before):
                return Committed(commit, changed)
    raise MachineError("somebody else keeps changing the ref", where=LINEAGE, remedy="run `world4rl lineage` again")


def snapshot(root: Path) -> str:
    """The present state as a commit that no ref points at.

    Raises:
        MachineError: there is no Git repository or no `dvc.lock`, or Git failed.
    """
    git = Git(root)
    before = git.resolve(LINEAGE) if git.found() else None
    state = _state(root, git, before) if git.found() else None
    if state is None:
        raise MachineError("there is no state to keep", where=root, remedy="run the lineage in a Git repository first")
    return git.commit(_tree(git, state), before, "lineage: a snapshot\n")


def push_lineage(root: Path) -> bool:
    """Pushes all files of the newest lineage commit to DVC's default remote.

    Returns:
        Whether there is a remote, and a commit.

    Raises:
        MachineError: the remote did not take them.
    """
    commit = Git(root).resolve(LINEAGE)
    return commit is not None and push_revision(root, commit)


def commit_of_record(root: Path, record: str) -> str | None:
    """The first lineage commit that has a run record, by the name of its file."""
    git = Git(root)
    if git.resolve(LINEAGE) is None:
        return None
    path = f":(top){git.prefix()}data/records/{record}"
    found = git.run("log", "--format=%H", "--diff-filter=A", "--reverse", LINEAGE, "--", path).split()
    return found[0] if found else None


def _state(root: Path, git: Git, before: str | None) -> _State | None:
    """What a commit must hold now; None where nothing ever ran."""
    lock = lock_of(root)
    if lock is None:
        return None
    content, stages = lock
    lost = _lost(root)
    if lost:
        content = without(content, lost)
        stages = {name: entry for name, entry in stages.items() if name not in lost}
    prefix = git.prefix()
    found = git.files(before) if before is not None else {}
    old = {path.removeprefix(prefix): blob for path, blob in found.items() if path.startswith(prefix)}
    blobs = {LOCK: git.store_bytes(content)} | _manifests(root, git, stages, old)
    names = [name for name in (*PROJECT, *sorted(_code(stages))) if (root / name).is_file()]
    for folder in ("keys", *WRITTEN_ONCE):
        names += _files(root, folder)
    names += _accepted(root, git, blobs)
    fresh = [name for name in names if name not in old or not _written_once(name)]
    blobs |= {name: old[name] for name in names if name not in fresh}
    blobs |= zip(fresh, git.store([root / name for name in fresh]), strict=True)
    for champion in _champions(root):
        name = f"champions/{champion.parent.name}/{champion.name}.dvc"
        blobs[name] = old[name] if name in old else git.store_bytes(_pointer(root, champion, name))
    return _State(blobs, old, stages)


def _lost(root: Path) -> set[str]:
    """Stages of whose results a withdrawal removed bytes, until they run again."""
    paths = set[str]()
    with suppress(DataError):  # decisions that somebody changed: the audit names them, and the state is kept as it is
        decided = [record.predicate for record in Decisions(Paths(root)).read()]
        paths = {found.name for one in decided if isinstance(one, Withdrawal) for found in one.affected}
    return DvcProject(root).lost(paths) if paths else set()


def _written_once(name: str) -> bool:
    """Whether a file of the lineage never changes; if it does in the working tree, the lineage keeps it as it was."""
    return name.startswith(tuple(f"{folder}/" for folder in WRITTEN_ONCE)) and not name.startswith(PLACES)


def _files(root: Path, folder: str) -> Iterator[str]:
    for path in sorted((root / folder).rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix in SUFFIXES and ".partial" not in name and path.is_file():
            yield name


def _code(stages: Mapping[str, Any]) -> set[str]:
    """What `dvc.lock` says that the stages were made by: it may differ from what is committed."""
    deps = (dep["path"] for stage in stages.values() for dep in stage.get("deps", ()))
    return {path for path in deps if Path(path).parts[0] not in ARTEFACTS}


def _manifests(root: Path, git: Git, stages: Mapping[str, Any], old: Mapping[str, str]) -> dict[str, str]:
    """The manifests that `dvc.lock` knows: others name datasets whose stage has not run yet."""
    known = {dep["path"]: dep.get("md5") for stage in stages.values() for dep in stage.get("deps", ())}
    blobs = {}
    for name in _files(root, "data/manifests"):
        content = (root / name).read_bytes()
        if known.get(name) == md5_of(content):
            blobs[name] = git.store_bytes(content)
        elif name in old:
            blobs[name] = old[name]
    return blobs


def _accepted(root: Path, git: Git, blobs: Mapping[str, str]) -> list[str]:
    """The acceptance records of the datasets in the manifests."""
    manifests = (json.loads(git.read(blob)) for name, blob in blobs.items() if name.startswith("data/manifests/"))
    roles = (role for manifest in manifests for role in manifest["roles"].values())
    ids = {dataset["id"] for role in roles for dataset in role["datasets"]}
    return [name for name in _files(root, "data/accepted") if Path(name).stem in ids]


def _champions(root: Path) -> list[Path]:
    found = Paths(root).all_champions.glob("*/*")
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _pointer(root: Path, folder: Path, name: str) -> bytes:
    """A `.dvc` file for a folder, whose files are put into DVC's cache."""
    out = {**keep_in_cache(root, folder), "path": folder.relative_to(root).as_posix()}
    up = "/".join([".."] * name.count("/"))
    return (json.dumps({"wdir": up, "outs": [out]}, indent=1) + "\n").encode()  # JSON is YAML


def _tree(git: Git, state: _State) -> str:
    prefix, head = git.prefix(), git.resolve("HEAD")
    blobs: dict[str, str | None] = {}
    if head is not None:  # what somebody committed to a branch of the state is not what holds now
        blobs |= dict.fromkeys(git.files(head, *(f"{prefix}{folder}" for folder in STATE)))
    return git.tree(head, blobs | {f"{prefix}{path}": blob for path, blob in state.blobs.items()})


def _changes(git: Git, state: _State) -> tuple[str, ...]:
    """What is new, in words: stages by name, the rest by number. Empty where the state is the one before."""
    old_stages = stages_of(git.read(state.old[LOCK])) if LOCK in state.old else {}
    changed = [f"stage {name}" for name, entry in sorted(state.stages.items()) if old_stages.get(name) != entry]
    for folder in STATE:
        mine = {path for path in state.blobs if path.startswith(f"{folder}/")}
        fresh = [path for path in mine if state.old.get(path) != state.blobs[path]]
        gone = [path for path in state.old if path.startswith(f"{folder}/") and path not in mine]
        if fresh or gone:
            changed.append(f"{folder}: {len(fresh)} new" + (f", {len(gone)} gone" if gone else ""))
    rest = {path for path in state.blobs if not path.startswith(tuple(f"{folder}/" for folder in STATE))}
    return (*changed, *(path for path in sorted(rest) if state.old.get(path) != state.blobs[path]))


def _message(git: Git, changed: tuple[str, ...], run: str | None, job: str | None) -> str:
    head = git.resolve("HEAD")
    trailers = {
        "Dagster-Run": run,
        "Dagster-Job": job,
        "Head": head,
        "Head-Dirty": str(git.dirty()).lower() if head else None,
    }
    told = [f"{name}: {value}" for name, value in trailers.items() if value is not None]
    lines = [f"lineage: after {job or 'a run'}", "", *(f"- {what}" for what in changed), "", *told]
    return "\n".join(lines).rstrip() + "\n"
