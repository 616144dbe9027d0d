"""Where a dataset lies while it is taken: one process at a time may be there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from world4rl.files import locked, locked_if_free
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
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def discard_abandoned(paths: Paths) -> None:
    """Removes the copies that runs left when they were killed, whatever became of the datasets."""
    if not paths.taking.is_dir():
        return
    with os.scandir(paths.taking) as found:
        left = [Path(each.path) for each in found if each.is_dir()]
    for folder in left:
        owner = folder.name.lstrip(".").partition(".")[0]  # what was cut of a copy is called after it
        with locked_if_free(paths.taking / f"{owner}.lock") as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _folder(name: str, paths: Paths) -> Path:
    return paths.taking / digest_bytes(name.encode())[:DIGITS]  # not every name of a folder elsewhere is one here
