"""All that the repository knows about DVC: which steps there are, what depends on what, what is up to date.

The answers are DVC's own. It resolves `dvc.yaml`, decides whether a stage changed and writes `dvc.lock`; nothing here
second-guesses it. A check costs some 25 ms in this process, where `dvc repro` costs half a second to start, so an
unchanged stage starts no process at all. Should DVC ever be replaced, this is the module to rewrite, with
`dvc_lock` beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assets.dvc_lock import LOCK, open_repo, parsed_lock, stages_of
from world4rl.config import select_parameter
from world4rl.errors import ConfigError, MachineError, World4RLError

if TYPE_CHECKING:
    from dvc.repo import Repo

DATA = "data"  # the folder whose files are no code
_BUSY = "is busy, it is being blocked by"
_CHATTER = (
    "Running stage ",
    "world4rl ",
    "Generating lock file ",
    "Updating lock file ",
    "To track the changes with git",
    "git add ",
    "\tgit add ",
    "To enable auto staging",
    "dvc config core.autostage",
    "\tdvc config core.autostage",
    "Use `dvc push`",
)
# DVC's objects share caches that were not made for threads, and its file lock does not tell threads apart.
_in_process = threading.Lock()


class StageBusyError(World4RLError):
    """Somebody else is running a stage, or one whose files it shares."""


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`, resolved.

    Attributes:
        name: As `dvc repro` takes it, e.g. `bc@soccer-v3`.
        step: The entry in `dvc.yaml` that it comes from, e.g. `bc`.
        task: The matrix value that it was made for; None for a stage that serves all tasks.
        command: What DVC runs.
        description: `desc` of `dvc.yaml`.
        code: The modules that define the work, relative to the root.
        data: Dependencies that other stages make.
        sources: Data that no stage makes: what landing leaves in `data/`.
        parameters: Names of the values in `params.yaml` that it depends on.
        outputs: Data and models that it makes.
        metrics: Metrics and plots that it makes.
        upstream: Names of the stages that make `data`.
    """

    name: str
    step: str
    task: str | None
    command: str
    description: str
    code: tuple[str, ...]
    data: tuple[str, ...]
    sources: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]
    upstream: frozenset[str]


