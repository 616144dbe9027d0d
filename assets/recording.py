"""Run records: after a stage ran, or was found up to date without a record, one is added to the chain.

What ran comes from `dvc.lock` and from the files; when, on what and by which commit from the note that the stage's
command left (`provenance.notes`). Where the note is about another run, an old result came back perhaps, an earlier
record of the same outputs says it; where there is none either, the record leaves it open: empty times and machine, no
commit. Nothing is guessed.

Signatures and episode sets are written before the record and the mark that it is there after it, so that whoever is
killed in between leaves nothing that the next one does not complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.dvc_project import DvcProject, Recorded, Stage
from world4rl.errors import DataError
from world4rl.files import locked, read_json, write_json
from world4rl.paths import Paths
from world4rl.provenance import notes, signatures
from world4rl.provenance.digest_cache import DigestCache
from world4rl.provenance.digests import digest_json
from world4rl.provenance.episodes import write_episode_set
from world4rl.provenance.keys import ensure_key
from world4rl.provenance.membership import episode_sets
from world4rl.provenance.notes import Note
from world4rl.provenance.records import Chain, Code, Record, Run, Subject, subject

MODELS = "models"  # folders below it are signed


@dataclass(frozen=True)
class Kept:
    """The newest record of a stage.

    Attributes:
        record: Its file.
        new: Whether it was added just now.
    """

    record: Path
    new: bool


@dataclass(frozen=True)
class _Circumstances:
    """When, on what and by which commit a stage ran, as far as anything says so."""

    code: Code
    machine: dict[str, Any]
    began: str
    ended: str
    orchestrator: str | None


def record_stage(project: DvcProject, stage: Stage, recorded: Recorded) -> Kept:
    """Makes sure that the newest record of a stage is about what lies there now. The stage must be up to date.

    Args:
        project: The project.
        stage: The stage.
        recorded: What `dvc.lock` says about it.

    Raises:
        DataError: a file that it read or made cannot be read.
        ConfigError: the key to sign models with cannot be used.
        MachineError: there is no key and none can be made, or the disk is full.
    """
    paths = Paths(project.root)
    marked = _marked(paths, stage, recorded)
    if marked is not None:
        return Kept(marked, new=False)
    cache = DigestCache(paths.digests)
    try:
        inputs = tuple(subject(path, _digest(cache, project.root / path)[0]) for path in project.inputs(stage))
        outputs, subjects = _outputs(cache, project.root, stage)
    finally:
        cache.close()
    models = {one.name: one.sha256 for one in outputs if Path(one.name).parts[0] == MODELS}
    _sign(models, paths)
    run = Run(
        stage=stage.name,
        command=recorded.command,
        inputs=inputs,
        outputs=outputs,
        episodes=_episodes(stage, paths),
        parameters=dict(recorded.parameters),
        code=Code(
            commit=None,
            dirty=False,
            digest=digest_json(dict(recorded.code)),
            lock=None,
            modules=dict(recorded.code),
        ),
        machine={},
        began="",
        ended="",
        metrics=figures_of(project.root, stage),
        orchestrator=None,
    )
    with locked(paths.records.with_name("records.writing.lock")):
        kept = _keep(run, subjects, stage, paths)
    mark = {"entry": recorded.entry, "record": kept.record.name, "models": models}
    write_json(paths.recorded(stage.name), mark)
    return kept


def record_project(project: DvcProject) -> Iterator[tuple[Stage, Kept | None]]:
    """Records every stage that `dvc.lock` knows and whose files are what it says; None for the others."""
    for stage in project.stages.values():
        recorded = project.recorded(stage)
        whole = recorded is not None and project.intact(stage)
        yield stage, record_stage(project, stage, recorded) if recorded is not None and whole else None


def _marked(paths: Paths, stage: Stage, recorded: Recorded) -> Path | None:
    """The record that a mark names, if the mark is about what `dvc.lock` says now and its models are signed."""
    try:
        mark = read_json(paths.recorded(stage.name))
        record = paths.records / mark["record"]
        models = {paths.root / path: digest for path, digest in mark["models"].items()}
        current = mark["entry"] == recorded.entry and record.exists()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if current and all(signatures.is_signed(*model, paths) for model in models.items()) else None


def _outputs(cache: DigestCache, root: Path, stage: Stage) -> tuple[tuple[Subject, ...], list[Subject]]:
    """What a stage made: as DVC declares it, and single files."""
    outputs, files = [], []
    for path in stage.outputs + stage.metrics:
        digest, within = _digest(cache, root / path)
        outputs.append(subject(path, digest))
        files += [subject(f"{path}/{name}" if name else path, each) for name, each in within.items()]
    return tuple(outputs), files


def _digest(cache: DigestCache, path: Path) -> tuple[str, dict[str, str]]:
    """Digest of a file or folder, and of its files by their path in it: the empty one for a file itself."""
    if path.is_dir():
        return cache.folder(path)
    digest = cache.file(path)
    return digest, {"": digest}


def _sign(models: dict[str, str], paths: Paths) -> None:
    for path, digest in models.items():
        if not signatures.is_signed(paths.root / path, digest, paths):
            signatures.sign_model(paths.root / path, digest, ensure_key(paths), paths)


def _episodes(stage: Stage, paths: Paths) -> dict[str, tuple[str, ...]]:
    found = {path: episode_sets(paths.root / path, paths) for path in stage.outputs}
    return {path: tuple(write_episode_set(one, paths) for one in sets) for path, sets in found.items() if sets}


def _metrics_file(root: Path, stage: Stage) -> Path | None:
    return next((root / path for path in stage.metrics if path.endswith(".json")), None)


def figures_of(root: Path, stage: Stage) -> dict[str, Any]:
    """Numbers and texts at the top of a stage's metrics file.

    Raises:
        DataError: it cannot be read.
    """
    file = _metrics_file(root, stage)
    if file is None:
        return {}
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"the metrics cannot be read: {error}", where=file, remedy="run the stage again") from None
    return {name: value for name, value in values.items() if isinstance(value, (int, float, str))}


def _keep(run: Run, subjects: list[Subject], stage: Stage, paths: Paths) -> Kept:
    """Adds a record unless the newest one of the stage says the same; nobody else adds any meanwhile."""
    earlier = _records(paths, stage.name)
    newest = next(earlier, None)
    if newest is not None and _same(newest[1], run):
        return Kept(newest[0], new=False)
    file = _metrics_file(paths.root, stage)
    note = None if file is None else notes.read(run.command, file, paths)
    known = _circumstances(run, note) if note is not None else None
    if known is None:
        known = next((_as_before(one) for _, one in earlier if _same(one, run)), None)
    if known is not None:
        run = run.model_copy(update=vars(known))
    chain = Chain(paths.records, (Run,))
    return Kept(chain.folder / _name(chain, chain.append(subjects, run)), new=True)


def _name(chain: Chain[Run], record: Record[Run]) -> str:
    return next(path.name for path in reversed(chain.files()) if record.digest.startswith(path.stem.partition("-")[2]))


def _records(paths: Paths, stage: str) -> Iterator[tuple[Path, Run]]:
    """The records of a stage, newest first. The chain as a whole is for the audit to check."""
    for path in reversed(Chain(paths.records, (Run,)).files()):
        try:
            values = json.loads(path.read_bytes())
            if values["predicate"]["stage"] == stage:
                yield path, Run.model_validate(values["predicate"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                "the record is damaged",
                where=path,
                remedy=f"restore it: git restore --source refs/world4rl/lineage -- {paths.records}",
            ) from None


def _same(one: Run, other: Run) -> bool:
    return (
        all(
            getattr(one, name) == getattr(other, name)
            for name in ("command", "inputs", "outputs", "episodes", "parameters")
        )
        and one.code.digest == other.code.digest
    )


def _circumstances(run: Run, note: Note) -> _Circumstances:
    return _Circumstances(
        code=run.code.model_copy(update={"commit": note.commit, "dirty": note.dirty, "lock": note.lock}),
        machine={**note.machine, "device": note.parameters.get("device"), "seeds": note.seeds},
        began=note.began,
        ended=note.ended,
        orchestrator=note.orchestrator,
    )


def _as_before(earlier: Run) -> _Circumstances:
    """The same bytes, seconds in the metrics included, come from the same run."""
    return _Circumstances(earlier.code, earlier.machine, earlier.began, earlier.ended, earlier.orchestrator)
