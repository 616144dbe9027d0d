"""Acceptance records and manifests: which episodes of which people make up the data of a task.

An accepted dataset has one record. The manifest of a task and role follows from the records alone, whatever the order
in which the datasets came, so that it can be made again at any time and two machines with the same data agree on it.
Its version is the Merkle root of its episodes' digests, sorted.

A record begins with its seal, the digest of the rest: every change by hand is noticed, and the file named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from world4rl.errors import DataError
from world4rl.files import write_text
from world4rl.paths import ROLES, Paths, Role
from world4rl.provenance.digests import digest_bytes, digest_json, merkle_root
from world4rl.provenance.document import Digest, Frozen
from world4rl.provenance.statement import Statement

REMAKE = "`world4rl manifests` makes manifests again from data/accepted; records come back from the lineage branch"
ID_DIGITS = 16  # of a dataset's digest that make up its id
RESTORE = "restore it from the lineage branch: git restore --source refs/world4rl/lineage -- data/accepted"
ROLE_MANIFEST = "manifest.json"  # in the folder of a task's datasets in a role


class LandedEpisode(Frozen):
    """An accepted episode.

    Attributes:
        episode: Its index in the dataset.
        task: One of the parameters' tasks.
        length: Its rows.
        success: Whether it is a success; None where the dataset does not say.
        digest: SHA-256 of what training can see of it.
        waived: Checks that it did not pass and that a person overruled.
    """

    episode: int
    task: str
    length: int
    success: bool | None
    digest: Digest
    waived: tuple[str, ...] = ()


class Acceptance(Frozen):
    """An accepted dataset.

    Attributes:
        id: Of its folders in `data/landed`: the first digits of `digest`.
        name: Of the folder that it came in.
        digest: Of its files' names and contents.
        statement: Who recorded it, with what, for which use.
        episodes: Those that were accepted, in their order.
        derived_from: Digest of the dataset as it landed, where withdrawn episodes were cut out of it; else None.
    """

    format: Literal[1] = 1
    id: str
    name: str
    digest: Digest
    statement: Statement
    episodes: tuple[LandedEpisode, ...]
    derived_from: Digest | None = None


class ManifestDataset(Frozen):
    """A dataset in a manifest, with those of its episodes that belong there."""

    id: str
    digest: Digest
    statement: Statement
    episodes: tuple[LandedEpisode, ...]


class RoleManifest(Frozen):
    """The landed episodes of a task in a role.

    Attributes:
        root: Merkle root of the episodes' digests, sorted: the version of this data.
        datasets: Sorted by id.
    """

    root: Digest
    datasets: tuple[ManifestDataset, ...]

    @property
    def episodes(self) -> tuple[LandedEpisode, ...]:
        """All episodes, dataset by dataset."""
        return tuple(episode for dataset in self.datasets for episode in dataset.episodes)


class Manifest(Frozen):
    """The landed episodes of a task, a role at a time."""

    format: Literal[1] = 1
    task: str
    roles: dict[Role, RoleManifest]

    @property
    def version(self) -> str:
        """Digest of the roots of all roles."""
        return digest_json({role: each.root for role, each in self.roles.items()})


def build_manifest(task: str, acceptances: Iterable[Acceptance]) -> Manifest:
    """The manifest that follows from acceptance records, in any order."""
    found: dict[Role, list[ManifestDataset]] = {role: [] for role in ROLES}
    for acceptance in sorted(acceptances, key=lambda one: one.id):
        episodes = tuple(episode for episode in acceptance.episodes if episode.task == task)
        if episodes:
            found[acceptance.statement.source].append(
                ManifestDataset(
                    id=acceptance.id, digest=acceptance.digest, statement=acceptance.statement, episodes=episodes
                )
            )
    roles = {role: RoleManifest(root=_root(datasets), datasets=tuple(datasets)) for role, datasets in found.items()}
    return Manifest(task=task, roles=roles)


def _root(datasets: Iterable[ManifestDataset]) -> str:
    return merkle_root(sorted(episode.digest for dataset in datasets for episode in dataset.episodes))


def read_acceptances(paths: Paths) -> list[Acceptance]:
    """The records of all accepted datasets, sorted by id.

    Raises:
        DataError: a record was damaged or edited.
    """
    return [read_acceptance(path) for path in acceptance_files(paths)]


def acceptance_files(paths: Paths) -> list[Path]:
    """The files of these records, sorted by id."""
    return sorted(paths.accepted.glob("*.json"))


def write_acceptance(acceptance: Acceptance, paths: Paths) -> None:
    """Writes the record of an accepted dataset."""
    text = json.dumps(acceptance.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    sealed = _seal(text.encode()).decode() + text.removeprefix("{\n")
    write_text(paths.accepted / f"{acceptance.id}.json", sealed)


def read_acceptance(path: Path) -> Acceptance:
    """The record of an accepted dataset.

    Raises:
        DataError: it is missing, or was damaged or edited.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy=RESTORE) from None
    head, rest = content[:_SEALED], b"{\n" + content[_SEALED:]
    try:
        acceptance = Acceptance.model_validate_json(rest) if head == _seal(rest) else None
    except ValidationError:
        acceptance = None
    if acceptance is None or path.stem != acceptance.id:
        raise DataError(
            "damaged or edited by hand: the record of an accepted dataset is not what its seal says",
            where=path,
            remedy=RESTORE,
        )
    return acceptance