@dataclass(frozen=True)
class Step:
    """One entry of `dvc.yaml`: a stage, or the stages that a matrix makes of it."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The matrix values; empty for a stage that serves all tasks."""
        return tuple(stage.task for stage in self.stages if stage.task is not None)

    @property
    def description(self) -> str:
        """`desc` of `dvc.yaml`."""
        return self.stages[0].description

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the steps that this one depends on, sorted."""
        return tuple(sorted({name.partition("@")[0] for stage in self.stages for name in stage.upstream}))


@dataclass(frozen=True)
class Change:
    """Why DVC would run a stage, as far as the files that are there now tell.

    Attributes:
        never: It has never run here.
        command: Its command is another one.
        code: Modules that changed.
        sources: Of its `sources`, those that changed or are missing.
        data: Of its `data`, those that changed or are missing.
        parameters: What it ran with last and what stands there now, by name; None for a value that is not there.
        missing: Outputs and metrics that are not there.
        outputs: Outputs and metrics that are not what the stage made.
        restored: Whether the command runs at all: DVC's cache may have what the stage made last, or what it once made
            from exactly the files that are there now.
        busy: Somebody is running it, or one whose files it shares; then nothing else is known.
    """

    never: bool = False
    command: bool = False
    code: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    parameters: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    restored: Literal["as it was", "as it once was"] | None = None
    busy: bool = False

    @property
    def absent(self) -> bool:
        """Whether something that the stage makes is not there."""
        return self.never or bool(self.missing)

    def only_below(self, folder: str) -> bool:
        """Whether nothing changed but sources, and files below a folder."""
        other = self.never or self.command or self.code or self.parameters or self.missing or self.busy
        return not other and all(Path(path).is_relative_to(folder) for path in self.data + self.outputs)


@dataclass(frozen=True)
class Recorded:
    """What `dvc.lock` says about a stage that has run.

    Attributes:
        data_version: Digest of the outputs. Metrics are left out: they hold the seconds that a stage took, and an
            unchanged output must not look changed downstream. They count where a stage makes nothing else.
        code_version: Digest of command, code and parameters.
        size: Bytes of all that it made.
        files: Files of all that it made.
        entry: Digest of all that `dvc.lock` says about it.
        command: What DVC ran.
        code: DVC's hashes of the modules that defined the work.
        parameters: Values by their names in `dvc.yaml`.
    """

    data_version: str
    code_version: str
    size: int
    files: int
    entry: str
    command: str
    code: Mapping[str, str]
    parameters: Mapping[str, Any]


@dataclass
class DvcProject:
    """The stages of a project folder.

    `dvc.yaml` and `params.yaml` are read once: make a new project to see an edit. `dvc.lock` and the state of the
    files are read at every question.

    Args:
        root: Folder of `dvc.yaml`.
    """

    root: Path
    _steps: Mapping[str, Step] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.root = Path(self.root).resolve()
        self._steps = self._load()

    @property
    def steps(self) -> Mapping[str, Step]:
        """Every step by name, dependencies first."""
        return self._steps

    @cached_property
    def stages(self) -> Mapping[str, Stage]:
        """Every stage by name, dependencies first."""
        return {stage.name: stage for step in self._steps.values() for stage in step.stages}

    def stage(self, step: str, task: str | None = None) -> Stage:
        """The stage of a step and task.

        Raises:
            ConfigError: `dvc.yaml` has no such stage.
        """
        name = step if task is None else f"{step}@{task}"
        try:
            return self.stages[name]
        except KeyError:
            raise ConfigError(
                f"no stage {name!r}",
                where=self.root / "dvc.yaml",
                remedy="`dvc stage list` prints the stages; tasks are listed in params.yaml",
            ) from None

    def unchanged(self, stage: Stage) -> bool:
        """Whether `dvc repro` would skip the stage: DVC's own decision, taken in this process.

        Raises:
            StageBusyError: somebody is running it.
        """
        from dvc.lock import LockError

        with _in_process, self._repo() as repo, repo.lock:
            try:
                return not repo.stage.load_one(str(self.root / "dvc.yaml"), stage.name).changed()
            except LockError as error:
                raise StageBusyError(str(error), where=stage.name, remedy="wait until it is done") from error

    def changes(self) -> dict[str, Change]:
        """Why stages are not up to date, by name; a stage that is not in it is one that `dvc repro` would skip.

        Each stage by itself: one whose inputs are about to be made anew is not in it yet. Nor is one that only lacks
        inputs which DVC's cache brings back as they were. One pass takes some 40 ms a stage, and longer where large
        files changed behind DVC's back.
        """
        found: dict[str, Change] = {}
        with _in_process, self._repo() as repo, repo.lock:
            loaded = {stage.name: stage for stage in repo.index.stages}
            returning: dict[str, str] = {}  # hashes of outputs that come back as they were, by path
            for stage in self.stages.values():
                dvc_stage = loaded.get(stage.name)
                recorded = _recorded_hashes(dvc_stage.outs) if dvc_stage is not None else {}
                change = _change(stage, dvc_stage, returning) if dvc_stage is not None else None
                if change is not None:
                    found[stage.name] = change
                    if change.restored == "as it was":
                        returning |= recorded
        return found

    def source_changed(self, stage: Stage) -> bool:
        """Whether data of the stage that no stage makes is other than when it ran; takes no look at anything else."""
        recorded = self._lock_entry(stage.name) or {}
        hashes = {dep["path"]: _hash(dep) for dep in recorded.get("deps", ())}
        return any(
            not (self.root / path).is_file() or hashes.get(path) != _file_hash(self.root / path)
            for path in stage.sources
        )

    def committed(self, stage: Stage, output: str, name: str) -> bytes | None:
        """A file in an output folder as the stage made it last, from DVC's cache, whatever lies there now.

        Args:
            stage: The stage.
            output: One of its outputs, a folder.
            name: Of the file in it.

        Returns:
            Its bytes; None where the stage never ran, made no such file, or the cache does not have it.
        """
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree
        from dvc_objects.errors import ObjectFormatError

        entry = self._lock_entry(stage.name) or {}
        made = {out["path"]: _hash(out) for out in entry.get("outs", ())}
        if output not in made:
            return None
        with _in_process, self._repo() as repo:
            cache = repo.cache.local
            try:
                files = {"/".join(key): found for key, _, found in Tree.load(cache, HashInfo("md5", made[output]))}
                return Path(cache.oid_to_path(files[name].value)).read_bytes()
            except (FileNotFoundError, KeyError, ObjectFormatError):
                return None

    def repro_command(self, stage: Stage) -> list[str]:
        """The command that brings exactly this stage up to date.

        It waits while another stage holds the project's lock: without that, a training of hours is lost when a
        sibling holds the lock for some seconds at its end.
        """
        return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage.name]

    @staticmethod
    def was_busy(output: str) -> bool:
        """Whether a failed `dvc repro` printed that somebody else is running the same stage."""
        return _BUSY in output

    @staticmethod
    def is_chatter(line: str) -> bool:
        """Whether a line that `dvc repro` printed is DVC's own talk and not the stage's."""
        return not line.strip() or line.lstrip("> ").startswith(_CHATTER)

    @staticmethod
    def was_killed(output: str) -> bool:
        """Whether a failed `dvc repro` printed that a signal ended the stage's command."""
        ended = re.findall(r"exited with (-?\d+)", output)
        return bool(ended) and (int(ended[-1]) < 0 or int(ended[-1]) > 128)

    def recorded(self, stage: Stage) -> Recorded | None:
        """What `dvc.lock` says about the stage; None when it never ran.

        Raises:
            DataError: `dvc.lock` cannot be read.
        """
        entry = self._lock_entry(stage.name)
        return None if entry is None else self._recorded(stage, entry)

    def all_recorded(self) -> dict[str, Recorded]:
        """What `dvc.lock` says about every stage that has run, by name.

        Raises:
            DataError: `dvc.lock` cannot be read.
        """
        entries = self._lock_entries()
        return {name: self._recorded(stage, entries[name]) for name, stage in self.stages.items() if name in entries}

    @staticmethod
    def _recorded(stage: Stage, entry: Any) -> Recorded:
        made = {out["path"]: out for out in entry.get("outs", ())}
        hashes = {path: _hash(out) for path, out in made.items()}
        outputs = {path: hashes[path] for path in stage.outputs if path in hashes}
        code = {dep["path"]: _hash(dep) for dep in entry.get("deps", ()) if dep["path"] in stage.code}
        parameters: dict[str, Any] = {}
        for values in entry.get("params", {}).values():
            parameters.update(values)
        return Recorded(
            data_version=_digest(outputs or hashes),
            code_version=_digest([entry["cmd"], code, parameters]),
            size=sum(out.get("size", 0) for out in made.values()),
            files=sum(out.get("nfiles", 1) for out in made.values()),
            entry=_digest(entry),
            command=str(entry["cmd"]),
            code=code,
            parameters=parameters,
        )

    def inputs(self, stage: Stage) -> tuple[str, ...]:
        """The data that a stage reads, sorted: outputs and metrics of other stages, and files that no stage makes."""
        made = (path for name in stage.upstream for path in self.stages[name].outputs + self.stages[name].metrics)
        return tuple(
            sorted({path for path in made if any(_overlap(path, dep) for dep in stage.data)} | {*stage.sources})
        )

    def intact(self, stage: Stage) -> bool:
        """Whether what a stage read and made lies there as `dvc.lock` says, whatever became of code and parameters."""
        with _in_process, self._repo() as repo, repo.lock:
            found = repo.stage.load_one(str(self.root / "dvc.yaml"), stage.name)
            read = [dep for dep in found.deps if not hasattr(dep, "params") and _paths([dep])[0] not in stage.code]
            return all(item.hash_info and not item.workspace_status() for item in [*read, *found.outs])

    def lost(self, paths: Collection[str]) -> set[str]:
        """Names of stages that made one of some paths last, and of whose bytes neither cache nor folder has all."""
        found = set()
        for name, entry in self._lock_entries().items():
            hashes = [_hash(out) for out in entry.get("outs", ()) if out["path"] in paths]
            if name in self.stages and hashes and not (self._cached(hashes) or self.intact(self.stages[name])):
                found.add(name)
        return found

    def _cached(self, hashes: Sequence[str]) -> bool:
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        with _in_process, self._repo() as repo:
            cache = repo.cache.local
            for each in hashes:
                if not cache.exists(each):
                    return False
                tree = Tree.load(cache, HashInfo("md5", each)) if each.endswith(".dir") else ()
                if not all(cache.exists(found.value) for _, _, found in tree):
                    return False
        return True

    def code_version(self, stage: Stage) -> str:
        """Digest of command, code and parameters as they are now; equals the recorded one once the stage has run."""
        code = self.code_hashes(stage)
        parameters = {name: select_parameter(self._parameters, name) for name in stage.parameters}
        return _digest([stage.command, code, parameters])

    def read_now(self, stage: Stage) -> str:
        """Digest of what people and landing may edit while a stage runs: its code, parameters and sources."""
        from dvc.utils.serialize import load_yaml

        values = load_yaml(str(self.root / "params.yaml"))
        files = {path: _file_hash(self.root / path) for path in stage.code + stage.sources}
        return _digest([files, {name: select_parameter(values, name) for name in stage.parameters}])

    def forget(self, stage: Stage) -> None:
        """Has DVC no longer know that the stage ran with what `dvc.lock` says, nor what came out."""
        from dvc.dvcfile import Lockfile
        from dvc.stage.cache import _can_hash, _get_stage_hash

        with _in_process, self._repo() as repo, repo.lock:
            found = repo.stage.load_one(str(self.root / "dvc.yaml"), stage.name)
            if _can_hash(found):
                key = _get_stage_hash(found)
                shutil.rmtree(Path(repo.stage_cache.cache_dir, key[:2], key), ignore_errors=True)
            Lockfile(repo, str(self.root / LOCK)).remove_stage(found)

    def code_hashes(self, stage: Stage) -> dict[str, str]:
        """DVC's hashes of the modules that define a stage's work, as they are now."""
        return {path: _file_hash(self.root / path) for path in stage.code}

    def step_code_version(self, step: Step) -> str:
        """Digest of the code versions of all stages of a step."""
        return _digest({stage.name: self.code_version(stage) for stage in step.stages})

    @cached_property
    def _parameters(self) -> Mapping[str, Any]:
        from dvc.utils.serialize import load_yaml  # numbers as DVC reads them: PyYAML takes 6e-05 for a text

        return load_yaml(str(self.root / "params.yaml"))

    def _repo(self) -> Repo:
        return open_repo(self.root)

    def _lock_entry(self, name: str) -> Any:
        return self._lock_entries().get(name)

    def _lock_entries(self) -> Mapping[str, Any]:
        content = _lock_bytes(self.root)
        return {} if content is None else parsed_lock(content)

    def _load(self) -> dict[str, Step]:
        from dvc.exceptions import DvcException

        try:
            with _in_process, self._repo() as repo:
                return _steps(repo)
        except DvcException as error:
            raise ConfigError(
                f"DVC cannot read the project: {error}",
                where=self.root / "dvc.yaml",
                remedy="correct dvc.yaml or params.yaml; `dvc stage list` shows whether DVC accepts them",
            ) from error


