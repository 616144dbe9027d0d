"""The stage `landed`: makes sure that the accepted datasets of a task are there, whole, and nothing beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from world4rl import progress
from world4rl.config import Params
from world4rl.errors import DataError
from world4rl.files import locked, write_json
from world4rl.landing.marker import mark
from world4rl.paths import ROLES, Paths
from world4rl.provenance.manifests import ROLE_MANIFEST, RoleManifest, read_manifest


def verify(params: Params, paths: Paths, task: str) -> None:
    """The stage `landed@task`: every dataset of the manifest against its digest.

    Each role's part of the manifest is put beside its datasets, so that what reads one role is not run again when
    another one changes.

    Raises:
        DataError: a dataset is missing or not what was accepted.
    """
    read = frozenset[Path]()
    for role, found in read_manifest(paths.manifest(task)).roles.items():  # what takes long: nobody waits for it
        read |= _verify(found, paths.landed(task, role))
    with locked(paths.landing_lock):  # while a dataset is being accepted its folder is there before its record
        manifest = read_manifest(paths.manifest(task))
        figures: dict[str, Any] = {}
        for role in ROLES:
            found, folder = manifest.roles[role], paths.landed(task, role)
            _verify(found, folder, read)
            _tidy(found, folder)
            write_json(folder / ROLE_MANIFEST, found.model_dump(mode="json"))
            figures[role] = {"datasets": len(found.datasets), "episodes": len(found.episodes), "root": found.root}
    write_json(paths.landed_report(task), figures)
    progress.metrics({f"{role} episodes": each["episodes"] for role, each in figures.items()})


def _verify(manifest: RoleManifest, folder: Path, read: frozenset[Path] = frozenset()) -> frozenset[Path]:
    """Reads the datasets of a role, apart from those that were read before; returns what it read."""
    found = set[Path]()
    for dataset in manifest.datasets:
        path = folder / dataset.id
        if not path.is_dir():
            raise DataError(
                "an accepted dataset is missing", where=path, remedy="`dvc pull`, or land it again: it is taken anew"
            )
        if path not in read and mark(path).digest != dataset.digest:
            raise DataError(
                "the files are not those that were accepted",
                where=path,
                remedy="remove the folder and `dvc pull`, or land the dataset again",
            )
        found.add(path)
    return frozenset(found)


def _tidy(manifest: RoleManifest, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {dataset.id for dataset in manifest.datasets} | {ROLE_MANIFEST}
    for path in folder.iterdir():
        if path.name not in wanted:  # withdrawn, or left by a process that was killed before it wrote the record
            shutil.rmtree(path) if path.is_dir() else path.unlink()