def _seal(content: bytes) -> bytes:
    """The first lines of a sealed record: the digest of all of its other bytes."""
    return f'{{\n  "seal": "{digest_bytes(content)}",\n'.encode()


_SEALED = len(_seal(b""))


def remove_acceptance(id_: str, paths: Paths) -> None:
    """Removes the record of a dataset that is accepted no more."""
    (paths.accepted / f"{id_}.json").unlink(missing_ok=True)


def read_manifest(path: Path) -> Manifest:
    """A manifest.

    Raises:
        DataError: it cannot be read, or a root is not that of its episodes.
    """
    manifest = _read(Manifest, path)
    for role, found in manifest.roles.items():
        if found.root != _root(found.datasets):
            raise DataError(
                f"the root of role {role} is not that of its episodes", where=path, remedy=f"it was edited: {REMAKE}"
            )
    return manifest


def read_role_manifest(folder: Path) -> RoleManifest:
    """The part of a manifest that lies beside the datasets of a role.

    Raises:
        DataError: it cannot be read.
    """
    if not (folder / ROLE_MANIFEST).exists():
        raise DataError("the accepted datasets were not verified", where=folder, remedy="run the stage `landed` first")
    return _read(RoleManifest, folder / ROLE_MANIFEST)


def parse_role_manifest(content: bytes, where: str) -> RoleManifest:
    """The part of a manifest that lies beside the datasets of a role, from its bytes.

    Raises:
        DataError: it cannot be read.
    """
    return _parse(RoleManifest, content, where)


def write_manifests(tasks: Iterable[str], paths: Paths) -> list[str]:
    """Makes the manifests of the tasks anew from the acceptance records; files that are right already stay untouched.

    Returns:
        The tasks whose manifests changed.
    """
    acceptances = read_acceptances(paths)
    changed = []
    for task in tasks:
        path, manifest = paths.manifest(task), build_manifest(task, acceptances)
        if not _holds(path, manifest):
            write_text(path, manifest_text(manifest))
            changed.append(task)
    return changed


def manifest_text(manifest: Manifest) -> str:
    """A manifest as it is written."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


def _holds(path: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(path) == manifest
    except DataError:
        return False


def _read[M: BaseModel](model: type[M], path: Path) -> M:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("the file is missing", where=path, remedy=REMAKE) from None
    return _parse(model, content, path)


def _parse[M: BaseModel](model: type[M], content: bytes, where: str | Path) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"damaged or edited by hand: {'.'.join(map(str, first['loc']))}: {first['msg']}", where=where, remedy=REMAKE
        ) from None