def lock_of(root: Path) -> tuple[bytes, Mapping[str, Any]] | None:
    """The bytes of a project's `dvc.lock` and the stages in it, read while nobody writes it; None where nothing ran.

    Raises:
        DataError: it cannot be read.
    """
    content = _lock_bytes(root)
    if content is None:
        return None
    parsed_lock(content)
    return content, stages_of(content)


def _lock_bytes(root: Path) -> bytes | None:
    path = root / LOCK
    if not path.is_file():
        return None
    with _in_process, open_repo(root) as repo, repo.lock:  # DVC does not write the file atomically
        return path.read_bytes()


def md5_of(content: bytes) -> str:
    """DVC's hash of a file with this content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def keep_in_cache(root: Path, folder: Path) -> dict[str, Any]:
    """Puts the files of a folder into DVC's cache; returns what a `.dvc` file says about it, its path apart."""
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.transfer import transfer
    from dvc_objects.fs.local import LocalFileSystem

    with _in_process, Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
        cache = repo.cache.local
        staged, meta, found = build(cache, str(folder), LocalFileSystem(), cache.hash_name)
        transfer(staged, cache, {found.hash_info}, shallow=False)
        return {"md5": found.hash_info.value, "size": meta.size, "nfiles": meta.nfiles, "hash": "md5"}


