"""Where a dataset lies while it is taken: one process at a time may be there."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from world4rl.files import locked
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_bytes

DIGITS = 16


@contextmanager
def staged(name: str, paths: Paths) -> Iterator[Path]:
    """Yields where the dataset `name` may be copied to; waits for whoever is there, and removes the copy at the end.

    A run that was taken for dead may be alive: without the wait two would write into one folder.
    """
    folder = _folder(name, paths)
    with locked(folder.with_suffix(".lock")):
        _remove(folder)
        try:
            yield folder
        finally:
            _remove(folder)


def cut_copy(staging: Path) -> Path:
    """Where a staged copy is cut down to what may be accepted of it; it goes with that copy."""
    return staging.with_name(f".{staging.name}.cut")  # no dataset has such a name


def discard(name: str, paths: Paths) -> None:
    """Removes the copy that a run left when it was killed, unless somebody is there."""
    _discard(_folder(name, paths))


def discard_abandoned(paths: Paths) -> None:
    """Removes every copy that a killed run left; those where somebody is stay."""
    for lock in sorted(paths.taking.glob("*.lock")):
        _discard(lock.with_suffix(""))


def _discard(folder: Path) -> None:
    if not (folder.exists() or cut_copy(folder).exists()):
        return
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(folder)


def _remove(folder: Path) -> None:
    for copy in (folder, cut_copy(folder)):
        shutil.rmtree(copy, ignore_errors=True)


def _folder(name: str, paths: Paths) -> Path:
    return paths.taking / digest_bytes(name.encode())[:DIGITS]  # not every name of a folder elsewhere is one here