def lend(root: Path, tree: Path, name: str) -> None:
    """Has another working tree of a project know its remotes, and its cache as one more of a given name."""
    from dvc.repo import Repo

    with _in_process, Repo(str(root)) as repo:
        lent = repo.config.load_one("local")
        cache = repo.cache.local_cache_dir
    with _in_process, Repo(str(tree)) as other, other.config.edit("local") as local:
        local["core"].update({key: value for key, value in lent["core"].items() if key == "remote"})
        local["remote"].update(lent["remote"])
        local["remote"][name] = {"url": str(cache)}


def has_remote(root: Path) -> bool:
    """Whether DVC has a default remote to push to."""
    from dvc.repo import Repo

    with _in_process, Repo(str(root)) as repo:
        return bool(repo.config["core"].get("remote"))


def push_revision(root: Path, commit: str) -> bool:
    """Pushes the files of a commit to the default remote; False where no remote is set.

    Raises:
        MachineError: the remote did not take them.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with _in_process, Repo(str(root)) as here:
        remote, remotes = here.config["core"].get("remote"), here.config["remote"]
    if not remote:
        return False
    # In a commit, DVC would take a remote's relative address for one below "/".
    with _in_process, Repo(str(root), config={"remote": remotes}, _wait_for_lock=True) as repo:
        try:
            repo.push(revs=[commit], workspace=False)
        except (DvcException, OSError) as error:
            raise MachineError(
                f"the results could not be pushed: {error}",
                where=f"DVC remote {remote!r}",
                remedy="restore access to it and run `world4rl lineage`; nothing is lost",
            ) from error
    return True


def _steps(repo: Repo) -> dict[str, Step]:
    """The project's steps, dependencies first, in the order of `dvc.yaml` where that leaves a choice."""
    graph = repo.index.graph
    stages: dict[str, list[Stage]] = {}
    for found in repo.index.stages:
        step, _, task = found.name.partition("@")
        made = {path for upstream in graph.successors(found) for path in _paths(upstream.outs)}
        files = [dep for dep in found.deps if not hasattr(dep, "params")]
        paths = _paths(files)
        data = tuple(path for path in paths if any(_overlap(path, other) for other in made))
        sources = tuple(path for path in paths if path not in data and Path(path).parts[0] == DATA)
        stages.setdefault(step, []).append(
            Stage(
                name=found.name,
                step=step,
                task=task or None,
                command=found.cmd,
                description=(found.desc or "").strip(),
                code=tuple(path for path in paths if path not in data + sources),
                data=data,
                sources=sources,
                parameters=tuple(name for dep in found.deps if hasattr(dep, "params") for name in dep.params),
                outputs=_paths([out for out in found.outs if not out.metric and not out.plot]),
                metrics=_paths([out for out in found.outs if out.metric or out.plot]),
                upstream=frozenset(upstream.name for upstream in graph.successors(found)),
            )
        )
    return _sorted({name: Step(name, tuple(members)) for name, members in stages.items()})


def _change(stage: Stage, found: Any, returning: Mapping[str, str]) -> Change | None:
    """Why DVC's own stage is not up to date, in our terms; None when it is.

    Args:
        stage: The stage.
        found: DVC's own.
        returning: Hashes of inputs that come back before it runs, by path.
    """
    from dvc.lock import LockError

    try:
        if not found.changed():
            return None
        files = [item for item in (*found.deps, *found.outs) if not hasattr(item, "params")]
        recorded = _recorded_hashes(files)
        state = {_path(item): status for item in files if (status := next(iter(item.status().values()), None))}
        for path in stage.data:
            if path in state and path in returning and returning[path] == recorded.get(path):
                del state[path]
        parameters = {name: pair for dep in found.deps if hasattr(dep, "params") for name, pair in _moved(dep)}
        never = not any(out.hash_info for out in found.outs)
        if not (state or parameters or never or found.cmd_changed):
            return None
        made = stage.outputs + stage.metrics
        return Change(
            never=never,
            command=not never and found.cmd_changed,
            code=tuple(path for path in stage.code if path in state),
            sources=tuple(path for path in stage.sources if path in state),
            data=tuple(path for path in stage.data if path in state),
            parameters=parameters,
            missing=tuple(path for path in made if not Path(found.repo.root_dir, path).exists()),
            outputs=tuple(path for path in made if state.get(path) in ("modified", "not in cache")),
            restored=_restored(found),
        )
    except LockError:
        return Change(busy=True)


def _recorded_hashes(items: Sequence[Any]) -> dict[str, str]:
    return {_path(item): item.hash_info.value for item in items if item.hash_info}


def _moved(dependency: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Parameters whose value is not that of the last run, down to the single value."""
    before = dependency.hash_info.value or {}
    now = dependency.read_params(flatten=False)
    for name in dependency.params:
        if before:
            yield from _differences(name, before.get(name), now.get(name))


def _differences(name: str, before: Any, now: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from _differences(f"{name}.{key}", before.get(key), now.get(key))
    elif before != now:
        yield name, (before, now)


def _restored(found: Any) -> Literal["as it was", "as it once was"] | None:
    """Whether DVC would bring the outputs back from its cache, as `dvc repro` decides it. Hashes the dependencies."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _can_hash

    if any(out.persist for out in found.outs) or not all(dep.exists for dep in found.deps):
        return None  # DVC's run cache leaves out stages whose outputs stay while they run
    made = [out.hash_info for out in found.outs]
    if all(made) and not found.changed_stage() and found.deps_cached():
        return "as it was" if _in_cache(found.repo, [info.value for info in made]) else None
    try:
        found.save_deps()  # in memory alone
        entry = found.repo.stage_cache._load(found) if _can_hash(found) else None
    except DvcException:
        return None
    hashes = [_hash(out) for out in entry["outs"]] if entry else []
    return "as it once was" if hashes and _in_cache(found.repo, hashes) else None


def _in_cache(repo: Any, hashes: Sequence[str]) -> bool:
    """Whether the cache has files and folders, whole."""
    from dvc_data.hashfile import check, load
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_objects.errors import ObjectFormatError

    cache = repo.cache.local
    try:
        for value in hashes:
            check(cache, load(cache, HashInfo("md5", value)))
    except (FileNotFoundError, ObjectFormatError):
        return False
    return True


def _sorted(steps: Mapping[str, Step]) -> dict[str, Step]:
    ordered: dict[str, Step] = {}
    waiting = dict(steps)
    while waiting:  # DVC has refused cycles already
        name = next(name for name, step in waiting.items() if all(up in ordered for up in step.upstream))
        ordered[name] = waiting.pop(name)
    return ordered


def _paths(items: Sequence[Any]) -> tuple[str, ...]:
    return tuple(_path(item) for item in items)


def _path(item: Any) -> str:
    return Path(item.def_path).as_posix()


def _overlap(one: str, other: str) -> bool:
    a, b = Path(one), Path(other)
    return a == b or a in b.parents or b in a.parents


def _hash(entry: Mapping[str, Any]) -> str:
    return str(entry[entry.get("hash", "md5")])


def _file_hash(path: Path) -> str:
    """DVC's hash of a file. A folder of code would make it depend on what Python leaves there: list the modules."""
    try:
        return md5_of(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(
            f"a stage depends on code that is no file: {error.strerror}",
            where=path,
            remedy="dvc.yaml lists code as single modules: correct the path there",
        ) from None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
